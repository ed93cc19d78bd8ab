"""The modules that OpenVLA-OFT adds beside the base model, under their published parameter names, and how they are read.

Each lies in a file `NAME--STEP_checkpoint.pt`: a state dict whose keys may start with `module.`.
"""

from __future__ import annotations

import math
from pathlib import Path
from pickle import UnpicklingError

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu

from policies.openvla.weights import check_shapes
from steer.errors import CheckpointError

_WRAPPER = "module."
_BLOCKS = 2


class ResidualMlp(nn.Module):
    """Hidden states of one time step to its action: LN, linear, ReLU, two residual blocks, LN, linear."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(inputs)
        self.fc1 = nn.Linear(inputs, hidden)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(hidden) for _ in range(_BLOCKS))
        self.layer_norm2 = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x: Float[Tensor, "b h i"]) -> Float[Tensor, "b h a"]:
        x = self.fc1(self.layer_norm1(x)).relu()
        for block in self.mlp_resnet_blocks:
            x = block(x)
        out: Tensor = self.fc2(self.layer_norm2(x))
        return out


class ResidualBlock(nn.Module):
    """x + ReLU(W LN(x))."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.ReLU())

    def forward(self, x: Float[Tensor, "*n w"]) -> Float[Tensor, "*n w"]:
        out: Tensor = x + self.ffn(x)
        return out


class RegressionModule(nn.Module):
    """Actions trained with an L1 loss."""

    def __init__(self, hidden: int, axes: int) -> None:
        super().__init__()
        self.model = ResidualMlp(axes * hidden, hidden, axes)

    def forward(self, states: Float[Tensor, "b n e"], horizon: int) -> Float[Tensor, "b h a"]:
        """states: one per number of the chunk, time step after time step."""
        out: Tensor = self.model(states.unflatten(1, (horizon, -1)).flatten(2))  # type: ignore[no-untyped-call]  # torch's
        return out


class NoiseModule(nn.Module):
    """Noise in a chunk; the same network under another name."""

    def __init__(self, hidden: int, axes: int) -> None:
        super().__init__()
        self.noise_predictor = nn.ModuleDict({"mlp_resnet": ResidualMlp(axes * hidden, hidden, axes)})

    def forward(self, states: Float[Tensor, "b n e"], horizon: int) -> Float[Tensor, "b h a"]:
        flat = states.unflatten(1, (horizon, -1)).flatten(2)  # type: ignore[no-untyped-call]  # torch's
        out: Tensor = self.noise_predictor["mlp_resnet"](flat)
        return out


class ToEmbedding(nn.Module):
    """A vector as one token: linear, GELU, linear. Projects proprioception, and the single numbers of a noisy chunk."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n e"]:
        out: Tensor = self.fc2(gelu(self.fc1(x)))
        return out


def time_embedding(timesteps: Int[Tensor, " b"], hidden: int) -> Float[Tensor, "b e"]:
    """Sines and cosines of the denoising step (Vaswani et al. 2017, section 3.5), sines first."""
    half = hidden // 2
    rates = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(10_000.0) / (half - 1)))
    angles = timesteps[:, None].float() * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def part_file(path: Path, part: str) -> Path | None:
    """The file of a part ("action_head"), or None. Raises `CheckpointError` when there are several."""
    found = sorted(path.glob(f"{part}--*.pt"))
    if len(found) > 1:
        raise CheckpointError(f"{path}: several files of {part}: {[file.name for file in found]}: leave one")
    return found[0] if found else None


def read_part(file: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a part, without the wrapper's prefix. Nothing but tensors is unpickled. device "meta": shapes alone."""
    try:
        content = torch.load(file, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        raise CheckpointError(f"{file}: not readable as a state dict ({error}): copy the checkpoint again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{file}: holds more than tensors by name: not a file of OpenVLA-OFT")
    return {str(name).removeprefix(_WRAPPER): value for name, value in content.items()}


def fill(module: nn.Module, tensors: dict[str, Tensor], file: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Give a module that was built on the meta device its weights; raises `CheckpointError` unless they fit."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    check_shapes(str(file), wanted, {name: tuple(value.shape) for name, value in tensors.items()})
    module.load_state_dict({name: value.to(device, dtype) for name, value in tensors.items()}, assign=True)
    module.eval().requires_grad_(False)
