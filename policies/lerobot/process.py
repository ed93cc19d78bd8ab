"""`Worker`: one LeRobot worker process, from its start to its end. Knows requests and answers, not what they mean.

The worker's log (stderr) goes to a file that is removed with it; its last lines become part of the error when it dies.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from policies.lerobot.channel import PROTOCOL, Parcel, receive, send
from steer.errors import DeadlineError, SteerError, UnavailableError, revive

_STOP_S = 5.0
_DYING_S = 60.0
_LOG_LINES = 8


class Worker:
    """A running worker. Not for use by several threads at once."""

    def __init__(self, python: Path, arguments: Sequence[str], start_timeout_s: float) -> None:
        """Start it and wait for its introduction, `introduction`. Raises what it raised while loading."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        ours, theirs = socket.socketpair()
        command = [str(python), "-P", "-m", "policies.lerobot.worker", *arguments, "--channel", str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            ours.close()
            raise UnavailableError(f"{python} cannot be started ({error.strerror}): check ?python=PATH") from error
        finally:
            # Without this the end of the worker would not close the pair, and its death would go unseen.
            theirs.close()
        self._connection = Connection(ours.detach())
        self.answered = 0
        """Requests that it has answered."""
        try:
            self.introduction = self._receive("while loading", start_timeout_s)
            self._check_protocol()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def request(self, parcel: Parcel, timeout_s: float) -> Parcel:
        """The answer. Raises the worker's error, `UnavailableError` when it died, `DeadlineError` (and ends it) when it hangs."""
        what = f"on {parcel.header.get('do')!r}"
        try:
            send(self._connection, parcel)
        except OSError as error:
            raise self._died(what) from error
        answer = self._receive(what, timeout_s)
        self.answered += 1
        return answer

    def stop(self) -> None:
        """End it; closing the pair is enough for one that still listens."""
        self._connection.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _receive(self, what: str, timeout_s: float) -> Parcel:
        try:
            if not self._connection.poll(timeout_s):
                # Its answer would come later, as that to another request.
                self._process.kill()
                self._process.wait()
                raise DeadlineError(f"the LeRobot worker gave no answer {what} within {timeout_s:g} s; it was ended")
            answer = receive(self._connection)
        except (EOFError, OSError) as error:
            raise self._died(what) from error
        if "error" in answer.header:
            name, message = str(answer.header["error"]), str(answer.header.get("message", ""))
            raise revive(name, message) or SteerError(message)
        return answer

    def _died(self, what: str) -> UnavailableError:
        """The error for a worker whose end of the pair is closed, which is on its way out."""
        try:
            code = self._process.wait(_DYING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return UnavailableError(
            f"the LeRobot worker died {what} (exit code {code}). Its last words:\n{self._last_words()}"
        )

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (none)"

    def _check_protocol(self) -> None:
        theirs = self.introduction.header.get("protocol")
        if theirs != PROTOCOL:
            raise UnavailableError(
                f"the LeRobot worker speaks protocol {theirs}, Steer {PROTOCOL}: run `make install-lerobot` again"
            )
