"""Our names and shapes of parameters against those of the published models, without an array."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from policies.octo.config import T5_BY_NAME, parse_config
from policies.octo.shapes import image_tokens, parameter_shapes
from tests.policies.octo.toys import published_config

TREES = Path(__file__).parents[2] / "golden" / "trees"
SIZES = {"octo-small": (384, 12, 6, 1536), "octo-base": (768, 12, 12, 3072)}
TOKENS = {"primary": image_tokens(256, 256), "wrist": image_tokens(128, 128)}


def read(name: str) -> Any:
    return json.loads((TREES / f"{name}.json").read_text())


@pytest.mark.parametrize("version", ["1.0", "1.5"])
@pytest.mark.parametrize("size", list(SIZES))
def test_the_tree_of_a_published_model(size: str, version: str) -> None:
    tree = read(f"{size}-1.5" if version == "1.5" else read("octo-1.0")["same_tree_as"][size].removesuffix(".json"))
    config = parse_config(published_config(*SIZES[size], version), "config.json")
    ours = parameter_shapes(config, T5_BY_NAME["t5-base"], TOKENS)
    assert ours == {name: tuple(shape) for name, (shape, _) in tree["params"].items()}
    assert sum(math.prod(shape) for shape in ours.values()) == tree["total_params"]
    if version == "1.0":
        assert tree["total_params"] == read("octo-1.0")["published"][size]["total_params"]


def test_image_tokens_round_up() -> None:
    assert (image_tokens(256, 256), image_tokens(128, 128), image_tokens(40, 16)) == (256, 64, 3)
