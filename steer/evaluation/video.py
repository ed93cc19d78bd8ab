"""Short side-by-side videos of paired episodes, as data URIs for a page that stands alone.

Contract: left the base, right the steered episode of the same seed, in step; the shorter one keeps its last picture, dimmed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from jaxtyping import UInt8

from steer.evaluation.rollout import Rollout

_GAP_PX = 6
_HOLD_S = 0.8


@dataclass(frozen=True)
class Clip:
    """One pair to show: outcome and length in s of each side, and the video as a data URI."""

    seed: int
    base_success: bool
    steered_success: bool
    base_s: float
    steered_s: float
    uri: str


def pairs_to_show(base: Sequence[bool], steered: Sequence[bool], gained: int, lost: int) -> list[int]:
    """Indices of pairs worth a video: first those that only steering solved, then those it lost, then any other."""
    outcomes = list(zip(base, steered, strict=True))
    won = [i for i, pair in enumerate(outcomes) if pair == (False, True)][:gained]
    given_up = [i for i, pair in enumerate(outcomes) if pair == (True, False)][:lost]
    chosen = won + given_up
    others = [i for i in range(len(outcomes)) if i not in chosen]
    return chosen or others[:1]


def clip(base: Rollout, steered: Rollout, rate_hz: float, every: int) -> Clip:
    """Encode a pair that was played with `render_every=every`; raises `ValueError` without pictures."""
    if base.frames is None or steered.frames is None:
        raise ValueError(f"the pair of seed {base.seed} was played without pictures")
    frames = side_by_side(base.frames, steered.frames, hold=round(_HOLD_S * rate_hz / every))
    uri = "data:video/mp4;base64," + base64.b64encode(encode(frames, rate_hz / every)).decode()
    return Clip(base.seed, base.success, steered.success, base.length / rate_hz, steered.length / rate_hz, uri)


def side_by_side(
    left: UInt8[np.ndarray, "n h w 3"], right: UInt8[np.ndarray, "m h w 3"], hold: int = 0
) -> UInt8[np.ndarray, "t h v 3"]:
    """Both sequences in one, even in height and width as H.264 wants, the end held for `hold` pictures."""
    length = max(len(left), len(right)) + hold
    height, width = left.shape[1] // 2 * 2, left.shape[2] // 2 * 2
    canvas = np.full((length, height, 2 * width + _GAP_PX, 3), 127, np.uint8)
    for frames, start in ((left, 0), (right, width + _GAP_PX)):
        place = canvas[:, :, start : start + width]
        place[: len(frames)] = frames[:, :height, :width]
        place[len(frames) :] = frames[-1, :height, :width] // 2 + 64
    return canvas


def encode(frames: UInt8[np.ndarray, "t h w 3"], rate_hz: float) -> bytes:
    """H.264 in MP4."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate_hz).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.options = {"crf": "28", "preset": "slow"}
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
