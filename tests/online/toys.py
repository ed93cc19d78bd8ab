"""A run small enough for tests: the fake reaching task, a diffusion policy and a critic of a few hundred weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from critics.config import CriticConfig
from critics.objective import objective as critic_objective
from policies.diffusion import FAMILY
from policies.diffusion.config import DiffusionConfig
from steer.data.episode import Episode
from steer.data.frames import load_frames
from steer.data.store import EpisodeStore
from steer.engine import Engine
from steer.evaluation.rollout import RolloutSettings, rollout
from steer.online.actor import Scene
from steer.online.config import OnlineConfig
from steer.online.learner import Learner
from steer.online.progress import Round
from steer.online.run_folder import OnlineFolder
from steer.online.start import Start
from steer.online.store import online_store
from steer.steering import LocalSteering
from tests.evaluation.fakes import ENV_ID
from tests.fakes import ROBOT, FakePolicy

SCENE = Scene(ENV_ID)
SMALL = OnlineConfig(
    round_episodes=2,
    policy_batch_size=16,
    batch_size=16,
    base_samples=2,
    student_samples=2,
    utd=2.0,
    policy_utd=1.0,
    refine="gradient:?steps=2&step_size=0.05",
)


def make_models(folder: Path) -> Path:
    """FOLDER/{episodes,policy,critic}: what `steer finetune` starts from."""
    store = EpisodeStore.create(folder / "episodes", ROBOT)
    environment = SCENE.make()
    steering = LocalSteering(Engine(FakePolicy(window=1)), ROBOT)
    with store.writer() as writer:
        for seed in range(6):
            writer.add(rollout(environment, steering, seed, RolloutSettings(1)).episode)
    environment.close()
    store.refresh()
    frames = load_frames(store)
    config = DiffusionConfig(hidden=16, expansion=16, blocks=1, time_features=8, diffusion_steps=4, inference_steps=2)
    FAMILY.trainable.objective(config, frames, seed=0).save(folder / "policy")  # type: ignore[union-attr]  # it is trained here
    candidates = np.zeros((len(frames), 2, 4, 3), np.float32)
    tiny = CriticConfig(features="raw", hidden=(8,), batch_size=16, backup_candidates=2, penalty_candidates=2)
    critic_objective(tiny, frames, candidates).save(folder / "critic")
    return folder


def make_episode(seed: int, success: bool, length: int = 8) -> Episode:
    """Steps towards the target that get there, or do not; `seed` is in its numbers. The last step of a success is rewarded."""
    rng = np.random.default_rng(seed)
    state = np.cumsum(rng.normal(0, 0.02, (length + 1, 3)), axis=0).astype(np.float32)
    rewards = np.zeros(length, np.float32)
    rewards[-1] = success
    actions = np.full((length, 3), 0.05 if success else -0.05, np.float32)
    info = {"seed": seed, "version": 0}
    return Episode({"state": state}, actions, rewards, success, not success, success, "simulator", info=info)


class Given:
    """A `steer.online.actor.Source` that writes prepared episodes: every second one succeeds."""

    def __init__(self, store: Path) -> None:
        self._store = online_store(store, ROBOT)
        self.asked: list[tuple[int, int, bool]] = []

    def gather(self, until: int, version: int, steered: bool, stop: Callable[[], bool]) -> None:
        self.asked.append((until, version, steered))
        self._store.refresh()
        with self._store.writer(episodes_per_segment=1) as writer:
            for seed in range(len(self._store), until):
                writer.add(make_episode(seed, success=seed % 2 == 0))
                stop()

    def close(self) -> None:
        """Nothing to release."""


class Run:
    """A learner over prepared episodes, its models and its folder. stop_after: updates after which it is interrupted."""

    def __init__(
        self,
        models: Path,
        out: Path,
        *,
        policy: Path | None = None,
        stop_after: int | None = None,
        save_every: int = 10,
        **changes: Any,
    ) -> None:
        self.config = replace(SMALL, **changes)
        self.folder = OnlineFolder(out)
        out.mkdir(exist_ok=True)
        self.source = Given(self.folder.episodes)
        self.start = Start.load(str(policy or models / "policy"), str(models / "critic"), self.config)
        self.rounds: list[Round] = []
        self.shown: list[tuple[str, int, int]] = []
        self.learner = Learner(
            self.start,
            self.config,
            self.folder,
            online_store(self.folder.episodes, ROBOT),
            EpisodeStore.open(models / "episodes"),
            self.source,
            save_every=save_every,
            stop=lambda: stop_after is not None and self.learner.progress.critic_updates >= stop_after,
        )
        self.learner.listen(self.rounds.append, lambda *done: self.shown.append(done))
