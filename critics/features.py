"""What a critic sees of a chunk: the numbers themselves (`Raw`), and the poses that they lead to (`ReachedPoses`).

A network given only deltas has to learn to add them up before it can tell a grasp from a near miss. `ReachedPoses`
integrates the deltas from the measured pose and states where
every object named in the observation will then be, seen from the gripper, at two resolutions.

Differentiable in the actions. Inputs are in robot units (metres, radians), un-normalised; outputs are of order one.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from steer.action import ActionSpec
from steer.errors import ConfigError
from steer.spec import ArraySpec

FeatureName: TypeAlias = Literal["raw", "reached_poses"]

# Lengths over which a displacement is resolved: a grasp is decided within 2 cm, an approach within 5.
NEAR_M, FAR_M, PLANAR_M = 0.02, 0.05, 0.03


class Raw(nn.Module):
    """The chunk's numbers, each axis mapped from its bounds to [-1, 1]."""

    centre: Tensor
    half_range: Tensor

    def __init__(self, action: ActionSpec, steps: int) -> None:
        super().__init__()
        low, high = action.low.astype(np.float64), action.high.astype(np.float64)
        self.register_buffer("centre", torch.tensor((high + low) / 2, dtype=torch.float32), persistent=False)
        self.register_buffer("half_range", torch.tensor((high - low) / 2, dtype=torch.float32), persistent=False)
        self.state_size = 0
        self.action_size = steps * action.size

    def of_state(self, state: Float[Tensor, "b n"]) -> Float[Tensor, "b f"]:
        """Further features of the raw state: none."""
        return state[:, :0]

    def forward(self, state: Float[Tensor, "b n"], actions: Float[Tensor, "b k e a"]) -> Float[Tensor, "b k f"]:
        """Features of every candidate."""
        return ((actions - self.centre) / self.half_range).flatten(2)


class ReachedPoses(nn.Module):
    """`Raw`, and beside it the scene as the gripper will see it half-way through and at the end of the prefix.

    With d_t the sum of the chunk's translations up to step t, y_t the yaw reached, Rot(v, y) the vector in the gripper's frame:

        now:            tanh(Rot(point - ee, y_0)_xy / 2 cm)                                  every point in space
        t = E/2 and E:  tanh(Rot(point - ee - d_t, y_t) / 2 cm), the same / 5 cm               every point in space
                        tanh((point - ee - d_t)_xy / 3 cm), in the world's frame               every point in the plane
        t = E:          sin, cos of N (heading - y_E), N its symmetry                          every heading
    """

    def __init__(self, state: ArraySpec, action: ActionSpec, steps: int) -> None:
        super().__init__()
        self.raw = Raw(action, steps)
        self.scene = Scene.parse(state)
        self.translation, self.yaw = _delta_axes(action)
        self.times = sorted({math.ceil(steps / 2), steps})
        spatial, planar = len(self.scene.points), len(self.scene.planar)
        self.state_size = 2 * spatial
        self.action_size = (
            self.raw.action_size + len(self.times) * (6 * spatial + 2 * planar) + 2 * len(self.scene.headings)
        )

    def of_state(self, state: Float[Tensor, "b n"]) -> Float[Tensor, "b f"]:
        """Where the points are now, in the gripper's frame."""
        if not self.scene.points:
            return state[:, :0]
        yaw = state[:, self.scene.yaw]
        now = [_rotate(self._displacement(state, point), yaw)[..., :2] for point in self.scene.points]
        return torch.tanh(torch.cat(now, -1) / NEAR_M)

    def forward(self, state: Float[Tensor, "b n"], actions: Float[Tensor, "b k e a"]) -> Float[Tensor, "b k f"]:
        """Features of every candidate."""
        moved = actions[..., self.translation].cumsum(2)
        turned = actions[..., self.yaw].cumsum(2) + state[:, self.scene.yaw, None, None]
        features = [self.raw(state, actions)]
        for t in self.times:
            features += self._seen_at(state, moved[:, :, t - 1], turned[:, :, t - 1])
        features += [_heading(state, heading, turned[:, :, -1]) for heading in self.scene.headings]
        return torch.cat(features, -1)

    def _seen_at(self, state: Tensor, moved: Float[Tensor, "b k 3"], yaw: Float[Tensor, "b k"]) -> list[Tensor]:
        seen = []
        for point in self.scene.points:
            relative = _rotate(self._displacement(state, point)[:, None] - moved, yaw)
            seen += [torch.tanh(relative / NEAR_M), torch.tanh(relative / FAR_M)]
        for place in self.scene.planar:
            seen.append(torch.tanh((self._displacement(state, place)[:, None] - moved[..., :2]) / PLANAR_M))
        return seen

    def _displacement(self, state: Float[Tensor, "b n"], point: tuple[int, ...]) -> Float[Tensor, "b d"]:
        return state[:, list(point)] - state[:, list(self.scene.ee[: len(point)])]


@dataclass(frozen=True)
class Heading:
    """Entries of sin and cos of `fold` times an object's yaw; a cube, the same after a quarter turn, has fold 4."""

    sin: int
    cos: int
    fold: int


@dataclass(frozen=True)
class Scene:
    """Positions of named entries in a state vector: the end effector, and everything that it may move towards."""

    ee: tuple[int, int, int]
    yaw: int
    points: tuple[tuple[int, int, int], ...]
    planar: tuple[tuple[int, int], ...]
    headings: tuple[Heading, ...]

    @classmethod
    def parse(cls, spec: ArraySpec) -> Scene:
        """Read the entry names "thing.x". Displacements ("a_from_b.x") are no places and are left out."""
        at = {name: i for i, name in enumerate(spec.names)}
        missing = [name for name in ("ee.x", "ee.y", "ee.z", "ee.yaw") if name not in at]
        if missing:
            raise ConfigError(
                f"reached_poses: {spec.name!r} has no entries {missing}, it has {list(spec.names) or 'no names'}: "
                "name the end effector's entries so, or use the features 'raw'"
            )
        things = dict.fromkeys(name.rpartition(".")[0] for name in spec.names)
        others = [thing for thing in things if thing and thing != "ee" and "_from_" not in thing]
        placed = [thing for thing in others if f"{thing}.x" in at and f"{thing}.y" in at]
        if not placed:
            raise ConfigError(
                f"reached_poses: no entry of {spec.name!r} says where an object is ('cube.x', 'cube.y'): it has "
                f"{list(spec.names)}; name them so, or use the features 'raw'"
            )
        return cls(
            ee=(at["ee.x"], at["ee.y"], at["ee.z"]),
            yaw=at["ee.yaw"],
            points=tuple((at[f"{t}.x"], at[f"{t}.y"], at[f"{t}.z"]) for t in placed if f"{t}.z" in at),
            planar=tuple((at[f"{t}.x"], at[f"{t}.y"]) for t in placed if f"{t}.z" not in at),
            headings=tuple(heading for thing in others for heading in _headings(thing, at)),
        )


def make_features(name: FeatureName, state: ArraySpec, action: ActionSpec, steps: int) -> Raw | ReachedPoses:
    """Features by name, for chunks of `steps` scored steps."""
    if name == "raw":
        return Raw(action, steps)
    return ReachedPoses(state, action, steps)


def _headings(thing: str, at: dict[str, int]) -> list[Heading]:
    """Pairs "thing.sin4yaw", "thing.cos4yaw"; without a number the fold is 1."""
    found = []
    for name, sin in at.items():
        match = re.fullmatch(re.escape(thing) + r"\.sin(\d*)yaw", name)
        cos = at.get(f"{thing}.cos{match[1]}yaw") if match else None
        if match and cos is not None:
            found.append(Heading(sin, cos, int(match[1] or 1)))
    return found


def _delta_axes(action: ActionSpec) -> tuple[list[int], int]:
    """Positions of dx, dy, dz (m) and dyaw (rad), or a `ConfigError` that says what stands in the way."""
    units = {axis.name: axis.unit for axis in action.axes}
    wanted = {"dx": "m", "dy": "m", "dz": "m", "dyaw": "rad"}
    wrong = [f"{name} in {unit}" for name, unit in wanted.items() if units.get(name) != unit]
    if wrong:
        raise ConfigError(
            f"reached_poses: the action has no axis {', '.join(wrong)}; its axes are {units}: use the features 'raw'"
        )
    if action.kind != "delta" or action.frame == "tool":
        raise ConfigError(
            f"reached_poses: actions are {action.kind!r} in the frame {action.frame!r}, expected 'delta' in a fixed frame: "
            "use the features 'raw'"
        )
    return [action.names.index(name) for name in ("dx", "dy", "dz")], action.names.index("dyaw")


def _rotate(vector: Float[Tensor, "*n 3"], yaw: Float[Tensor, "*n"]) -> Float[Tensor, "*n 3"]:
    """A vector of the world in the frame of a gripper turned by `yaw` about the vertical."""
    sin, cos = torch.sin(yaw), torch.cos(yaw)
    x, y, z = vector.unbind(-1)
    return torch.stack((cos * x + sin * y, cos * y - sin * x, z), -1)


def _heading(state: Float[Tensor, "b n"], heading: Heading, yaw: Float[Tensor, "b k"]) -> Float[Tensor, "b k 2"]:
    """sin and cos of fold * (the object's yaw - the gripper's)."""
    sin, cos = state[:, heading.sin, None], state[:, heading.cos, None]
    own_sin, own_cos = torch.sin(heading.fold * yaw), torch.cos(heading.fold * yaw)
    return torch.stack((sin * own_cos - cos * own_sin, cos * own_cos + sin * own_sin), -1)
