"""OpenVLA: pixels, features, tokens, logits and actions of every checkpoint in a folder.

A file `X.npz` with `n_cases` holds the results of the checkpoint whose folder name is part of X; one whose name ends in
`native_bf16` was computed in bf16, the others in f32. The bounds are those of the data's README.
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

from policies.openvla import evaluation_images
from policies.openvla.config import PublishedConfig, read_config
from policies.openvla.decode import decode, prefill
from policies.openvla.images import ImageProcessor
from policies.openvla.model import OpenVlaModel
from policies.openvla.published import load_model
from policies.openvla.statistics import read_statistics
from policies.openvla.tokens import PROMPTS, ActionBins, PromptTokenizer
from steer.spec import Array
from tests.golden.comparison import Comparison, close, equal

FEATURES, HIDDEN, LOGITS, LOGPROB = 1e-4, 1e-4, 1e-3, 1e-3
BF16_HIDDEN, BF16_LOGITS, BF16_LOGPROB = 0.15, 1.0, 1.0
PIXELS = 1e-6
_TOWERS = ("dino", "siglip")


@dataclass(frozen=True)
class Subject:
    """One checkpoint, loaded, beside the results of the published code."""

    source: str
    native: bool
    path: Path
    config: PublishedConfig
    model: OpenVlaModel
    images: ImageProcessor
    prompts: PromptTokenizer
    golden: dict[str, Array]
    texts: dict[str, Any]

    @property
    def bins(self) -> ActionBins:
        return ActionBins(self.config.vocab_size, self.config.action_bins)


@torch.inference_mode()
def compare(folder: Path) -> Iterator[Comparison]:
    """Every checkpoint of the folder, each of which must have results."""
    raw = _raw_images(folder)
    checkpoints = find_checkpoints(folder)
    results = {file: arrays(file) for file in sorted(folder.glob("*.npz")) if "n_cases" in np.load(file)}
    owners = {file: owner_of(file, checkpoints) for file in results}
    for path in checkpoints:
        if path not in owners.values():
            raise FileNotFoundError(f"{path}: no results (an .npz file with its name in the file's) are there")
    yield from _image_stages(raw)
    for file, golden in results.items():
        subject = load_subject(owners[file], file, golden)
        yield from _tables(subject)
        if not subject.native:
            yield from _vision(subject, raw)
        for case in range(int(golden["n_cases"])):
            yield from _case(subject, f"case{case}", raw)


def find_checkpoints(folder: Path) -> list[Path]:
    """Sub-folders with the configuration of an OpenVLA model."""
    configs = sorted(folder.glob("*/config.json"))
    found = [file.parent for file in configs if json.loads(file.read_text()).get("model_type") == "openvla"]
    if not found:
        raise FileNotFoundError(f"{folder}: no checkpoint folder is there")
    return found


def owner_of(file: Path, checkpoints: list[Path]) -> Path:
    """The checkpoint whose results a file holds."""
    named = [path for path in checkpoints if path.name in file.stem]
    if not named and len(checkpoints) != 1:
        raise FileNotFoundError(f"{file}: names none of the checkpoints {[path.name for path in checkpoints]}")
    return max(named or checkpoints, key=lambda path: len(path.name))


def arrays(file: Path) -> dict[str, Array]:
    with np.load(file) as content:
        return {name: content[name] for name in content.files}


def load_subject(path: Path, file: Path, golden: dict[str, Array]) -> Subject:
    native = file.stem.endswith("native_bf16")
    config = read_config(path)
    return Subject(
        source=file.stem,
        native=native,
        path=path,
        config=config,
        model=load_model(config, path, "cpu", torch.bfloat16 if native else torch.float32),
        images=ImageProcessor.load(path, config.towers),
        prompts=PromptTokenizer.load(path, "openvla", "", config.max_positions),
        golden=golden,
        texts=json.loads(bytes(golden["strings_json"])),
    )


def _raw_images(folder: Path) -> dict[str, Array]:
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as content:
            if "image0/rgb" in content:
                return arrays(file)
    raise FileNotFoundError(f"{folder}: no .npz file with image0/rgb is there")


def _image_stages(raw: dict[str, Array]) -> Iterator[Comparison]:
    """What happens to an image before the processor, at evaluation time."""
    for name in sorted({key.split("/")[0] for key in raw}):
        if f"{name}/lanczos3_only" in raw:
            ours = evaluation_images.lanczos(raw[f"{name}/rgb"], (224, 224))
            yield close("images", f"{name}/lanczos3_only", ours, raw[f"{name}/lanczos3_only"], 1)
        if f"{name}/resized224" in raw:
            ours = evaluation_images.centre_crop(raw[f"{name}/resized224"])
            yield equal("images", f"{name}/center_crop_of_resized", ours, raw[f"{name}/center_crop_of_resized"])


def _tables(subject: Subject) -> Iterator[Comparison]:
    golden, bins, source = subject.golden, subject.bins, subject.source
    yield equal(source, "bin centres", bins.centres, golden["detok/bin_centers"])
    yield equal(source, "tokens to numbers", bins.decode(golden["detok/ids"]), golden["detok/normalised"])
    yield equal(source, "numbers to tokens", bins.encode(golden["tok/actions"]), golden["tok/ids"])
    prompt = PROMPTS["openvla-v01"].format(instruction=subject.texts["case0/instruction"].lower())
    yield equal(source, "older prompt", prompt, subject.texts["v01/prompt"])
    yield equal(source, "older prompt's ids", subject.prompts.ids(prompt), golden["v01/input_ids"])


def _vision(subject: Subject, raw: dict[str, Array]) -> Iterator[Comparison]:
    golden, source = subject.golden, subject.source
    stated = json.loads(bytes(golden["tvf_normalize_params_json"]))
    statistics = [{key: entry[key] for key in ("mean", "std")} for entry in stated]
    yield equal(source, "image statistics", subject.images.describe(), statistics)
    for name in sorted({key.split("/")[0] for key in golden if key.endswith("/projected")}):
        yield from _image(subject, name, raw)


def _image(subject: Subject, name: str, raw: dict[str, Array]) -> Iterator[Comparison]:
    golden, source = subject.golden, subject.source
    if f"{name}/resized_bicubic" in raw:
        resized = subject.images.resize(raw[f"{name}/rgb"])
        yield equal(source, f"{name}/resized", resized, raw[f"{name}/resized_bicubic"])
    pixels = subject.images.pixels(raw[f"{name}/rgb"])
    if f"{name}/pixel_values" in golden:
        yield close(source, f"{name}/pixel_values", pixels[None], golden[f"{name}/pixel_values"], PIXELS)
    count = pixels[0].numel()
    double = pixels.double().flatten(1)
    sums, squares = golden[f"{name}/pixel_values_sum_sumsq"] / count
    yield close(source, f"{name}/pixel mean", double.mean(1), sums, PIXELS)
    yield close(source, f"{name}/pixel square mean", double.square().mean(1), squares, 10 * PIXELS)
    yield from _towers(subject, name, pixels[None])
    projected = subject.model.project(pixels[None, None])
    yield close(source, f"{name}/projected", projected, golden[f"{name}/projected"], FEATURES)


def _towers(subject: Subject, name: str, pixels: Tensor) -> Iterator[Comparison]:
    parts = torch.split(pixels, 3, dim=1)
    for label, tower, part in zip(_TOWERS, subject.model.vision_backbone.towers, parts, strict=False):
        embedded = tower.embed(part)
        stages = {
            "embed_first8": embedded[:, :8],
            "block0_first8": tower.blocks[0](embedded)[:, :8],
            "features": tower(part),
        }
        for stage, ours in stages.items():
            quantity = f"{name}/{label}_{stage}"
            if quantity in subject.golden:
                yield close(subject.source, quantity, ours, subject.golden[quantity], FEATURES)


def _case(subject: Subject, case: str, raw: dict[str, Array]) -> Iterator[Comparison]:
    golden, source, texts = subject.golden, subject.source, subject.texts
    ids = subject.prompts.ids(texts[f"{case}/prompt"])
    if not texts[f"{case}/prompt"].endswith(" "):
        yield equal(
            source, f"{case}/prompt", subject.prompts.text(texts[f"{case}/instruction"]), texts[f"{case}/prompt"]
        )
    yield equal(source, f"{case}/input_ids", ids, golden[f"{case}/input_ids"])
    yield equal(source, f"{case}/attention_mask", np.ones_like(ids), golden[f"{case}/attention_mask"])
    ids = subject.prompts.with_space(ids)
    yield equal(source, f"{case}/input_ids_model", ids, golden[f"{case}/input_ids_model"])
    pixels = subject.images.pixels(raw[f"image{int(golden[f'{case}/image_index'])}/rgb"])
    embeds = subject.model.embed(subject.model.project(pixels[None, None]), torch.from_numpy(ids)[None])
    yield from _hidden(subject, case, embeds)
    yield from _greedy(subject, case, embeds)
    if f"{case}/forced_ids" in golden:
        yield from _forced(subject, case, embeds)


def _hidden(subject: Subject, case: str, embeds: Tensor) -> Iterator[Comparison]:
    out = subject.model.language_model.model(inputs_embeds=embeds, output_hidden_states=True)
    states = torch.stack([state[0, -1] for state in out.hidden_states]).float()
    bound = BF16_HIDDEN if subject.native else HIDDEN
    name = f"{case}/hidden_last_position"
    yield close(subject.source, name, states, subject.golden[name], bound)


class _Unmasked:
    """Chooses the likeliest of all tokens, as the published code does, and keeps the logits."""

    def __init__(self, head: Tensor) -> None:
        self._head = head
        self.logits: list[Tensor] = []

    def __call__(self, step: int, hidden: Tensor) -> Tensor:
        self.logits.append((hidden @ self._head.T).float())
        return self.logits[-1].argmax(-1)


class _Forced(_Unmasked):
    """Chooses what it was given."""

    def __init__(self, head: Tensor, ids: Tensor) -> None:
        super().__init__(head)
        self._ids = ids

    def __call__(self, step: int, hidden: Tensor) -> Tensor:
        super().__call__(step, hidden)
        return self._ids[None, :, step]


def _greedy(subject: Subject, case: str, embeds: Tensor) -> Iterator[Comparison]:
    golden, source, bins = subject.golden, subject.source, subject.bins
    llama = subject.model.language_model
    chooser = _Unmasked(llama.lm_head.weight)
    steps = len(golden[f"{case}/greedy_ids"])
    ids = decode(llama.model, prefill(llama.model, embeds), 1, steps, chooser)[0, 0].numpy()
    logits = torch.stack(chooser.logits)[:, 0, 0]
    # In bf16 the first step alone is judged: later ones follow ids that may differ.
    judged, bound = (slice(0, 1), BF16_LOGITS) if subject.native else (slice(None), LOGITS)
    if f"{case}/logits_first" in golden:
        yield close(source, f"{case}/logits_first", logits[0], golden[f"{case}/logits_first"], bound)
    quantities = {
        "logits_action_bins": logits[:, bins.first : bins.vocab_size],
        "logits_max_all": logits.max(-1).values,
        "logsumexp_all": logits.logsumexp(-1),
    }
    for name, ours in quantities.items():
        yield close(source, f"{case}/{name}", ours[judged], golden[f"{case}/{name}"][judged], bound)
    if subject.native:
        return
    top = logits.topk(2, dim=-1).values
    yield close(
        source, f"{case}/min_top2_gap", (top[:, 0] - top[:, 1]).min(), golden[f"{case}/min_top2_gap"], 2 * LOGITS
    )
    yield equal(source, f"{case}/greedy_ids", ids, golden[f"{case}/greedy_ids"])
    yield equal(source, f"{case}/bin_index", bins.index(ids), golden[f"{case}/bin_index"])
    values = bins.decode(ids)
    yield equal(source, f"{case}/action_normalised", values, golden[f"{case}/action_normalised"])
    statistics = read_statistics(subject.config.statistics, subject.texts[f"{case}/unnorm_key"], "action", source)
    yield close(source, f"{case}/action", statistics.to_robot(values), golden[f"{case}/action"], 1e-9)


def _forced(subject: Subject, case: str, embeds: Tensor) -> Iterator[Comparison]:
    """Fixed candidates behind one shared prefix, and the training loss over the same tokens and the end of the sequence."""
    golden, source, bins = subject.golden, subject.source, subject.bins
    llama = subject.model.language_model
    given = torch.from_numpy(golden[f"{case}/forced_ids"])
    end_id = subject.prompts.tokenizer.token_to_id("</s>")
    assert end_id is not None
    end = torch.full((len(given), 1), end_id)
    ids = torch.cat([given, end], dim=1)
    chooser = _Forced(llama.lm_head.weight, ids)
    decode(llama.model, prefill(llama.model, embeds), len(ids), ids.shape[1], chooser)
    logits = torch.stack(chooser.logits, dim=2)[0]
    logprob = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    bound = BF16_LOGPROB if subject.native else LOGPROB
    yield close(source, f"{case}/forced_logprob", logprob[:, :-1], golden[f"{case}/forced_logprob"], bound)
    yield close(source, f"{case}/train_loss", -logprob.mean(), golden[f"{case}/train_loss_mean_over_4"], bound)
    if f"{case}/forced_logits_action_bins" in golden:
        ours = logits[:, :-1, bins.first : bins.vocab_size]
        name = f"{case}/forced_logits_action_bins"
        yield close(source, name, ours, golden[name], BF16_LOGITS if subject.native else LOGITS)
