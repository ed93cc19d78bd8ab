"""OpenVLA-OFT: sequences, hidden states, heads and chunks of every checkpoint in a folder.

A file `X.npz` whose texts name runs (`RUN/prompt`) holds results; one whose name ends in `native_bf16` was computed in bf16, the
others in f32. A run `diffusion_N` uses the heads of a sub-folder without a configuration, with N denoising steps. The images are
those of the neighbouring OpenVLA data. The bounds are those of the data's README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policies.openvla.config import PublishedConfig, read_config
from policies.openvla.images import ImageProcessor
from policies.openvla.model import OpenVlaModel
from policies.openvla.oft import DiffusionHead, Group, Layout, ParallelTokenHead, RegressionHead, ddim
from policies.openvla.oft_loading import load_head, load_proprio
from policies.openvla.oft_modules import part_file, time_embedding
from policies.openvla.published import load_model
from policies.openvla.statistics import Statistics, read_statistics
from policies.openvla.tokens import ActionBins, PromptTokenizer, end_token
from steer.spec import Array
from tests.golden.compare_openvla import arrays, find_checkpoints, owner_of
from tests.golden.comparison import Comparison, close, equal

STATES, LOGITS, ACTIONS = 1e-4, 2e-4, 1e-4
SAMPLES = 1e-3
BF16_STATES, BF16_ACTIONS = 0.15, 0.1
# Many steps amplify rounding: bound of the final chunk by the number of denoising steps.
_DIFFUSION_ACTIONS = {True: 1e-3, False: 5e-3}
_MARGIN = 1e-8


@dataclass(frozen=True)
class Subject:
    """One base model, loaded, beside the results of the published code."""

    source: str
    native: bool
    path: Path
    heads: Path
    config: PublishedConfig
    model: OpenVlaModel
    images: ImageProcessor
    prompts: PromptTokenizer
    golden: dict[str, Array]
    texts: dict[str, Any]
    raw: dict[str, Array]

    @property
    def bins(self) -> ActionBins:
        return ActionBins(self.config.vocab_size, self.config.action_bins)

    @property
    def bound(self) -> tuple[float, float]:
        """Of hidden states and of actions."""
        return (BF16_STATES, BF16_ACTIONS) if self.native else (STATES, ACTIONS)

    def statistics(self, run: str, part: str) -> Statistics:
        key = self.texts[f"{run}/unnorm_key"]
        return read_statistics(self.config.statistics, key, part, self.source, margin=_MARGIN)


@torch.inference_mode()
def compare(folder: Path) -> Iterator[Comparison]:
    """Every checkpoint of the folder, each of which must have results."""
    checkpoints = find_checkpoints(folder)
    raw = _stages(folder)
    results = [file for file in sorted(folder.glob("*.npz")) if _runs(arrays(file))]
    owners = [checkpoints[0] if len(checkpoints) == 1 else owner_of(file, checkpoints) for file in results]
    missing = [path.name for path in checkpoints if path not in owners]
    if missing:
        raise FileNotFoundError(f"{folder}: no results of {missing} are there")
    for path, file in zip(owners, results, strict=True):
        subject = _subject(folder, path, file, raw)
        yield from _proprio(subject)
        for run in _runs(subject.golden):
            yield from _run(subject, run)


def _stages(folder: Path) -> dict[str, Array]:
    """The images that enter the processor."""
    for place in (folder, folder.parent / "openvla"):
        for file in sorted(place.glob("*.npz")):
            with np.load(file) as content:
                if "image1/center_crop_of_resized" in content:
                    return arrays(file)
    raise FileNotFoundError(f"{folder}: no .npz file with image1/center_crop_of_resized is there or in ../openvla")


def _runs(golden: dict[str, Array]) -> list[str]:
    if "strings_json" not in golden:
        return []
    texts = json.loads(bytes(golden["strings_json"]))
    return sorted(key.split("/")[0] for key in texts if key.endswith("/views"))


def _subject(folder: Path, path: Path, file: Path, raw: dict[str, Array]) -> Subject:
    native = file.stem.endswith("native_bf16")
    config = read_config(path)
    return Subject(
        source=file.stem,
        native=native,
        path=path,
        heads=_diffusion_heads(folder, path),
        config=config,
        model=load_model(config, path, "cpu", torch.bfloat16 if native else torch.float32),
        images=ImageProcessor.load(path, config.towers),
        prompts=PromptTokenizer.load(path, "openvla", "", config.max_positions),
        golden=arrays(file),
        texts=json.loads(bytes(arrays(file)["strings_json"])),
        raw=raw,
    )


def _diffusion_heads(folder: Path, path: Path) -> Path:
    """The sub-folder of heads for a base model: with a projector of noisy actions and without a configuration."""
    found = sorted(file.parent for file in folder.glob("*/noisy_action_projector--*.pt"))
    named = [place for place in found if place.name.startswith(path.name)]
    return (named or found or [path])[0]


def _proprio(subject: Subject) -> Iterator[Comparison]:
    golden, source = subject.golden, subject.source
    run = next(run for run in _runs(golden) if f"{run}/proprio_row" in golden)
    normalised = subject.statistics(run, "proprio").to_model(golden["proprio/raw"])
    yield close(source, "proprio/normalised", normalised, golden["proprio/normalised"], 1e-9)
    projector = load_proprio(subject.path, subject.model)
    assert projector is not None
    token = projector(torch.from_numpy(normalised).to(subject.model.dtype)).float()
    yield close(source, "proprio/projected", token, golden["proprio/projected"], subject.bound[0])


def _run(subject: Subject, run: str) -> Iterator[Comparison]:
    golden, source, texts = subject.golden, subject.source, subject.texts
    yield equal(source, f"{run}/prompt", subject.prompts.text(texts[f"{run}/instruction"]), texts[f"{run}/prompt"])
    ids = subject.prompts.ids(texts[f"{run}/prompt"])
    yield equal(source, f"{run}/input_ids", ids, golden[f"{run}/input_ids"])
    pixels = torch.stack([subject.images.pixels(_view(subject, view)) for view in texts[f"{run}/views"]])
    features = subject.model.vision_backbone(pixels.to(subject.model.dtype)).flatten(0, 1)
    patches = subject.model.project(pixels[None])
    yield equal(source, f"{run}/n_patch_tokens", patches.shape[1], int(golden[f"{run}/n_patch_tokens"]))
    if f"{run}/pixel_values_ch_mean_std" in golden:
        yield from _vision(subject, run, pixels, features, patches)
    group = Group([0], patches, torch.from_numpy(subject.prompts.with_space(ids))[None])
    if run.startswith("diffusion"):
        yield from _diffusion(subject, run, group)
    elif run.startswith("discrete"):
        yield from _discrete(subject, run, group)
    else:
        yield from _regression(subject, run, group)


def _view(subject: Subject, number: int) -> Array:
    return subject.raw[f"image{number}/center_crop_of_resized"]


def _vision(subject: Subject, run: str, pixels: Tensor, features: Tensor, patches: Tensor) -> Iterator[Comparison]:
    golden, source, bound = subject.golden, subject.source, subject.bound[0]
    channels = pixels.flatten(2).flatten(0, 1)
    moments = torch.stack([channels.mean(1), channels.std(1, correction=0)])
    yield close(source, f"{run}/pixels", moments, golden[f"{run}/pixel_values_ch_mean_std"], 1e-4)
    for name, ours in (("vision_features_sub", features), ("projected_sub", patches[0])):
        yield close(source, f"{run}/{name}", ours[::16].float(), golden[f"{run}/{name}"], bound)


def _layout(subject: Subject, run: str, path: Path) -> tuple[Layout, Array | None]:
    """The layout of a run, and its normalised proprioception where it has one."""
    horizon, axes = subject.golden[f"{run}/action"].shape
    end = end_token(subject.path)
    if len(subject.texts[f"{run}/views"]) < 2:
        return Layout(subject.model, horizon, axes, end), None
    # Runs that do not name a row of the proprioception use the first.
    row = int(subject.golden.get(f"{run}/proprio_row", np.int64(0)))
    states = subject.statistics(run, "proprio").to_model(subject.golden["proprio/raw"])[row : row + 1]
    return Layout(subject.model, horizon, axes, end, load_proprio(path, subject.model)), states


def _states(subject: Subject, run: str, sequence: Tensor, layout: Layout) -> Iterator[Comparison]:
    golden, source, bound = subject.golden, subject.source, subject.bound[0]
    yield equal(source, f"{run}/seq_len", sequence.shape[1], int(golden[f"{run}/seq_len"]))
    if f"{run}/tail_inputs_embeds" in golden:
        tail = golden[f"{run}/tail_inputs_embeds"]
        yield close(source, f"{run}/tail_inputs_embeds", sequence[0, -len(tail) :].float(), tail, bound)
    if f"{run}/action_hidden" in golden:
        states = layout.states(sequence).float()
        yield close(source, f"{run}/action_hidden", states, golden[f"{run}/action_hidden"], bound)


def _chunk(subject: Subject, run: str, values: Array, bound: float) -> Iterator[Comparison]:
    golden, source = subject.golden, subject.source
    yield close(source, f"{run}/action_normalised", values, golden[f"{run}/action_normalised"], bound)
    actions = subject.statistics(run, "action").to_robot(values)
    yield close(source, f"{run}/action", actions, golden[f"{run}/action"], bound)


def _regression(subject: Subject, run: str, group: Group) -> Iterator[Comparison]:
    golden = subject.golden
    layout, states = _layout(subject, run, subject.path)
    head = load_head(subject.path, layout, subject.bins)
    assert isinstance(head, RegressionHead)
    front = layout.front(group.front, states)
    if f"{run}/projected_vision_plus_proprio_last3" in golden:
        name = f"{run}/projected_vision_plus_proprio_last3"
        yield close(subject.source, name, front[0, -3:].float(), golden[name], subject.bound[0])
    yield from _states(subject, run, layout.sequence(front, group.ids, layout.zeros(1)), layout)
    values = head.encode(group.front, [group.ids[0].numpy()], states)[0]
    yield from _chunk(subject, run, values, subject.bound[1])


def _discrete(subject: Subject, run: str, group: Group) -> Iterator[Comparison]:
    golden, source, bins = subject.golden, subject.source, subject.bins
    layout, states = _layout(subject, run, subject.path)
    sequence = layout.sequence(layout.front(group.front, states), group.ids, layout.zeros(1))
    yield from _states(subject, run, sequence, layout)
    logits = subject.model.language_model.lm_head(layout.states(sequence))[0].float()
    bound = 1.0 if subject.native else LOGITS
    name = f"{run}/logits_action_bins"
    yield close(source, name, logits[:, bins.first : bins.vocab_size], golden[name], bound)
    yield close(source, f"{run}/logits_first_slot_full", logits[0], golden[f"{run}/logits_first_slot_full"], bound)
    if subject.native:
        return
    ids = logits.argmax(-1).numpy().reshape(golden[f"{run}/token_ids"].shape)
    yield equal(source, f"{run}/token_ids", ids, golden[f"{run}/token_ids"])
    top = logits.topk(2, dim=-1).values
    gap = (top[:, 0] - top[:, 1]).min()
    yield close(source, f"{run}/min_top2_gap", gap, golden[f"{run}/min_top2_gap"], 2 * LOGITS)
    yield from _chunk(subject, run, bins.decode(ids), ACTIONS)
    head = ParallelTokenHead(layout, bins)
    context = head.encode(group.front, [group.ids[0].numpy()], states)
    first = head.sample(context, 1, np.array([0]), 1.0)[0, 0]
    yield close(source, f"{run}/first candidate", first, golden[f"{run}/action_normalised"], ACTIONS)


def _diffusion(subject: Subject, run: str, group: Group) -> Iterator[Comparison]:
    golden, source = subject.golden, subject.source
    if part_file(subject.heads, "noisy_action_projector") is None:
        raise FileNotFoundError(f"{subject.path}: no heads for the run {run} are there")
    steps = len(golden[f"{run}/timesteps"])
    layout, states = _layout(subject, run, subject.heads)
    head = load_head(subject.heads, layout, subject.bins, steps)
    assert isinstance(head, DiffusionHead)
    group = Group(group.rows, layout.front(group.front, states), group.ids)
    noise = torch.from_numpy(golden["diffusion/noise"])
    scheduler = ddim(steps)
    yield equal(source, f"{run}/timesteps", scheduler.timesteps.numpy(), golden[f"{run}/timesteps"])
    yield close(source, "diffusion/alphas_cumprod", scheduler.alphas_cumprod, golden["diffusion/alphas_cumprod"], 1e-6)
    yield from _first_step(subject, run, head, group, noise)
    x, samples, predicted = noise, [], noise
    for timestep in scheduler.timesteps.tolist():
        predicted = head.predict(group, x, timestep)
        x = scheduler.step(predicted, timestep, x).prev_sample
        samples.append(x)
    kept = golden[f"{run}/samples"]
    yield close(source, f"{run}/samples", torch.cat(samples)[: len(kept)], kept, SAMPLES)
    bound = _DIFFUSION_ACTIONS[steps <= 10]
    yield close(source, f"{run}/noise_pred_last", predicted, golden[f"{run}/noise_pred_last"], bound)
    yield from _chunk(subject, run, head.denoise(group, noise)[0].double().numpy(), bound)


def _first_step(subject: Subject, run: str, head: DiffusionHead, group: Group, noise: Tensor) -> Iterator[Comparison]:
    """Judged tightly: later steps amplify rounding."""
    golden, source = subject.golden, subject.source
    first = int(golden[f"{run}/timesteps"][0])
    sequence = head.sequence(group, noise, first)
    yield from _states(subject, run, sequence, head.layout)
    quantities = {
        "time_embedding_first": time_embedding(torch.tensor([first]), head.layout.width),
        "noisy_action_tokens": sequence[:, -1 - head.layout.slots : -1],
        "noise_pred_first": head.predict(group, noise, first),
    }
    for name, ours in quantities.items():
        if f"{run}/{name}" in golden:
            yield close(source, f"{run}/{name}", ours, golden[f"{run}/{name}"], STATES)
