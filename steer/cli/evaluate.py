"""`steer eval`: a policy against its steered self on the same initial states; a table, `result.json` and `report.html`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from steer.data.store import EpisodeStore
from steer.evaluation.evaluate import EvaluationSettings, evaluate
from steer.evaluation.notes import headline, notes, p_value, points
from steer.evaluation.replay import replay
from steer.evaluation.report import write_report
from steer.evaluation.result import Evaluation
from steer.evaluation.rollout import Rollout, RolloutSettings
from steer.evaluation.runner import Runner
from steer.evaluation.setup import Setup
from steer.evaluation.tuning import TuningSettings
from steer.options import json_or_text, pairs
from steer.progress import stages
from steer.robot import read_robot
from steer.selection import Selection

_Repeatable = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class Eval:
    """Compare a policy alone (K = 1) with the same policy steered by a critic, on the same initial states."""

    policy: str = ""
    """Policy to evaluate in this process: a checkpoint folder or kind:place."""
    critic: str = ""
    """Critic that steers it."""
    server: str = ""
    """Address of a running server to evaluate instead; it brings policy and critic. Started with --deterministic, it
    gives the same episodes as these models in process."""
    refine: str = ""
    """Refiner that adds candidates to the policy's, such as gradient:?steps=5&step_size=0.02."""
    env: str = "steer/PickPlace-v0"
    """Any gymnasium environment, by its id."""
    env_option: _Repeatable = ()
    """KEY=VALUE for the environment; the value is read as JSON where it is JSON. May be repeated."""
    map: _Repeatable = ()
    """OUR_KEY=ENV_KEY for an observation; leave ENV_KEY empty for an environment without named ones. May be repeated."""
    robot_spec: Path | None = None
    """JSON file with the robot spec of an environment that does not carry one."""
    accept_unknown: bool = False
    """Let action specs match where one of them says "unknown"."""
    episodes: int = 100
    """Pairs of episodes; pair i starts from seed + i."""
    seed: int = 100_000
    """First seed. Training data must not have used these."""
    samples: int = 8
    """K, candidates per decision of the steered side."""
    temperature: float = 1.0
    """Noise scale of both sides."""
    execute: int = 0
    """E, steps run of each chunk; 0: as many as the critic can score, else the whole chunk."""
    selection: Selection = Selection()
    k_sweep: tuple[int, ...] = ()
    """Also measure success for these K, on the same starts: --k-sweep 1 2 4 8 16 32."""
    tune_episodes: int = 0
    """Choose K and noise scale on so many other starts first; 0 keeps --samples and --temperature."""
    tune_seed: int = 500_000
    """First of the tuning seeds; they must not meet the evaluation's."""
    tune_samples: tuple[int, ...] = (4, 8, 16)
    """K to try while tuning."""
    tune_temperatures: tuple[float, ...] = (0.8, 1.0)
    """Noise scales to try while tuning."""
    tune_by: Literal["steered", "difference"] = "steered"
    """What tuning maximises: steered success, or its difference to the base at the same noise scale."""
    workers: int = 0
    """Processes; 0: one per core."""
    videos: int = 4
    """Pairs to show as videos in the report; 0 renders nothing."""
    record: Path | None = None
    """Episode store to add the base and steered episodes to."""
    out: Path = Path("runs/eval")
    """Folder for result.json and report.html."""

    def run(self) -> None:
        evaluate_and_report(self.setup(), self.settings(), self.out, self.record, self.workers, self.videos)

    def setup(self) -> Setup:
        """What every worker builds."""
        return Setup(
            env_id=self.env,
            policy=self.policy,
            critic=self.critic,
            server=self.server,
            refine=self.refine,
            env_options={key: json_or_text(text) for key, text in pairs(self.env_option, "--env-option").items()},
            keys=pairs(self.map, "--map"),
            robot=None if self.robot_spec is None else read_robot(self.robot_spec),
            accept_unknown=self.accept_unknown,
        )

    def settings(self) -> EvaluationSettings:
        """What is played. Raises `ConfigError` for what cannot be."""
        return EvaluationSettings(
            rollout=RolloutSettings(self.samples, self.temperature, self.execute, self.selection),
            episodes=self.episodes,
            seed=self.seed,
            k_sweep=self.k_sweep,
            tuning=TuningSettings(
                self.tune_episodes, self.tune_seed, self.tune_samples, self.tune_temperatures, self.tune_by
            ),
        )


def evaluate_and_report(
    setup: Setup,
    settings: EvaluationSettings,
    out: Path,
    record: Path | None = None,
    workers: int = 0,
    videos: int = 4,
    console: Console | None = None,
) -> Evaluation:
    """Evaluate with progress, record, write result.json and report.html, print the table; returns the result."""
    console = console or Console()
    out.mkdir(parents=True, exist_ok=True)
    with stages(console) as stage:
        with Runner(setup, workers) as runner:
            store = None if record is None else EpisodeStore.create(record, runner.facts.robot, exist_ok=True)
            keep = None if store is None else partial(_record, store)
            played = evaluate(runner, settings, stage, _about(setup), keep)
        clips = replay(setup, played, videos, workers, stage)
    played.result.write(out / "result.json")
    write_report(out / "report.html", played.result, clips)
    print_result(played.result, console)
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)
    return played.result


def print_result(result: Evaluation, console: Console) -> None:
    """The table and what to know before quoting it."""
    table = Table(title=headline(result))
    for name, justify in (("", "left"), ("episodes", "right"), ("success", "right"), ("95 % interval", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # rich wants the literal, not a str
    for name, value, (low, high) in (
        ("base, K = 1", result.base, result.base_interval),
        (f"steered, K = {result.settings['num_samples']}", result.steered, result.steered_interval),
    ):
        table.add_row(name, str(result.episodes), f"{value:.1%}", f"{low:.1%} to {high:.1%}")
    table.add_section()
    interval = f"{points(result.low)} to {points(result.high)}"
    table.add_row("paired difference, points", f"{result.episodes}", points(result.difference), interval)
    console.print(table)
    console.print(f"{result.gained} starts gained, {result.lost} lost; McNemar's exact {p_value(result.mcnemar_p)}")
    for note in notes(result):
        console.print(f"[dim]- {note}[/dim]", soft_wrap=True)


def _record(store: EpisodeStore, rollouts: Sequence[Rollout]) -> None:
    with store.writer() as writer:
        for rollout in rollouts:
            writer.add(rollout.episode)


def _about(setup: Setup) -> dict[str, Any]:
    """What the result says of the setup."""
    names = {
        "env_id": setup.env_id,
        "policy": setup.policy,
        "critic": setup.critic,
        "server": setup.server,
        "refine": setup.refine,
    }
    named = {key: value for key, value in names.items() if value}
    return {**named, "env_options": dict(setup.env_options), "keys": dict(setup.keys)}
