"""Un-normalisation by literal numbers, and the checks of a statistics file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policies.octo.statistics import choose, read_statistics, unnormalise
from steer.errors import CheckpointError, ConfigError


def file(**changed: Any) -> dict[str, Any]:
    action = {"mean": [1.0, 2.0], "std": [2.0, 3.0], "p01": [-2.0, 0.0], "p99": [2.0, 10.0], "mask": [True, False]}
    return {"bridge": {"action": {k: v for k, v in (action | changed).items() if v is not None}}}


def test_normal_scales_all_but_the_masked_axes() -> None:
    statistics = read_statistics(file(), 2, "file")["bridge"]
    np.testing.assert_array_equal(unnormalise(np.array([[1, 0.5]], np.float32), statistics, "normal"), [[3, 0.5]])


def test_bounds_map_minus_one_and_one_to_the_percentiles() -> None:
    statistics = read_statistics(file(mask=None), 2, "file")["bridge"]
    got = unnormalise(np.array([[-1, -1], [1, 1], [0, 0]], np.float32), statistics, "bounds")
    np.testing.assert_allclose(got, [[-2, 0], [2, 10], [0, 5]])


def test_fewer_axes_cut_the_last_ones() -> None:
    statistics = read_statistics(file(mask=None), 3, "file")["bridge"]
    got = unnormalise(np.array([0, 0, 7], np.float32), statistics, "normal")
    np.testing.assert_array_equal(got, np.array([1, 2], np.float32))
    assert got.dtype == np.float32


def test_a_file_of_one_data_set_has_no_name() -> None:
    statistics = read_statistics(file()["bridge"], 2, "file")
    assert choose(statistics, None, "normal", "model").size == 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"std": [1.0]}, "std has 1 entries, mean has 2"),
        ({"mean": 0.5}, "mean has shape"),
        ({"mean": None}, "lacks mean or std"),
        ({"mask": [True]}, "mask has 1 entries"),
        ({"mask": "yes"}, "mask is 'yes'"),
        ({"p99": ["a", "b"]}, "not a list of numbers"),
        ({"std": [1.0, float("nan")]}, "finite"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        read_statistics(file(**changed), 2, "file")


def test_more_axes_than_the_model_has_are_refused() -> None:
    with pytest.raises(CheckpointError, match="2 axes, the model has 1"):
        read_statistics(file(), 1, "file")


def test_the_choice_names_what_there_is() -> None:
    two = read_statistics({**file(), "fractal": file()["bridge"]}, 2, "file")
    with pytest.raises(ConfigError, match=r"no dataset was given.*bridge.*fractal"):
        choose(two, None, "normal", "model")
    with pytest.raises(ConfigError, match=r"no statistics of 'taco'.*bridge.*fractal"):
        choose(two, "taco", "normal", "model")
    with pytest.raises(ConfigError, match="no p01"):
        choose(read_statistics(file(p01=None), 2, "file"), "bridge", "bounds", "model")
