"""A wait ends when it is told to, from a thread or from a signal handler that interrupts it."""

from __future__ import annotations

import os
import signal
import threading
import time

from steer.client.clock import MonotonicClock, Stop

FAR_S = 30.0


def test_a_wait_ends_at_its_deadline() -> None:
    clock = MonotonicClock()
    deadline = clock.now() + 0.01
    clock.sleep_until(deadline, Stop())
    assert clock.now() >= deadline - 1e-3


def test_another_thread_ends_a_wait() -> None:
    stop = Stop()
    threading.Timer(0.01, stop.set).start()
    start = time.monotonic()
    MonotonicClock().sleep_until(start + FAR_S, stop)
    assert stop.is_set()
    assert time.monotonic() - start < FAR_S


def test_a_signal_handler_ends_the_wait_that_it_interrupts() -> None:
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    try:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        start = time.monotonic()
        MonotonicClock().sleep_until(start + FAR_S, stop)
        assert time.monotonic() - start < FAR_S
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_is_set_is_not_waited_for_again() -> None:
    stop = Stop()
    stop.set()
    start = time.monotonic()
    for _ in range(3):
        MonotonicClock().sleep_until(start + FAR_S, stop)
    assert time.monotonic() - start < FAR_S
