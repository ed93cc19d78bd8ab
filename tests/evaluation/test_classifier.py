"""The verdict on a success classifier: what it needs to be allowed to label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from steer.classifier import ClassifierSpec
from steer.data.frames import Frames
from steer.errors import SpecError
from steer.evaluation.classifier import judge_classifier
from steer.observation import ObservationSpec
from steer.spec import Array
from tests.critics.reward import toys

LABELS: list[bool | None] = [True] * 24 + [False] * 20


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return toys.make_frames(tmp_path_factory.mktemp("data") / "store", [*LABELS, None])


@dataclass
class By:
    """Probabilities that grow with x, or the other way round."""

    threshold: float
    sign: float = 1.0
    version: str = "by"

    @property
    def spec(self) -> ClassifierSpec:
        return ClassifierSpec(ObservationSpec((toys.STATE,)), self.threshold)

    def probability(self, observations: Mapping[str, Array]) -> Array:
        return np.clip(0.5 + self.sign * (observations["state"][:, 0] - 0.5), 0, 1)


def test_one_that_knows_may_label(frames: Frames) -> None:
    result = judge_classifier(By(0.75), frames)
    assert result.may_label
    counts = [
        result.figures[f"{name}"] for name in ("true_successes", "false_successes", "true_failures", "false_failures")
    ]
    assert counts == [24, 0, 20, 0]
    assert (result.figures["auc"], result.figures["precision"]) == (1.0, 1.0)
    assert str(result).startswith("may label: AUC of success is 1.000")


def test_false_successes_cost_it_the_permission(frames: Frames) -> None:
    result = judge_classifier(By(0.1), frames)
    assert not result.may_label
    assert "false successes teach the wrong thing" in result.reasons[0]
    assert result.figures["recall"] == 1.0


def test_one_that_knows_nothing_may_not(frames: Frames) -> None:
    result = judge_classifier(By(0.75, sign=-1.0), frames)
    assert not result.may_label
    assert any("does not tell success from failure" in reason for reason in result.reasons)


def test_few_episodes_say_nothing(frames: Frames) -> None:
    result = judge_classifier(By(0.75), frames.subset([0, 1, 24, 25]))
    assert [reason.split(":")[0] for reason in result.reasons][:2] == ["held-out successes", "held-out failures"]
    with pytest.raises(SpecError, match="no held-out episode is labelled"):
        judge_classifier(By(0.75), frames.subset([44]))
