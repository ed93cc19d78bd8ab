"""Low-rank adapters (Hu et al. 2022) on the linear layers of a Llama, through peft: a large model is tuned by few numbers.

They are merged into the weights when a checkpoint is written, so that whoever loads it needs no peft and sees the same tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from steer.errors import MissingExtraError

_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_BASE, _ADAPTER = ".base_layer", ".lora_"


def add_adapters(network: nn.Module, llama: nn.Module, rank: int) -> None:
    """Freeze `network` but for new adapters in `llama`, a part of it; they begin as no change. alpha is half the rank."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError("peft", "vla", "training low-rank adapters") from error
    network.requires_grad_(False)
    settings = LoraConfig(r=rank, lora_alpha=max(rank // 2, 1), init_lora_weights="gaussian", target_modules=_LAYERS)
    inject_adapter_in_model(settings, llama)


def merged(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `network` with these weights as it would be without adapters: W + alpha / rank * B A."""
    from peft.tuners.lora import LoraLayer

    whole = copy.deepcopy(network)
    whole.load_state_dict(dict(weights))
    for module in whole.modules():
        if isinstance(module, LoraLayer):
            module.merge()
    return {
        name.replace(_BASE, ""): value.detach() for name, value in whole.state_dict().items() if _ADAPTER not in name
    }
