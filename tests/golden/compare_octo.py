"""Our Octo against the published code's outputs: checkpoints `NAME/` with cases `NAME_golden/*.npz`.

Every array of every case is compared; one that no rule here knows is an error, as is a case that lacks what all cases have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from policies.octo.checkpoint import OctoCheckpoint, read_octo
from policies.octo.config import HeadConfig, OctoConfig
from policies.octo.head import cosine_schedule, denoise, score
from policies.octo.layers import layer_norm
from policies.octo.model import (
    Eyes,
    OctoModel,
    Scene,
    Words,
    camera_tokens,
    key_masks,
    prefix_tokens,
    scene_layout,
    step_tokens,
    visible_keys,
)
from policies.octo.statistics import RULES, unnormalise
from policies.octo.transformer import encode_prefix, encode_steps
from tests.golden.comparison import Comparison, close, equal

Arrays = Mapping[str, NDArray[Any]]

TOKENS = 5e-5
SEQUENCE = 3e-4
READOUTS = 1e-4
EPS = 3e-5
ACTIONS = 2e-4
TRAJECTORY = 5e-4
NOISE = 1e-6
SCHEDULE = 5e-6


def compare(folder: Path) -> Iterator[Comparison]:
    """Every checkpoint of the folder with every one of its cases."""
    checkpoints = sorted(path.parent for path in folder.glob("*/config.json"))
    if not checkpoints:
        raise FileNotFoundError(f"{folder}: no checkpoint with a config.json")
    for path in checkpoints:
        golden = path.with_name(f"{path.name}_golden")
        cases = sorted(file for file in golden.glob("*.npz") if file.stem not in ("images", "schedule"))
        if not cases:
            raise FileNotFoundError(f"{golden}: no golden cases for the checkpoint {path}")
        yield from compare_checkpoint(read_octo(path), golden, cases)


def compare_checkpoint(checkpoint: OctoCheckpoint, golden: Path, cases: list[Path]) -> Iterator[Comparison]:
    """One checkpoint with its cases."""
    model = OctoModel(checkpoint.config, checkpoint.t5, checkpoint.weights)
    schedule = cosine_schedule(checkpoint.config.head.diffusion_steps)._asdict()
    for name, value in _read(golden / "schedule.npz").items():
        yield close(f"{golden.name}/schedule", name, schedule[name], value, SCHEDULE)
    images = _read(golden / "images.npz")
    for file in cases:
        case = Case(f"{golden.name}/{file.stem}", checkpoint, model, _read(file), images, file == cases[0])
        yield from case.compare()


def _read(file: Path) -> dict[str, NDArray[Any]]:
    with np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored}


@dataclass(frozen=True)
class Case:
    """One golden case and what we make of its inputs."""

    source: str
    checkpoint: OctoCheckpoint
    model: OctoModel
    arrays: Arrays
    images: Arrays
    first: bool

    def compare(self) -> Iterator[Comparison]:
        ours = self._ours
        compared = {"sample/seed", "head/time", "head/noisy_actions"}
        for name, value in ours.items():
            if name not in self.arrays and name.startswith("seq/"):
                continue
            compared.add(name)
            check = equal(self.source, name, value, self.arrays[name]) if value.dtype == bool else None
            yield check or close(self.source, name, value, self.arrays[name], _bound(name))
        yield close(self.source, "head/eps", self._eps(), self.arrays["head/eps"], EPS)
        compared.add("head/eps")
        if self.first:
            # What the policy computes: the newest readout and no more.
            newest = self.arrays[f"out/{self._readout}/tokens"][:, -1].mean(axis=1)
            prefix = self.model.prefix(self._language)
            yield close(self.source, "newest readout", self.model.readouts(self._scene, prefix), newest, READOUTS)
        if "sample/actions_norm" not in self.arrays:
            raise ValueError(f"{self.source}: has no sample/actions_norm, which every case has")
        for kind in sorted({name.split("/")[0] for name in self.arrays if name.startswith("sample")}):
            for name, comparison in self._compare_samples(kind):
                compared.add(name)
                yield comparison
        unknown = sorted(name for name in set(self.arrays) - compared if not name.startswith("in/"))
        if unknown:
            raise ValueError(f"{self.source}: do not know what to compare {unknown} with")

    # -- inputs

    @property
    def _readout(self) -> str:
        return self.checkpoint.config.head.readout

    @cached_property
    def _scene(self) -> Scene:
        cameras = self.checkpoint.config.cameras
        frames = {c.name: self._image(f"in/obs/{c.key}@") for c in cameras if f"in/obs/{c.key}@" in self.arrays}
        batch, window = self.arrays["in/obs/timestep_pad_mask"].shape
        goals = {}
        for camera in cameras:
            if camera.goal and camera.name in frames:
                key = f"in/task/{camera.key}@"
                black = np.zeros((batch, *frames[camera.name].shape[2:]), np.uint8)
                goals[camera.name] = self._image(key) if key in self.arrays else black
        seen = {
            c.name: self.arrays.get(f"in/obs/pad_mask_dict/{c.key}", np.ones((batch, window), bool))
            for c in cameras
            if c.name in frames
        }
        has_language = self.arrays.get("in/task/pad_mask_dict/language_instruction", np.ones(batch, bool))
        return Scene(frames, goals, has_language, self.arrays["in/obs/timestep_pad_mask"], seen)

    def _image(self, key: str) -> NDArray[Any]:
        return self.images[str(self.arrays[key])]

    @cached_property
    def _language(self) -> jax.Array:
        task = "in/task/language_instruction"
        return self.model.language_tokens(self.arrays[f"{task}/input_ids"], self.arrays[f"{task}/attention_mask"])

    # -- the transformer

    @cached_property
    def _ours(self) -> dict[str, NDArray[Any]]:
        """Every array up to the readouts, under its golden name."""
        config, scene = self.checkpoint.config, self._scene
        found = _trace(config, self.model.words, self.model.eyes, self._language, scene)
        return {"tok/language/tokens": np.asarray(self._language)} | {k: np.asarray(v) for k, v in found.items()}

    @cached_property
    def _embeddings(self) -> jax.Array:
        """[B, W, D] for the head."""
        return jnp.asarray(self._ours[f"out/{self._readout}/tokens"].mean(axis=2))

    # -- the head

    def _eps(self) -> jax.Array:
        head = self.model.head
        times = head.times[self.arrays["head/time"]][:, None, None]
        eps: jax.Array = _score(head, times, self._embeddings @ head.readout, self.arrays["head/noisy_actions"])
        return eps

    def _compare_samples(self, kind: str) -> Iterator[tuple[str, Comparison]]:
        """Everything under `sample.../`: the noise that the key gives, and what comes of the noise."""
        stored = {name.split("/")[1]: value for name, value in self.arrays.items() if name.split("/")[0] == kind}
        for name, value in stored.items():
            if name == "seed":
                continue
            full = f"{kind}/{name}"
            if name in ("noise_init", "noise_steps"):
                candidates = value.shape[-4:-3] if kind.endswith("K") else (1,)
                drawn = dict(zip(("noise_init", "noise_steps"), self._noise_of_key(kind, *candidates), strict=True))
                yield full, close(self.source, full, drawn[name].reshape(value.shape), value, NOISE)
            elif name == "trajectory":
                initial, turns = _with_candidates(stored["noise_init"], stored["noise_steps"])
                moved = self._denoise(initial, turns, self._head.action_dim)[1]
                ours = np.concatenate([initial, moved[:, 0]])
                yield full, close(self.source, full, ours, value, TRAJECTORY)
            else:
                yield full, close(self.source, full, self._actions(kind, name, value, stored), value, ACTIONS)

    def _actions(self, kind: str, name: str, golden: NDArray[Any], stored: Arrays) -> NDArray[Any]:
        """Chunks of the newest step, like `golden`: [B, H, A] or with a leading axis of candidates."""
        if "noise_init" in stored and "_K" not in name:
            noise = _with_candidates(stored["noise_init"], stored["noise_steps"])
        else:
            noise = self._noise_of_key(kind, len(golden) if golden.ndim == 4 else 1)
        size = golden.shape[-1]
        flat = self._denoise(*noise, size)[0][:, :, -1]
        chunks = flat.reshape(*flat.shape[:2], self._head.horizon, self._head.action_dim)[..., :size]
        _, dataset, rule = name.split("_") if not name.startswith("actions_norm") else ("", "", "")
        if dataset:
            statistics = next(
                s for n, s in self.checkpoint.statistics.items() if n.replace("_", "").startswith(dataset)
            )
            chunks = unnormalise(chunks, statistics, next(known for known in RULES if known == rule))
        return chunks if golden.ndim == 4 else chunks[0]

    @property
    def _head(self) -> HeadConfig:
        return self.checkpoint.config.head

    def _denoise(self, initial: NDArray[Any], turns: NDArray[Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Every position of the window from noise [K, B, W, C] and [S, K, B, W, C]; results [K, B, W, C] and [S, K, B, W, C]."""
        batch, window = self._embeddings.shape[:2]
        noise = np.concatenate([initial[None], turns])
        rows = np.moveaxis(noise, 1, 3).reshape(len(noise), batch * window, -1, noise.shape[-1])
        acts = np.tile(np.arange(self._head.action_dim) < size, self._head.horizon)
        embeddings = self._embeddings.reshape(batch * window, -1)
        found = _denoise(self.model.head, self.model.turns, self._head.max_action, embeddings, rows, acts)
        x, trajectory = (np.asarray(part).reshape(*part.shape[:-3], batch, window, *part.shape[-2:]) for part in found)
        return np.moveaxis(x, 2, 0), np.moveaxis(trajectory, 3, 1)

    def _noise_of_key(self, kind: str, candidates: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The noise that the published code draws: `sample_tfp` with today's generator, the others with the former one."""
        shape = (*self._embeddings.shape[:2], self._head.action_dim * self._head.horizon)
        turns = self._head.diffusion_steps
        with jax.threefry_partitionable(kind.startswith("sample_tfp")):
            key = jax.random.PRNGKey(int(self.arrays["sample/seed"]))
            if kind != "sample_v01":
                return _draw(key, (candidates, *shape), turns)
            # The first release gave each candidate a key of its own.
            each = [_draw(own, shape, turns) for own in jax.random.split(key, candidates)]
            return np.stack([initial for initial, _ in each]), np.stack([steps for _, steps in each], axis=1)


@partial(jax.jit, static_argnums=0)
def _trace(config: OctoConfig, words: Words, eyes: Eyes, language: jax.Array, scene: Scene) -> dict[str, jax.Array]:
    """The model's own functions, with every position wanted and everything in between kept."""
    tokens = camera_tokens(eyes, scene)
    layout = scene_layout(config, tokens)
    first = prefix_tokens(words, language)
    steps = step_tokens(eyes, layout, first, tokens)
    visible = visible_keys(config, layout, scene)
    prefix, before = encode_prefix(words.transformer, config.heads, first)
    everything = np.arange(steps.shape[1])
    last, stream = encode_steps(eyes.transformer, config.heads, prefix, steps, visible[:, layout.prefix :], everything)
    blocks = jnp.concatenate([before, jnp.concatenate([stream, last[None]])], axis=2)
    output = layer_norm(eyes.transformer.norm, blocks[-1])
    masks = key_masks(layout, scene)
    language_mask = jnp.repeat(jnp.asarray(scene.has_language)[:, None], layout.prefix, axis=1)
    found = {
        "tok/language/mask": language_mask,
        "out/task/mask": language_mask,
        "out/obs/mask": jnp.concatenate([masks[group.name] for group in layout.groups if not group.readout], axis=2),
        "attn/mask": visible[:, None],
        "seq/input": jnp.concatenate([first, steps], axis=1),
        "seq/output": output,
    }
    found |= {f"seq/encoderblock_{i}": block for i, block in enumerate(blocks)}
    for name, value in tokens.items():
        found[f"tok/{name}/tokens"] = value
        found[f"tok/{name}/mask"] = jnp.broadcast_to(jnp.asarray(scene.seen[name])[..., None], value.shape[:-1])
    for name, _ in config.readouts:
        found[f"out/{name}/tokens"] = output[:, layout.prefix + layout.rows(name)]
        found[f"out/{name}/mask"] = masks[name]
    return found


def _draw(key: jax.Array, shape: tuple[int, ...], turns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Initial noise and that of every turn, each from its own split of the key."""
    draws = np.asarray(_draws(key, shape, turns + 1))
    return draws[0], draws[1:]


@partial(jax.jit, static_argnums=(1, 2))
def _draws(key: jax.Array, shape: tuple[int, ...], count: int) -> jax.Array:
    def draw(key: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        key, own = jax.random.split(key)
        return key, jax.random.normal(own, shape)

    return jax.lax.scan(draw, key, None, length=count)[1]


_denoise = jax.jit(denoise, static_argnums=2)
_score = jax.jit(score)


def _with_candidates(initial: NDArray[Any], turns: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Stored noise of one candidate has no axis for it."""
    return (initial, turns) if initial.ndim == 4 else (initial[None], turns[:, None])


def _bound(name: str) -> float:
    if name.startswith("tok/") or name == "seq/input":
        return TOKENS
    return SEQUENCE if name.startswith("seq/") else READOUTS
