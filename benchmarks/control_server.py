"""The server of `benchmarks.control` where no checkpoint is given: small numpy models, in a process of their own."""

from __future__ import annotations

from steer.engine import Engine
from steer.server.server import ServerConfig, serve
from tests.fakes import FakeCritic, FakePolicy

if __name__ == "__main__":
    serve(
        Engine(FakePolicy(), FakeCritic()),
        ServerConfig(address="127.0.0.1:0"),
        announce=lambda address: print(f"serving on {address},", flush=True),
    )
