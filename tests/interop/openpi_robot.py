"""A robot program as openpi's users write it: the unmodified client, its chunk broker and its runtime, nothing of Steer.

Runs in openpi-client's own environment. The simulated arm lives in another process, at the other end of stdin and stdout:
one line of JSON asks, one line answers.

    python openpi_robot.py PORT STEPS_PER_CHUNK
"""

from __future__ import annotations

import json
import logging
import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.runtime.agents.policy_agent import PolicyAgent
from openpi_client.runtime.environment import Environment
from openpi_client.runtime.runtime import Runtime
from openpi_client.websocket_client_policy import WebsocketClientPolicy


class Arm(Environment):
    """The arm in the other process, and what it is told to do."""

    def __init__(self) -> None:
        self.task = ""
        self.state: list[float] = []
        self.ended = False

    def reset(self) -> None:
        self._ask({"do": "reset"})

    def is_episode_complete(self) -> bool:
        return self.ended

    def get_observation(self) -> dict:
        return {"observation/state": np.array(self.state, np.float32), "prompt": self.task}

    def apply_action(self, action: dict) -> None:
        self._ask({"do": "act", "action": action["actions"].tolist()})

    def _ask(self, question: dict) -> None:
        print(json.dumps(question), flush=True)
        answer = json.loads(sys.stdin.readline())
        self.task, self.state, self.ended = answer["task"], answer["state"], answer["ended"]


class Counting(WebsocketClientPolicy):
    """The client as it is, counting its calls."""

    calls = 0

    def infer(self, obs: dict) -> dict:
        self.calls += 1
        return super().infer(obs)


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    port, steps_per_chunk = int(sys.argv[1]), int(sys.argv[2])
    policy = Counting("127.0.0.1", port)
    Runtime(Arm(), PolicyAgent(ActionChunkBroker(policy, steps_per_chunk)), subscribers=[]).run()
    about = {"numpy": np.__version__, "calls": policy.calls, "metadata": policy.get_server_metadata()}
    print(json.dumps({"do": "end", **about}), flush=True)


if __name__ == "__main__":
    main()
