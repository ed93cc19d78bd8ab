"""May this success classifier label, and why (not): what it says of labelled episodes that it was not trained on.

A missed success costs one episode of learning; a false one teaches the wrong thing. So precision is what counts: of the episodes
that it calls successes, how many are.

Knows no framework: it asks a `SuccessClassifier`. numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from steer.classifier import SuccessClassifier, episode_score
from steer.data.frames import Frames
from steer.errors import SpecError
from steer.evaluation.statistics import wilson
from steer.evaluation.verdict import Interval, auc, bootstrap, flat

_RESAMPLES = 500


@dataclass(frozen=True)
class ClassifierRules:
    """What a classifier has to show. Each rule that fails gives one reason."""

    min_successes: int = 10
    """Held-out successful episodes; fewer say nothing either way."""
    min_failures: int = 10
    """Held-out failed episodes."""
    min_auc: float = 0.9
    """The interval of the AUC of the episode's score must lie above this."""
    min_precision: float = 0.8
    """The interval of the precision at the threshold must lie above this."""


@dataclass(frozen=True)
class ClassifierFigures:
    """What was measured at the threshold, with 95 % intervals (AUC: bootstrap over episodes; shares: Wilson)."""

    episodes: int
    successes: int
    failures: int
    threshold: float
    auc: Interval
    precision: Interval
    recall: Interval
    true_successes: int
    false_successes: int
    true_failures: int
    false_failures: int


@dataclass(frozen=True)
class ClassifierVerdict:
    """May it label; why, or why not; the figures and the rules they were held against."""

    may_label: bool
    reasons: tuple[str, ...]
    figures: Mapping[str, float]
    rules: ClassifierRules = ClassifierRules()

    def __str__(self) -> str:
        return f"{'may label' if self.may_label else 'may not label'}: {'; '.join(self.reasons)}"


def judge_classifier(
    classifier: SuccessClassifier, frames: Frames, rules: ClassifierRules | None = None, seed: int = 0
) -> ClassifierVerdict:
    """Judge by the labelled episodes of held-out `frames`; raises `SpecError` where there is none."""
    rules = rules or ClassifierRules()
    labelled = np.flatnonzero(frames.labelled)
    if not len(labelled):
        raise SpecError("no held-out episode is labelled: label some (steer label), or hold out more")
    figures = _figures(_scores(classifier, frames, labelled), frames.success[labelled], classifier.spec.threshold, seed)
    against = tuple(_reasons(figures, rules))
    return ClassifierVerdict(not against, against or _in_favour(figures), flat(figures), rules)


def _scores(classifier: SuccessClassifier, frames: Frames, episodes: np.ndarray) -> Float[np.ndarray, " e"]:
    scores = []
    for episode in episodes:
        rows = slice(frames.starts[episode], frames.finals[episode] + 1)
        keys = classifier.spec.observation.keys
        scores.append(episode_score(classifier, {key: frames.observations[key][rows] for key in keys}))
    return np.array(scores)


def _figures(
    scores: Float[np.ndarray, " e"], success: Bool[np.ndarray, " e"], threshold: float, seed: int
) -> ClassifierFigures:
    said = scores >= threshold
    rng = np.random.default_rng(seed)
    return ClassifierFigures(
        episodes=len(success),
        successes=int(success.sum()),
        failures=int((~success).sum()),
        threshold=threshold,
        auc=bootstrap(lambda chosen: auc(scores[chosen], success[chosen]), len(success), _RESAMPLES, rng),
        precision=_share(int((said & success).sum()), int(said.sum())),
        recall=_share(int((said & success).sum()), int(success.sum())),
        true_successes=int((said & success).sum()),
        false_successes=int((said & ~success).sum()),
        true_failures=int((~said & ~success).sum()),
        false_failures=int((~said & success).sum()),
    )


def _share(part: int, whole: int) -> Interval:
    """[0, 1] where there is nothing to take a share of."""
    return Interval(*wilson(part, whole)) if whole else Interval(0.0, 0.0, 1.0)


def _reasons(figures: ClassifierFigures, rules: ClassifierRules) -> list[str]:
    """Every rule that is not met, in words, with what to do."""
    f, reasons = figures, []
    for count, least, what in (
        (f.successes, rules.min_successes, "successes"),
        (f.failures, rules.min_failures, "failures"),
    ):
        if count < least:
            reasons.append(
                f"held-out {what}: {count}, at least {least} are needed: label more, or hold out a larger share"
            )
    if not f.auc.low > rules.min_auc:
        reasons.append(
            f"AUC of success is {f.auc}, its interval must lie above {rules.min_auc}: it does not tell success from failure"
        )
    if not f.precision.low > rules.min_precision:
        reasons.append(
            f"precision is {f.precision} ({f.false_successes} of {f.true_successes + f.false_successes} are false), its interval "
            f"must lie above {rules.min_precision}: false successes teach the wrong thing"
        )
    return reasons


def _in_favour(figures: ClassifierFigures) -> tuple[str, ...]:
    f = figures
    return (
        f"AUC of success is {f.auc} on {f.episodes} held-out episodes",
        f"precision at the threshold {f.threshold:.3f} is {f.precision} ({f.false_successes} false of "
        f"{f.true_successes + f.false_successes}), recall {f.recall}",
    )
