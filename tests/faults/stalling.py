"""A line between client and server that stalls after so many bytes, so that both can be killed in the middle of a transfer."""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class StallingLine:
    """Forwards TCP to an address. After `stall_after` bytes towards the server nothing passes any more until `release`."""

    def __init__(self, target: str, stall_after: int | None = None) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._room = stall_after
        self.stalled = threading.Event()
        self._released = threading.Event()
        self._lock = threading.Lock()
        self.forwarded = 0
        """Bytes towards the server."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> StallingLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        # Closing alone does not wake a thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def release(self) -> None:
        """Let everything pass."""
        self._room = None
        self._released.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, to_server: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if to_server:
                    self._pass(len(data))
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    end.close()

    def _pass(self, size: int) -> None:
        with self._lock:
            self.forwarded += size
            full = self._room is not None and self.forwarded > self._room
        if full:
            self.stalled.set()
            self._released.wait()
