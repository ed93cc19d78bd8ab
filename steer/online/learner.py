"""The learner: round after round it waits for episodes, updates critic and policy, and publishes both.

    gather ─> critic updates (UTD x decisions) ─> policy updates ─> publish ─> gather ...

Updates follow from data, so their number is not known beforehand and `steer.training.loop` does not fit; what is saved, metered,
interrupted and restored is the same. A round that is cut anywhere goes on from its last saved update with the very losses it
would have had, as long as the store still has the episodes it had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import structlog
import torch

from steer import registry
from steer.data.frames import Frames, load_frames, no_frames
from steer.data.store import EpisodeStore
from steer.errors import ConfigError
from steer.online.actor import Source
from steer.online.config import OnlineConfig
from steer.online.improve import policy_sampler
from steer.online.proposals import Proposals
from steer.online.publish import Version, Versions
from steer.online.replay import Data, Replay
from steer.online.run_folder import OnlineFolder
from steer.online.start import Start
from steer.training.loop import TrainingInterrupted
from steer.training.meter import Meter
from steer.training.objective import Objective, Sampler
from steer.training.state import read_state, write_state

Phase = Literal["gather", "critic", "policy"]
_log = structlog.get_logger(__name__)
_DIAGNOSED = 1024
_ROLLING = 50


@dataclass
class Progress:
    """Where a run is, as JSON. rounds: the ids of the online episodes in the order they were learnt from, round by round."""

    phase: Phase = "gather"
    rounds: list[list[str]] = field(default_factory=list)
    control_steps: int = 0
    decisions: int = 0
    warm_decisions: int = 0
    """Of these, the ones of the warm-up, which earn no updates."""
    critic_updates: int = 0
    policy_updates: int = 0
    seconds: float = 0.0
    """Wall time of all sittings."""
    saves: int = 0

    @property
    def episodes(self) -> int:
        return sum(map(len, self.rounds))

    @property
    def published(self) -> int:
        """The version that is out: one per finished round, after the start's."""
        return len(self.rounds) - (self.phase != "gather")


@dataclass(frozen=True)
class Round:
    """What is told of a round. Ages and times in seconds; NaN where there is nothing to tell."""

    version: int
    episodes: int
    control_steps: int
    robot_minutes: float
    success: float
    rolling_success: float
    utd: float
    critic_updates: int
    policy_updates: int
    behaviour_age: int
    """Versions between the one that played the newest episode and the newest that was out."""
    seconds: float
    """Wall time since the start of the run."""
    metrics: Mapping[str, float] = field(default_factory=dict)


class Learner:
    """One run."""

    def __init__(
        self,
        start: Start,
        config: OnlineConfig,
        folder: OnlineFolder,
        store: EpisodeStore,
        offline: EpisodeStore | None,
        source: Source,
        *,
        seed: int = 0,
        save_every: int = 500,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """stop: asked after every update and episode; once it is true, the state is saved and the run ends."""
        self._start, self._config, self._folder, self._store, self._source = start, config, folder, store, source
        self._seed, self._save_every = seed, save_every
        self._stop = stop
        self.listen(lambda _: None, lambda *_: None)
        self._versions = Versions(folder.path)
        self._proposals = Proposals(start.base(), folder.proposals, config)
        self._replay = Replay(_offline(offline, self._proposals, config), config.offline_share)
        self.progress = Progress()
        self._began = time.monotonic()
        self._saved_stream: Any = None
        self._success: list[bool] = []
        self._newest: Data | None = None
        self._make_objectives()

    def listen(self, tell: Callable[[Round], None], show: Callable[[str, int, int], None]) -> None:
        """tell: called with each finished round. show: with what is being done, how much of it is done, and of how much."""
        self._tell, self._show = tell, show

    def run(self, episodes: int, robot_minutes: float = math.inf) -> None:
        """Go on until the run has so many episodes, or the robot has worked so long.

        Raises `TrainingInterrupted` after `stop()`; the state is then saved.
        """
        if not self.progress.rounds and self.progress.phase == "gather":
            self._publish("the start")
        while self.progress.phase != "gather" or (
            self.progress.episodes < episodes and self._robot_minutes < robot_minutes
        ):
            self._round(episodes)

    def resume(self) -> None:
        """Go back to the last saved state, and to the data that it was learning from."""
        _, state = read_state(self._folder.training)
        self.progress = Progress(**state["progress"])
        self._began = time.monotonic() - self.progress.seconds
        for number, ids in enumerate(self.progress.rounds):
            ids[:] = self._readable(ids)
            if ids:
                self._take(number, ids)
        self._critic.restore(state["critic"])
        self._policy.restore(state["policy"])
        self._saved_stream = state["stream"]
        torch.set_rng_state(state["torch_rng"])

    # -- a round

    def _round(self, episodes: int) -> None:
        progress, metrics = self.progress, {}
        if progress.phase == "gather":
            self._gather(min(episodes, progress.episodes + self._config.round_episodes))
            metrics.update(self._diagnose())
            self._enter("critic")
        if progress.phase == "critic":
            wanted = round(self._config.utd * (progress.decisions - progress.warm_decisions))
            sampler = self._replay.sampler(
                self._start.transitions, self._config.critic_batch_size, self._stream_seed("critic")
            )
            metrics.update(self._update("critic", self._critic, sampler, wanted))
            self._enter("policy")
        if progress.phase == "policy":
            metrics.update(self._improve())
            self._publish(f"round {len(progress.rounds)}")
            self._tell(self._told(metrics))
            self._enter("gather")

    def _gather(self, until: int) -> None:
        """Wait for episodes and take them in."""
        warm = self.progress.episodes < self._config.warmup_episodes
        steered = not warm or self._config.warmup_behaviour == "steered"
        self._show("episodes", self.progress.episodes, until)
        known = {name for ids in self.progress.rounds for name in ids}
        self._source.gather(until, self.progress.published, steered, self._stop)
        if self._stop():
            self._save()
            raise self._interrupted()
        self._store.refresh()
        self._relabel()
        ids = [record.id for record in self._store.records() if record.id not in known]
        self._take(len(self.progress.rounds), ids)
        assert self._newest is not None
        lengths = self._newest.frames.lengths
        decisions = int(np.ceil(lengths / self._start.executed).sum())
        self.progress.rounds.append(ids)
        self.progress.control_steps += int(lengths.sum())
        self.progress.decisions += decisions
        self.progress.warm_decisions += decisions if warm else 0

    def _take(self, number: int, ids: list[str]) -> None:
        """Let the replay grow by these episodes of the store."""
        frames = self._frames(ids)
        student = partial(registry.policy, str(self._versions.folder(number) / "policy"))
        self._newest = Data(frames, self._proposals.online(number, frames, student))
        self._success += frames.success.tolist()
        self._replay.grow(self._newest)

    def _relabel(self) -> None:
        """A person may have corrected labels since: then the online episodes are read anew."""
        online = self._replay.online
        if online is None:
            return
        now = {record.id: bool(record.success) for record in self._store.records()}
        if any(now[name] != success for name, success in zip(online.frames.ids, self._success, strict=True)):
            frames = self._frames(online.frames.ids)
            self._success = frames.success.tolist()
            self._replay.online = Data(frames, online.proposals)

    def _frames(self, ids: Sequence[str]) -> Frames:
        """These episodes of the store, rewarded as the run wants it."""
        places = {record.id: place for place, record in enumerate(self._store.records())}
        return _rewarded(load_frames(self._store, [places[name] for name in ids]), self._config)

    def _readable(self, ids: Sequence[str]) -> list[str]:
        """Those that the store still has: a segment that was damaged since costs its episodes, not the run."""
        there = {record.id for record in self._store.records()}
        lost = [name for name in ids if name not in there]
        if lost:
            _log.warning("episodes are gone, going on without them", episodes=lost, broken=list(self._store.broken))
        return [name for name in ids if name in there]

    def _diagnose(self) -> dict[str, float]:
        """Before anything was learnt from the new data: how much better is the critic on what it has replayed?"""
        assert self._newest is not None
        seed = self._stream_seed("diagnosis")
        fresh = self._start.transitions(_DIAGNOSED, self._newest.frames, self._newest.proposals, seed)
        replayed = self._replay.sampler(self._start.transitions, _DIAGNOSED, seed)
        return {
            "td_error_fresh": self._critic.td_error(fresh.sample()),
            "td_error_replayed": self._critic.td_error(replayed.sample()),
            "parameter_norm": self._critic.parameter_norm(),
        }

    def _improve(self) -> dict[str, float]:
        """The policy's updates of this round; none while nothing has succeeded yet."""
        assert self._replay.online is not None
        config, progress = self._config, self.progress
        wanted = round(config.policy_utd * (progress.decisions - progress.warm_decisions))
        if config.improve == "none" or wanted <= progress.policy_updates:
            return {}
        critic = self._critic.critic()
        refiner = registry.refiner(config.refine, critic) if config.refine and config.improve != "success" else None
        sampler = policy_sampler(
            config, self._replay.online, critic, refiner, self._start.chunks, self._stream_seed("policy")
        )
        if sampler is None:
            return {}
        return self._update("policy", self._policy, sampler, wanted)

    def _update(
        self, name: Literal["critic", "policy"], objective: Objective, sampler: Sampler, wanted: int
    ) -> dict[str, float]:
        """Updates until there were `wanted` of this kind in all; the means of their metrics."""
        meter, counter = Meter(), f"{name}_updates"
        if self._saved_stream is not None:
            sampler.restore(self._saved_stream)
            self._saved_stream = None
        while (done := getattr(self.progress, counter)) < wanted:
            meter.add(objective.step(sampler.sample()))
            setattr(self.progress, counter, done + 1)
            if self._stop() or (done + 1) % self._save_every == 0:
                meter.check(done + 1)
                self._save(sampler)
                self._show(name, done + 1, wanted)
                if self._stop():
                    raise self._interrupted()
        meter.check(wanted)
        return {f"{name}/{key}": value for key, value in meter.read().items()}

    def _publish(self, why: str) -> None:
        progress = self.progress
        about = Version(
            version=len(progress.rounds),
            episodes=progress.episodes,
            control_steps=progress.control_steps,
            critic_updates=progress.critic_updates,
            policy_updates=progress.policy_updates,
            time_s=time.time(),
            why=why,
        )
        self._versions.publish(about, self._policy.save, self._critic.save)

    # -- state

    def _enter(self, phase: Phase) -> None:
        """Go on to the next phase and save."""
        self._saved_stream = None
        self.progress.phase = phase
        self._save()

    def _save(self, sampler: Sampler | None = None) -> None:
        progress = self.progress
        progress.seconds = time.monotonic() - self._began
        progress.saves += 1
        state = {
            "progress": asdict(progress),
            "stream": None if sampler is None else sampler.state(),
            "critic": self._critic.state(),
            "policy": self._policy.state(),
            "torch_rng": torch.get_rng_state(),
        }
        write_state(self._folder.training, progress.saves, state)

    def _make_objectives(self) -> None:
        fresh, data = self._config.fresh_critic, self._replay.offline
        if fresh and data is None:
            raise ConfigError(
                "a fresh critic takes its statistics from offline data: give --offline, and a share above 0"
            )
        # A start brings everything but the robot.
        frames = no_frames(self._store.robot) if data is None else data.frames
        self._policy = self._start.policy_objective(frames, self._seed)
        self._critic = self._start.critic_objective(frames, None if data is None else data.proposals, self._seed, fresh)

    def _stream_seed(self, purpose: str) -> int:
        """One seed per round and purpose."""
        purposes = ("critic", "policy", "diagnosis")
        words = np.random.SeedSequence([self._seed, len(self.progress.rounds), purposes.index(purpose)])
        return int(words.generate_state(1, np.uint32)[0])

    def _interrupted(self) -> TrainingInterrupted:
        return TrainingInterrupted(
            f"stopped after {self.progress.episodes} episodes and {self.progress.critic_updates} critic updates, state saved "
            f"in {self._folder.training}: run the same command with --resume to go on"
        )

    # -- what is told

    @property
    def _robot_minutes(self) -> float:
        """Control steps of all episodes so far at the robot's rate."""
        return self.progress.control_steps / self._store.robot.action.rate_hz / 60

    def _told(self, metrics: Mapping[str, float]) -> Round:
        progress = self.progress
        count = len(progress.rounds[-1])
        last = set(progress.rounds[-1][-1:])
        newest = [record.info.get("version") for record in self._store.records() if record.id in last]
        out = len(progress.rounds) - 1
        played = newest[0] if newest and isinstance(newest[0], int) else out
        return Round(
            version=len(progress.rounds),
            episodes=progress.episodes,
            control_steps=progress.control_steps,
            robot_minutes=self._robot_minutes,
            success=float(np.mean(self._success[-count:])),
            rolling_success=float(np.mean(self._success[-_ROLLING:])),
            utd=progress.critic_updates / max(progress.decisions - progress.warm_decisions, 1),
            critic_updates=progress.critic_updates,
            policy_updates=progress.policy_updates,
            behaviour_age=out - played,
            seconds=time.monotonic() - self._began,
            metrics=dict(metrics),
        )


def _rewarded(frames: Frames, config: OnlineConfig) -> Frames:
    return frames.rewarded_by_success() if config.rewards == "success" else frames


def _offline(store: EpisodeStore | None, proposals: Proposals, config: OnlineConfig) -> Data | None:
    """The offline episodes with the frozen policy's candidates; None where none are used."""
    if store is None or not config.offline_share:
        return None
    return Data(_rewarded(load_frames(store), config), proposals.offline(store))
