"""Settings of a success classifier and of its training. The defaults are the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from steer.errors import ConfigError
from steer.observation import ObservationSpec
from steer.robot import RobotSpec


@dataclass(frozen=True)
class RewardConfig:
    """One classifier: what it looks at, which frames it learns from, and how an episode is judged."""

    keys: tuple[str, ...] = ()
    """Observation vectors and images to look at; all of the robot's unless given."""
    positive_frames: int = 1
    """Last frames of a successful episode that show success; more where a person's key ended it some time later."""
    gap_frames: int = 5
    """Frames before these that are neither shown as success nor as failure."""
    last_share: float = 0.5
    """Share of the failures in a batch that are the last frames of failed episodes, which is what is asked about later."""
    rule: Literal["last", "anywhere"] = "last"
    """An episode's score: mean probability of its last frames, or the highest anywhere, for worlds that go on after success."""
    calibration: float = 0.2
    """Share of the training episodes that are kept out to choose the threshold."""
    false_positives: float = 0.01
    """Share of failed calibration episodes that may pass the threshold: a false success teaches the wrong thing."""
    false_success_cost: float = 9.0
    """How many missed successes a false one outweighs; no threshold lies below cost / (1 + cost)."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the layers that join vectors and images."""
    channels: tuple[int, ...] = (32, 64, 64, 64)
    """Of the convolutions of each image, each halving its size."""
    image_size: int = 64
    """Images are reduced to squares of this size."""
    image_shift: int = 4
    """Images are moved by up to so many pixels while training."""
    vector_noise: float = 0.02
    """Standard deviation of noise on normalised vectors while training."""
    near_field_m: float = 0.04
    """Scale of the near-field entries of named displacements."""
    steps: int = 2000
    """Updates."""
    batch_size: int = 128
    """Frames per update, half of them of success."""
    learning_rate: float = 3e-4
    """AdamW."""
    weight_decay: float = 1e-2
    """AdamW."""

    def __post_init__(self) -> None:
        for name in ("positive_frames", "image_size", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.batch_size < 2 or self.gap_frames < 0 or self.image_shift < 0:
            raise ConfigError("batch_size must be at least 2, gap_frames and image_shift at least 0")
        if not 0 < self.calibration < 1 or not 0 <= self.last_share <= 1 or not 0 <= self.false_positives < 1:
            raise ConfigError(
                f"calibration {self.calibration}, last_share {self.last_share} and false_positives {self.false_positives} are "
                "shares: calibration must lie within (0, 1)"
            )
        if self.false_success_cost < 1:
            raise ConfigError(f"false_success_cost is {self.false_success_cost}, expected at least 1")
        if not self.hidden or min(*self.hidden, *self.channels, 1) < 1:
            raise ConfigError(f"hidden {self.hidden} and channels {self.channels}: expected positive widths")

    @property
    def least_threshold(self) -> float:
        """Where the expected cost of both errors is the same, if probabilities are what they say."""
        return self.false_success_cost / (1 + self.false_success_cost)

    def observation(self, robot: RobotSpec) -> ObservationSpec:
        """What the classifier of this robot looks at: single frames of these keys."""
        names = self.keys or robot.observation.keys
        return ObservationSpec(tuple(robot.observation[name] for name in names))
