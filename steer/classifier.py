"""`SuccessClassifier`: a trained model that says from observations whether a task has succeeded.

It judges frames; an episode is judged by its frames' probabilities and the rule that its spec states. Families are found by
the entry points of the group `steer.classifiers`; a classifier runs where its framework is, which is not beside the robot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
from jaxtyping import Float

from steer import registry
from steer.checkpoints import read_checkpoint
from steer.errors import ConfigError, SpecError
from steer.model_name import ModelName
from steer.observation import ObservationSpec
from steer.spec import Array

CLASSIFIERS: Final = "steer.classifiers"

SOURCE: Final = "classifier"
"""How the source of its labels begins; the version follows."""


@dataclass(frozen=True)
class ClassifierSpec:
    """What a classifier says of itself.

    observation: the keys of a frame that it looks at. threshold: an episode whose score reaches it has succeeded.
    frames, rule: its score is the mean probability of its `last` frames, or the highest such mean `anywhere` in it (for worlds
    that do not end with success).
    """

    observation: ObservationSpec
    threshold: float
    frames: int = 1
    rule: Literal["last", "anywhere"] = "last"

    def score(self, probabilities: Float[np.ndarray, " n"]) -> float:
        """Of an episode, from the probability of each of its frames; one that is shorter than `frames` is taken whole."""
        if not len(probabilities):
            raise SpecError("an episode without frames cannot be judged: give at least one")
        count = min(self.frames, len(probabilities))
        if self.rule == "last":
            return float(probabilities[-count:].mean())
        return float(np.convolve(probabilities, np.full(count, 1 / count), "valid").max())


class SuccessClassifier(Protocol):
    """Judges frames."""

    @property
    def spec(self) -> ClassifierSpec: ...

    @property
    def version(self) -> str:
        """Names the weights."""
        ...

    def probability(self, observations: Mapping[str, Array]) -> Float[np.ndarray, " n"]:
        """That each of n frames shows success; observations: key -> [n, ...]. Further keys are allowed."""
        ...


def episode_score(classifier: SuccessClassifier, observations: Mapping[str, Array]) -> float:
    """By the classifier's own rule; observations: all N + 1 frames of an episode."""
    return classifier.spec.score(classifier.probability(observations))


def source_of(classifier: SuccessClassifier) -> str:
    """What its labels give as their source."""
    return f"{SOURCE}:{classifier.version}"


def load_classifier(text: str) -> SuccessClassifier:
    """Load the classifier called `text`, see `steer.model_name`."""
    name = ModelName.parse(text)
    loaded: SuccessClassifier = registry.family(CLASSIFIERS, name.kind).load(name)
    return loaded


def classifier_verdict(text: str) -> Mapping[str, Any] | None:
    """What its training said of the classifier called `text` ("may_label", "reasons", ...); None for one without a verdict."""
    document = read_checkpoint(Path(ModelName.parse(text).place)).documents.get("verdict")
    if document is not None and not isinstance(document.get("may_label"), bool):
        raise ConfigError(
            f"{text}: its verdict does not say 'may_label': train the classifier again, or remove the document"
        )
    return document
