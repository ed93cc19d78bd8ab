"""The diffusion head: the score network over one readout, and the sampler that turns noise into chunks.

Ho et al. 2020 (arXiv:2006.11239) with the cosine schedule of Nichol and Dhariwal 2021. The network's first layer is linear in
[time, readout, noisy chunk]: the time part is a table made at load, the readout's part is computed once per call, so a turn
costs the chunk's part and the blocks. Where x_t is clipped, it is x_t itself and not an estimate of x_0.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from policies.octo.config import HeadConfig
from policies.octo.layers import Dense, Norm, Weight, dense, layer_norm
from policies.octo.parameters import Parameters
from policies.octo.shapes import HEAD

COSINE_OFFSET = 0.008
LARGEST_BETA = 0.999


class Schedule(NamedTuple):
    """Noise levels t = 0 ... S-1, each float32[S]."""

    betas: Float[np.ndarray, " s"]
    alphas: Float[np.ndarray, " s"]
    alpha_hats: Float[np.ndarray, " s"]


def cosine_schedule(steps: int) -> Schedule:
    """alpha-hat falls as a squared cosine; betas are its ratios, at most .999."""
    time = np.linspace(0, 1, steps + 1)
    level = np.cos((time + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi / 2) ** 2
    betas = np.clip(1 - level[1:] / level[:-1], 0, LARGEST_BETA)
    return Schedule(*(x.astype(np.float32) for x in (betas, 1 - betas, np.cumprod(1 - betas))))


class ScoreBlock(NamedTuple):
    norm: Norm | None
    wide: Dense
    narrow: Dense


class Head(NamedTuple):
    """times: [S, hidden], the first layer's part of time with its bias, per noise level; readout, chunk: its other rows."""

    times: Weight
    readout: Weight
    chunk: Weight
    blocks: tuple[ScoreBlock, ...]
    output: Dense


class Turn(NamedTuple):
    """What one turn of the sampler needs: x <- clip(scale * (x - share * eps) + sigma * noise), from t = S-1 to 0.

    residual: the factor of the noise that stands on axes that the embodiment lacks.
    """

    time: Weight
    share: Weight
    scale: Weight
    sigma: Weight
    residual: Weight


def make_head(parameters: Parameters, config: HeadConfig, width: int) -> Head:
    """Take the arrays, cut the first layer's kernel, and fold the time branch into a table."""
    model = parameters.below(HEAD)
    net = model.below("reverse_network")
    first = net.dense("Dense_0")
    by_time, by_readout, by_chunk = np.split(first.kernel, [config.time_dim, config.time_dim + width])
    times = _time_features(model, config.diffusion_steps) @ by_time + first.bias
    blocks = tuple(_make_block(net.below(f"MLPResNetBlock_{i}"), config) for i in range(config.blocks))
    return Head(times.astype(np.float32), by_readout, by_chunk, blocks, net.dense("Dense_1"))


def _make_block(block: Parameters, config: HeadConfig) -> ScoreBlock:
    norm = block.norm("LayerNorm_0") if config.layer_norm else None
    return ScoreBlock(norm, block.dense("Dense_0"), block.dense("Dense_1"))


def _time_features(model: Parameters, steps: int) -> Float[np.ndarray, "s t"]:
    """Learnt Fourier features of t through a small network, for every t, in double precision."""
    angle = 2 * np.pi * np.arange(steps)[:, None] * model["time_preprocess/kernel"][:, 0].astype(np.float64)
    features = np.concatenate([np.cos(angle), np.sin(angle)], axis=-1)
    wide, narrow = (model.dense(f"cond_encoder/Dense_{i}") for i in range(2))
    hidden = features @ np.asarray(wide.kernel) + wide.bias
    result: Float[np.ndarray, "s t"] = (hidden / (1 + np.exp(-hidden))) @ np.asarray(narrow.kernel) + narrow.bias
    return result


def make_turns(config: HeadConfig, times: Float[np.ndarray, "s h"]) -> Turn:
    """The sampler's numbers for every turn, in the order in which it takes them."""
    beta, alpha, alpha_hat = cosine_schedule(config.diffusion_steps)
    sigma = np.sqrt(beta)
    # The last turn adds no noise.
    sigma[0] = 0
    rows = (times, (1 - alpha) / np.sqrt(1 - alpha_hat), 1 / np.sqrt(alpha), sigma, np.sqrt(1 - alpha_hat))
    return Turn(*(np.ascontiguousarray(row[::-1]) for row in rows))


def score(head: Head, time: Weight, readout: Float[Array, "*r h"], x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Predicted noise. time: a row of `head.times`; readout: its part of the first layer (`readout @ head.readout`)."""
    hidden = x @ head.chunk + (time + readout)
    for block in head.blocks:
        normed = hidden if block.norm is None else layer_norm(block.norm, hidden)
        hidden = hidden + dense(block.narrow, jax.nn.swish(dense(block.wide, normed)))
    return dense(head.output, jax.nn.swish(hidden))


def denoise(
    head: Head,
    turns: Turn,
    max_action: float,
    readout: Float[Array, "b d"],
    noise: Float[Array, "s b k c"],
    acts: Bool[Array, " c"],
) -> tuple[Float[Array, "b k c"], Float[Array, "t b k c"]]:
    """K chunks per readout, and the trajectory: x after each turn.

    noise: S+1 standard normal draws, the first to begin with, then one per turn. acts: False on axes that the embodiment lacks,
    which hold noise in every turn as they did in training.
    """
    condition = (readout @ head.readout)[:, None]

    def turn(x: Array, step: tuple[Turn, Array]) -> tuple[Array, Array]:
        numbers, draw = step
        x = (x - numbers.share * score(head, numbers.time, condition, x)) * numbers.scale
        x = jnp.clip(x + numbers.sigma * draw, -max_action, max_action)
        x = jnp.where(acts, x, numbers.residual * draw)
        return x, x

    return jax.lax.scan(turn, noise[0], (turns, noise[1:]))
