"""`TokenChunkNetwork`: observation tokens in front of a small Llama that continues with the numbers of a chunk.

    [vectors, as state_tokens tokens][patches of every image][number 1][number 2] ... [number H x A - 1]

The numbers are in time-major order; each is predicted from everything before it. `forward` is the training loss.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from transformers import LlamaConfig, LlamaForCausalLM

from policies.encoder import vector_sizes
from policies.openvla.chunk_config import TokenChunkConfig
from policies.openvla.config import TowerConfig
from policies.openvla.projector import Projector
from policies.openvla.tokens import ActionBins
from policies.openvla.vision import VisionTransformer
from policies.training import weighted_mean
from steer.policy import PolicySpec
from steer.transforms import Pipeline


class ImageTokens(nn.Module):
    """Images of any size to tokens: a small vision transformer and a projector, as in OpenVLA."""

    def __init__(self, config: TokenChunkConfig) -> None:
        super().__init__()
        width, size = config.vision_width, config.image_size
        # Features come from the second-to-last block; the last is never run and is removed.
        tower = TowerConfig(width, config.vision_layers + 1, 4, 2 * width, config.patch_size, size)
        self.size = size
        self.tower = VisionTransformer(tower)
        self.tower.drop_unused()
        nn.init.normal_(self.tower.pos_embed, std=0.02)
        self.projector = Projector(width, config.hidden, fused=False)

    def forward(self, images: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n p e"]:
        pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        tokens: Tensor = self.projector(self.tower(interpolate(pixels, (self.size, self.size), mode="area")))
        return tokens


class ObservationTokens(nn.Module):
    """All keys of an observation as tokens; frames that are padding count as zeros and are marked."""

    def __init__(self, config: TokenChunkConfig, spec: PolicySpec, sizes: Mapping[str, int]) -> None:
        """sizes: entries per frame of every vector key, after the transforms; all other keys are images."""
        super().__init__()
        self.vectors = tuple(key for key in spec.observation.keys if key in sizes)
        self.images = tuple(key for key in spec.observation.keys if key not in sizes)
        entries = spec.observation.window * (sum(sizes.values()) + 1)
        self.state_tokens = config.state_tokens
        self.project = nn.Sequential(
            nn.Linear(entries, 2 * config.hidden),
            nn.GELU(),
            nn.Linear(2 * config.hidden, config.state_tokens * config.hidden),
        )
        self.towers = nn.ModuleList(ImageTokens(config) for _ in self.images)

    def forward(self, arrays: Mapping[str, Tensor], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b p e"]:
        flags = mask.float()[..., None]
        frames = torch.cat([flags, *(arrays[key].float() * flags for key in self.vectors)], dim=-1)
        tokens = [self.project(frames.flatten(1)).reshape(len(mask), self.state_tokens, -1)]
        for key, tower in zip(self.images, self.towers, strict=True):
            patches = tower(arrays[key].flatten(0, 1)) * flags.flatten(0, 1)[:, None]
            tokens.append(patches.reshape(len(mask), -1, patches.shape[-1]))
        return torch.cat(tokens, dim=1)


class TokenChunkNetwork(nn.Module):
    """Everything that is trained."""

    def __init__(self, config: TokenChunkConfig, spec: PolicySpec, transforms: Pipeline) -> None:
        super().__init__()
        self.bins = ActionBins(config.bins, config.bins)
        self.length = spec.horizon * spec.action.size
        self.encoder = ObservationTokens(config, spec, vector_sizes(spec, transforms))
        self.language_model = LlamaForCausalLM(_llama(config))

    def forward(
        self,
        arrays: Mapping[str, Tensor],
        mask: Bool[Tensor, "b t"],
        chunks: Float[Tensor, "b h a"],
        weights: Float[Tensor, " b"] | None,
        ids: Int[Tensor, "b s"],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the chunk's tokens `ids`, which `TokenChunkObjective.draw` makes of `chunks`: (loss, info)."""
        observation = self.encoder(arrays, mask)
        before = self.language_model.model.embed_tokens(ids[:, :-1])
        hidden = self.language_model.model(inputs_embeds=torch.cat([observation, before], dim=1), use_cache=False)
        logits = self.language_model.lm_head(hidden.last_hidden_state[:, -self.length :]).float()
        losses = cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)
        loss = weighted_mean(losses, weights)
        accuracy = (logits.argmax(-1) == ids).float().mean()
        return loss, {"loss": loss.detach(), "accuracy": accuracy}


def _llama(config: TokenChunkConfig) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=config.bins,
        hidden_size=config.hidden,
        intermediate_size=config.expansion,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
    )
