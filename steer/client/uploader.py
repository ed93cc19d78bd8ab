"""`Uploader`: sends a store's segments to a server on a thread of its own while they are recorded.

Whatever is wrong with the server, the control loop never notices: trouble is said once, tried again after waits that grow to
`LONGEST_WAIT_S`, and its end is said once. Leaving the context goes on sending for a bounded time, and says what is left.
What a bug raises ends the thread and is printed by it.
"""

from __future__ import annotations

import threading
import time

import structlog

from steer.client.uploads import Uploads
from steer.errors import SteerError, StoreError

_log = structlog.get_logger(__name__)

SHORTEST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0
POLL_S = 1.0


class Uploader:
    """See the module. A context manager; entering it raises what is wrong before anything moves."""

    def __init__(self, uploads: Uploads, finish_s: float = 30.0) -> None:
        """finish_s: longest time to go on sending when the context is left."""
        self._uploads = uploads
        self._finish_s = finish_s
        self._wake, self._stop, self._finishing = threading.Event(), threading.Event(), threading.Event()
        self._trouble_since: float | None = None
        self._all_sent = False
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)

    def __enter__(self) -> Uploader:
        try:
            self._uploads.join()
        except SteerError:
            self._uploads.close()
            raise
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._finish(self._finish_s)
        finally:
            self._stop.set()
            self._wake.set()
            self._uploads.interrupt()
            self._thread.join()
            self._uploads.close()
        self._say_left()

    @property
    def trouble_s(self) -> float:
        """For how long nothing could be sent; 0 while all is well."""
        since = self._trouble_since
        return 0.0 if since is None else time.monotonic() - since

    def finish(self, within_s: float) -> bool:
        """Wait until everything is sent or passed over, and no longer than this; whether it is.

        Raises `StoreError` where it never will be, because the thread is dead.
        """
        self._finish(within_s)
        if self._thread.is_alive():
            return False
        if not self._all_sent:
            raise StoreError(
                f"sending the segments of {self._uploads.store} ended with the error above: what is there stays there, run the "
                "command again to go on"
            )
        return True

    def _finish(self, within_s: float) -> None:
        self._finishing.set()
        self._wake.set()
        self._thread.join(within_s)

    def _work(self) -> None:
        wait_s = SHORTEST_WAIT_S
        while not self._stop.is_set():
            # Asked before the look for segments: what was published until then is sent.
            finishing = self._finishing.is_set()
            try:
                more = self._uploads.step()
            except SteerError as error:
                self._complain(error)
                self._stop.wait(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            wait_s = SHORTEST_WAIT_S
            self._all_is_well()
            if not more:
                if finishing:
                    self._all_sent = True
                    return
                self._wake.wait(POLL_S)

    def _complain(self, error: SteerError) -> None:
        if self._trouble_since is None and not self._stop.is_set():
            self._trouble_since = time.monotonic()
            _log.warning("cannot upload, will go on trying", reason=str(error))

    def _all_is_well(self) -> None:
        if self._trouble_since is not None:
            _log.info("uploading again", after_s=round(self.trouble_s, 1))
            self._trouble_since = None

    def _say_left(self) -> None:
        uploads = self._uploads
        left = len(uploads.left())
        if left:
            _log.warning(
                "segments are left to upload",
                segments=left,
                **uploads.passed_over,
                send_them_with=f"steer upload {uploads.store} --server {uploads.address}",
            )
