"""Octo at its published small size with random weights: what the cost of candidates is measured on.

Every matrix has the published shape but those of the language encoder, which runs once per episode and not per decision.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from policies.octo.config import CameraConfig, HeadConfig, OctoConfig, T5Config
from policies.octo.images import OctoImages
from policies.octo.language import NoInstructions
from policies.octo.model import OctoModel
from policies.octo.policy import OctoPolicy
from policies.octo.shapes import image_tokens, parameter_shapes
from policies.octo.statistics import Statistics
from steer.action import ActionAxis, ActionSpec
from steer.observation import ObservationSpec
from steer.policy import PolicySpec
from steer.spec import ArraySpec

SIZES = {"primary": (256, 256), "wrist": (128, 128)}
FEATURES = (32, 96, 192, 384)
ACTION_DIM = 7
HORIZON = 4
MAX_ACTION = 5.0
RATE_HZ = 5.0

CONFIG = OctoConfig(
    cameras=tuple(CameraConfig(name, f"image_{name}", True, FEATURES, 512) for name in SIZES),
    encoder="t5-base",
    language_tokens=16,
    readouts=(("readout_action", 1),),
    head=HeadConfig("readout_action", ACTION_DIM, HORIZON, 256, 32, 3, True, 20, MAX_ACTION),
    width=384,
    layers=12,
    heads=6,
    mlp=1536,
    window=2,
    max_window=10,
    repeats_language=True,
    exact_attention=True,
)
ENCODER = T5Config(vocab_size=64, num_layers=1)


def random_weights(config: OctoConfig, t5: T5Config, seed: int) -> Mapping[str, NDArray[np.float32]]:
    """Kernels of unit gain, norms near one, small biases."""
    rng = np.random.default_rng(seed)
    tokens = {name: image_tokens(*SIZES[name]) for name in config.camera_names}
    weights = {}
    for name, shape in parameter_shapes(config, t5, tokens).items():
        value = rng.standard_normal(shape, np.float32)
        if name.endswith(("scale", "weight")):
            weights[name] = 1 + 0.1 * value
        else:
            fan_in = np.prod(shape[:-1]) if name.endswith("kernel") else 100
            weights[name] = value / np.float32(fan_in**0.5)
    return weights


def octo_small(seed: int = 0, cameras: tuple[str, ...] = ("primary",)) -> OctoPolicy:
    """A policy of 27 million parameters (without the language encoder) that proposes noise-like actions in [-5, 5]."""
    axes = tuple(ActionAxis(f"a{i}", "1", -MAX_ACTION, MAX_ACTION) for i in range(ACTION_DIM))
    action = ActionSpec(axes, "unknown", "unknown", "unknown", "unknown", "unknown", RATE_HZ)
    keys = {name: f"image_{name}" for name in cameras}
    arrays = tuple(ArraySpec(keys[name], "uint8", (*SIZES[name], 3)) for name in cameras)
    return OctoPolicy(
        OctoModel(CONFIG, ENCODER, random_weights(CONFIG, ENCODER, seed)),
        PolicySpec(ObservationSpec(arrays, CONFIG.window), action, HORIZON, trainable=False),
        f"octo-small-random-{seed}",
        keys=keys,
        images=OctoImages(tuple((keys[name], *SIZES[name]) for name in cameras)),
        instructions=NoInstructions(),
        statistics=Statistics(
            np.zeros(ACTION_DIM, np.float32),
            np.ones(ACTION_DIM, np.float32),
            None,
            None,
            np.ones(ACTION_DIM, np.bool_),
        ),
    )
