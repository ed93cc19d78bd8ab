"""The report's figures as inline SVG that follows the page's light or dark colours.

Contract: one function per figure, from result data to an SVG string without any reference to the outside. Colours are written
as stand-ins that become the page's CSS variables, so one drawing serves both modes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from steer.evaluation.result import CalibrationGroup, EpisodeResult, Latency, Rate, SweepPoint

# Stand-in -> CSS variable. Values nobody would draw with, so that the replacement cannot hit anything else.
_INK, _MUTED, _GRID = "#010203", "#040506", "#070809"
_BASE, _STEERED, _SUCCESS, _FAILURE = "#0a0b0c", "#0d0e0f", "#101112", "#131415"
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--line)",
    _BASE: "var(--base)",
    _STEERED: "var(--steered)",
    _SUCCESS: "var(--success)",
    _FAILURE: "var(--failure)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_PARTS = ("queue", "propose", "encode", "refine", "score", "select", "engine", "server", "wait")


def success_against_k(points: Sequence[SweepPoint]) -> str:
    """Success with Wilson intervals over the number of candidates, on a base-2 axis."""
    with _figure("k") as (figure, axes):
        samples = np.array([point.samples for point in points])
        rates = np.array([(point.rate.success, point.rate.low, point.rate.high) for point in points])
        axes.fill_between(samples, rates[:, 1], rates[:, 2], color=_STEERED, alpha=0.14, linewidth=0)
        axes.plot(samples, rates[:, 0], color=_STEERED, linewidth=2)
        colours = [_BASE if k == 1 else _STEERED for k in samples]
        axes.scatter(samples, rates[:, 0], s=42, c=colours, zorder=3)
        for k, (value, _, high) in zip(samples, rates, strict=True):
            axes.annotate(f"{value:.0%}", (k, high), (0, 5), textcoords="offset points", ha="center", fontsize=11)
        axes.set_xscale("log", base=2)
        axes.set_xticks(samples, [str(k) for k in samples])
        axes.set_xlim(samples[0] / 1.25, samples[-1] * 1.25)
        axes.minorticks_off()
        _percent(axes, "y")
        axes.set_ylim(0, 1.1)
        axes.set_xlabel("K, candidates per decision")
        axes.set_ylabel("success")
        return _svg(figure, "k")


def learning_curve(
    episodes: Sequence[int], base: Sequence[Rate], steered: Sequence[Rate], collected: Sequence[tuple[int, float]]
) -> str:
    """Success of the policy alone and steered over online episodes, with Wilson intervals. collected: (episodes, success) of
    each round's own episodes."""
    with _figure("learning") as (figure, axes):
        for rates, colour, name in ((base, _BASE, "policy alone"), (steered, _STEERED, "steered")):
            values = np.array([(rate.success, rate.low, rate.high) for rate in rates])
            axes.fill_between(episodes, values[:, 1], values[:, 2], color=colour, alpha=0.16, linewidth=0)
            axes.plot(episodes, values[:, 0], color=colour, linewidth=2, marker="o", markersize=6, label=name)
        if collected:
            axes.plot(
                *zip(*collected, strict=True),
                color=_MUTED,
                linewidth=1.2,
                linestyle=(0, (1, 2)),
                label="while learning",
            )
        _percent(axes, "y")
        axes.set_ylim(0, 1.04)
        axes.set_xlim(left=0)
        axes.set_xlabel("online episodes")
        axes.set_ylabel("success")
        _legend_above(axes)
        return _svg(figure, "learning")


def over_episodes(series: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Up to two quantities over online episodes, by name."""
    prefix = "series-" + "-".join(series).replace(" ", "-")
    with _figure(prefix) as (figure, axes):
        for (name, points), colour in zip(series.items(), (_STEERED, _FAILURE), strict=False):
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=2, marker="o", markersize=4, label=name)
        axes.set_xlabel("online episodes")
        axes.set_xlim(left=0)
        axes.grid(axis="y")
        if len(series) > 1:
            _legend_above(axes)
        return _svg(figure, prefix)


def q_over_time(episodes: Sequence[EpisodeResult], rate_hz: float) -> str:
    """Q of the chosen candidate along the episodes: median and middle half, for successes and failures."""
    with _figure("q-time") as (figure, axes):
        for outcome, colour, name in ((True, _SUCCESS, "succeeded"), (False, _FAILURE, "failed")):
            chosen = [episode for episode in episodes if episode.success is outcome and episode.values]
            if not chosen:
                continue
            for episode in chosen[:40]:
                axes.plot(np.array(episode.steps) / rate_hz, episode.values, color=colour, alpha=0.13, linewidth=0.8)
            times, quartiles = _quartiles(chosen, rate_hz)
            axes.fill_between(times, quartiles[:, 0], quartiles[:, 2], color=colour, alpha=0.16, linewidth=0)
            axes.plot(times, quartiles[:, 1], color=colour, linewidth=2.2, label=f"{name} ({len(chosen)})")
        axes.set_xlabel("time in the episode, s")
        axes.set_ylabel("Q of the chosen candidate")
        axes.set_xlim(left=0)
        axes.grid(axis="y")
        _legend_above(axes)
        return _svg(figure, "q-time")


def q_against_outcome(groups: Sequence[CalibrationGroup]) -> str:
    """What the critic said against what came: success share and, where gamma is known, the return-to-go."""
    with _figure("q-outcome") as (figure, axes):
        q = np.array([group.q for group in groups])
        rates = np.array([(group.success.success, group.success.low, group.success.high) for group in groups])
        whiskers = np.abs(rates[:, 1:].T - rates[:, 0])
        axes.errorbar(
            q,
            rates[:, 0],
            whiskers,
            color=_SUCCESS,
            marker="o",
            markersize=6,
            linewidth=1.6,
            elinewidth=1.2,
            label="succeeded",
        )
        returns = [group.return_to_go for group in groups]
        if all(value is not None for value in returns):
            values = np.array(returns, np.float64)
            ends = [min(q.min(), values.min()), max(q.max(), values.max())]
            axes.plot(ends, ends, color=_MUTED, linewidth=1, linestyle=(0, (4, 4)), label="Q = return")
            axes.plot(q, values, color=_STEERED, marker="s", markersize=5.5, linewidth=1.6, label="return-to-go")
        axes.set_xlabel("mean Q of the group")
        axes.set_ylabel("what came of it")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]), top=max(1.04, axes.get_ylim()[1]))
        axes.grid(axis="y")
        _legend_above(axes)
        return _svg(figure, "q-outcome")


def latency_per_part(base: dict[str, Latency], steered: dict[str, Latency]) -> str:
    """Median (bar) and 99th percentile (whisker) of each part, base beside steered."""
    parts = [part for part in _PARTS if part in base or part in steered]
    parts += sorted((set(base) | set(steered)) - set(parts))
    with _figure("latency") as (figure, axes):
        rows = np.arange(len(parts))
        sides = ((base, _BASE, "base", -0.19), (steered, _STEERED, "steered", 0.19))
        for timings, colour, name, shift in sides:
            p50 = np.array([timings[part].p50_s if part in timings else 0.0 for part in parts]) * 1e3
            p99 = np.array([timings[part].p99_s if part in timings else 0.0 for part in parts]) * 1e3
            axes.barh(rows + shift, p50, 0.34, color=colour, label=name)
            axes.hlines(rows + shift, p50, p99, color=colour, linewidth=1.4)
            axes.plot(p99, rows + shift, "|", color=colour, markersize=8, markeredgewidth=1.6)
        labels = {"wait": "whole answer"}
        axes.set_yticks(rows, [labels.get(part, part) for part in parts])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("ms per decision; bar: median, whisker: 99th percentile")
        _legend_above(axes)
        return _svg(figure, "latency")


def _quartiles(episodes: Sequence[EpisodeResult], rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Times in s and quartiles [n, 3] at the decision steps that at least a tenth of the episodes (and three) reach."""
    by_step: dict[int, list[float]] = {}
    for episode in episodes:
        for step, value in zip(episode.steps, episode.values, strict=True):
            by_step.setdefault(step, []).append(value)
    least = min(max(3, len(episodes) // 10), len(episodes))
    steps = sorted(step for step, values in by_step.items() if len(values) >= least)
    return np.array(steps) / rate_hz, np.array([np.percentile(by_step[step], [25, 50, 75]) for step in steps]).reshape(
        -1, 3
    )


@contextmanager
def _figure(salt: str) -> Iterator[tuple[Figure, Axes]]:
    """One figure in the report's style; without pyplot, so nothing is kept open and no display is needed."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(6.0, 3.7), layout="constrained")
        yield figure, figure.add_subplot()


def _percent(axes: Axes, which: str) -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y")


def _legend_above(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, handlelength=1.4, columnspacing=1.6)


def _svg(figure: Figure, prefix: str) -> str:
    """The drawing as an `<svg>` element: page colours, unique ids, no metadata, no namespace addresses."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = text.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    text = re.sub(
        r'<svg\b([^>]*?) width="[^"]*" height="[^"]*"|<svg\b([^>]*?) height="[^"]*" width="[^"]*"', r"<svg\1\2", text
    )
    # Its style sheet would apply to the whole page, and the page's font replaces its own.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    return text
