"""`OpenpiConnection`: one websocket to an openpi server, spoken to as `openpi-client` does, but with a limit to every wait."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from typing import Any

import structlog

from policies.remote.options import OpenpiOptions
from steer.errors import DeadlineError, MissingExtraError, SteerError, UnavailableError, revive
from steer.openpi import codec, protocol

try:
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, ProxyError
    from websockets.sync.client import ClientConnection, connect
except ImportError as error:
    raise MissingExtraError("websockets", "openpi", "an openpi:// policy") from error

MAX_REPLY_BYTES = 64 * 2**20
_OPEN_S = 20.0
_CLOSE_S = 1.0
_log = structlog.get_logger(__name__)


class OpenpiConnection:
    """Strictly one request and one reply after the other; after any error it has to be closed."""

    def __init__(self, options: OpenpiOptions) -> None:
        """Connect, and read what the server says of itself."""
        self.address = options.address
        self._timeout_s = options.timeout_s
        self._open_until = ExitStack()
        self._socket = self._open(options)
        try:
            self._limit_sends()
            metadata = codec.unpack_map(self._receive(_OPEN_S), f"{self.address}: metadata")
            self.far = protocol.understand(metadata, self.address)
        except BaseException:
            self.close()
            raise

    def ask(self, request: bytes) -> dict[str, Any]:
        """The reply to a packed observation."""
        try:
            self._socket.send(request)
        except ConnectionClosed as error:
            raise self._lost(error) from error
        return codec.unpack_map(self._receive(self._timeout_s), f"{self.address}: reply")

    def close(self) -> None:
        self._open_until.close()

    def _open(self, options: OpenpiOptions) -> ClientConnection:
        headers = {"Authorization": f"Api-Key {options.api_key}"} if options.api_key else None
        try:
            return self._open_until.enter_context(
                connect(
                    self.address,
                    compression=None,
                    max_size=MAX_REPLY_BYTES,
                    additional_headers=headers,
                    # A proxy meant for the web must not see what stays on this machine.
                    proxy=None if options.is_loopback else True,
                    open_timeout=_OPEN_S,
                    close_timeout=_CLOSE_S,
                    # A stock server answers no pings while it infers; a call has its own time limit.
                    ping_interval=None,
                )
            )
        except ProxyError as error:
            raise UnavailableError(
                f"{self.address}: the proxy of the environment refuses ({error}): set no_proxy"
            ) from error
        except (InvalidHandshake, InvalidURI) as error:
            raise UnavailableError(
                f"{self.address} is no openpi server ({error}): check host and port, and whether a key is wanted"
            ) from error
        # ConnectionClosed: a server that dies while connections wait to be accepted.
        except (OSError, TimeoutError, ConnectionClosed) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(
                f"no openpi server at {self.address} ({reason}): start it, or check the address"
            ) from error

    def _limit_sends(self) -> None:
        """A peer that stops reading would otherwise hold a send for ever; receiving has its own limit."""
        seconds, fraction = divmod(self._timeout_s, 1.0)
        limit = struct.pack("ll", int(seconds), int(1e6 * fraction))
        self._socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def _receive(self, timeout_s: float) -> bytes:
        try:
            message = self._socket.recv(timeout_s)
        except TimeoutError as error:
            raise DeadlineError(f"the openpi server at {self.address} did not answer within {timeout_s:g} s") from error
        except ConnectionClosed as error:
            raise self._lost(error) from error
        if isinstance(message, str):
            raise self._refused(message)
        return message

    def _lost(self, error: ConnectionClosed) -> UnavailableError:
        return UnavailableError(f"the openpi server at {self.address} ended the connection ({error})")

    def _refused(self, text: str) -> SteerError:
        """A Steer names the class of its error; of a stock server's traceback, the last line says what happened."""
        _log.warning("openpi server reports an error", address=self.address, text=text)
        name, separator, message = text.partition(": ")
        ours = revive(name, f"{self.address}: {message}") if separator else None
        return ours or SteerError(f"{self.address}: error in the openpi server: {protocol.cause(text)}")
