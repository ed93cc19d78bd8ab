"""The serving side: sessions, batching, health and metrics around one engine."""
