"""The worker: runs one LeRobot checkpoint in LeRobot's environment and answers Steer's requests.

    python -m policies.lerobot.worker FOLDER --channel FD [--device cpu] [--tokenizer FOLDER] [--rate-hz HZ]

It is started by `policies.lerobot.process` with one end of a pair of sockets as descriptor FD, and leaves when the other end
closes. First it sends its introduction; then it answers one request after the other:

    encode    tensors: mask and every key of the observation; "instructions"  ->  "context"
    sample    "context", "num_samples", "temperature"; tensor: seeds          ->  tensor: candidates
    inputs    as encode  ->  tensors: what comes out of the pre-processor
    trace     "context", "seed"; tensor: noise, if any                        ->  tensors: normalised, actions

Each request may carry "forget": contexts that nobody holds any more. An error is an answer: "error" names its class.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from policies.lerobot.channel import PROTOCOL, Parcel, receive, send
from policies.lerobot.shims import install
from steer.errors import SpecError, SteerError
from steer.observation import Batch, Task
from steer.serial import to_json

if TYPE_CHECKING:
    from policies.lerobot.model import Encoded, LeRobotModel


class Service:
    """Answers requests with a model; keeps the contexts that Steer still holds."""

    def __init__(self, model: LeRobotModel) -> None:
        self._model = model
        self._contexts: dict[int, Encoded] = {}
        self._numbers = count()
        self._handlers: Mapping[str, Callable[[Parcel], Parcel]] = {
            "encode": self._encode,
            "sample": self._sample,
            "inputs": self._inputs,
            "trace": self._trace,
        }

    def introduction(self) -> Parcel:
        """What the policy is."""
        return Parcel({"protocol": PROTOCOL, "spec": to_json(self._model.spec), "version": self._model.version})

    def answer(self, request: Parcel) -> Parcel:
        """Do one request; every error becomes an answer."""
        try:
            for number in request.header.get("forget", ()):
                self._contexts.pop(number, None)
            handler = self._handlers.get(request.header.get("do", ""))
            if handler is None:
                raise SpecError(
                    f"request {request.header.get('do')!r} is unknown, expected one of {list(self._handlers)}"
                )
            return handler(request)
        except Exception as error:  # noqa: BLE001  it travels to Steer, which raises it
            return failure(error)

    def _encode(self, request: Parcel) -> Parcel:
        number = next(self._numbers)
        self._contexts[number] = self._model.encode(_batch(request))
        return Parcel({"context": number})

    def _sample(self, request: Parcel) -> Parcel:
        header = request.header
        candidates = self._model.sample(
            self._context(request), header["num_samples"], request.tensors["seeds"], header["temperature"]
        )
        return Parcel({}, {"candidates": candidates})

    def _inputs(self, request: Parcel) -> Parcel:
        inputs = self._model.inputs(_batch(request))
        return Parcel({}, {name: value.cpu().numpy() for name, value in inputs.items()})

    def _trace(self, request: Parcel) -> Parcel:
        normalised, actions = self._model.trace(
            self._context(request), request.tensors.get("noise"), request.header["seed"]
        )
        return Parcel({}, {"normalised": normalised, "actions": actions})

    def _context(self, request: Parcel) -> Encoded:
        number = request.header["context"]
        if number not in self._contexts:
            raise SpecError(f"context {number} is unknown to this worker: encode the observation again")
        return self._contexts[number]


def _batch(request: Parcel) -> Batch:
    arrays = dict(request.tensors)
    mask = arrays.pop("mask")
    return Batch(arrays, mask, tuple(Task(text) for text in request.header["instructions"]))


def failure(error: Exception) -> Parcel:
    """An error as an answer; one that Steer does not know leaves its trace in the worker's log."""
    if isinstance(error, SteerError):
        return Parcel({"error": type(error).__name__, "message": str(error)})
    traceback.print_exception(error)
    return Parcel({"error": "SteerError", "message": f"the LeRobot worker failed: {type(error).__name__}: {error}"})


def serve(connection: Connection, service: Service) -> None:
    """Answer until the other end closes."""
    try:
        send(connection, service.introduction())
        while True:
            send(connection, service.answer(receive(connection)))
    except (EOFError, ConnectionError):
        return


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, then serve."""
    parser = argparse.ArgumentParser(prog="python -m policies.lerobot.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokenizer", default="")
    parser.add_argument("--rate-hz", type=float, required=True)
    given = parser.parse_args(arguments)
    # Ctrl-C goes to the whole process group; Steer alone decides what then happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(given.channel) as connection, redirect_stdout(sys.stderr):
        try:
            install()
            from policies.lerobot.model import LeRobotModel, Options

            service = Service(LeRobotModel(given.folder, Options(given.device, given.tokenizer, given.rate_hz)))
        except Exception as error:  # noqa: BLE001  it travels to Steer, which raises it
            send(connection, failure(error))
            return 1
        serve(connection, service)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
