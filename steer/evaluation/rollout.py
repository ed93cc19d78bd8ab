"""One episode of an environment under a steering, synchronously: ask, execute E actions, ask again.

Contract: everything random is derived from the episode's seed, so the same seed gives the same initial state and, for any
number of candidates, the same candidate 0. Knows nothing of processes, statistics or files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8

from steer.data.episode import Episode
from steer.data.trace import Choice, trace_arrays
from steer.decision import Decision, Request
from steer.environment import Environment
from steer.errors import ConfigError
from steer.history import History
from steer.observation import ObservationSpec
from steer.robot import Frame
from steer.selection import Selection
from steer.spec import Array
from steer.steering import Steering

# Separates the seeds of decisions from other streams that a seed may feed.
_DECISION_STREAM = 0xDEC1


@dataclass(frozen=True)
class RolloutSettings:
    """How an episode is played."""

    num_samples: int = 8
    """K, candidates per decision."""
    temperature: float = 1.0
    """The policy's noise scale."""
    execute: int = 0
    """E, steps run of each chunk; 0 runs the whole chunk."""
    selection: Selection = Selection()
    """How one candidate is chosen."""
    render_every: int = 0
    """Keep a picture every so many steps; 0 keeps none."""

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ConfigError(f"{self.num_samples} candidates were asked for: ask for at least 1")
        if self.execute < 0:
            raise ConfigError(f"execute is {self.execute}: give the steps to run of each chunk, or 0 for all of it")
        if self.render_every < 0:
            raise ConfigError(f"render_every is {self.render_every}: give a number of steps, or 0 for no pictures")


@dataclass(frozen=True)
class DecisionRecord:
    """One decision without its candidates: values float32[K], timings in seconds, `wait_s` as the caller saw it."""

    step: int
    values: Float[np.ndarray, " k"]
    scored: bool
    chosen: int
    wait_s: float
    timings_s: Mapping[str, float] = field(default_factory=dict)
    cuts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rollout:
    """A played episode. frames: uint8[n, h, w, 3] where pictures were asked for."""

    seed: int
    episode: Episode
    decisions: tuple[DecisionRecord, ...]
    success: bool
    total_return: float
    length: int
    rate_hz: float
    frames: UInt8[np.ndarray, "n h w 3"] | None = None


def decision_seed(episode_seed: int, index: int) -> int:
    """The seed of an episode's decision number `index`: 63 bits, so that it fits a signed integer on the wire."""
    words = np.random.SeedSequence([episode_seed, _DECISION_STREAM, index]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def rollout(environment: Environment, steering: Steering, seed: int, settings: RolloutSettings) -> Rollout:
    """Play the episode of `seed` to its end. Raises what environment and steering raise."""
    recording = _Recording(environment, steering.observation, seed, settings)
    history = History(steering.observation)
    history.push(recording.frames[0])
    while not recording.ended():
        request = Request(
            observation=history.observation(),
            task=environment.task,
            seed=decision_seed(seed, len(recording.decisions)),
            num_samples=settings.num_samples,
            temperature=settings.temperature,
            execute=settings.execute,
            selection=settings.selection,
        )
        start = time.perf_counter()
        decision = steering.infer(request)
        recording.decide(decision, time.perf_counter() - start)
        for offset in range(decision.executed):
            history.push(recording.step(decision, offset))
            if recording.ended():
                break
    return recording.rollout()


class _Recording:
    """What an episode leaves behind, step by step.

    Beside the actions that were sent it keeps where each came from, in the form in which a robot's recorder does
    (`steer.data.trace`).
    """

    def __init__(self, environment: Environment, wanted: ObservationSpec, seed: int, settings: RolloutSettings) -> None:
        self._environment = environment
        self._seed = seed
        self._settings = settings
        self.frames: list[Frame] = [environment.reset(seed)]
        self.decisions: list[DecisionRecord] = []
        self.terminated = self.truncated = self.success = False
        self._rewards: list[float] = []
        self._choices: list[Choice] = []
        self._sent: list[Array] = []
        self._pictures: list[Array] = []
        self._take_picture()

    def ended(self) -> bool:
        return self.terminated or self.truncated

    def decide(self, decision: Decision, wait_s: float) -> None:
        """Note a decision before its actions run."""
        self.decisions.append(
            DecisionRecord(
                step=len(self._rewards),
                values=np.asarray(decision.values, np.float32),
                scored=decision.scores.size > 0,
                chosen=decision.chosen,
                wait_s=wait_s,
                timings_s=dict(decision.timings_s),
                cuts=decision.cuts,
            )
        )

    def step(self, decision: Decision, offset: int) -> Frame:
        """Run one action of the chosen chunk."""
        action = decision.actions[offset]
        outcome = self._environment.step(action)
        self.frames.append(outcome.frame)
        self._rewards.append(outcome.reward)
        self.terminated, self.truncated = outcome.terminated, outcome.truncated
        # An environment may report success in passing and go on; the episode then still counts.
        self.success = self.success or outcome.success
        self._sent.append(action)
        self._choices.append(Choice.of(decision, offset, len(self.decisions) - 1))
        self._take_picture()
        return outcome.frame

    def rollout(self) -> Rollout:
        pictures = np.stack(self._pictures) if self._pictures else None
        return Rollout(
            seed=self._seed,
            episode=self._episode(),
            decisions=tuple(self.decisions),
            success=self.success,
            total_return=float(sum(self._rewards)),
            length=len(self._rewards),
            rate_hz=self._environment.robot.action.rate_hz,
            frames=pictures,
        )

    def _episode(self) -> Episode:
        keys = self._environment.robot.observation.keys
        action = self._environment.robot.action
        steps, facts = trace_arrays(self._choices, [False] * len(self._choices), action.size)
        return Episode(
            observations={key: np.stack([frame.arrays[key] for frame in self.frames]) for key in keys},
            actions=np.stack(self._sent).astype(np.float32),
            rewards=np.asarray(self._rewards, np.float32),
            terminated=self.terminated,
            truncated=self.truncated,
            success=self.success,
            success_source="simulator",
            task=self._environment.task,
            source="policy" if self._settings.num_samples == 1 else "steered",
            steps=steps,
            info={
                "seed": self._seed,
                "num_samples": self._settings.num_samples,
                "temperature": self._settings.temperature,
                "stopped_by": "end",
                **facts,
            },
        )

    def _take_picture(self) -> None:
        every = self._settings.render_every
        if every and (len(self._rewards) % every == 0 or self.ended()):
            self._pictures.append(np.asarray(self._environment.render(), np.uint8))
