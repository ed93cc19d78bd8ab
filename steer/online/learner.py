"""The learner: round after round it waits for episodes, updates critic and policy, and publishes both.

    gather ─> critic updates (UTD x decisions; an edit actor learns along) ─> policy updates ─> publish ─> gather ...

Updates follow from data, so their number is not known beforehand and `steer.training.loop` does not fit; what is saved, metered,
interrupted and restored is the same. A round that is cut anywhere goes on from its last saved update with the very losses it
would have had, as long as the store still has the episodes it had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import numpy as np
import structlog
import torch

from steer import registry
from steer.data.frames import no_frames
from steer.data.store import EpisodeStore
from steer.errors import ConfigError
from steer.online.actor import Source
from steer.online.config import OnlineConfig
from steer.online.experience import Experience
from steer.online.improve import policy_sampler
from steer.online.processes import Processes
from steer.online.progress import Phase, Progress, Round
from steer.online.proposals import Proposals
from steer.online.publish import Version, Versions
from steer.online.refused import refused
from steer.online.run_folder import OnlineFolder
from steer.online.start import Start
from steer.policy import Policy
from steer.training.loop import TrainingInterrupted
from steer.training.meter import Meter
from steer.training.objective import Objective, Sampler
from steer.training.state import read_state, write_state

_log = structlog.get_logger(__name__)
_DIAGNOSED = 1024
_ROLLING = 50
_PURPOSES = ("critic", "policy", "diagnosis")


class Learner:
    """One run, in one process or in several that share its work (`steer.online.processes`)."""

    def __init__(
        self,
        start: Start,
        config: OnlineConfig,
        folder: OnlineFolder,
        store: EpisodeStore,
        offline: EpisodeStore | None,
        source: Source | None,
        *,
        seed: int = 0,
        save_every: int = 500,
        stop: Callable[[], bool] = lambda: False,
        processes: Processes | None = None,
    ) -> None:
        """source: of the first process; the others wait for it. stop: asked after every update and episode; once it is true,
        the state is saved and the run ends.
        """
        config.check_offline(offline is not None)
        self._start, self._config, self._folder, self._store, self._source = start, config, folder, store, source
        self._seed, self._save_every, self._stop = seed, save_every, stop
        self._processes = processes or Processes.of("cpu")
        self.listen(lambda _: None, lambda *_: None)
        self._versions = Versions(folder.path)
        proposals = Proposals(start.base(), folder.proposals, config)
        self._experience = Experience(store, offline, proposals, config, self._processes)
        self._replay = self._experience.replay
        self.progress = Progress()
        self._began = time.monotonic()
        self._saved_stream: Any = None
        self._make_objectives()

    def listen(self, tell: Callable[[Round], None], show: Callable[[str, int, int], None]) -> None:
        """tell: called with each finished round. show: with what is being done, how much of it is done, and of how much."""
        self._tell, self._show = tell, show

    def run(self, episodes: int, robot_minutes: float = math.inf) -> None:
        """Go on until the run has so many episodes, or the robot has worked so long.

        Raises `TrainingInterrupted` after `stop()`; the state is then saved.
        """
        progress = self.progress
        if not progress.rounds and progress.phase == "gather":
            self._publish("the start")
        while progress.phase != "gather" or (progress.episodes < episodes and self._robot_minutes < robot_minutes):
            self._round(episodes)

    def resume(self) -> None:
        """Go back to the last saved state, and to the data that it was learning from."""
        _, state = read_state(self._folder.training)
        self.progress = Progress.read(state["progress"], self._folder.training)
        self._began = time.monotonic() - self.progress.seconds
        for number, ids in enumerate(self.progress.rounds):
            ids[:] = self._experience.readable(ids)
            if ids:
                self._experience.take(number, ids, self._student(number))
        for name, objective in self._objectives.items():
            objective.restore(state[name])
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
            metrics.update(self._learn())
            self._enter("policy")
        if progress.phase == "policy":
            metrics.update(self._improve())
            self._publish(f"round {len(progress.rounds)}")
            self._tell(self._told(metrics))
            self._enter("gather")

    def _gather(self, until: int) -> None:
        """Wait for episodes and take them in."""
        progress, experience = self.progress, self._experience
        warm = max(0, self._config.warmup_episodes - progress.episodes)
        steered = not warm or self._config.warmup_behaviour == "steered"
        self._show("episodes", progress.episodes, until)
        if why := refused(self._folder.path).get(progress.published):
            _log.warning("the newest version is refused, episodes are played by an earlier one", why=why)
        if self._source is not None:
            self._source.gather(until, progress.published, steered, partial(self._waiting, until))
        if self._processes.any(self._stop()):
            self._save()
            raise self._interrupted()
        experience.refresh()
        experience.relabel()
        ids = experience.beyond(progress.rounds)
        lengths = experience.take(len(progress.rounds), ids, self._student(len(progress.rounds))).frames.lengths
        decisions = np.ceil(lengths / self._start.executed).astype(np.int64)
        progress.rounds.append(ids)
        progress.control_steps += int(lengths.sum())
        progress.decisions += int(decisions.sum())
        if not self._config.fresh_critic:
            # A fresh one must learn from them: until then it would steer by chance, or worse.
            progress.warm_decisions += int(decisions[:warm].sum())

    def _waiting(self, until: int) -> bool:
        """Asked while episodes come: shows how many there are; true when no more are wanted."""
        self._store.refresh()
        self._show("episodes", len(self._store), until)
        return self._stop()

    def _student(self, number: int) -> Callable[[], Policy]:
        """Loads the policy of a version, where this process learns."""
        device = "" if self._processes.device.type == "cpu" else f"?device={self._processes.device}"
        return partial(registry.policy, f"{self._versions.folder(number) / 'policy'}{device}")

    def _diagnose(self) -> dict[str, float]:
        """Before anything was learnt from the new data: how much better is the critic on what it has replayed?"""
        newest = self._experience.newest
        assert newest is not None
        seed = self._stream_seed("diagnosis")
        fresh = self._start.transitions(_DIAGNOSED, newest.frames, newest.proposals, seed)
        replayed = self._replay.sampler(self._start.transitions, _DIAGNOSED, seed)
        return {
            "td_error_fresh": self._critic.td_error(fresh.sample()),
            "td_error_replayed": self._critic.td_error(replayed.sample()),
            "parameter_norm": self._critic.parameter_norm(),
            "interventions": float(newest.frames.flag("intervention").sum() / newest.frames.lengths.sum()),
            "held": float(newest.frames.flag("held").sum() / newest.frames.lengths.sum()),
        }

    def _learn(self) -> dict[str, float]:
        """The critic's updates of this round."""
        config, seed = self._config, self._stream_seed("critic")
        sampler = self._replay.sampler(self._start.transitions, config.critic_batch_size, seed)
        return self._update("critic", sampler, round(config.utd * self.progress.counted_decisions))

    def _improve(self) -> dict[str, float]:
        """The policy's updates of this round; none while nothing has succeeded yet."""
        assert self._replay.online is not None
        config, progress = self._config, self.progress
        wanted = round(config.policy_utd * progress.counted_decisions)
        if not (config.imitates or config.climbs) or wanted <= progress.policy_updates:
            return {}
        critic = self._critic.critic()
        refiner = registry.refiner(config.refine, critic) if config.refine and config.climbs else None
        sampler = policy_sampler(
            config,
            self._start.policy_batch_size,
            self._replay,
            critic,
            refiner,
            self._start.chunks,
            self._stream_seed("policy"),
        )
        if sampler is None:
            return {}
        return self._update("policy", sampler, wanted)

    def _update(self, name: Literal["critic", "policy"], sampler: Sampler, wanted: int) -> dict[str, float]:
        """Updates until there were `wanted` of this kind in all; the means of their metrics."""
        objective, meter, counter = self._objectives[name], Meter(), f"{name}_updates"
        self._continue(sampler)
        while (done := getattr(self.progress, counter)) < wanted:
            meter.add(objective.step(sampler.sample()))
            setattr(self.progress, counter, done + 1)
            self._show(name, done + 1, wanted)
            stop = self._processes.any(self._stop())
            if stop or (done + 1) % self._save_every == 0:
                meter.check(done + 1)
                self._save(sampler)
                if stop:
                    raise self._interrupted()
        meter.check(wanted)
        return {f"{name}/{key}": value for key, value in meter.read().items()}

    def _continue(self, sampler: Sampler) -> None:
        """Go on in the stream of a round that was cut, where its data are still what they were."""
        saved, self._saved_stream = self._saved_stream, None
        if saved is None:
            return
        try:
            sampler.restore(saved)
        except ConfigError as error:
            _log.warning("this round's data have changed since, drawing its batches anew", reason=str(error))

    def _publish(self, why: str) -> None:
        progress = self.progress
        if self._processes.first:
            about = Version(
                version=len(progress.rounds),
                episodes=progress.episodes,
                control_steps=progress.control_steps,
                critic_updates=progress.critic_updates,
                policy_updates=progress.policy_updates,
                time_s=time.time(),
                why=why,
            )
            # Before its first update an edit actor is noise.
            learnt = self._config.edits and progress.critic_updates >= self._config.edit_every
            save_edits = self._critic.save_edits if learnt else None
            out = self._versions.publish(about, self._policy.save, self._critic.save, save_edits)
            progress.critics[about.version :] = [out.critic]
        # The others load the version as the next round's student.
        self._processes.wait()

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
        if not self._processes.first:
            return
        state = {
            "progress": asdict(progress),
            "stream": None if sampler is None else sampler.state(),
            "torch_rng": torch.get_rng_state(),
            **{name: objective.state() for name, objective in self._objectives.items()},
        }
        write_state(self._folder.training, progress.saves, state)

    def _make_objectives(self) -> None:
        config, data = self._config, self._replay.offline
        # A start brings everything but the robot.
        frames = no_frames(self._store.robot) if data is None else data.frames
        proposals = None if data is None else data.proposals
        self._policy = self._start.policy_objective(frames, self._seed)
        self._critic = self._start.critic_objective(frames, proposals, self._seed, config.fresh_critic)
        self._objectives: dict[str, Objective] = {"critic": self._critic, "policy": self._policy}
        if config.edits:
            self._critic.learn_edits(config.edit_scale, config.edit_learning_rate, config.edit_every, self._seed)
        for objective in self._objectives.values():
            self._processes.place(objective)

    def _stream_seed(self, purpose: str) -> int:
        """One seed per round and purpose."""
        words = np.random.SeedSequence([self._seed, len(self.progress.rounds), _PURPOSES.index(purpose)])
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
        progress, experience = self.progress, self._experience
        newest = progress.rounds[-1]
        played = progress.version_of(experience.record(newest[-1]).info) if newest else None
        return Round(
            version=len(progress.rounds),
            episodes=progress.episodes,
            control_steps=progress.control_steps,
            robot_minutes=self._robot_minutes,
            success=experience.success(len(newest)),
            rolling_success=experience.success(_ROLLING),
            utd=progress.critic_updates / max(progress.counted_decisions, 1),
            critic_updates=progress.critic_updates,
            policy_updates=progress.policy_updates,
            behaviour_age=None if played is None else len(progress.rounds) - 1 - played,
            seconds=time.monotonic() - self._began,
            metrics=dict(metrics),
        )
