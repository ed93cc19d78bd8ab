"""`OctoPolicy`: an Octo checkpoint as a policy. Implements `steer.policy.Policy`; see there for the contract.

- Actions are in the units of the chosen data set's statistics.
- Camera images may have any size, see `images`. `Task.goal_image` is the goal of the first camera; the others have none.
- A task may have an instruction, a goal image, both or neither: the model is told what is missing.
- Temperature scales every noise that the sampler draws, so at 0 all candidates are the same.
- Committed steps are ignored (`inpaints` is False).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from policies.octo.images import OctoImages
from policies.octo.language import END, Instructions, TokenIds
from policies.octo.model import OctoModel, Scene
from policies.octo.statistics import Rule, Statistics, unnormalise
from policies.octo.transformer import Prefix
from steer.errors import SpecError
from steer.noise import candidate_noise
from steer.observation import Batch, Task
from steer.policy import PolicySpec
from steer.spec import ArraySpec

# Instructions whose prefix is kept: about a megabyte each at the published sizes.
REMEMBERED = 32
# Candidates are padded to a power of two from here, so that few programs are compiled.
SMALLEST_GROUP = 8

_IMAGE = ArraySpec("goal_image", "uint8", (-1, -1, 3))


@dataclass(frozen=True)
class OctoContext:
    """embeddings: [padded B, D], the readout of each observation's newest step; rows: B."""

    embeddings: Float[Array, "p d"]
    rows: int


class OctoPolicy:
    """See the module's description. keys: camera name -> observation key, cameras that are used."""

    def __init__(
        self,
        model: OctoModel,
        spec: PolicySpec,
        version: str,
        *,
        keys: Mapping[str, str],
        images: OctoImages,
        instructions: Instructions,
        statistics: Statistics,
        rule: Rule = "normal",
    ) -> None:
        self.spec = spec
        self.version = version
        self.model = model
        self._keys = dict(keys)
        self._images = images
        self._instructions = instructions
        self._statistics = statistics
        self._rule: Rule = rule
        self._acts = np.tile(np.arange(model.config.head.action_dim) < statistics.size, spec.horizon)
        self._prefix_of = lru_cache(maxsize=REMEMBERED)(self._encode_instruction)

    def encode(self, observations: Batch) -> OctoContext:
        """One pass of the transformer for all candidates; the language part comes from memory after an episode's first call."""
        self.spec.observation.validate_batch(observations)
        rows = len(observations)
        chosen = _fill(rows, _power_of_two(rows))
        tasks = [(observations.tasks or (Task(),) * rows)[i] for i in chosen]
        fitted = self._images.observe({key: observations.arrays[key] for key in self._keys.values()})
        frames = {camera: fitted[key][chosen] for camera, key in self._keys.items()}
        mask = observations.mask[chosen]
        goals = self._goals(tasks, {camera: value.shape[2:4] for camera, value in frames.items()})
        has_language = np.array([_has_instruction(task) for task in tasks])
        scene = Scene(frames, goals, has_language, mask, dict.fromkeys(frames, np.ones_like(mask)))
        # Waited for here, so that the time goes to encoding and not to whoever reads the result first.
        embeddings = self.model.readouts(scene, self._prefixes(tasks)).block_until_ready()
        return OctoContext(embeddings, rows)

    def sample(
        self,
        context: OctoContext,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float = 1.0,
        committed: Float[np.ndarray, "b d a"] | None = None,
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per observation, all in one batch through the diffusion head."""
        self.spec.check_request(num_samples, temperature, 0 if committed is None else committed.shape[1])
        if len(seeds) != context.rows:
            raise SpecError(f"seeds: got {len(seeds)}, expected one for each of the {context.rows} observations")
        head = self.model.config.head
        draws = candidate_noise(seeds, num_samples, (head.diffusion_steps + 1, len(self._acts)))
        noise = np.zeros(
            (head.diffusion_steps + 1, len(context.embeddings), _group(num_samples), len(self._acts)), np.float32
        )
        noise[:, : context.rows, :num_samples] = np.moveaxis(draws, 2, 0) * np.float32(temperature)
        flat = np.asarray(self.model.chunks(context.embeddings, noise, self._acts))[: context.rows, :num_samples]
        chunks = flat.reshape(context.rows, num_samples, self.spec.horizon, head.action_dim)
        return unnormalise(chunks, self._statistics, self._rule)

    def _prefixes(self, tasks: list[Task]) -> Prefix:
        """The language part of each row, stacked."""
        rows = [self._prefix_of(task.instruction if _has_instruction(task) else "") for task in tasks]
        if len(rows) == 1:
            return rows[0]
        return Prefix(
            jnp.concatenate([row.tokens for row in rows]),
            jnp.concatenate([row.keys for row in rows], axis=1),
            jnp.concatenate([row.values for row in rows], axis=1),
        )

    def _encode_instruction(self, instruction: str) -> Prefix:
        """Tokens, the language encoder and the prefix of every block, for one instruction."""
        length = self.model.config.language_tokens
        encoded = self._instructions.encode(instruction) if instruction else TokenIds.padded([END], length)
        if isinstance(encoded, TokenIds):
            return self.model.prefix(self.model.language_tokens(encoded.ids[None], encoded.mask[None]))
        return self.model.prefix(encoded[None])

    def _goals(self, tasks: list[Task], sizes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Goal images of the cameras that take one: the task's for the first, black for none."""
        cameras = [camera.name for camera in self.model.config.cameras if camera.goal and camera.name in sizes]
        goals = {name: np.zeros((len(tasks), *sizes[name], 3), np.uint8) for name in cameras}
        for row, task in enumerate(tasks):
            if task.goal_image is None:
                continue
            if not cameras:
                raise SpecError("a goal image was given, but no camera of this model takes one: give an instruction")
            _IMAGE.validate(task.goal_image)
            first = cameras[0]
            goals[first][row] = self._images.fit(self._keys[first], sizes[first], task.goal_image)
        return goals


def _has_instruction(task: Task) -> bool:
    return bool(task.instruction.strip())


def _fill(rows: int, size: int) -> Int[np.ndarray, " p"]:
    """Indices of the rows, the last one repeated up to `size`."""
    return np.minimum(np.arange(size), rows - 1)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _group(candidates: int) -> int:
    """Candidates that are really computed."""
    return 1 if candidates == 1 else max(SMALLEST_GROUP, _power_of_two(candidates))
