"""A key stops the arm: on a real terminal pair."""

from __future__ import annotations

import os
import pty
import termios
import threading
from collections.abc import Iterator

import pytest

from steer.client.keyboard import watch_keys

WAIT_S = 10


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends: what the person types into, what the program reads."""
    person, program = pty.openpty()
    yield person, program
    os.close(person)
    os.close(program)


@pytest.mark.parametrize("key", [b" ", b"q", b"\x1b"])
def test_a_stop_key_stops(terminal: tuple[int, int], key: bytes) -> None:
    stopped = threading.Event()
    with watch_keys(stopped.set, descriptor=terminal[1]) as listening:
        assert listening
        os.write(terminal[0], key)
        assert stopped.wait(WAIT_S)


def test_other_keys_do_not(terminal: tuple[int, int]) -> None:
    stopped = threading.Event()
    with watch_keys(stopped.set, descriptor=terminal[1]):
        os.write(terminal[0], b"x")
    assert not stopped.is_set()


def test_the_terminal_is_restored_after_an_error(terminal: tuple[int, int]) -> None:
    before = termios.tcgetattr(terminal[1])
    during = None
    try:
        with watch_keys(lambda: None, descriptor=terminal[1]):
            during = termios.tcgetattr(terminal[1])
            raise RuntimeError
    except RuntimeError:
        assert during != before
    assert termios.tcgetattr(terminal[1]) == before


def test_without_a_terminal_there_is_nothing_to_press() -> None:
    read, write = os.pipe()
    with watch_keys(lambda: None, descriptor=read) as listening:
        assert not listening
    os.close(read)
    os.close(write)


def test_other_keys_are_handed_on_and_arrows_are_not_escape(terminal: tuple[int, int]) -> None:
    heard: list[str] = []
    stopped, got = threading.Event(), threading.Event()

    def listen(key: str) -> None:
        heard.append(key)
        if len(heard) == 3:
            got.set()

    with watch_keys(stopped.set, [listen], terminal[1]):
        os.write(terminal[0], b"y\x1b[Az")
        assert got.wait(WAIT_S)
    assert heard == ["y", "up", "z"]
    assert not stopped.is_set()
