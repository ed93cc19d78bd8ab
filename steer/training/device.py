"""The device and the processes of a training, through accelerate."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from steer.errors import ConfigError

Precision = Literal["no", "bf16", "fp16"]


def make_accelerator(device: str, precision: Precision = "no", patience: timedelta | None = None) -> Accelerator:
    """accelerate's view of `device`: cpu, cuda, cuda:1, or auto. Raises `ConfigError` for one that is not here.

    patience: how long processes may wait for each other; torch's choice unless given.
    """
    handlers = [] if patience is None else [InitProcessGroupKwargs(timeout=patience)]
    if device == "cpu":
        return Accelerator(cpu=True, mixed_precision=precision, kwargs_handlers=handlers)
    if device != "auto":
        torch.cuda.set_device(_cuda(device))
    return Accelerator(mixed_precision=precision, kwargs_handlers=handlers)


def _cuda(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}: no such device: give cpu, cuda, cuda:1 or auto") from error
    if device.type != "cuda":
        raise ConfigError(f"device {name!r}: not supported: give cpu, cuda, cuda:1 or auto")
    if not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: no CUDA device is here: use --device cpu")
    if (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r}: there are {torch.cuda.device_count()} here, counted from 0")
    return torch.device("cuda", device.index or 0)
