"""Numbers and text as tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.openvla.statistics import Statistics, choose_dataset, read_statistics
from policies.openvla.tokens import ActionBins, PromptTokenizer, end_token
from steer.errors import CheckpointError, ConfigError, SpecError
from tests.policies.openvla.toys import SHARDED, copy_without

TABLE = {
    "a": {"action": {"q01": [-1.0, 0.0], "q99": [1.0, 4.0], "min": [-2, -1], "max": [2, 5], "mask": [True, False]}},
    "b": {"action": {"q01": [0.0], "q99": [1.0]}},
}


@given(st.floats(-1, 1), st.integers(2, 300))
def test_a_number_comes_back_within_half_a_bin(value: float, bins: int) -> None:
    tokens = ActionBins(1000, bins)
    ids = tokens.encode(np.array([value]))
    assert tokens.first <= ids[0] < 1000
    assert abs(tokens.decode(ids)[0] - value) <= 1 / (bins - 1) + 1e-9


def test_the_last_token_is_the_lowest_number_and_others_go_to_the_ends() -> None:
    tokens = ActionBins(32000)
    np.testing.assert_allclose(
        tokens.decode(np.array([31999, 31745, 31744, 5, 32001])), np.array([-1, 1, 1, 1, -1]) * 254 / 255
    )


def test_entries_without_a_mask_are_scaled_and_others_pass() -> None:
    action = read_statistics(TABLE, "a", "action", "test")
    np.testing.assert_allclose(action.to_robot(np.array([0.5, 0.5])), [0.5, 0.5])
    np.testing.assert_allclose(action.to_robot(np.array([-1.0, -1.0])), [-1.0, -1.0])
    np.testing.assert_allclose(read_statistics(TABLE, "b", "action", "test").to_robot(np.array([0.0])), [0.5])
    np.testing.assert_allclose(
        read_statistics(TABLE, "a", "action", "test", "min_max").to_robot(np.array([1.0, 0.3])), [2, 0.3]
    )


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=2))
def test_scaling_there_and_back(values: list[float]) -> None:
    statistics = Statistics(np.array([-5.0, -6.0]), np.array([5.0, 6.0]), np.ones(2, np.bool_))
    np.testing.assert_allclose(statistics.to_robot(statistics.to_model(np.array(values))), values, atol=1e-9)


def test_an_unknown_data_set_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'c' is none.*\['a', 'b'\]"):
        choose_dataset(TABLE, "c", "test")
    with pytest.raises(ConfigError, match=r"no unnorm_key was given.*\['a', 'b'\]"):
        choose_dataset(TABLE, "", "test")
    assert choose_dataset({"only": {}}, "", "test") == "only"


def test_statistics_that_are_not_there_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"'b' have no proprio\.q01"):
        read_statistics(TABLE, "b", "proprio", "test")


def prompts(default: str = "", limit: int = 100) -> PromptTokenizer:
    return PromptTokenizer.load(SHARDED, "openvla", default, limit)


def test_the_prompt_is_in_lower_case_and_ends_in_one_lone_space() -> None:
    assert prompts().text(" Put it DOWN ") == "In: What action should the robot take to put it down?\nOut:"
    ids = prompts().encode("put it down")
    assert ids[0] == 1
    assert ids[-1] == prompts().space_id
    assert ids[-2] != prompts().space_id
    np.testing.assert_array_equal(prompts().with_space(ids), ids)


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_instruction_is_refused_unless_there_is_a_default(empty: str) -> None:
    with pytest.raises(SpecError, match="no instruction"):
        prompts().encode(empty)
    np.testing.assert_array_equal(prompts("wait").encode(empty), prompts().encode("wait"))


def test_a_long_instruction_is_read_whole_or_refused() -> None:
    long = "pick up the red block and " * 77
    assert len(prompts(limit=2000).encode(long[:2000])) > 400
    with pytest.raises(SpecError, match=r"2000 characters makes \d+ tokens.*room for 100"):
        prompts().encode(long[:2000])


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    folder = copy_without(SHARDED, tmp_path / "model", "tokenizer.json", "*.safetensors")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no such file"):
        PromptTokenizer.load(folder, "openvla", "", 100)


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Mystery"}}')
    with pytest.raises(CheckpointError, match="not a tokenizer"):
        PromptTokenizer.load(tmp_path, "openvla", "", 100)


def test_another_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    other = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"put": 0, "[UNK]": 1}, "unk_token": "[UNK]"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(CheckpointError, match="not Llama's"):
        PromptTokenizer.load(tmp_path, "openvla", "", 100)
    with pytest.raises(CheckpointError, match="</s>"):
        end_token(tmp_path)


def test_an_unknown_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="openvla-v01"):
        PromptTokenizer.load(SHARDED, "chatty", "", 100)
