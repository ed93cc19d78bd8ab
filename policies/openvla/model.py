"""`OpenVlaModel`: vision towers, projector and Llama under the published parameter names.

The sequence of the language model is [BOS][patches of view 1][of view 2 ...][extra tokens][rest of the prompt].
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from policies.openvla.config import PublishedConfig
from policies.openvla.projector import Projector
from policies.openvla.vision import VisionBackbone


class OpenVlaModel(nn.Module):
    """The modules. Built under `torch.device("meta")` it takes no memory."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.vision_backbone = VisionBackbone(config.towers)
        features = sum(tower.embed_dim for tower in config.towers)
        self.projector = Projector(features, config.hidden_size, fused=len(config.towers) == 2)
        self.language_model = LlamaForCausalLM(llama_config(config))

    @property
    def device(self) -> torch.device:
        device: torch.device = self.language_model.lm_head.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.language_model.lm_head.weight.dtype
        return dtype

    def project(self, pixels: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b p e"]:
        """The patches of all V views of each row, one after the other, as embeddings."""
        batch = pixels.shape[0]
        features = self.vision_backbone(pixels.flatten(0, 1).to(self.device, self.dtype))
        projected: Tensor = self.projector(features)
        return projected.reshape(batch, -1, projected.shape[-1])

    def embed(self, patches: Float[Tensor, "b p e"], ids: Int[Tensor, "b n"]) -> Float[Tensor, "b m e"]:
        """[BOS][patches (and whatever was appended to them)][rest of the prompt]."""
        words = self.language_model.model.embed_tokens(ids)
        return torch.cat([words[:, :1], patches.to(words.dtype), words[:, 1:]], dim=1)


def llama_config(config: PublishedConfig) -> LlamaConfig:
    """transformers' configuration of the language model."""
    settings = dict(config.llama)
    theta = settings.pop("rope_theta")
    made = LlamaConfig(**settings, rope_parameters={"rope_type": "default", "rope_theta": theta})
    made._attn_implementation = "sdpa"
    return made


def restore_rotary(language_model: LlamaForCausalLM, device: torch.device) -> None:
    """Make the rotary frequencies anew: no file holds them, and a cast would round them, which changes greedy actions."""
    language_model.model.rotary_emb = LlamaRotaryEmbedding(language_model.config).to(device)
