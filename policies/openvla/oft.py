"""OpenVLA-OFT (Kim, Finn and Liang 2025): all numbers of a chunk from one pass in which everything attends to everything.

    [BOS][patches of every view][proprioception][denoising step][prompt][H x A slots][</s>]

Slots are zeros, or (diffusion) the noisy numbers; the states that predict them are read one position earlier. Since the prefix
sees the slots, there is no prefix to share: only vision is computed once for K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.openvla.heads import equal_lengths
from policies.openvla.model import OpenVlaModel
from policies.openvla.oft_modules import NoiseModule, RegressionModule, ToEmbedding, time_embedding
from policies.openvla.sampling import ActionChooser, candidate_quantiles
from policies.openvla.tokens import ActionBins
from steer.errors import MissingExtraError
from steer.noise import candidate_noise


@dataclass(frozen=True)
class Layout:
    """horizon, axes: H and A; end_id: the token after the slots; proprio: its projector, None without proprioception."""

    model: OpenVlaModel
    horizon: int
    axes: int
    end_id: int
    proprio: ToEmbedding | None = None

    @property
    def slots(self) -> int:
        """H x A."""
        return self.horizon * self.axes

    @property
    def width(self) -> int:
        """E, of the embeddings."""
        return int(self.model.language_model.config.hidden_size)

    def front(self, patches: Float[Tensor, "b p e"], states: Float[np.ndarray, "b s"] | None) -> Float[Tensor, "b q e"]:
        """Patches and the token of the proprioception."""
        if self.proprio is None or states is None:
            return patches
        token = self.proprio(torch.from_numpy(states).to(patches.device, patches.dtype))
        return torch.cat([patches, token[:, None]], dim=1)

    def sequence(
        self, front: Float[Tensor, "b q e"], ids: Int[Tensor, "b n"], slots: Float[Tensor, "b c e"]
    ) -> Float[Tensor, "b m e"]:
        """The whole input of the language model."""
        end = self.model.language_model.model.embed_tokens(torch.full_like(ids[:, :1], self.end_id))
        return torch.cat([self.model.embed(front, ids), slots.to(end.dtype), end], dim=1)

    def states(self, sequence: Float[Tensor, "b m e"]) -> Float[Tensor, "b c e"]:
        """The last hidden states that predict the slots: from the last prompt token on."""
        length = sequence.shape[1]
        mask = sequence.new_zeros(1, 1, length, length)
        hidden: Tensor = self.model.language_model.model(
            inputs_embeds=sequence, attention_mask=mask, use_cache=False
        ).last_hidden_state
        start = length - self.slots - 2
        return hidden[:, start : start + self.slots]

    def zeros(self, rows: int) -> Float[Tensor, "b c e"]:
        """Empty slots."""
        return torch.zeros(rows, self.slots, self.width, device=self.model.device, dtype=self.model.dtype)


@dataclass(frozen=True)
class Group:
    """Rows with prompts of one length: what stands before the prompt, and its ids."""

    rows: list[int]
    front: Float[Tensor, "b q e"]
    ids: Int[Tensor, "b n"]


class _OftHead:
    """What the three heads have in common. Subclasses implement `policies.openvla.heads.Head`."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.horizon = layout.horizon
        # The slots, the end, the denoising step and the proprioception.
        self.num_positions = layout.slots + 3

    def groups(
        self,
        patches: Float[Tensor, "b p e"],
        prompts: Sequence[Int[np.ndarray, " n"]],
        proprio: Float[np.ndarray, "b s"] | None,
    ) -> list[Group]:
        front = self.layout.front(patches, proprio)
        return [
            Group(rows, front[rows], torch.from_numpy(np.stack([prompts[row] for row in rows])).to(front.device))
            for rows in equal_lengths(prompts)
        ]

    def empty_states(self, group: Group) -> Float[Tensor, "b c e"]:
        """Hidden states over empty slots."""
        return self.layout.states(self.layout.sequence(group.front, group.ids, self.layout.zeros(len(group.rows))))


class RegressionHead(_OftHead):
    """Numbers trained with an L1 loss: one chunk per observation, the same every time."""

    stochastic = False
    temperature = False

    def __init__(self, layout: Layout, module: RegressionModule) -> None:
        super().__init__(layout)
        self._module = module

    def encode(
        self,
        patches: Float[Tensor, "b p e"],
        prompts: Sequence[Int[np.ndarray, " n"]],
        proprio: Float[np.ndarray, "b s"] | None = None,
    ) -> Float[np.ndarray, "b h a"]:
        chunks = np.empty((len(prompts), self.horizon, self.layout.axes))
        for group in self.groups(patches, prompts, proprio):
            chunks[group.rows] = self._module(self.empty_states(group), self.horizon).float().cpu().numpy()
        return chunks

    def sample(
        self, context: Float[np.ndarray, "b h a"], num_samples: int, seeds: Int[np.ndarray, " b"], temperature: float
    ) -> Float[np.ndarray, "b k h a"]:
        return np.repeat(context[:, None], num_samples, axis=1)


class ParallelTokenHead(_OftHead):
    """Action tokens, all at once: each is drawn from its own slot's distribution."""

    stochastic = True
    temperature = True

    def __init__(self, layout: Layout, bins: ActionBins, top_k: int = 0) -> None:
        super().__init__(layout)
        self._bins, self._top_k = bins, top_k

    def encode(
        self,
        patches: Float[Tensor, "b p e"],
        prompts: Sequence[Int[np.ndarray, " n"]],
        proprio: Float[np.ndarray, "b s"] | None = None,
    ) -> list[tuple[list[int], Tensor]]:
        return [(group.rows, self.empty_states(group)) for group in self.groups(patches, prompts, proprio)]

    def sample(
        self,
        context: list[tuple[list[int], Tensor]],
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float,
    ) -> Float[np.ndarray, "b k h a"]:
        head = self.layout.model.language_model.lm_head.weight
        ids = np.empty((len(seeds), num_samples, self.layout.slots), np.int64)
        for rows, states in context:
            quantiles = candidate_quantiles(seeds[rows], num_samples, self.layout.slots).to(states.device)
            chooser = ActionChooser(head, self._bins.first, self._bins.bins, quantiles, temperature, self._top_k)
            for slot in range(self.layout.slots):
                hidden = states[:, None, slot].expand(-1, num_samples, -1)
                ids[rows, :, slot] = chooser(slot, hidden).cpu().numpy()
        return self._bins.decode(ids).reshape(*ids.shape[:2], self.horizon, -1)


class DiffusionHead(_OftHead):
    """DDIM over the chunk; the K candidates of all rows are one batch. The temperature scales the initial noise."""

    stochastic = True
    temperature = True

    def __init__(self, layout: Layout, module: NoiseModule, projector: ToEmbedding, steps: int) -> None:
        """steps: denoising steps, of the 50 that the head was trained with."""
        super().__init__(layout)
        self._module, self._projector, self._steps = module, projector, steps

    def encode(
        self,
        patches: Float[Tensor, "b p e"],
        prompts: Sequence[Int[np.ndarray, " n"]],
        proprio: Float[np.ndarray, "b s"] | None = None,
    ) -> list[Group]:
        return self.groups(patches, prompts, proprio)

    def sample(
        self, context: list[Group], num_samples: int, seeds: Int[np.ndarray, " b"], temperature: float
    ) -> Float[np.ndarray, "b k h a"]:
        shape = (self.horizon, self.layout.axes)
        noise = torch.from_numpy(candidate_noise(seeds, num_samples, shape)).mul_(temperature)
        chunks = np.empty(noise.shape)
        for group in context:
            repeated = Group(
                group.rows,
                group.front.repeat_interleave(num_samples, dim=0),
                group.ids.repeat_interleave(num_samples, dim=0),
            )
            start = noise[group.rows].flatten(0, 1).to(group.front.device)
            denoised = self.denoise(repeated, start).float().cpu().numpy()
            chunks[group.rows] = denoised.reshape(len(group.rows), num_samples, *shape)
        return chunks

    def denoise(self, group: Group, noise: Float[Tensor, "b h a"]) -> Float[Tensor, "b h a"]:
        """From noise to chunks, one of each per row of the group."""
        scheduler = ddim(self._steps)
        x = noise
        for timestep in scheduler.timesteps:
            x = scheduler.step(self.predict(group, x, int(timestep)), int(timestep), x).prev_sample
        return x

    def predict(self, group: Group, x: Float[Tensor, "b h a"], timestep: int) -> Float[Tensor, "b h a"]:
        """Noise in the chunks `x`."""
        states = self.layout.states(self.sequence(group, x, timestep))
        predicted: Tensor = self._module(states, self.horizon)
        return predicted.to(x.dtype)

    def sequence(self, group: Group, x: Float[Tensor, "b h a"], timestep: int) -> Float[Tensor, "b m e"]:
        """The language model's input, with the step's token and the noisy numbers in the slots."""
        front = group.front
        steps = torch.full((len(front),), timestep, device=front.device)
        token = time_embedding(steps, front.shape[-1]).to(front.dtype)
        slots = self._projector(x.flatten(1)[..., None].to(front.dtype))
        return self.layout.sequence(torch.cat([front, token[:, None]], dim=1), group.ids, slots)


def ddim(steps: int) -> Any:
    """diffusers' DDIM scheduler as the heads were trained with it: 50 squared-cosine steps, noise predicted, samples clipped."""
    try:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    except ImportError as error:
        raise MissingExtraError("diffusers", "train", "running an OpenVLA-OFT diffusion head") from error
    scheduler = DDIMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2")
    scheduler.set_timesteps(steps)
    return scheduler
