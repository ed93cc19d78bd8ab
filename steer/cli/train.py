"""`steer train policy|critic STORE OUT`: train a model from an episode store.

Every hyper-parameter of a family's configuration is a flag. `policy` and `critic` are our own families; one that another
package brings as kind "x" is `policy:x` or `critic:x`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, Union

import torch
import tyro
from rich.console import Console
from rich.table import Table

from steer import registry
from steer.checkpoints import add_document, read_checkpoint
from steer.data.candidates import candidates
from steer.data.frames import Frames, load_frames
from steer.data.store import EpisodeStore
from steer.errors import ConfigError
from steer.progress import ProgressBar
from steer.spec import Array
from steer.steering import check_compatible
from steer.training.loop import LoopConfig, TrainingInterrupted, train
from steer.training.run_folder import RunFolder

if TYPE_CHECKING:
    from steer.evaluation.verdict import Verdict

C = TypeVar("C")

# The kinds that `policy` and `critic` stand for.
_OWN = {registry.POLICIES: "diffusion", registry.CRITICS: "q"}


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What every training is told."""

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """Episode store to learn from."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Checkpoint folder to write; the state to resume from and TensorBoard's logs lie in it."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on from the last saved state in OUT, exactly."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Discard an earlier run in OUT."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, or auto."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision on devices that have it."""
    threads: int | None = None
    """CPU threads; torch's choice unless given."""
    log_every: int = 50
    """Updates between two logs."""
    save_every: int = 1000
    """Updates between two saved states."""

    def _loop(self, steps: int) -> LoopConfig:
        return LoopConfig(steps, self.seed, self.log_every, self.save_every, self.device, self.precision)

    def _train(self, objective: Any, sampler: Any, steps: int, title: str) -> None:
        try:
            train(
                objective,
                sampler,
                self._loop(steps),
                self.out,
                resume=self.resume,
                overwrite=self.overwrite,
                title=title,
            )
        except TrainingInterrupted as stop:
            Console(stderr=True, soft_wrap=True).print(str(stop), markup=False, highlight=False)
            raise

    def _prepare(self) -> None:
        """Refuse what cannot work before any time is spent on data."""
        RunFolder(self.out).check(self.resume, self.overwrite)
        if self.threads is not None:
            if self.threads < 1:
                raise ConfigError(f"--threads is {self.threads}, expected at least 1")
            torch.set_num_threads(self.threads)


@dataclass(frozen=True, kw_only=True)
class TrainPolicy(_Training, Generic[C]):
    """Train a policy on every window of every episode, successful or not."""

    config: Annotated[C, tyro.conf.arg(name="")]

    def run(self) -> None:
        self._prepare()
        config: Any = self.config
        frames = load_frames(EpisodeStore.open(self.store))
        trainable = _trainable(registry.POLICIES, config)
        objective = trainable.objective(config, frames, seed=self.seed)
        sampler = trainable.sampler(config, frames, seed=self.seed)
        self._train(objective, sampler, config.steps, "policy")
        _say(f"policy {self.out}, version {read_checkpoint(self.out).version}")


@dataclass(frozen=True, kw_only=True)
class TrainCritic(_Training, Generic[C]):
    """Train a critic for a policy, then judge on held-out episodes whether it may steer."""

    policy: str
    """The policy to be steered; its samples at every recorded state are what the critic learns to tell apart."""
    num_candidates: int = 8
    """K, samples per state in the cache."""
    temperature: float = 1.0
    """Noise scale of these samples."""
    rewards: Literal["stored", "success"] = "stored"
    """success: 1 at the end of each episode that is labelled successful, for data that holds no rewards."""
    held_out: float = 0.1
    """Share of the episodes that the verdict is based on and the training never sees."""
    config: Annotated[C, tyro.conf.arg(name="")]

    def run(self) -> None:
        # Judging is the one part of training that needs scipy.
        from steer.evaluation.verdict import verdict

        self._prepare()
        config: Any = self.config
        store = EpisodeStore.open(self.store)
        frames = self._rewarded(load_frames(store))
        proposed = self._candidates(store)
        seen, held_out = frames.split_episodes(self.held_out, self.seed)
        data = (frames.subset(seen), proposed[frames.rows(seen)])
        trainable = _trainable(registry.CRITICS, config)
        objective = trainable.objective(config, *data, seed=self.seed)
        sampler = trainable.sampler(config, *data, seed=self.seed)
        self._train(objective, sampler, config.steps, "critic")
        result = verdict(
            registry.critic(str(self.out)), frames.subset(held_out), proposed[frames.rows(held_out)], config.gamma
        )
        add_document(self.out, "verdict", result)
        _say(f"critic {self.out}, version {read_checkpoint(self.out).version}")
        _print_verdict(result, len(held_out))

    def _rewarded(self, frames: Frames) -> Frames:
        if self.rewards == "success":
            return frames.rewarded_by_success()
        if not frames.rewards.any():
            labelled = int(frames.success.sum())
            advice = f"{labelled} are labelled successful, give --rewards success" if labelled else "label them first"
            raise ConfigError(f"{self.store}: no episode holds a reward, there is nothing to learn from: {advice}")
        return frames

    def _candidates(self, store: EpisodeStore) -> Array:
        """The policy's samples at every frame, from the cache where they are there."""
        policy = registry.policy(self.policy)
        check_compatible(store.robot, policy.spec, None)
        with ProgressBar() as bar:
            task = bar.add_task("candidates", total=None)
            return candidates(
                store,
                policy,
                self.num_candidates,
                self.seed,
                self.temperature,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )


def _trainable(group: str, config: Any) -> registry.Trainable:
    """The family that a configuration belongs to."""
    for _, trainable in _trainables(group):
        if isinstance(config, trainable.config):
            return trainable
    raise ConfigError(f"no installed family is trained with a {type(config).__name__}")


def _trainables(group: str) -> Iterator[tuple[str, registry.Trainable]]:
    for kind in registry.kinds(group):
        trainable = registry.family(group, kind).trainable
        if trainable is not None:
            yield kind, trainable


def _print_verdict(result: Verdict, episodes: int) -> None:
    """A table of the figures, intervals in brackets, and the sentence that matters last."""
    table = Table(title=f"Verdict on {episodes} held-out episodes", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in result.figures.items():
        if name.endswith(("_low", "_high")):
            continue
        low, high = result.figures.get(f"{name}_low"), result.figures.get(f"{name}_high")
        interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        table.add_row(name.replace("_", " "), f"{value:.4g}{interval}", style="bold" if interval else None)
    Console(soft_wrap=True).print(table)
    _say(f"This critic {result}.")


def _say(text: str) -> None:
    Console(soft_wrap=True).print(text, markup=False, highlight=False)


if TYPE_CHECKING:
    _Command = TrainPolicy[Any] | TrainCritic[Any]
else:

    def _commands() -> Any:
        """One subcommand per trainable kind of policy and of critic."""
        choices = []
        for group, generic, word in (
            (registry.POLICIES, TrainPolicy, "policy"),
            (registry.CRITICS, TrainCritic, "critic"),
        ):
            for kind, trainable in _trainables(group):
                name = word if kind == _OWN[group] else f"{word}:{kind}"
                choices.append(Annotated[generic[trainable.config], tyro.conf.subcommand(name)])
        return Union[tuple(choices)]  # noqa: UP007 - built from data

    _Command = _commands()


@dataclass(frozen=True)
class Train:
    """Train a policy or a critic from an episode store."""

    what: Annotated[_Command, tyro.conf.arg(name="")]

    def run(self) -> None:
        self.what.run()
