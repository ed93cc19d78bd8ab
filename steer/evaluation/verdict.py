"""May this critic steer, and why (not): what it says on episodes that it was not trained on.

A critic that cannot rank is worse than none: the best of K by a wrong order is a bad choice made on purpose. Episodes are the
unit of every interval (frames of one episode are far from independent): intervals are percentiles of a bootstrap that draws
whole episodes.

Knows no framework: it asks a `Critic` for scores. numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from steer.critic import Critic
from steer.errors import SpecError
from steer.observation import Batch
from steer.selection import reduce_scores

if TYPE_CHECKING:
    from steer.data.frames import Frames


@dataclass(frozen=True)
class Rules:
    """What a critic has to show. Each rule that fails gives one reason."""

    min_episodes: int = 30
    """Held-out episodes; fewer say nothing either way."""
    min_failures: int = 10
    """Held-out failed episodes."""
    min_successes: int = 10
    """Held-out successful episodes."""
    min_auc: float = 0.7
    """The interval of the AUC must lie above this; 0.5 is guessing, and a critic that was shown dealt-out outcomes still reached
    .79 [.67, .90] on the pick-and-place task, because it tells recorded actions from the policy's samples."""
    min_rank_correlation: float = 0.0
    """The interval of the rank correlation must lie above this."""
    min_data_beats: float = 0.35
    """How often a successful episode's action must beat a sample of the policy; far below one half the order is inverted."""
    min_spread: float = 1e-3
    """Mean standard deviation of Q over candidates, as a share of the range of returns."""
    max_excess: float = 0.5
    """How far the mean of Q may lie outside the range of returns, as a share of that range."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval over episodes."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def flat(figures: Any) -> dict[str, float]:
    """The fields of a dataclass as name -> number, an interval as three, None left out; for JSON and tables."""
    numbers: dict[str, float] = {}
    for part in fields(figures):
        value = getattr(figures, part.name)
        if isinstance(value, Interval):
            numbers |= {part.name: value.value, f"{part.name}_low": value.low, f"{part.name}_high": value.high}
        elif value is not None:
            numbers[part.name] = value
    return numbers


@dataclass(frozen=True)
class Figures:
    """What was measured. Q is the critic's own reduction over its members.

    rank_correlation: Spearman, of Q of the data's action with the return from there. auc: of the episode's mean Q for its success.
    data_beats: share of the policy's samples that the data's action beats, in successful episodes. bound_rate: share of the
    samples whose Q lies below the data's return. not_finite: scores that are
    no numbers (counted as 0 elsewhere). spread: standard deviation over candidates, mean over states.
    """

    episodes: int
    successes: int
    failures: int
    states: int
    candidates: int
    not_finite: int
    rank_correlation: Interval
    auc: Interval
    data_beats: Interval
    bound_rate: float
    q_min: float
    q_mean: float
    q_max: float
    q_samples_mean: float
    q_success_mean: float | None
    q_failure_mean: float | None
    return_min: float
    return_mean: float
    return_max: float
    spread: float


@dataclass(frozen=True)
class Verdict:
    """May it steer; why, or why not; the figures (see `Figures`) and the rules they were held against."""

    may_steer: bool
    reasons: tuple[str, ...]
    figures: Mapping[str, float]
    rules: Rules = Rules()

    def __str__(self) -> str:
        return f"{'may steer' if self.may_steer else 'may not steer'}: {'; '.join(self.reasons)}"


def verdict(
    critic: Critic,
    frames: Frames,
    candidates: Float[np.ndarray, "f k h a"],
    gamma: float | None = None,
    rules: Rules | None = None,
    max_states: int = 4000,
    resamples: int = 500,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Judge a critic by held-out `frames` and the policy's candidates there (in the same order).

    gamma: of the returns, by default the critic's own. max_states: at most so many states are scored, by chance.
    """
    rules = rules or Rules()
    if len(candidates) != len(frames):
        raise SpecError(f"{len(candidates)} rows of candidates for {len(frames)} frames: sample them for these frames")
    rng = np.random.default_rng(seed)
    at = frames.decisions
    if len(at) > max_states:
        at = np.sort(rng.choice(at, max_states, replace=False))
    scores = _scores(critic, frames, candidates, at, progress)
    returns = frames.mc_returns(critic.spec.gamma if gamma is None else gamma)[at]
    figures = _figures(frames, at, scores, returns, resamples, rng)
    against = tuple(_reasons(figures, rules))
    return Verdict(not against, against or _in_favour(figures), flat(figures), rules)


def _scores(
    critic: Critic,
    frames: Frames,
    candidates: Float[np.ndarray, "f k h a"],
    at: Int[np.ndarray, " n"],
    progress: Callable[[int, int], None] | None,
    batch_size: int = 256,
) -> Float[np.ndarray, "n k1"]:
    """Q at every state, reduced as the critic reduces: of the data's prefix, then of each of the policy's samples."""
    spec, values = critic.spec, []
    steps = spec.scored_steps(spec.prefixes[0])
    for start in range(0, len(at), batch_size):
        index = at[start : start + batch_size]
        arrays, mask = frames.window(index, spec.observation.window, spec.observation.keys)
        rows = np.minimum(index[:, None] + np.arange(steps), frames.finals[frames.episode_of[index]][:, None])
        chunks = np.concatenate((frames.actions[rows][:, None], candidates[index][:, :, :steps]), axis=1)
        context = critic.encode(Batch(arrays, mask))
        values.append(reduce_scores(critic.score(context, chunks), spec.reduction))
        if progress is not None:
            progress(start + len(index), len(at))
    return np.concatenate(values).astype(np.float64)


def _figures(
    frames: Frames,
    at: Int[np.ndarray, " n"],
    scores: Float[np.ndarray, "n k1"],
    returns: Float[np.ndarray, " n"],
    resamples: int,
    rng: np.random.Generator,
) -> Figures:
    not_finite = int((~np.isfinite(scores)).sum())
    scores = np.where(np.isfinite(scores), scores, 0.0)
    data, samples = scores[:, 0], scores[:, 1:]
    episode = frames.episode_of[at]
    succeeded = frames.success[episode]
    episodes, inverse = np.unique(episode, return_inverse=True)
    mean_q = np.bincount(inverse, data) / np.bincount(inverse)
    outcome = frames.success[episodes]
    # Ties count half: a constant critic beats nothing and loses nothing.
    beats = np.mean((data[:, None] > samples) + 0.5 * (data[:, None] == samples), axis=1)
    states_of = [np.flatnonzero(inverse == e) for e in range(len(episodes))]

    def interval(of_episodes: Callable[[Int[np.ndarray, " e"]], float]) -> Interval:
        return bootstrap(of_episodes, len(episodes), resamples, rng)

    def correlation(chosen: Int[np.ndarray, " e"]) -> float:
        index = np.concatenate([states_of[e] for e in chosen])
        return spearman(data[index], returns[index])

    def beats_in_successes(chosen: Int[np.ndarray, " e"]) -> float:
        wins = [states_of[e] for e in chosen if outcome[e]]
        return float(beats[np.concatenate(wins)].mean()) if wins else np.nan

    return Figures(
        episodes=len(episodes),
        successes=int(outcome.sum()),
        failures=int((~outcome).sum()),
        states=len(at),
        candidates=samples.shape[1],
        not_finite=not_finite,
        rank_correlation=interval(correlation),
        auc=interval(lambda chosen: auc(mean_q[chosen], outcome[chosen])),
        data_beats=interval(beats_in_successes),
        bound_rate=float((samples < returns[:, None]).mean()),
        q_min=float(data.min()),
        q_mean=float(data.mean()),
        q_max=float(data.max()),
        q_samples_mean=float(samples.mean()),
        q_success_mean=_mean(data[succeeded]),
        q_failure_mean=_mean(data[~succeeded]),
        return_min=float(returns.min()),
        return_mean=float(returns.mean()),
        return_max=float(returns.max()),
        spread=float(samples.std(axis=1).mean()),
    )


def _reasons(figures: Figures, rules: Rules) -> list[str]:
    """Every rule that is not met, in words, with what to do."""
    f, reasons = figures, []
    extent = max(f.return_max - f.return_min, 1e-12)
    for count, least, what in (
        (f.episodes, rules.min_episodes, "episodes"),
        (f.failures, rules.min_failures, "failures"),
        (f.successes, rules.min_successes, "successes"),
    ):
        if count < least:
            kind = {"episodes": "", "failures": "failed ", "successes": "successful "}[what]
            reasons.append(f"held-out {what}: {count}, at least {least} are needed: record more {kind}episodes")
    if f.not_finite:
        reasons.append(f"{f.not_finite} scores are not finite: the training diverged; lower the learning rate")
    if f.spread < rules.min_spread * extent:
        reasons.append(
            f"Q hardly differs between candidates (standard deviation {f.spread:.2g}, returns span {extent:.2g}): there is nothing "
            "to choose by; check that candidates differ and that the critic sees the actions"
        )
    if not f.auc.low > rules.min_auc:
        reasons.append(
            f"AUC of success is {f.auc}, its interval must lie above {rules.min_auc}: it does not tell success from failure"
        )
    if not f.rank_correlation.low > rules.min_rank_correlation:
        reasons.append(
            f"rank correlation of Q with the return is {f.rank_correlation}, its interval must lie above "
            f"{rules.min_rank_correlation}: it does not rank states"
        )
    if f.data_beats.high < rules.min_data_beats:
        reasons.append(
            f"actions of successful episodes beat only {f.data_beats} of the policy's samples, expected at least "
            f"{rules.min_data_beats}: it prefers other actions than those that worked"
        )
    if f.q_mean > f.return_max + rules.max_excess * extent or f.q_mean < f.return_min - rules.max_excess * extent:
        reasons.append(
            f"mean Q is {f.q_mean:.3g}, returns lie in [{f.return_min:.3g}, {f.return_max:.3g}]: values have run away; "
            "change the weight of the conservative term (alpha)"
        )
    return reasons


def _in_favour(figures: Figures) -> tuple[str, ...]:
    return (
        f"AUC of success is {figures.auc} on {figures.episodes} held-out episodes",
        f"rank correlation of Q with the return is {figures.rank_correlation}",
        f"actions of successful episodes beat {figures.data_beats} of the policy's samples",
    )


def auc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Chance that a positive scores above a negative, ties half; NaN where there is only one kind (Mann-Whitney)."""
    wins, losses = int(positive.sum()), int((~positive).sum())
    if not wins or not losses:
        return float("nan")
    ranks = stats.rankdata(scores)
    return float((ranks[positive].sum() - wins * (wins + 1) / 2) / (wins * losses))


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Rank correlation; 0 where one side is constant, since nothing is ranked then."""
    ranks_a, ranks_b = stats.rankdata(a), stats.rankdata(b)
    ranks_a, ranks_b = ranks_a - ranks_a.mean(), ranks_b - ranks_b.mean()
    scale = np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum())
    return float((ranks_a * ranks_b).sum() / scale) if scale > 0 else 0.0


def bootstrap(
    statistic: Callable[[Int[np.ndarray, " e"]], float], episodes: int, resamples: int, rng: np.random.Generator
) -> Interval:
    """The statistic of all episodes, and the middle 95 % of it over redrawn ones; [0, 1] where it cannot be computed."""
    value = statistic(np.arange(episodes))
    drawn = np.array([statistic(rng.integers(episodes, size=episodes)) for _ in range(resamples)])
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return Interval(0.5, 0.0, 1.0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def _mean(values: Float[np.ndarray, " n"]) -> float | None:
    return float(values.mean()) if len(values) else None
