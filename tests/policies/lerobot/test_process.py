"""The worker process seen from Steer, with small programs in the worker's place: they start in no time and misbehave on demand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from policies.lerobot.channel import Parcel
from policies.lerobot.policy import Launch, LeRobotPolicy
from policies.lerobot.process import Worker
from steer.errors import DeadlineError, SpecError, UnavailableError
from steer.observation import Batch

PREAMBLE = """
import sys
from multiprocessing.connection import Connection
from policies.lerobot.channel import PROTOCOL, Parcel, receive, send
from tests.policies.lerobot.toy import SPEC
from steer.serial import to_json
import numpy as np
connection = Connection(int(sys.argv[sys.argv.index("--channel") + 1]))
INTRODUCTION = Parcel({"protocol": PROTOCOL, "spec": to_json(SPEC), "version": "toy"})
"""
SERVES = (
    PREAMBLE
    + """
send(connection, INTRODUCTION)
while True:
    request = receive(connection)
    if request.header["do"] == "encode":
        send(connection, Parcel({"context": 7}))
    else:
        print("about to leave", flush=True)
        sys.exit(3)
"""
)
BOUND_S = 300.0
"""Reached only where a test fails, however busy the machine is."""
Program = Callable[[str], Path]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """An executable in the place of LeRobot's interpreter: it ignores what it is told to run and runs `code`."""

    def make(code: str) -> Path:
        path = tmp_path / "python"
        body = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
        (tmp_path / "body.py").write_text(body)
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "body.py"} "$@"\n')
        path.chmod(0o755)
        return path

    return make


def observation() -> Batch:
    return Batch({"state": np.zeros((1, 1, 3), np.float32)}, np.ones((1, 1), np.bool_))


def test_a_worker_that_dies_while_loading_leaves_its_last_words(program: Program) -> None:
    with pytest.raises(UnavailableError, match=r"while loading \(exit code 1\)(.|\n)*no such checkpoint"):
        Worker(program("raise SystemExit('no such checkpoint')"), [], BOUND_S)


def test_a_worker_that_never_gets_ready_is_ended(program: Program) -> None:
    with pytest.raises(DeadlineError, match=r"within 0\.2 s; it was ended"):
        Worker(program("import threading; threading.Event().wait()"), [], 0.2)


def test_what_a_worker_raises_while_loading_is_raised_here(program: Program) -> None:
    code = PREAMBLE + 'send(connection, Parcel({"error": "SpecError", "message": "steer.json: no"}))'
    with pytest.raises(SpecError, match=r"steer\.json: no"):
        Worker(program(code), [], BOUND_S)


def test_a_worker_of_another_protocol_is_refused(program: Program) -> None:
    code = PREAMBLE + 'send(connection, Parcel({"protocol": PROTOCOL + 1}))\nreceive(connection)'
    with pytest.raises(UnavailableError, match="make install-lerobot"):
        Worker(program(code), [], BOUND_S)


def test_an_interpreter_that_does_not_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="nowhere"):
        Worker(tmp_path / "nowhere", [], BOUND_S)


def test_a_request_that_kills_the_worker_fails_and_the_next_encode_restarts_it(program: Program) -> None:
    policy = LeRobotPolicy(Launch(program(SERVES), [], BOUND_S, BOUND_S))
    context = policy.encode(observation())
    with pytest.raises(UnavailableError, match=r"died on 'sample' \(exit code 3\)(.|\n)*about to leave"):
        policy.sample(context, 1, np.array([1]))
    policy.encode(observation())
    assert policy.restarts == 1
    policy.close()


def test_a_worker_that_answers_nothing_is_not_started_for_ever(program: Program) -> None:
    policy = LeRobotPolicy(Launch(program(PREAMBLE + "send(connection, INTRODUCTION)"), [], BOUND_S, BOUND_S))
    with pytest.raises(UnavailableError):
        policy.encode(observation())
    with pytest.raises(UnavailableError, match="not started again"):
        policy.encode(observation())
    assert policy.restarts == 0
    policy.close()


def test_a_worker_that_hangs_is_ended(program: Program) -> None:
    hangs = PREAMBLE + "send(connection, INTRODUCTION)\nreceive(connection)\nreceive(connection)"
    worker = Worker(program(hangs), [], BOUND_S)
    with pytest.raises(DeadlineError, match="no answer on 'encode'"):
        worker.request(Parcel({"do": "encode"}), 0.2)
    worker.stop()
    assert not worker.alive


def test_a_policy_that_is_dropped_takes_its_worker_along(program: Program) -> None:
    policy = LeRobotPolicy(Launch(program(SERVES), [], BOUND_S, BOUND_S))
    worker = policy._worker
    del policy
    assert not worker.alive


def test_contexts_that_are_dropped_are_forgotten_with_the_next_request(program: Program) -> None:
    code = (
        PREAMBLE
        + """
send(connection, INTRODUCTION)
number = 0
while True:
    request = receive(connection)
    number += 1
    if request.header["do"] == "inputs":
        send(connection, Parcel({}, {"forgotten": np.array(request.header["forget"], np.int64)}))
    else:
        send(connection, Parcel({"context": number}))
"""
    )
    policy = LeRobotPolicy(Launch(program(code), [], BOUND_S, BOUND_S))
    kept = policy.encode(observation())
    policy.encode(observation())
    assert policy.inputs(observation())["forgotten"].tolist() == [2]
    assert kept.number == 1
    policy.close()
