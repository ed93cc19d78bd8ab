"""The page about a run: how success grew with episodes, and what the critic was like meanwhile.

A pure function of a `LearningCurve`, self-contained like the evaluation's report, whose look and figures it shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steer.evaluation import figures
from steer.evaluation.report import Figure, page
from steer.online.curve import LearningCurve

_SMALL = 100


def write_curve_report(path: Path, curve: LearningCurve, settings: dict[str, Any]) -> None:
    """Write the page. settings: what the run was started with."""
    text = page("curve.html", c=curve, headline=headline(curve), notes=notes(curve), figures=list(_figures(curve)),
                settings={**settings, **curve.settings})  # fmt: skip
    path.write_text(text, encoding="utf-8")


def headline(curve: LearningCurve) -> str:
    """The result in one sentence, as strong as its interval allows and no stronger."""
    last = curve.points[-1]
    value, low, high = last.base_gain
    if low > 0:
        return f"The policy alone gains {100 * value:.0f} points in {last.moment.episodes} episodes"
    if high < 0:
        return f"The policy alone loses {-100 * value:.0f} points in {last.moment.episodes} episodes"
    return f"No gain shown after {last.moment.episodes} episodes"


def notes(curve: LearningCurve) -> list[str]:
    """Limits of this measurement, the most important first."""
    found = []
    for point in curve.points:
        for side, gain in (("the policy alone", point.base_gain), ("steered", point.steered_gain)):
            if gain.high < 0:
                found.append(f"After {point.moment.episodes} episodes {side} is worse than at the start.")
    if curve.points[0].base.episodes < _SMALL:
        found.append(f"Only {curve.points[0].base.episodes} starts were played: the intervals are wide.")
    found.append("One run with one seed: another one may learn faster or slower.")
    found.append(
        "Success while learning is of other starts, and of a policy that chooses among its own and the first policy's candidates."
    )
    return found


def _figures(curve: LearningCurve) -> Iterator[Figure]:
    yield Figure(
        "Success over episodes",
        "On the same held-out starts, with Wilson's 95 % intervals; dotted, the share of each round's own episodes that succeeded.",
        figures.learning_curve(
            [point.moment.episodes for point in curve.points],
            [point.base for point in curve.points],
            [point.steered for point in curve.points],
            [(told["episodes"], told["success"]) for told in curve.rounds],
        ),
    )
    for title, caption, names in _DIAGNOSTICS:
        series = {
            label: [
                (told["episodes"], told["metrics"][name])
                for told in curve.rounds
                if told.get("metrics", {}).get(name) is not None
            ]
            for name, label in names.items()
        }
        if any(series.values()):
            yield Figure(title, caption, figures.over_episodes(series))


_DIAGNOSTICS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "Is the critic over-fitting?",
        "Mean absolute temporal-difference error before a round's updates: on its new episodes, and on what is replayed.",
        {"td_error_fresh": "new episodes", "td_error_replayed": "replayed"},
    ),
    (
        "What the critic expects",
        "Mean Q of recorded actions and of the proposals, as learnt in each round.",
        {"critic/q_data": "recorded", "critic/q_other": "proposed"},
    ),
    (
        "Can it still learn?",
        "Norm of the critic's parameters; one that grows without end goes with lost plasticity.",
        {"parameter_norm": "norm"},
    ),
)
