"""The scripted expert: picks the cube up and puts it on the disc, in several ways, and fails in named ways on purpose.

Good and bad behaviour side by side is what a critic learns from. It sees the observation alone (float32[20] of
`sim.pick_place`), never the simulator, and answers with one action of `robots.panda_arm` per tick.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float

from robots.panda_arm import MAX_ROTATION_RAD, MAX_TRANSLATION_M, PANDA_ACTION
from sim.expert_modes import Fault, Mode, Phase, draw_mode, draw_strategy, spoil
from sim.pick_place import LOW_M, STATE_SPEC

RETRY_PROBABILITY: Final = 0.35

# Noise on the actions, as a share of the largest step of each axis; halved while the fingers move.
NOISE: Final = 0.08
NOISE_DEVIATION: Final = NOISE * np.array(
    [MAX_TRANSLATION_M] * 3 + [0.5 * MAX_ROTATION_RAD] * 2 + [0.7 * MAX_ROTATION_RAD, 0.0]
)
FINGER_PHASES: Final = (Phase.CLOSE, Phase.OPEN)
EMPTY_PHASES: Final = (Phase.APPROACH, Phase.DESCEND, Phase.OPEN, Phase.RISE)

RISEN_M: Final = 0.14
# Arrival counts from here on; a way point may be cut, the places of grasp and release may not.
WAYPOINT_M: Final = 0.015
REACHED_M: Final = 0.008
PRECISE_PHASES: Final = (Phase.DESCEND, Phase.LOWER)
PLACED_M: Final = 0.06
LIFTED_M: Final = 0.04
HELD_M: Final = 0.02
JUDGE_TICKS: Final = 6
# The fingers take a fixed time; a movement ends when it has arrived, or is given up: a finger may stand on the cube.
FINGER_TICKS: Final = {Phase.CLOSE: 4, Phase.OPEN: 3}
PATIENCE_TICKS: Final = {Phase.DESCEND: 15}
DEFAULT_PATIENCE_TICKS: Final = 40


@dataclass(frozen=True)
class View:
    """What the expert reads from an observation."""

    ee_m: Float[np.ndarray, " 3"]
    angles_rad: Float[np.ndarray, " 3"]
    cube_m: Float[np.ndarray, " 3"]
    cube_yaw_rad: float
    goal_m: Float[np.ndarray, " 2"]
    closed: bool

    @classmethod
    def of(cls, state: Float[np.ndarray, " 20"]) -> View:
        def vector(first: str, size: int) -> Float[np.ndarray, " n"]:
            start = STATE_SPEC.index(first)
            return state[start : start + size].astype(np.float64)

        sine, cosine = vector("cube.sin4yaw", 2)
        return cls(
            vector("ee.x", 3),
            vector("ee.roll", 3),
            vector("cube.x", 3),
            math.atan2(sine, cosine) / 4,
            vector("goal.x", 2),
            bool(vector("gripper.command", 1)[0] < 0),
        )

    @property
    def holds(self) -> bool:
        """Is the cube between closed fingers?"""
        return self.closed and bool(np.linalg.norm(self.cube_m - self.ee_m) < HELD_M)

    @property
    def placed(self) -> bool:
        return bool(np.linalg.norm(self.goal_m - self.cube_m[:2]) < PLACED_M and self.cube_m[2] < LOW_M)


class Expert:
    """Acts for one episode: `act` once per tick, in order.

    mode: the failure, drawn from the mixture when None.
    retry: does it notice its failure and start again without one, drawn with `RETRY_PROBABILITY` when None.
    """

    def __init__(self, rng: np.random.Generator, mode: Mode | None = None, retry: bool | None = None) -> None:
        self._rng = rng
        self.mode = draw_mode(rng) if mode is None else mode
        self.retry = bool(rng.random() < RETRY_PROBABILITY) if retry is None else retry
        self.retried = False
        self.strategy, self._fault = spoil(draw_strategy(rng), self.mode, self.retry, rng)
        self._notices_at_lift = self.retry and bool(rng.random() < 0.5)
        self.phase = Phase.APPROACH
        self._tick = 0  # of the phase
        self._grasp_m = np.zeros(2)
        self._yaw_rad = 0.0
        self._way_m = 0.0

    @classmethod
    def midway(cls, rng: np.random.Generator, state: Float[np.ndarray, " 20"]) -> Expert:
        """One that makes no mistakes and goes on from here: carries a cube that is in its hand, else begins with the approach."""
        expert = cls(rng, Mode.CLEAN, retry=True)
        view = View.of(state)
        if view.holds:
            expert.phase = Phase.LIFT
            expert._grasp_m = view.ee_m[:2].copy()
            expert._yaw_rad = float(view.angles_rad[2])
        return expert

    def act(self, state: Float[np.ndarray, " 20"]) -> Float[np.ndarray, " 7"]:
        """The next action, within the bounds of the action spec."""
        view = View.of(state)
        if self.phase in (Phase.APPROACH, Phase.DESCEND):
            self._aim(view)
        action = self._noise()
        if not self._fault.stalls(self.phase, self._tick):
            action[:6] += self._move(view)
        action[6] = 1.0 if self._open(view) else -1.0
        self._tick += 1
        self._proceed(view)
        return PANDA_ACTION.clip(action.astype(np.float32))[0]

    def _aim(self, view: View) -> None:
        """Where to grasp and how to turn; fixed once the descent has begun, as the hand may push the cube."""
        if self.phase is Phase.DESCEND and self._tick > 0:
            return
        self._yaw_rad = view.cube_yaw_rad if self.strategy.align else 0.0
        along_fingers = np.array([math.sin(self._yaw_rad), -math.cos(self._yaw_rad)])
        self._grasp_m = view.cube_m[:2] + self.strategy.grasp_offset_m + self._fault.beside_m * along_fingers

    def _target(self, view: View) -> Float[np.ndarray, " 3"]:
        """Where the hand should be in this phase, m."""
        plan = self.strategy
        over_cube = self.phase <= Phase.LIFT
        place = self._grasp_m if over_cube else view.goal_m + plan.place_offset_m
        height = {
            Phase.APPROACH: plan.hover_m,
            Phase.DESCEND: plan.grasp_m,
            Phase.CLOSE: plan.grasp_m,
            Phase.LIFT: plan.lift_m,
            Phase.TRANSPORT: plan.lift_m,
            Phase.LOWER: plan.release_m,
            Phase.OPEN: plan.release_m,
            Phase.RISE: RISEN_M,
        }[self.phase]
        return np.array([*place, height])

    def _move(self, view: View) -> Float[np.ndarray, " 6"]:
        """Straight towards the target, the fastest axis at the strategy's speed; the wrist turns along."""
        way = self._target(view) - view.ee_m
        longest = self.strategy.speed * MAX_TRANSLATION_M
        step = way * min(1.0, longest / max(float(np.abs(way).max()), 1e-9))
        turn = np.array([0.0, 0.0, self._yaw_rad]) - view.angles_rad
        fastest = self.strategy.speed * MAX_ROTATION_RAD
        return np.concatenate([step, np.clip(turn, -fastest, fastest)])

    def _noise(self) -> Float[np.ndarray, " 7"]:
        scale = 0.5 if self.phase in FINGER_PHASES else 1.0
        return scale * NOISE_DEVIATION * self._rng.standard_normal(PANDA_ACTION.size)

    def _open(self, view: View) -> bool:
        if self.phase in EMPTY_PHASES:
            return True
        if self.phase is Phase.TRANSPORT:
            return self._share_of_way(view) >= self._fault.open_after
        return self.phase is Phase.LOWER and self._fault.open_after < 1.0

    def _share_of_way(self, view: View) -> float:
        """How much of the way to the goal is behind; the way is measured at the transport's first tick."""
        left = float(np.linalg.norm(self._target(view)[:2] - view.ee_m[:2]))
        if self._tick == 0:
            self._way_m = max(left, 1e-9)
        return 1.0 - left / self._way_m

    def _proceed(self, view: View) -> None:
        """Go on to the next phase where this one is over, or start again where a failure is noticed."""
        if self.phase is Phase.RISE:
            if self.retry and self._tick >= JUDGE_TICKS and not view.placed:
                self._start_again()
        elif self._over(view):
            if self.phase is Phase.LIFT and self._notices_at_lift and view.cube_m[2] < LIFTED_M:
                self._start_again()
            else:
                self._enter(Phase(self.phase + 1))

    def _over(self, view: View) -> bool:
        if self._fault.stalls(self.phase, self._tick):
            return False
        if self.phase in FINGER_TICKS:
            return self._tick >= FINGER_TICKS[self.phase]
        near_m = REACHED_M if self.phase in PRECISE_PHASES else WAYPOINT_M
        arrived = float(np.linalg.norm(self._target(view) - view.ee_m)) < near_m
        return arrived or self._tick >= PATIENCE_TICKS.get(self.phase, DEFAULT_PATIENCE_TICKS)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._tick = 0

    def _start_again(self) -> None:
        """A new attempt without a fault, from where the hand is."""
        self.retried = True
        self._notices_at_lift = True
        self.strategy, self._fault = draw_strategy(self._rng), Fault()
        self._enter(Phase.APPROACH)
