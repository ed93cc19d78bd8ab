"""What is changed for a run is put back after it, also after an error."""

from __future__ import annotations

import gc
import sys

import pytest

from steer.client.interpreter import punctual


def fail() -> None:
    with punctual():
        assert sys.getswitchinterval() == pytest.approx(0.001)
        assert gc.get_freeze_count() > 0
        raise RuntimeError


def test_the_interpreter_is_as_before() -> None:
    before = sys.getswitchinterval()
    with pytest.raises(RuntimeError):
        fail()
    assert sys.getswitchinterval() == before
    assert gc.get_freeze_count() == 0
