"""`steer train policy|critic|reward STORE OUT [--kind KIND]`: train a model from an episode store.

Every hyper-parameter of the kind's configuration is a flag, so the command is made for the kind that `--kind` names.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union

import torch
import tyro
from rich.console import Console
from rich.table import Table

from steer import registry
from steer.checkpoints import Checkpoint, add_document, read_checkpoint
from steer.classifier import CLASSIFIERS, load_classifier
from steer.data.candidates import candidates
from steer.data.frames import Frames, load_frames
from steer.data.store import EpisodeStore
from steer.errors import ConfigError
from steer.progress import ProgressBar
from steer.serial import from_json
from steer.spec import Array
from steer.steering import check_compatible
from steer.training.loop import LoopConfig, TrainingInterrupted, train
from steer.training.run_folder import RunFolder

C = TypeVar("C")

# What is trained when `--kind` is not given.
_DEFAULT = {registry.POLICIES: "diffusion", registry.CRITICS: "q", CLASSIFIERS: "reward"}
_GROUPS = {"policy": registry.POLICIES, "critic": registry.CRITICS, "reward": CLASSIFIERS}


def _trainables(group: str) -> Iterator[tuple[str, registry.Trainable]]:
    for kind in registry.kinds(group):
        trainable = registry.family(group, kind).trainable
        if trainable is not None:
            yield kind, trainable


def _help(group: str) -> Any:
    kinds = ", ".join(kind for kind, _ in _trainables(group))
    return tyro.conf.arg(help=f"Family: {kinds}. Its hyper-parameters are flags, see --kind KIND --help.")


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

    kind: Annotated[str, _help(registry.POLICIES)] = _DEFAULT[registry.POLICIES]
    start: str = ""
    """Checkpoint folder to train further; the flags' defaults are then its own. Adapters (--lora-rank) need one."""
    config: Annotated[C, tyro.conf.arg(name="")]

    def run(self) -> None:
        self._prepare()
        config: Any = self.config
        frames = load_frames(EpisodeStore.open(self.store))
        trainable = _trainable(registry.POLICIES, config)
        start = read_checkpoint(Path(self.start)) if self.start else None
        objective = trainable.objective(config, frames, seed=self.seed, start=start)
        sampler = trainable.sampler(config, frames, seed=self.seed)
        self._train(objective, sampler, config.steps, "policy")
        _say(f"policy {self.out}, version {read_checkpoint(self.out).version}")


@dataclass(frozen=True, kw_only=True)
class TrainCritic(_Training, Generic[C]):
    """Train a critic for a policy, then judge on held-out episodes whether it may steer."""

    kind: Annotated[str, _help(registry.CRITICS)] = _DEFAULT[registry.CRITICS]
    policy: str
    """The policy to be steered; its samples at every recorded state are what the critic learns to tell apart."""
    num_candidates: int = 8
    """K, samples per state in the cache."""
    temperature: float = 1.0
    """Noise scale of these samples."""
    rewards: Literal["stored", "success"] = "stored"
    """success: 1 at the end of each episode that is labelled successful, for data that holds no rewards. stored: what was recorded,
    but for episodes of which a later label says otherwise: the label rewards these."""
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
        _print_figures(result.figures, len(held_out))
        _say(f"This critic {result}.")

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


@dataclass(frozen=True, kw_only=True)
class TrainReward(_Training, Generic[C]):
    """Train a success classifier on labelled episodes, then judge on held-out ones whether it may label others."""

    kind: Annotated[str, _help(CLASSIFIERS)] = _DEFAULT[CLASSIFIERS]
    held_out: float = 0.2
    """Share of the episodes that the verdict is based on and the training never sees."""
    config: Annotated[C, tyro.conf.arg(name="")]

    def run(self) -> None:
        from steer.evaluation.classifier import judge_classifier

        self._prepare()
        config: Any = self.config
        store = EpisodeStore.open(self.store)
        labelled = [index for index, record in enumerate(store.records()) if record.success is not None]
        frames, held_out = load_frames(store, labelled).split(self.held_out, self.seed)
        trainable = _trainable(CLASSIFIERS, config)
        objective = trainable.objective(config, frames, seed=self.seed)
        sampler = trainable.sampler(config, frames, seed=self.seed)
        self._train(objective, sampler, config.steps, "reward")
        classifier = load_classifier(str(self.out))
        result = judge_classifier(classifier, held_out)
        add_document(self.out, "verdict", result)
        _say(f"classifier {self.out}, version {classifier.version}")
        _print_figures(result.figures, len(held_out.lengths))
        _say(f"This classifier {result}.")


def _trainable(group: str, config: Any) -> registry.Trainable:
    """The family that a configuration belongs to."""
    for _, trainable in _trainables(group):
        if isinstance(config, trainable.config):
            return trainable
    raise ConfigError(f"no installed family is trained with a {type(config).__name__}")


def _print_figures(figures: Mapping[str, float], episodes: int) -> None:
    """A table of the figures, intervals in brackets."""
    table = Table(title=f"Verdict on {episodes} held-out episodes", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        if name.endswith(("_low", "_high")):
            continue
        low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
        interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        table.add_row(name.replace("_", " "), f"{value:.4g}{interval}", style="bold" if interval else None)
    Console(soft_wrap=True).print(table)


def _say(text: str) -> None:
    Console(soft_wrap=True).print(text, markup=False, highlight=False)


def command(words: Sequence[str]) -> Any:
    """The arguments of `steer train`, with the flags of the kinds that these words choose."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--kind", default="")
    parser.add_argument("--start", default="")
    chosen, rest = parser.parse_known_args(list(words))
    asked = _GROUPS.get(rest[0] if rest else "", registry.POLICIES)
    start = read_checkpoint(Path(chosen.start)) if chosen.start else None
    kinds = {**_DEFAULT, asked: chosen.kind or (_DEFAULT[asked] if start is None else start.kind)}
    policy, critic, reward = (_config(group, kinds[group]) for group in _GROUPS.values())
    return Union[  # noqa: UP007 - made of what was found
        Annotated[TrainPolicy[policy], tyro.conf.subcommand("policy", **_defaults(policy, start))],  # type: ignore[valid-type]
        Annotated[TrainCritic[critic], tyro.conf.subcommand("critic")],  # type: ignore[valid-type]
        Annotated[TrainReward[reward], tyro.conf.subcommand("reward")],  # type: ignore[valid-type]
    ]


def _defaults(config: type[Any], start: Checkpoint | None) -> dict[str, Any]:
    """The configuration of the checkpoint that is trained further, as what is not given as a flag."""
    if start is None:
        return {}
    stored = from_json(config, start.config, f"{start.path}: config")
    return {"default": TrainPolicy(store=tyro.MISSING, out=tyro.MISSING, kind=start.kind, config=stored)}


def _config(group: str, kind: str) -> type[Any]:
    """The configuration of a kind that can be trained here."""
    trainables = dict(_trainables(group))
    if kind not in trainables:
        what = group.removeprefix("steer.")
        raise ConfigError(
            f"--kind {kind}: no such kind of {what} can be trained here: choose one of {sorted(trainables)}"
        )
    return trainables[kind].config
