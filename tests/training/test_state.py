import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steer.errors import CheckpointError
from steer.training.state import latest_step, read_state, write_state

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(tree=TREES)
def test_what_is_written_is_read(tree: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("state")

    write_state(folder, 3, tree)

    assert read_state(folder) == (3, tree)


def test_tensors_and_arrays_keep_type_and_bits(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    state = {
        "odd": torch.tensor([0.1, float("nan"), -0.0]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "view": shared.t(),
        "tied": [shared, shared],
        "1": {1: torch.tensor(1), "1": torch.tensor(2)},
        "array": np.array([2**63 + 1], np.uint64),
    }

    write_state(tmp_path, 1, state)
    _, got = read_state(tmp_path)

    for name in ("odd", "bytes", "half", "scalar", "empty", "view"):
        assert got[name].dtype == state[name].dtype  # type: ignore[attr-defined]
        torch.testing.assert_close(got[name], state[name], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(got["tied"][1], shared)
    assert got["1"] == {1: torch.tensor(1), "1": torch.tensor(2)}
    np.testing.assert_array_equal(got["array"], state["array"])


def test_an_optimisers_state_comes_back_with_its_integer_keys(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], 0.1)
    weight.sum().backward()
    optimizer.step()

    write_state(tmp_path, 1, {"optimizer": optimizer.state_dict(), "weights": OrderedDict(w=weight)})
    _, got = read_state(tmp_path)

    torch.optim.AdamW([weight], 0.1).load_state_dict(got["optimizer"])
    assert torch.equal(got["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert got["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state/a/1: a function cannot be saved"):
        write_state(tmp_path, 1, {"a": [0, print_nothing]})


def print_nothing() -> None:
    pass


def test_a_new_state_replaces_the_old_one(tmp_path: Path) -> None:
    write_state(tmp_path, 90, {"x": 1})
    write_state(tmp_path, 100, {"x": 2})

    assert latest_step(tmp_path) == 100
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000100"]


def test_a_state_half_written_by_a_killed_process_is_not_seen(tmp_path: Path) -> None:
    write_state(tmp_path, 5, {"x": 1})
    (tmp_path / ".step-000000010.999").mkdir()

    assert read_state(tmp_path) == (5, {"x": 1})


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_truncated_state_is_refused(tmp_path: Path, name: str) -> None:
    file = write_state(tmp_path, 5, {"x": torch.ones(100)}) / name
    file.write_bytes(file.read_bytes()[:-20])

    with pytest.raises(CheckpointError, match="train anew"):
        read_state(tmp_path)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no saved training state"):
        read_state(tmp_path)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    folder = write_state(tmp_path, 5, {"x": torch.ones(2), "y": [1, (2, 3)]})

    assert {path.name for path in folder.iterdir()} == {"state.json", "state.safetensors"}
    assert json.loads((folder / "state.json").read_text())["step"] == 5
