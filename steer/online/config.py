"""`OnlineConfig`: every number of fine-tuning, and the presets, which are nothing but other numbers. Imports no torch.

The unit of experience is the decision: a chunk of E executed control steps is one transition of the critic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from steer.errors import ConfigError

Improve = Literal["success", "pa-rl", "both", "edit", "edit+success", "none"]

# Slopes of the best batch size and learning rate over UTD, shared over tasks: the means of the two suites fitted in "Value-based
# deep RL scales predictably" (Rybkin et al. 2025, arXiv 2502.04327): -0.49 and -0.31, -0.32 and -0.285.
_BATCH_SLOPE, _RATE_SLOPE = -0.40, -0.30
_REFERENCE_BATCH, _REFERENCE_RATE = 256, 3e-4


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """One way of fine-tuning. The defaults are the preset `calql`; in brackets what was published where it differs."""

    conservative: bool = True
    """Keep the critic's conservative term; without it, plain temporal differences. [WSRL, RLPD: without]"""
    fresh_critic: bool = False
    """Start the critic anew: of --critic only the settings are used. [RLPD]"""
    members: int = 0
    """Members of a fresh critic; 0: as many as --critic has. [WSRL, RLPD, PA-RL: 10]"""
    target_subset: int = 0
    """Members whose lowest value is backed up, drawn anew each update; 0: as the critic was trained. [WSRL, RLPD: 2]"""
    offline_share: float = 0.5
    """Share of offline transitions in each of the critic's batches. [Cal-QL, RLPD: 0.5, WSRL: 0]"""
    warmup_episodes: int = 0
    """Episodes played before the first update. They are due none themselves, but where the critic is a fresh one, which must have
    learnt before it steers. [WSRL: 5000 steps]"""
    warmup_behaviour: Literal["steered", "policy"] = "steered"
    """Who plays them: the policy steered by the critic that it starts with, or the policy alone."""
    utd: float = 1.0
    """Critic updates per decision. [Cal-QL, PA-RL: 1, WSRL: 4, RLPD: 20]"""
    batch_size: int = 0
    """Transitions per critic update; 0: 256 at UTD 1, and less with more updates (fitted power law). [256]"""
    learning_rate: float = 0.0
    """Of the critic; 0: 3e-4 at UTD 1, and less with more updates (fitted power law). [3e-4]"""
    improve: Improve = "success"
    """What gets better beside the critic. The policy, fitted to executed chunks of successful episodes (success), to actions that
    the critic prefers (pa-rl), or to both; an actor that edits its candidates (edit), alone or with success; or nothing (none)."""
    policy_utd: float = 2.0
    """Policy updates per decision. [PA-RL: 1, WSRL: 1]"""
    policy_batch_size: int = 0
    """Chunks per policy update; 0: as many as the policy was trained with. [256]"""
    policy_learning_rate: float = 0.0
    """Constant; 0: the rate that the policy was trained with. Lower ones stay close to what it did before, its mistakes among it.
    [PA-RL: diffusion 5e-5, tokens 1e-4, OpenVLA 2e-5]"""
    policy_average: float = 0.999
    """Decay of the average of the weights that is played and published. It begins as the policy was, so that few updates move it
    little."""
    base_samples: int = 8
    """Candidates of the frozen policy that the run starts with, per state. They keep the critic's maximum honest."""
    student_samples: int = 8
    """Candidates of the policy in training, per state. [PA-RL: 32 of one policy]"""
    temperature: float = 1.0
    """Noise scale of all candidates."""
    proposal_seed: int = 0
    """Of the frozen policy's candidates; those at offline states are cached under the seed that the critic was trained with."""
    refine: str = "gradient:?steps=5&step_size=0.004"
    """pa-rl: the refiner that moves the best candidate uphill; empty: the best candidate itself. Where it moves far, the policy
    learns the critic's errors. [10 steps of 3e-4 times the gradient]"""
    target_states: int = 8192
    """pa-rl: states per round, drawn from all online ones, whose better actions the policy is fitted to."""
    rehearse_below: int = 1000
    """Online chunks to learn from, below which those of successful offline episodes fill up the policy's batches in proportion: so
    few would be memorised, and all else forgotten. 0: never."""
    edit_scale: float = 0.03
    """edit: how far any number of a chunk is moved at most, where every axis spans [-1, 1]. Where it reaches farther than the
    critic knows, edits look good and fail. [EXPO: chosen per task]"""
    edit_learning_rate: float = 3e-4
    """Of the edit actor. [EXPO, RLPD: 3e-4]"""
    edit_every: int = 1
    """Updates of the critic per update of the edit actor. [RLPD: 20]"""
    intervention_weight: float = 2.0
    """Weight of a person's chunks in the imitation, those of failed episodes included; the critic learns from them as from any.
    [HIL-SERL: they are put into both of its buffers]"""
    round_episodes: int = 25
    """Episodes between two versions. [Cal-QL, PA-RL: 1]"""
    rewards: Literal["stored", "success"] = "stored"
    """success: 1 at the end of each episode that is labelled successful, for data that holds no rewards. stored: what was recorded,
    but for episodes of which a later label says otherwise: the label rewards these."""

    def __post_init__(self) -> None:
        for name in ("base_samples", "student_samples", "round_episodes", "target_states", "edit_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in (
            "members",
            "target_subset",
            "warmup_episodes",
            "batch_size",
            "policy_batch_size",
            "proposal_seed",
            "rehearse_below",
        ):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in (
            "learning_rate",
            "policy_learning_rate",
            "utd",
            "policy_utd",
            "temperature",
            "intervention_weight",
        ):
            self._require(name, 0 <= getattr(self, name) < float("inf"), "0 or more")
        self._require("offline_share", 0 <= self.offline_share <= 1, "between 0 and 1")
        self._require("policy_average", 0 <= self.policy_average < 1, "in [0, 1)")
        for name in ("edit_learning_rate", "edit_scale"):
            self._require(name, getattr(self, name) > 0, "above 0")
        if self.members and not self.fresh_critic:
            raise ConfigError(
                f"members is {self.members}, but the critic goes on with the members it has: leave it out, or start a fresh one"
            )

    def check_offline(self, given: bool) -> None:
        """Raise `ConfigError` where this takes offline data, and there are none."""
        if self.offline_share and not given:
            raise ConfigError(
                f"{self.offline_share:g} of each batch should be offline data, but there is none: give --offline, or an "
                "offline share of 0"
            )
        if self.fresh_critic and not self.offline_share:
            raise ConfigError(
                "a fresh critic takes its statistics from offline data: give --offline, and a share above 0"
            )

    @property
    def critic_batch_size(self) -> int:
        """What was asked for, else what the law proposes."""
        return self.batch_size or proposed_batch_size(self.utd)

    @property
    def critic_learning_rate(self) -> float:
        """What was asked for, else what the law proposes."""
        return self.learning_rate or proposed_learning_rate(self.utd)

    @property
    def imitates(self) -> bool:
        """Is the policy fitted to what succeeded?"""
        return self.improve in ("success", "both", "edit+success")

    @property
    def climbs(self) -> bool:
        """Is the policy fitted to what the critic prefers?"""
        return self.improve in ("pa-rl", "both")

    @property
    def edits(self) -> bool:
        """Is there an edit actor?"""
        return self.improve in ("edit", "edit+success")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(f"{name} is {getattr(self, name)}, expected {expected}")


def proposed_batch_size(utd: float) -> int:
    """256 at UTD 1, falling as a power of UTD; not raised below UTD 1, where updates are few anyhow."""
    return max(1, round(float(_REFERENCE_BATCH * max(utd, 1.0) ** _BATCH_SLOPE)))


def proposed_learning_rate(utd: float) -> float:
    """3e-4 at UTD 1, falling as a power of UTD; not raised below UTD 1."""
    return float(_REFERENCE_RATE * max(utd, 1.0) ** _RATE_SLOPE)


PRESETS: Mapping[str, OnlineConfig] = MappingProxyType(
    {
        "calql": OnlineConfig(),
        "wsrl": OnlineConfig(conservative=False, target_subset=2, offline_share=0.0, warmup_episodes=75, utd=4.0),
        "rlpd": OnlineConfig(
            conservative=False,
            fresh_critic=True,
            members=10,
            target_subset=2,
            warmup_episodes=25,
            warmup_behaviour="policy",
            utd=10.0,
            edit_every=10,
        ),
    }
)
"""Cal-QL online (arXiv 2303.05479): the same loss, half offline, half online. WSRL (arXiv 2412.07762): no offline data after a
warm-up, many updates, a random subset of the members, nothing conservative. RLPD (arXiv 2302.02948): symmetric batches, a critic
from scratch, many updates."""
