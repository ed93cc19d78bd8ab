"""Sessions: order, idleness, and a history that is told by what is new in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer import wire
from steer.client.framing import INFER, with_frames
from steer.client.window import SentWindow
from steer.errors import SessionError, SpecError, UnavailableError
from steer.observation import Observation, ObservationSpec
from steer.server.sessions import Session, Sessions
from steer.v1 import steering_pb2
from steer.wire import Execution
from tests.client.doubles import FakeClock
from tests.fakes import STATE


def session(window: int = 3) -> Session:
    return Session("s", "arm", Execution(4, 0.8, 2), ObservationSpec((STATE,), window), 0.0)


def window_of(*ticks: int) -> Observation:
    states = np.array([[tick] * 3 for tick in ticks], np.float32)
    return Observation({"state": states}, np.ones(len(ticks), np.bool_), float(ticks[-1]))


def message(
    sent: SentWindow, chunk: int, observation: Observation, episode: int = 0, step: int = 0
) -> steering_pb2.InferRequest:
    asked = steering_pb2.InferRequest(session="s", chunk=chunk, episode=episode, step=step)
    frames = sent.tell(asked.history, observation)
    return steering_pb2.InferRequest.FromString(with_frames(asked.SerializeToString(), frames, INFER))


def new_frames(asked: steering_pb2.InferRequest) -> int:
    return int(asked.history.frames["state"].shape[0])


def test_only_new_frames_are_sent_and_the_server_sees_the_whole_window() -> None:
    server, client = session(), SentWindow()
    for chunk, (ticks, new) in enumerate([((0, 1, 2), 3), ((1, 2, 3), 1), ((3, 4, 5), 2), ((9, 10, 11), 3)], start=1):
        asked = message(client, chunk, window_of(*ticks))
        assert new_frames(asked) == new
        np.testing.assert_array_equal(server.request(asked).observation.arrays["state"][:, 0], ticks)
        client.remember(chunk, window_of(*ticks))


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=3, max_size=3), st.booleans()), max_size=12))
def test_whatever_is_asked_and_whatever_gets_lost_the_server_rebuilds_it(
    requests: list[tuple[list[int], bool]],
) -> None:
    server, client = session(), SentWindow()
    for chunk, (ticks, lost) in enumerate(requests, start=1):
        observation = window_of(*ticks)
        asked = message(client, chunk, observation)
        if lost:
            client.forget()
            continue
        rebuilt = server.request(asked).observation
        np.testing.assert_array_equal(rebuilt.arrays["state"], observation.arrays["state"])
        client.remember(chunk, observation)


def test_a_caller_may_fill_its_buffers_again() -> None:
    server, client = session(), SentWindow()
    observation = window_of(0, 1, 2)
    server.request(message(client, 1, observation))
    client.remember(1, observation)
    observation.arrays["state"][:] = 7
    rebuilt = server.request(message(client, 2, observation)).observation
    np.testing.assert_array_equal(rebuilt.arrays["state"], np.full((3, 3), 7))


def test_a_request_that_follows_a_window_the_server_does_not_hold_is_refused() -> None:
    server, client = session(), SentWindow()
    client.remember(4, window_of(0, 1, 2))
    with pytest.raises(SessionError, match="follows 2 frames of chunk 4, but the last window is that of chunk 0"):
        server.request(message(client, 5, window_of(1, 2, 3)))


@pytest.mark.parametrize(
    ("chunk", "episode", "step", "reason"),
    [
        (1, 1, 9, "chunk 1 came after chunk 1"),
        (2, 0, 9, "episode 0, step 9 came after"),
        (2, 1, 4, "episode 1, step 4 came"),
    ],
)
def test_late_requests_are_refused(chunk: int, episode: int, step: int, reason: str) -> None:
    server = session()
    server.request(message(SentWindow(), 1, window_of(0, 1, 2), episode=1, step=5))
    with pytest.raises(SessionError, match=reason):
        server.request(message(SentWindow(), chunk, window_of(0, 1, 2), episode, step))


def test_a_malformed_request_leaves_the_session_as_it_was() -> None:
    server = session()
    with pytest.raises(SpecError, match=r"mask: got shape \(2,\), expected \(3,\)"):
        server.request(message(SentWindow(), 1, window_of(0, 1)))
    assert server.request(message(SentWindow(), 1, window_of(0, 1, 2))).num_samples == 4


def test_a_request_without_settings_of_its_own_uses_those_of_the_session() -> None:
    server = session()
    plain = server.request(message(SentWindow(), 1, window_of(0, 1, 2)))
    assert (plain.num_samples, plain.temperature, plain.execute) == (4, 0.8, 2)
    own = message(SentWindow(), 2, window_of(0, 1, 2))
    own.execution.CopyFrom(wire.execution_to_message(Execution(16)))
    assert server.request(own).num_samples == 16


def test_a_session_ends_when_it_is_idle() -> None:
    clock = FakeClock()
    sessions = Sessions(idle_timeout_s=10.0, clock=clock.now)
    kept = sessions.open("arm", Execution(), ObservationSpec((STATE,)))
    left = sessions.open("arm", Execution(), ObservationSpec((STATE,)))
    clock.time += 6
    assert sessions.get(kept.id) is kept
    clock.time += 6
    assert sessions.get(kept.id) is kept
    with pytest.raises(SessionError, match="it ended after 10 s without use"):
        sessions.get(left.id)
    assert len(sessions) == 1


def test_there_is_a_limit_and_idle_sessions_make_room() -> None:
    clock = FakeClock()
    sessions = Sessions(idle_timeout_s=10.0, limit=1, clock=clock.now)
    sessions.open("arm", Execution(), ObservationSpec((STATE,)))
    with pytest.raises(UnavailableError, match="1 sessions are open"):
        sessions.open("arm", Execution(), ObservationSpec((STATE,)))
    clock.time += 11
    sessions.open("arm", Execution(), ObservationSpec((STATE,)))
