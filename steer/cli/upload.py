"""`steer upload STORE --server ADDRESS`: recorded episodes to the store of a server, those that it does not have yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import Progress

from steer.cli.logs import log_to_stderr
from steer.client.steering_client import DEFAULT_ADDRESS
from steer.client.uploader import Uploader
from steer.client.uploads import Uploads, account
from steer.data.store import stored_robot
from steer.errors import StoreError, UnavailableError

_POLL_S = 0.2


@dataclass(frozen=True)
class Upload:
    """Send what `steer run --upload` left behind, or a whole store; a transfer that broke goes on where it did."""

    store: tyro.conf.Positional[Path]
    """The store that the robot recorded to."""
    server: str = DEFAULT_ADDRESS
    """host:port of `steer serve --experience STORE`."""
    give_up_s: float = 60.0
    """End after so long without getting on."""

    def run(self) -> None:
        log_to_stderr()
        uploads = Uploads(self.store, stored_robot(self.store), self.server)
        console = Console(stderr=True, soft_wrap=True)
        bars = Progress(console=console, transient=True, disable=not console.is_terminal)
        with Uploader(uploads, finish_s=0.0) as uploader, bars as progress:
            bar = progress.add_task("segments", total=len(uploads.waiting()))
            while not uploader.finish(_POLL_S):
                progress.update(bar, completed=uploads.counts["sent"])
                if uploader.trouble_s > self.give_up_s:
                    raise UnavailableError(
                        f"nothing could be sent to {self.server} for {self.give_up_s:g} s: "
                        "what is there stays there, run the command again to go on"
                    )
        console.print(account(uploads))
        left = len(uploads.left())
        if left:
            raise StoreError(f"{left} segments of {self.store} are not at {self.server}, see above: do not delete them")
