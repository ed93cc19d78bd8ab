"""`steer serve --policy POLICY [--critic CRITIC]`, or `--follow RUN`: steered actions over gRPC."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from steer import registry
from steer.cli.logs import log_to_stderr
from steer.engine import Engine
from steer.errors import ConfigError, UnsupportedError
from steer.online.releases import RunReleases
from steer.openpi.keys import KeyMap, pair
from steer.server.follow import begin
from steer.server.guard import Guard
from steer.server.server import ServerConfig, serve

if TYPE_CHECKING:
    from steer.server.openpi import OpenpiConfig

_POLL_S = 0.5
_OF_RUNS = ("outcomes", "guard", "max_pin_s", "poll_s")
_OF_MODELS = ("policy", "critic", "allow_unready")
_OF_OPENPI = ("openpi_execute", "openpi_samples", "openpi_map")


@dataclass(frozen=True)
class Serve:
    """Serve a policy, steered by a critic if one is given; a critic alone re-ranks candidates that its callers bring.

    With --follow, serve what a fine-tuning run publishes, the newest version that is sound and not worse than those before it.
    """

    policy: str = ""
    """kind:place, or a checkpoint folder."""
    critic: str = ""
    """kind:place, or a checkpoint folder."""
    refine: str = ""
    """Refiner that adds candidates to the policy's, such as gradient:?steps=5&step_size=0.02."""
    follow: Path | None = None
    """Folder of a `steer finetune`: serve its newest version, and each that it publishes later, instead of a policy and critic."""
    max_pin_s: float = 60.0
    """A session keeps the version that its episode began with, but not longer than so long after another is served."""
    outcomes: Path | None = None
    """Episode store that a followed run's versions are judged by; the run's own unless given."""
    guard: bool = True
    """Go back to the version before when the episodes say that a followed run's newest is worse."""
    allow_unready: bool = False
    """Serve a critic although the verdict of its training says that it may not steer."""
    threads: int = 0
    """Threads of the models' arithmetic; 0: OMP_NUM_THREADS where it is set, else one less than there are cores."""
    openpi_port: int | None = None
    """Answer openpi's websocket clients on this port of the same host, too; 0: a free one."""
    openpi_execute: int = 0
    """Steps of each chunk that openpi's clients run, the prefix that the critic scores; 0: the whole chunk."""
    openpi_samples: int = 8
    """Candidates of each chunk for openpi's clients, where there is a critic."""
    openpi_map: tuple[str, ...] = ()
    """THEIRS=OURS: names of observations that differ in openpi's clients, such as observation/state=state."""
    server: Annotated[ServerConfig, tyro.conf.arg(name="")] = field(default_factory=ServerConfig)

    def run(self) -> None:
        log_to_stderr()
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._check()
        self._limit_threads()
        if self.follow is not None:
            self._serve_run(self.follow, console)
        else:
            self._serve_models(console)
        console.print("stopped")

    def _check(self) -> None:
        """Refuse what would be ignored, or leaves nothing to serve."""
        if self.follow is None and not self.policy and not self.critic:
            raise ConfigError(
                "nothing to serve: give --policy, --critic or both, or --follow the folder of a steer finetune"
            )
        if self.follow is None and (given := self._given(_OF_RUNS)):
            raise ConfigError(f"{given}: only for the versions of a run, give --follow, too, or leave out")
        if self.follow is not None and (given := self._given(_OF_MODELS)):
            raise ConfigError(f"--follow serves the policy and critic that the run publishes: leave out {given}")
        if self.openpi_port is None and (given := self._given(_OF_OPENPI)):
            raise ConfigError(f"{given}: only for openpi's clients, give --openpi-port, too, or leave out")

    def _given(self, names: Sequence[str]) -> str:
        """Those of these settings that are not as they are by default, as flags."""
        usual = Serve()
        changed = (name for name in names if _setting(self, name) != _setting(usual, name))
        return ", ".join("--no-guard" if name == "guard" else f"--{name.replace('_', '-')}" for name in changed)

    def _serve_models(self, console: Console) -> None:
        verdict = registry.verdict(self.critic) if self.critic else None
        if verdict is not None and not verdict["may_steer"] and not self.allow_unready:
            raise UnsupportedError(refusal(self.critic, verdict))
        engine = registry.engine(self.policy, self.critic, self.refine)
        if engine.critic is not None and verdict is None:
            console.print(f"{self.critic}: its training left no verdict, so nobody knows whether it can rank")
        may_steer = None if verdict is None else bool(verdict["may_steer"])
        console.print(_versions(engine))
        serve(engine, self.server, may_steer, _announce(console), self.openpi())

    def _serve_run(self, run: Path, console: Console) -> None:
        releases = RunReleases(run, self.outcomes, self.refine)
        there = (releases.store / "store.json").exists()
        console.print(
            f"what came of versions is read in {releases.store}" + ("" if there else ", where there is no store yet")
        )
        if not releases.published:
            with _terminable():
                console.print(
                    f"{run} has no version yet: waiting for steer finetune to publish its first, Ctrl-C stops"
                )
                while not releases.published:
                    time.sleep(_POLL_S)
        residents, following = begin(releases, Guard() if self.guard else None, self.max_pin_s)
        console.print(f"version {residents.current.number} of {run}: {_versions(residents.engine)}")
        serve(residents, self.server, None, _announce(console), self.openpi(), following)

    def openpi(self) -> OpenpiConfig | None:
        """The endpoint for openpi's clients, if one is asked for."""
        if self.openpi_port is None:
            return None
        from steer.server.openpi import OpenpiConfig

        keys = KeyMap.of_pairs((ours, theirs) for theirs, ours in map(pair, self.openpi_map))
        return OpenpiConfig(self.openpi_port, self.openpi_execute, self.openpi_samples, keys)

    def _limit_threads(self) -> None:
        """Leave a core to the rest of the machine: a control loop beside a server that takes all of them is often late.

        Frameworks read the variable when they are imported, which the registry does later.
        """
        if self.threads:
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
        elif not os.environ.get("OMP_NUM_THREADS"):
            os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 2) - 1))


def _setting(serve: Serve, name: str) -> object:
    return getattr(serve, name) if hasattr(serve, name) else getattr(serve.server, name)


def _versions(engine: Engine) -> str:
    policy, critic = engine.policy, engine.critic
    return f"policy {(policy and policy.version) or 'none'}, critic {(critic and critic.version) or 'none'}"


def _announce(console: Console) -> Callable[[str], None]:
    return lambda address: console.print(f"serving on {address}, Ctrl-C stops")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends this as Ctrl-C does."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def refusal(critic: str, verdict: Mapping[str, Any]) -> str:
    """Why this critic is not served, in the words of its verdict."""
    reasons = "".join(f"\n  - {reason}" for reason in verdict.get("reasons", ()))
    return (
        f"the critic {critic} may not steer, its own verdict says:{reasons}\n"
        "train it on more or more varied episodes, or serve it anyway with --allow-unready"
    )
