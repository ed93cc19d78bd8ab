"""The architecture follows from the parameters; what does not fit is refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from critics.vgps.config import Stated, infer_encoder, infer_network
from critics.vgps.critic import build
from critics.vgps.encoder import Encoder, pad_same
from steer.errors import CheckpointError, ConfigError, SpecError
from tests.critics.vgps import toys


def shapes(count: int, filters: list[int]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"conv_init/kernel": (7, 7, 5, filters[0])}
    before = filters[0]
    for i in range(count):
        found[f"ResNetBlock_{i}/Conv_0/kernel"] = (3, 3, before, filters[i])
        before = filters[i]
    return found


def test_blocks_are_ordered_by_number_not_as_text() -> None:
    config = infer_encoder(shapes(12, [8] * 2 + [16] * 6 + [32] * 4), Stated())
    assert config.stages == (2, 6, 4)
    assert config.conditioning == "none"
    assert config.channels == 32


def test_the_golden_agent_is_recognised() -> None:
    config = infer_network({name: value.shape for name, value in toys.arrays().items()}, toys.SMALL)
    assert config.encoder.stages == (1, 1)
    assert (config.encoder.filters, config.encoder.text_size, config.encoder.conditioning) == (4, 512, "film")
    assert (config.hidden, config.members, config.action_size, config.layer_norm) == ((16, 16), 2, 7, False)


def test_other_ensembles_and_layer_norm_are_recognised() -> None:
    arrays = {name: value.shape for name, value in toys.arrays().items()}
    for layer, inputs in ((0, 8 + 4), (1, 16)):
        arrays[f"network/Dense_{layer}/kernel"] = (5, inputs, 16)
        arrays[f"network/LayerNorm_{layer}/scale"] = (5, 16)
    config = infer_network(arrays, toys.SMALL)
    assert (config.members, config.action_size, config.layer_norm) == (5, 4, True)


@pytest.mark.parametrize("change", ["missing", "misshapen", "unexpected"])
def test_parameters_that_do_not_fit_are_refused(tmp_path: Path, change: str) -> None:
    arrays, name = toys.arrays(), "encoder/encoder/ResNetBlock_1/Conv_1/kernel"
    if change == "missing":
        del arrays[name]
    elif change == "misshapen":
        arrays[name] = arrays[name][..., :-1]
    else:
        arrays["encoder/encoder/Surprise_0/kernel"] = np.zeros(3, np.float32)
    with pytest.raises(CheckpointError, match=f"some place.*{'Surprise' if change == 'unexpected' else 'convs.1'}"):
        build(arrays.items(), toys.SMALL, "some place")


def test_something_without_an_encoder_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no residual image encoder"):
        build([("Dense_0/kernel", np.zeros((2, 3), np.float32))], Stated(), "here")


def test_a_pooling_that_cannot_be_is_refused() -> None:
    with pytest.raises(CheckpointError, match="reads 15 numbers, 128 of which would be the image"):
        build(toys.arrays().items(), Stated(pooling="none", image_size=(32, 32)), "here")
    with pytest.raises(ConfigError, match="state image_size"):
        build(toys.arrays().items(), Stated(pooling="none", image_size=None), "here")


def test_learned_embeddings_tell_images_of_another_size() -> None:
    arrays = {name: value.shape for name, value in toys.arrays().items()}
    arrays["encoder/encoder/SpatialLearnedEmbeddings_0/kernel"] = (4, 5, 8, 3)
    arrays["network/Dense_0/kernel"] = (2, 8 * 3 + 7, 16)
    with pytest.raises(CheckpointError, match=r"feature map of \(4, 5\), images of \(256, 256\) give \(32, 32\)"):
        infer_network(arrays, Stated())
    config = infer_network(arrays, Stated(image_size=(32, 33)))
    assert (config.encoder.pooling, config.action_size) == ("spatial_learned_embeddings", 7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "tanh"}, "swish or relu"),
        ({"pooling": "mean"}, "expected one of"),
        ({"groups": 0}, "positive"),
        ({"softmax_temperature": 0.0}, "positive"),
        ({"image_size": (0, 3)}, "positive height"),
    ],
)
def test_stated_values_are_checked(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Stated(**change)


def test_text_is_demanded_where_it_conditions_and_refused_where_not() -> None:
    config = infer_encoder(shapes(1, [4]), Stated())
    with pytest.raises(SpecError, match="'none'"):
        Encoder(config)(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 512))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [(4, 3, 2, 0, 1), (5, 3, 2, 1, 1), (4, 3, 1, 1, 1), (6, 1, 2, 0, 0)],
)
def test_same_padding_puts_the_smaller_half_first(size: int, kernel: int, stride: int, before: int, after: int) -> None:
    padded = pad_same(torch.ones(1, 1, size, 1), kernel, stride)[0, 0].sum(-1)
    assert padded.tolist() == [0.0] * before + [1.0] * size + [0.0] * after


@given(size=st.integers(1, 40), kernel=st.integers(1, 7), stride=st.integers(1, 3))
def test_same_padding_gives_one_window_per_stride(size: int, kernel: int, stride: int) -> None:
    padded = pad_same(torch.ones(1, 1, size, 1), kernel, stride).shape[2]
    assert (padded - kernel) // stride + 1 == -(-size // stride)
    assert padded == size or (padded - kernel) % stride == 0
