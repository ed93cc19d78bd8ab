"""Playing chosen pairs again with pictures, for the videos of the report.

Rendering every episode would cost more than the evaluation, and episodes are functions of their seed: the pairs to show are
chosen first and then repeated. They are not counted again. A repetition that ends otherwise is left out, and logged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import structlog

from steer.errors import ConfigError
from steer.evaluation.evaluate import Played
from steer.evaluation.runner import Job, Progress, Runner
from steer.evaluation.setup import Setup
from steer.evaluation.summary import successes
from steer.evaluation.tuning import as_base
from steer.evaluation.video import Clip, clip, pairs_to_show

_log = structlog.get_logger(__name__)
_PICTURES_HZ = 10.0


def with_pictures(setup: Setup) -> Setup:
    """The same setup with an environment that can be rendered."""
    options: dict[str, Any] = {"render_mode": "rgb_array", **setup.env_options}
    return replace(setup, env_options=options)


def replay(
    setup: Setup, played: Played, videos: int, workers: int, open_stage: Callable[[str, int], Progress]
) -> Sequence[Clip]:
    """Up to `videos` clips, a quarter of them of pairs that steering lost; empty where the environment has no pictures."""
    if videos < 1:
        return ()
    lost = max(1, videos // 4) if videos > 1 else 0
    chosen = pairs_to_show(successes(played.base).tolist(), successes(played.steered).tolist(), videos - lost, lost)
    rate_hz = played.base[0].rate_hz
    every = max(1, round(rate_hz / _PICTURES_HZ))
    sides = [replace(side, render_every=every) for side in (as_base(played.rollout), played.rollout)]
    jobs = [Job(played.base[index].seed, side) for index in chosen for side in sides]
    try:
        with Runner(with_pictures(setup), min(workers, len(jobs)) if workers else 0) as runner:
            again = runner.run(jobs, open_stage("videos", len(jobs)))
    except ConfigError as error:
        _log.warning("no videos: the environment gives no pictures", reason=str(error))
        return ()
    clips = []
    for index, base, steered in zip(chosen, again[::2], again[1::2], strict=True):
        if (base.success, steered.success) != (played.base[index].success, played.steered[index].success):
            _log.warning("a repeated pair ended otherwise and is not shown", seed=base.seed)
            continue
        clips.append(clip(base, steered, rate_hz, every))
    return clips
