"""`steer serve` and `steer run` as processes: they find each other, survive each other's death, and stop when told to."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from steer.checkpoints import write_checkpoint
from steer.client.steering_client import SteeringClient
from steer.data.store import EpisodeStore
from steer.decision import Decision, Request
from steer.errors import UnavailableError
from steer.observation import Observation
from steer.transforms import Pipeline
from tests.fakes import ROBOT
from tests.processes import WAIT_S, Bench, Command


def test_a_run_moves_the_robot_records_it_and_both_stop_cleanly(bench: Bench, tmp_path: Path) -> None:
    server, address = bench.serve()
    run = bench.run(address, "--record", str(tmp_path / "store"))
    run.wait_for("six moves")
    run.signal(signal.SIGINT)
    code, output = run.end()
    assert code == 0, output
    assert "stopped by" in output
    assert "0 stale" in output
    assert len(EpisodeStore.open(tmp_path / "store")) == 1
    server.signal(signal.SIGINT)
    code, output = server.end()
    assert (code, output.splitlines()[-1]) == (0, "stopped")


def test_a_dry_run_sends_nothing(bench: Bench) -> None:
    _, address = bench.serve()
    run = bench.run(address, "--duration-s", "600", "--dry-run")
    run.wait_for("moving")
    run.signal(signal.SIGINT)
    code, output = run.end()
    assert code == 0, output
    assert bench.commands_sent() == []
    assert re.search(r"chunks +\D*[1-9]", output)


def test_killing_the_server_makes_the_robot_hold_and_say_so_and_a_new_server_makes_it_move_on(bench: Bench) -> None:
    server, address = bench.serve()
    run = bench.run(address)
    run.wait_for("moving")
    server.signal(signal.SIGKILL)
    run.wait_for("holding: no fresh chunk")
    bench.serve(address=address)
    run.wait_for("moving")
    commands = bench.commands_sent()
    run.signal(signal.SIGINT)
    code, output = run.end()
    assert code == 0, output
    assert re.search(r"stopped by\W+SIGINT", output)
    first = commands.index("move")
    assert "hold" in commands[first:]
    assert output.count("holding: no fresh chunk") == 1


def test_a_server_that_stays_away_ends_the_run(bench: Bench) -> None:
    server, address = bench.serve()
    run = bench.run(address, "--give-up-s", "1")
    run.wait_for("moving")
    server.signal(signal.SIGKILL)
    code, output = run.end()
    assert code == 2
    assert "error: no answer for 1 s, the run ends: no server at" in output.replace("\n", " ")
    assert bench.commands_sent()[-1] == "hold"


@pytest.fixture
def blocked(bench: Bench, tmp_path: Path) -> Iterator[tuple[Command, Future[Decision], Path]]:
    """A server in the middle of a decision, the answer that a client waits for, and the file that blocks it."""
    block = tmp_path / "block"
    server, address = bench.serve(FAKE_BLOCK=str(block))
    client = SteeringClient(address, ROBOT)
    observation = Observation({"state": np.zeros((2, 3), np.float32)}, np.ones(2, np.bool_))
    block.touch()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.infer, Request(observation, num_samples=4))
        server.wait_for("blocked")
        yield server, answer, block
        block.unlink(missing_ok=True)
        client.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_server_finish_what_was_asked(
    blocked: tuple[Command, Future[Decision], Path], number: signal.Signals
) -> None:
    server, answer, block = blocked
    server.signal(number)
    server.wait_for("again to stop at once")
    assert not answer.done()
    block.unlink()
    assert len(answer.result(WAIT_S).candidates) == 4
    code, output = server.end()
    assert (code, output.splitlines()[-1]) == (0, "stopped")


def test_a_second_signal_stops_the_server_at_once(blocked: tuple[Command, Future[Decision], Path]) -> None:
    server, answer, _ = blocked
    server.signal(signal.SIGINT)
    server.wait_for("again to stop at once")
    server.signal(signal.SIGINT)
    assert server.end()[0] == 130
    assert isinstance(answer.exception(WAIT_S), UnavailableError)


def test_a_server_that_is_not_there_is_one_line(bench: Bench) -> None:
    code, output = bench.run("127.0.0.1:1").end()
    assert code == 2
    assert output.startswith("error: no server at 127.0.0.1:1")
    assert "steer serve" in output
    assert "Traceback" not in output


def test_a_port_that_is_taken_is_one_line(bench: Bench) -> None:
    _, address = bench.serve()
    code, output = bench.steer("serve", "--policy", "toy:", "--address", address).end()
    assert code == 2
    assert f"error: cannot listen on {address}: another program has the port" in output
    assert "Traceback" not in output


def test_a_prefix_that_the_critic_cannot_score_is_said_before_anything_moves(bench: Bench) -> None:
    _, address = bench.serve()
    code, output = bench.run(address, "--execute", "2").end()
    assert code == 2
    assert "make 3 steps, but the server's critic scores [4]" in output
    assert bench.commands_sent() == []


@pytest.mark.parametrize("words", [(), ("--allow-unready",)])
def test_a_critic_whose_verdict_says_no_is_not_served_unless_it_is_allowed(
    bench: Bench, tmp_path: Path, words: tuple[str, ...]
) -> None:
    folder = tmp_path / "critic"
    verdict = {"may_steer": False, "reasons": ["it ranks no better than chance (AUC 0.51)"]}
    write_checkpoint(
        folder,
        kind="toy",
        config={},
        spec={},
        transforms=Pipeline(()),
        weights={},
        card="",
        documents={"verdict": verdict},
    )
    command = bench.steer("serve", "--policy", "toy:", "--critic", f"toy:{folder}", "--address", "127.0.0.1:0", *words)
    if words:
        command.wait_for("serving on")
        return
    code, output = command.end()
    assert code == 2
    assert "may not steer, its own verdict says:\n  - it ranks no better than chance (AUC 0.51)" in output
    assert "--allow-unready" in output


@pytest.mark.parametrize(
    ("words", "environment", "threads"),
    [
        ((), {"OMP_NUM_THREADS": "3"}, "3"),
        (("--threads", "2"), {"OMP_NUM_THREADS": "3"}, "2"),
        ((), {"OMP_NUM_THREADS": ""}, str(max(1, (os.cpu_count() or 2) - 1))),
    ],
)
def test_arithmetic_leaves_a_core_unless_it_is_told_otherwise(
    bench: Bench, words: tuple[str, ...], environment: dict[str, str], threads: str
) -> None:
    command = bench.steer("serve", "--policy", "toy:", "--address", "127.0.0.1:0", *words, **environment)
    assert command.wait_for(r"arithmetic on (\S+) thread").group(1) == threads


def test_nothing_to_serve(bench: Bench) -> None:
    code, output = bench.steer("serve").end()
    assert code == 2
    assert "error: nothing to serve: give --policy, --critic or both" in output
