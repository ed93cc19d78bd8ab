"""`Guard`: is a version significantly worse than those before it? Counts in, a verdict out; knows nothing of files or servers.

Versions are compared by their episodes' outcomes in the order in which these were stored. The reference are the last episodes
of earlier versions, whose rate r is uncertain itself: with s successes and f failures it is Beta(s + 1/2, f + 1/2). Two
accounts of the new version's episodes are compared after every single one:

    as before   their rate is r
    worse       their rate is anything below r, all equally likely

    evidence = P(episodes | worse) / P(episodes | as before)

While nothing changed the evidence is a martingale that starts at 1, so that it ever reaches E with a probability of at most
1/E (Ville's inequality), on average over what the reference says of r. At a fixed r less of it is used up, because outcomes are
few and whole; `benchmarks/guard.py` measures how much.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

_RATES: Float[np.ndarray, " r"] = (np.arange(400) + 0.5) / 400
_LOG_SUCCESS, _LOG_FAILURE = np.log(_RATES), np.log1p(-_RATES)


class Outcome(NamedTuple):
    """One episode: which version decided in it, and whether it succeeded."""

    version: int
    success: bool


@dataclass(frozen=True)
class Verdict:
    """What is known of a version. evidence: the largest so far. worse: it should not be served any longer."""

    version: int
    successes: int
    episodes: int
    reference_successes: int
    reference_episodes: int
    evidence: float
    worse: bool

    def __str__(self) -> str:
        return (
            f"version {self.version} succeeded in {self.successes} of {self.episodes} episodes, those before it in "
            f"{self.reference_successes} of the last {self.reference_episodes}: this is {self.evidence:.0f} times as likely "
            "of a worse version as of one like those"
        )


@dataclass(frozen=True)
class Guard:
    """When to give a version up."""

    evidence: float = 15.0
    """How much more likely 'worse' must be than 'as before'."""
    reference: int = 100
    """Episodes of earlier versions to compare with, the last ones."""
    failures: int = 3
    """Failures without which no version is given up, however good the earlier ones were."""

    def judge(self, outcomes: Sequence[Outcome], version: int, refused: Collection[int] = ()) -> Verdict:
        """Look at `version`, given all outcomes in order. Episodes of later or refused versions are no reference."""
        own = [place for place, outcome in enumerate(outcomes) if outcome.version == version]
        until = own[0] if own else len(outcomes)
        before = [o.success for o in outcomes[:until] if o.version < version and o.version not in refused]
        before = before[-self.reference :]
        success = np.array([outcomes[place].success for place in own], np.bool_)
        reached = self._evidence(success, sum(before), len(before))
        return Verdict(
            version, int(success.sum()), len(own), sum(before), len(before), reached, reached >= self.evidence
        )

    def _evidence(self, success: Bool[np.ndarray, " n"], reference_successes: int, reference_episodes: int) -> float:
        """The largest evidence after any of these episodes that had enough failures; 0 where none had."""
        successes, failures = np.cumsum(success), np.cumsum(~success)
        counts = failures >= self.failures
        if not counts.any():
            return 0.0
        values = evidence(successes[counts], failures[counts], reference_successes, reference_episodes)
        return float(values.max())


def evidence(
    successes: Int[np.ndarray, " n"], failures: Int[np.ndarray, " n"], reference_successes: int, reference_episodes: int
) -> Float[np.ndarray, " n"]:
    """P(these counts | worse) / P(these counts | as before), for each pair of counts. See the module."""
    as_before = _posterior(reference_successes, reference_episodes - reference_successes)
    # Rate q is as likely as each r above it is, spread evenly over what lies below that r.
    spread = as_before / np.arange(1, len(_RATES) + 1)
    worse = np.cumsum(spread[::-1])[::-1]
    log = successes[:, None] * _LOG_SUCCESS + failures[:, None] * _LOG_FAILURE
    likelihood = np.exp(log - log.max(axis=1, keepdims=True))
    # The reference may be so sure of its rate that what came is impossible to a float.
    ratio: Float[np.ndarray, " n"] = (likelihood @ worse) / np.maximum(
        likelihood @ as_before, np.finfo(np.float64).tiny
    )
    return ratio


def _posterior(successes: int, failures: int) -> Float[np.ndarray, " r"]:
    """Of the rate after so many outcomes, from Jeffreys' prior."""
    log = (successes - 0.5) * _LOG_SUCCESS + (failures - 0.5) * _LOG_FAILURE
    weights = np.exp(log - log.max())
    posterior: Float[np.ndarray, " r"] = weights / weights.sum()
    return posterior
