"""`steer run --robot ROBOT --server ADDRESS`: a robot at its control rate, steered by a server."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.live import Live
from rich.table import Table

from steer import registry
from steer.cli.logs import log_to_stderr
from steer.cli.operators import Operators, operators
from steer.client.broker import BrokerConfig
from steer.client.keyboard import watch_keys
from steer.client.loop import ControlLoop, LoopConfig, RunSummary
from steer.client.recorder import Recorder
from steer.client.steering_client import DEFAULT_ADDRESS, SteeringClient
from steer.client.uploader import Uploader
from steer.client.uploads import Uploads, account
from steer.data.store import EpisodeStore
from steer.errors import ConfigError, UnsupportedError
from steer.observation import Task
from steer.selection import Selection
from steer.wire import Execution

_STATUS_S = 0.5


@dataclass(frozen=True)
class Run:
    """Run a robot against a server. Space, q, Escape or Ctrl-C stop it; without a fresh chunk it holds."""

    robot: str
    """kind:place?key=value, such as gym:steer/PickPlace-v0 or panda."""
    server: str = DEFAULT_ADDRESS
    """host:port of `steer serve`."""
    episodes: int = 0
    """Stop after so many episodes, where the robot's world ends them; 0: no limit."""
    duration_s: float = 0.0
    """Stop after so long; 0: no limit."""
    samples: int = 8
    """K, candidates that the policy proposes and the critic chooses from."""
    temperature: float = 1.0
    """The policy's noise scale."""
    execute: int = 3
    """E, new steps to execute of each chunk; 0: all of it."""
    committed: int = 1
    """d, ask for the next chunk so many steps before the present one ends; 0: wait for each answer."""
    selection: Annotated[Selection, tyro.conf.arg(name="")] = field(default_factory=Selection)
    instruction: str = ""
    """What to do, for policies that listen; by default what the robot's world asks for."""
    max_stale_s: float = 1.0
    """An action is sent only while what it was decided on is at most so old."""
    budget_s: float = 0.0
    """Ask the server for an answer within so long, with fewer candidates if it must be; 0: no limit."""
    give_up_s: float = 60.0
    """End the run after so long without any answer; until then the robot holds."""
    seed: int = 0
    """Of the candidates' noise."""
    accept_unknown: bool = False
    """Let action fields that a model calls "unknown" pass."""
    dry_run: bool = False
    """Ask for actions and check them, but send nothing."""
    episode_s: float = 0.0
    """End an episode after so long at the control rate; 0: no limit. In a simulation it has then failed, unless it succeeded."""
    outcome: str = ""
    """Who says whether an episode succeeded: simulator, key (y or n, which also ends it) or none; by default the robot's world
    where it knows."""
    intervene: str = ""
    """Who may take over: keyboard, gamepad (gamepad:/dev/input/js1), or in simulation expert (expert:?after=40&ticks=30)."""
    record: Path | None = None
    """Write the episodes to this store; it is made if it is not there."""
    record_gb: float = 4.0
    """Memory for what is not on the disk yet: an episode that needs more is not kept."""
    upload: bool = False
    """Send what is recorded to the server's store (`steer serve --experience STORE`), while the robot works on."""
    upload_s: float = 30.0
    """At the end go on sending for so long; `steer upload` sends what is left then."""

    def run(self) -> None:
        log_to_stderr()
        console = Console(stderr=True, soft_wrap=True)
        if self.dry_run and not self.duration_s:
            raise ConfigError("a dry run sends nothing, so nothing moves and no episode ends: give --duration-s")
        if self.dry_run and self.record is not None:
            raise ConfigError(
                "a dry run sends nothing, and an episode of commands that were never sent teaches what did not happen: leave "
                "--record away"
            )
        if self.upload and self.record is None:
            raise ConfigError("--upload sends what was recorded: give --record STORE as well")
        robot = registry.robot(self.robot)
        with ExitStack() as stack:
            robot.connect()
            stack.callback(robot.close)
            execution = Execution(self.samples, self.temperature, self.execute, self.selection)
            steering = SteeringClient(
                self.server, robot.spec, execution=execution, budget_s=self.budget_s, accept_unknown=self.accept_unknown
            )
            stack.callback(steering.close)
            self._check_prefix(steering.opened.prefixes)
            recorder = uploads = None
            if self.record is not None:
                store = EpisodeStore.create(self.record, robot.spec, exist_ok=True, skip_broken=True)
                if self.upload:
                    # Entered before the recorder, so that at the end it sends what the recorder publishes last.
                    uploads = Uploads(self.record, robot.spec, self.server)
                    stack.enter_context(Uploader(uploads, self.upload_s))
                source = "policy" if self.samples == 1 else "steered"
                recorder = stack.enter_context(Recorder(store, source, round(self.record_gb * 1e9)))
            broker = BrokerConfig(execution, self.committed, self.max_stale_s, give_up_s=self.give_up_s)
            limits = LoopConfig(self.episodes, self.duration_s, self.dry_run, self.seed, self.episode_s)
            people = stack.enter_context(operators(self.outcome, self.intervene, robot))
            task = Task(self.instruction) if self.instruction else None
            loop = ControlLoop(
                robot,
                steering,
                broker,
                limits,
                recorder=recorder,
                task=task,
                outcome=people.outcome,
                intervener=people.intervener,
            )
            self._drive(loop, people, console)
        if recorder is not None:
            console.print(recorded_line(recorder.counts, self.record))
        if uploads is not None:
            console.print(account(uploads))

    def _check_prefix(self, prefixes: tuple[int, ...]) -> None:
        """Say before anything moves that the critic could not score what would be executed."""
        steps = self.committed + self.execute
        if prefixes and self.execute and self.samples > 1 and steps not in prefixes:
            raise UnsupportedError(
                f"--committed {self.committed} and --execute {self.execute} make {steps} steps, but the server's critic "
                f"scores {list(prefixes)}: choose two numbers with one of these sums"
            )

    def _drive(self, loop: ControlLoop, people: Operators, console: Console) -> None:
        with watch_keys(lambda: loop.stop("key"), people.keys) as terminal, _signals(loop):
            people.check(terminal)
            for line in people.help:
                console.print(line, highlight=False)
            keys = "space, q or Escape stop the arm, " if terminal else ""
            console.print(f"running{' dry' if self.dry_run else ''}: {keys}Ctrl-C stops, twice stops at once")
            with _status(loop, console):
                summary = loop.run()
        console.print(summary_table(summary))


def status_line(summary: RunSummary) -> str:
    """The run so far in one line."""
    done = "" if summary.successes is None else f", {summary.successes}/{summary.episodes} succeeded"
    return (
        f"tick {summary.ticks.ticks}, late {summary.ticks.late:.1%}, chunks {summary.chunks}, "
        f"holds {summary.holds}{done}"
    )


def recorded_line(counts: Mapping[str, int], store: Path | None) -> str:
    """What was recorded and what was not, see `Recorder.counts`."""
    words = {"incomplete": "incomplete episodes", "dropped": "dropped steps", "failed": "failed writes"}
    wrong = ", ".join(f"{counts[key]} {what}" for key, what in words.items() if counts[key])
    return f"recorded {counts['episodes']} episodes to {store}" + (f" ({wrong})" if wrong else "")


def summary_table(summary: RunSummary) -> Table:
    """The whole account."""
    ticks = summary.ticks
    table = Table("", "", title="run", show_header=False)
    rows = [
        ("stopped by", summary.stopped_by),
        ("ticks", f"{ticks.ticks}, of which {ticks.late:.2%} more than 5 ms late, {ticks.skipped} skipped"),
        ("tick error", f"p50 {ticks.p50_ms:.2f} ms, p99 {ticks.p99_ms:.2f} ms, max {ticks.max_ms:.2f} ms"),
        (
            "actions sent",
            f"{summary.sent}, of which {summary.holds} held, {summary.stale_sent} stale, {summary.interventions} by who took over",
        ),
        ("oldest observation", f"{1e3 * summary.oldest_sent_s:.0f} ms when its action was sent"),
        (
            "chunks",
            f"{summary.chunks} of {summary.asked} asked, {summary.late_chunks} late, {summary.stale_dropped} stale",
        ),
        ("failed requests", str(summary.failed_requests)),
        (
            "made safe",
            f"{summary.not_finite} not finite, {summary.out_of_bounds} out of bounds, {summary.large_steps} large steps",
        ),
    ]
    if summary.successes is not None:
        rows.append(("success", f"{summary.successes} of {summary.episodes} episodes"))
    for row in rows:
        table.add_row(*row)
    return table


@contextmanager
def _signals(loop: ControlLoop) -> Iterator[None]:
    """The first SIGINT or SIGTERM ends the run in order, a second SIGINT at once."""

    def first(number: int, frame: object) -> None:
        loop.stop("signal", signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _status(loop: ControlLoop, console: Console) -> Iterator[None]:
    """A live line about the run, drawn by a thread of its own: a slow terminal must not delay a tick."""
    done = threading.Event()

    def draw(live: Live) -> None:
        while not done.wait(_STATUS_S):
            live.update(status_line(loop.summary()), refresh=True)

    with Live(console=console, auto_refresh=False, transient=True) as live:
        thread = threading.Thread(target=draw, args=(live,), name="status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
