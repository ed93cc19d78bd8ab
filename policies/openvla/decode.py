"""K continuations of one prefix: the prefix is run once, and the candidates follow it packed into one sequence.

At step s the K newest tokens, one per candidate, enter together with the same position. Keys lie in one buffer,

    [prefix, P][first tokens, K][second tokens, K] ...

and a 4-D additive mask lets candidate k see the prefix and the k-th of every later group, itself included. The prefix's keys and
values are never copied per candidate; against K separate sequences the result differs by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache, LlamaModel
from transformers.cache_utils import CacheLayerMixin

# (step, hidden state [B, K, E] that predicts the step's token) -> ids [B, K] of all tokens that exist.
Chooser: TypeAlias = Callable[[int, Float[Tensor, "b k e"]], Int[Tensor, "b k"]]


@dataclass(frozen=True)
class Prefix:
    """What all candidates of B observations share.

    layers: keys and values [B, heads, P, d] of every layer; hidden: [B, E] at the last position, after the final norm.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    hidden: Float[Tensor, "b e"]

    @property
    def length(self) -> int:
        """P."""
        return int(self.layers[0][0].shape[2])


def prefill(model: LlamaModel, embeds: Float[Tensor, "b p e"], before: Prefix | None = None) -> Prefix:
    """Run the embeddings causally, behind an earlier prefix if there is one (which stays as it is)."""
    cache = DynamicCache() if before is None else DynamicCache(before.layers)
    out = model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
    layers = tuple((layer.keys, layer.values) for layer in out.past_key_values.layers)
    return Prefix(layers, out.last_hidden_state[:, -1])


def decode(
    model: LlamaModel, prefix: Prefix, num_samples: int, num_tokens: int, choose: Chooser
) -> Int[Tensor, "b k s"]:
    """S tokens of K candidates, each chosen by `choose`."""
    hidden = prefix.hidden[:, None].expand(-1, num_samples, -1)
    ids = [choose(0, hidden)]
    mask = packed_mask(prefix, num_samples, num_tokens - 1)
    cache = _shared_cache(prefix.layers, num_samples * (num_tokens - 1))
    for step in range(1, num_tokens):
        hidden = model(
            inputs_embeds=model.embed_tokens(ids[-1]),
            attention_mask=mask[..., : prefix.length + step * num_samples],
            position_ids=torch.full((1, num_samples), prefix.length + step - 1, device=hidden.device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        ids.append(choose(step, hidden))
    return torch.stack(ids, dim=-1)


def packed_mask(prefix: Prefix, num_samples: int, steps: int) -> Float[Tensor, "1 1 k n"]:
    """0 where candidate k may look, -inf elsewhere; a step sees the columns up to its own group."""
    hidden = prefix.hidden
    others = torch.full((num_samples, num_samples), float("-inf"), dtype=hidden.dtype, device=hidden.device)
    own = others.fill_diagonal_(0.0).repeat(1, steps)
    shared = own.new_zeros(num_samples, prefix.length)
    return torch.cat([shared, own], dim=-1)[None, None]


class _SharedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # transformers leaves the subclass hook untyped
    """Keys and values of one layer in a buffer with room for the candidates, so that nothing is copied per step."""

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped there
        self._length = keys.shape[2]
        self.keys, self.values = (torch.cat([part, _empty(part, room)], dim=2) for part in (keys, values))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start, self._length = self._length, self._length + key_states.shape[2]
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, start : self._length] = key_states
        self.values[:, :, start : self._length] = value_states
        return self.keys[:, :, : self._length], self.values[:, :, : self._length]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the buffers were made with the layer."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._length + query_length, 0

    def get_seq_length(self) -> int:
        return self._length

    def get_max_length(self) -> int:
        assert self.keys is not None
        return int(self.keys.shape[2])


def _shared_cache(layers: Sequence[tuple[Tensor, Tensor]], room: int) -> Cache:
    return Cache(layers=[_SharedLayer(keys, values, room) for keys, values in layers])


def _empty(like: Tensor, room: int) -> Tensor:
    return like.new_empty(*like.shape[:2], room, like.shape[3])
