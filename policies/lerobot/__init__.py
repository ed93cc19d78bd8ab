"""LeRobot policies: `FAMILY` is their entry in the registry. LeRobot itself is imported by a worker process only.

    lerobot:PATH?device=cpu&python=PATH&tokenizer=PATH&rate_hz=30&start_timeout_s=300&timeout_s=60

PATH is a `pretrained_model` folder of LeRobot 0.4.4. Diffusion and ACT are compared with LeRobot's own outputs; VQ-BeT, SmolVLA,
pi0, pi0.5 and pi0-FAST take the same path and are untested (see `policies.lerobot.sampling`). `steer.json` in the folder states
what LeRobot does not (see `policies.lerobot.features`); a critic needs it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from policies.lerobot.environment import find_python
from policies.lerobot.features import DEFAULT_RATE_HZ
from policies.lerobot.folder import check_folder
from policies.lerobot.policy import Launch, LeRobotPolicy
from steer.errors import MissingExtraError
from steer.model_name import ModelName
from steer.options import number
from steer.registry import Family

if TYPE_CHECKING:
    from steer.description import Description

OPTIONS = ("device", "python", "tokenizer", "rate_hz", "start_timeout_s", "timeout_s")


def load(name: ModelName) -> LeRobotPolicy:
    """Start a worker for the checkpoint; see the module for the options."""
    name.refuse_unknown(*OPTIONS)
    folder = Path(name.place).absolute()
    # Before seconds go into starting a worker.
    check_folder(folder)
    arguments = [
        str(folder),
        *("--device", name.options.get("device", "cpu")),
        *("--tokenizer", name.options.get("tokenizer", "")),
        *("--rate-hz", str(number(name.options, "rate_hz", DEFAULT_RATE_HZ))),
    ]
    launch = Launch(
        find_python(name.options.get("python", "")),
        arguments,
        number(name.options, "start_timeout_s", Launch.start_timeout_s),
        number(name.options, "timeout_s", Launch.timeout_s),
    )
    return LeRobotPolicy(launch)


def describe(name: ModelName) -> Description:
    """What a checkpoint says of itself; needs no worker. See `policies.lerobot.describe`."""
    if find_spec("safetensors") is None:
        raise MissingExtraError("safetensors", "train", "reading a LeRobot checkpoint")
    from policies.lerobot.describe import describe as describe_folder

    return describe_folder(name, OPTIONS)


FAMILY = Family(
    kind="lerobot",
    summary="LeRobot 0.4.4 checkpoints (diffusion, ACT and others), in a process of LeRobot's environment",
    load=load,
    describe=describe,
)
