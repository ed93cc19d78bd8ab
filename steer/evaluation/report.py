"""The report: one HTML page that needs nothing but itself.

Contract: a pure function of the result and the clips. Figures are inline SVG, videos are data URIs, and no address of the
outside appears, so the page can be mailed, archived and opened without a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from steer.evaluation import figures
from steer.evaluation.notes import headline, notes, p_value, points
from steer.evaluation.result import Evaluation
from steer.evaluation.video import Clip

_DEFAULT_RATE_HZ = 20.0


@dataclass(frozen=True)
class Figure:
    """One drawing with its heading and what it shows."""

    title: str
    caption: str
    svg: str


def write_report(path: Path, result: Evaluation, clips: Sequence[Clip] = ()) -> None:
    """Write the page."""
    path.write_text(render(result, clips), encoding="utf-8")


def render(result: Evaluation, clips: Sequence[Clip] = ()) -> str:
    """The page as text."""
    return page(
        "report.html",
        r=result,
        headline=headline(result),
        notes=notes(result),
        figures=list(_figures(result)),
        clips=clips,
        settings=result.settings,
        agreement=_agreement(result),
        verdict_figures=_verdict_figures(result.verdict),
    )


def page(template: str, *, settings: Mapping[str, Any], **content: Any) -> str:
    """A page in the report's look. settings: shown as one flat list."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("steer.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(percent=_percent, points=points, p=p_value, setting=_setting)
    return environment.get_template(template).render(settings=_flat(settings), **content)


def _figures(result: Evaluation) -> Iterator[Figure]:
    steered = result.per_episode["steered"]
    if result.k_sweep:
        yield Figure(
            "Success against K",
            "Same initial states and noise scale for every K; the band is Wilson's 95 % interval. K = 1 is the base.",
            figures.success_against_k(result.k_sweep),
        )
    if any(episode.values for episode in steered):
        rate_hz = float(result.settings.get("rate_hz", _DEFAULT_RATE_HZ))
        yield Figure(
            "Q over time",
            "Q of the chosen candidate in steered episodes: median, middle half, and single episodes behind.",
            figures.q_over_time(steered, rate_hz),
        )
    if result.calibration:
        yield Figure(
            "Q against outcome",
            "Decisions of steered episodes in ten groups of equal size by Q. A critic that ranks well rises from left to right.",
            figures.q_against_outcome(result.calibration),
        )
    yield Figure(
        "Latency per part",
        "Time of one decision on the machine of this evaluation, with as many episodes at once as there were workers.",
        figures.latency_per_part(dict(result.latency["base"]), dict(result.latency["steered"])),
    )


def _agreement(result: Evaluation) -> list[tuple[str, str, int]]:
    """(class, name, pairs) of the four outcomes of a pair."""
    pairs = list(zip(result.per_episode["base"], result.per_episode["steered"], strict=True))
    both = sum(base.success and steered.success for base, steered in pairs)
    return [
        ("both", "both succeed", both),
        ("gained", "only steered", result.gained),
        ("lost", "only base", result.lost),
        ("neither", "neither", result.episodes - both - result.gained - result.lost),
    ]


def _verdict_figures(verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the verdict rests on, with names to read; nothing for a server that passes on its conclusion alone."""
    figures = (verdict or {}).get("figures", {})
    return {name.replace("_", " "): value for name, value in _flat(figures).items()}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names; what is empty is left out."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif value not in ("", None, [], ()):
            flat[prefix + key] = value
    return flat


def _percent(value: float) -> str:
    return f"{value * 100:.1f}"


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_setting(item) for item in value)
    return str(value)
