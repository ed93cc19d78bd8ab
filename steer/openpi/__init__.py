"""The wire of openpi (websocket, msgpack with numpy arrays), as far as both sides of it share it."""
