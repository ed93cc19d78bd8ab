"""Reading config.json: both versions, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policies.octo.config import parse_config
from steer.errors import CheckpointError
from tests.policies.octo.toys import module, published_config

SMALL = (384, 12, 6, 1536)


def test_the_versions_differ_in_language_attention_and_the_name_of_the_horizon() -> None:
    old, new = (parse_config(published_config(*SMALL, version), "config.json") for version in ("1.0", "1.5"))
    assert (old.repeats_language, old.exact_attention, old.head.horizon) == (False, False, 4)
    assert (new.repeats_language, new.exact_attention, new.head.horizon) == (True, True, 4)


def test_what_the_file_leaves_out_has_the_published_value() -> None:
    config = parse_config(published_config(*SMALL, "1.5"), "config.json")
    head = config.head
    assert (head.diffusion_steps, head.max_action, head.time_dim, head.blocks, head.hidden) == (20, 5.0, 32, 3, 256)
    assert config.cameras[0].features == (32, 96, 192, 384)
    assert (config.language_tokens, config.window, config.max_window) == (16, 2, 10)


def foreign_stem(model: dict[str, Any]) -> None:
    model["observation_tokenizers"]["primary"]["kwargs"]["encoder"]["module"] = "os"


def foreign_head(model: dict[str, Any]) -> None:
    model["heads"]["action"]["name"] = "L1ActionHead"


def positional(model: dict[str, Any]) -> None:
    model["heads"]["action"]["args"] = [1]


def second_head(model: dict[str, Any]) -> None:
    model["heads"]["value"] = module("action_heads", "DiffusionActionHead")


def outside_encoder(model: dict[str, Any]) -> None:
    model["task_tokenizers"]["language"]["kwargs"]["encoder"] = "../../etc"


def pattern(model: dict[str, Any]) -> None:
    model["observation_tokenizers"]["primary"]["kwargs"]["obs_stack_keys"] = ["image_.*"]


def no_width(model: dict[str, Any]) -> None:
    del model["token_embedding_size"]


def text_width(model: dict[str, Any]) -> None:
    model["token_embedding_size"] = "384"


def other_heads(model: dict[str, Any]) -> None:
    model["transformer_kwargs"]["num_attention_heads"] = 5


def other_readout(model: dict[str, Any]) -> None:
    model["heads"]["action"]["kwargs"]["readout_key"] = "obs"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (foreign_stem, "os.SmallStem16, which is not known"),
        (foreign_head, "L1ActionHead, which is not known"),
        (positional, "positional arguments"),
        (second_head, "heads are"),
        (outside_encoder, "plain name"),
        (pattern, "plain names, not patterns"),
        (no_width, "token_embedding_size is None"),
        (text_width, "token_embedding_size is '384'"),
        (other_heads, "no multiple of the 5"),
        (other_readout, "reads 'obs'"),
    ],
)
def test_what_is_not_known_is_refused(edit: Callable[[dict[str, Any]], None], says: str) -> None:
    content = published_config(*SMALL, "1.5")
    edit(content["model"])
    with pytest.raises(CheckpointError, match=says):
        parse_config(content, "config.json")


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(CheckpointError, match="lacks 'model'"):
        parse_config({"kind": "diffusion"}, "config.json")
    with pytest.raises(CheckpointError, match="expected an object"):
        parse_config([], "config.json")
