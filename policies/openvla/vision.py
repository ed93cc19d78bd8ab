"""A vision transformer with timm's parameter names (Dosovitskiy et al. 2021), as much of it as OpenVLA reads.

Features are the patch tokens after the second-to-last block, without the final norm. What comes after is in the files, hence in
the modules, but is never run: `drop_unused` removes it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.openvla.config import TowerConfig

_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """fc2 GELU(fc1 x), with the exact GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return out


class LayerScale(nn.Module):
    """x times a learned factor per channel (Touvron et al. 2021); the published files call timm's gamma `scale_factor`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        return x * self.scale_factor


class Block(nn.Module):
    """x + ls1 attn(norm1 x), then x + ls2 mlp(norm2 x)."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.attn = Attention(dim, config.num_heads)
        self.ls1 = LayerScale(dim) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = Mlp(dim, config.mlp_hidden)
        self.ls2 = LayerScale(dim) if config.layer_scale else nn.Identity()

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class PatchEmbed(nn.Module):
    """Patches of an image as tokens, row by row."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.embed_dim, config.patch_size, config.patch_size)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        tokens: Tensor = self.proj(pixels).flatten(2).transpose(1, 2)
        return tokens


class AttentionPool(nn.Module):
    """SigLIP's pooling head. It is in the files and never run, so it has no forward."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.latent = nn.Parameter(torch.zeros(1, 1, dim))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = Mlp(dim, config.mlp_hidden)


class VisionTransformer(nn.Module):
    """One tower. Position embeddings are added to the patches alone; class and register tokens are put before them."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if config.reg_tokens:
            self.reg_token = nn.Parameter(torch.zeros(1, config.reg_tokens, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_patches, dim))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm: nn.Module = nn.LayerNorm(dim, eps=_EPS)
        self.attn_pool: nn.Module = AttentionPool(config) if config.attn_pool else nn.Identity()

    @property
    def num_prefix(self) -> int:
        """Tokens before the patches."""
        return int(self.config.class_token) + self.config.reg_tokens

    def drop_unused(self) -> None:
        """Remove what features do not depend on: the last block, the final norm and the pooling head."""
        self.blocks = self.blocks[: self.config.depth - 1]
        self.norm, self.attn_pool = nn.Identity(), nn.Identity()

    def embed(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """All tokens before the first block."""
        tokens = self.patch_embed(pixels) + self.pos_embed
        prefix = [getattr(self, name).expand(len(tokens), -1, -1) for name in self._prefix_names()]
        return torch.cat([*prefix, tokens], dim=1)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p d"]:
        """Patch features, see the module's header."""
        x = self.embed(pixels)
        for block in self.blocks[: self.config.depth - 1]:
            x = block(x)
        return x[:, self.num_prefix :]

    def _prefix_names(self) -> list[str]:
        named = (("cls_token", self.config.class_token), ("reg_token", self.config.reg_tokens))
        return [name for name, there in named if there]


class VisionBackbone(nn.Module):
    """One tower, or two side by side whose features are concatenated per patch."""

    def __init__(self, towers: tuple[TowerConfig, ...]) -> None:
        super().__init__()
        self.featurizer = VisionTransformer(towers[0])
        self.fused_featurizer = VisionTransformer(towers[1]) if len(towers) == 2 else None

    @property
    def towers(self) -> tuple[VisionTransformer, ...]:
        return (self.featurizer,) if self.fused_featurizer is None else (self.featurizer, self.fused_featurizer)

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p d"]:
        """pixels: three channels per tower."""
        parts = [tower(part) for tower, part in zip(self.towers, torch.split(pixels, 3, dim=1), strict=True)]
        return torch.cat(parts, dim=-1)
