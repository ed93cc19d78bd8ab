"""What the server counts, as Prometheus metrics. Each server has its own registry, so that two may live in one process."""

from __future__ import annotations

from steer.errors import MissingExtraError, UnavailableError

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
except ImportError as error:
    raise MissingExtraError("prometheus-client", "train", "the server") from error

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The counters; `serve` publishes them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to = self.registry
        self.requests = Counter("steer_requests", "Finished calls", ["call", "status"], registry=to)
        self.request_s = Histogram(
            "steer_request_seconds", "Time in the server", ["call"], buckets=_SECONDS, registry=to
        )
        self.queue_s = Histogram("steer_queue_seconds", "Wait for a batch", buckets=_SECONDS, registry=to)
        self.batch_size = Histogram("steer_batch_size", "Requests per batch", buckets=(1, 2, 4, 8, 16, 32), registry=to)
        self.dropped = Counter("steer_dropped", "Requests whose deadline passed in the queue", registry=to)
        self.cuts = Counter("steer_cuts", "Decisions with fewer candidates than asked", registry=to)
        self.sessions = Gauge("steer_sessions", "Open sessions", registry=to)
        self.version = Gauge("steer_version", "Version of the followed run that is served", registry=to)
        self.resident = Gauge("steer_resident_versions", "Versions in memory", registry=to)
        self.swaps = Counter("steer_swaps", "Changes of the version that is served", registry=to)
        self.refused = Counter("steer_refused_versions", "Versions not served: broken, or worse", ["why"], registry=to)

    def serve(self, host: str, port: int) -> None:
        """Publish on http://host:port/metrics."""
        try:
            start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise UnavailableError(
                f"metrics port {host}:{port} cannot be opened ({error}): give another --metrics-port"
            ) from error
