"""What a reader must know before trusting the figures, in plain sentences."""

from __future__ import annotations

from steer.evaluation.result import Evaluation

_SMALL = 100
_SMALL_TUNING = 40


def headline(result: Evaluation) -> str:
    """The result in one sentence, as strong as its interval allows and no stronger."""
    points = f"{abs(result.difference) * 100:.0f} points"
    if result.low > 0:
        return f"Steering raises success by {points}"
    if result.high < 0:
        return f"Steering lowers success by {points}"
    return "No difference shown"


def notes(result: Evaluation) -> list[str]:
    """Limits of this evaluation, the most important first."""
    found = []
    if not any(episode.values for episode in result.per_episode["steered"]):
        found.append("No critic scored these candidates: the steered side shows the selection rule alone.")
    if result.low <= 0 <= result.high:
        found.append(
            f"The paired interval [{points(result.low)}, {points(result.high)}] contains zero: "
            "these episodes do not show that steering changes anything."
        )
    if result.episodes < _SMALL:
        found.append(f"Only {result.episodes} pairs were played: these are small numbers, and the intervals are wide.")
    found += _about_the_choice_of_settings(result)
    if result.k_sweep:
        found.append("The best K of the curve was seen on these very starts; quote it only after a run on fresh ones.")
    if result.calibration:
        found.append(
            "Decisions of one episode share its outcome, so the intervals in “Q against outcome” are narrower than they should be."
        )
    if result.verdict is not None and not result.verdict.get("may_steer", False):
        found.insert(
            0,
            "The critic's own verdict is that it should not steer: its ranking on held-out episodes was not good enough.",
        )
    found += [f"Cut for lack of time, {count} times: {cut}." for cut, count in result.cuts.items()]
    return found


def points(value: float) -> str:
    """A difference of rates in percentage points, with its sign."""
    return f"{value * 100:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """A p-value to read."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}"


def _about_the_choice_of_settings(result: Evaluation) -> list[str]:
    temperature = result.settings.get("temperature", 1.0)
    same = f"Base and steered sample at the same noise scale, {temperature:g}"
    if temperature != 1.0:
        same += ", because lowering the noise alone can lift a policy"
    if result.tuning is not None:
        chosen = f"K and the noise scale were chosen on {result.tuning.episodes} other starts, none of which is counted here."
        if result.tuning.episodes < _SMALL_TUNING:
            chosen += " So few hardly tell one setting from another."
    else:
        chosen = (
            "K and the noise scale were given. If they were chosen by looking at these starts, the result flatters."
        )
    return [same + ".", chosen]
