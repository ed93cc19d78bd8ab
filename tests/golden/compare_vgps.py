"""V-GPS value functions against the published code: features, Q-values, re-ranking, actor, and variants of the encoder.

A folder holds critic files (an .npz with `b_q_target`), each beside the checkpoints that it belongs to (`checkpoint_STEP`, as file
or as folder, in any sub-folder), and files of encoder variants (an .npz with `NAME.image`, its configuration as .json beside it).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from critics.vgps.bounds import Bounds
from critics.vgps.config import EncoderConfig, Stated, infer_encoder
from critics.vgps.critic import VGPSConfig, VGPSCritic, build
from critics.vgps.encoder import Encoder
from critics.vgps.flax_checkpoint import read_arrays
from critics.vgps.language import EmbeddingTable
from critics.vgps.network import ValueNetwork
from critics.vgps.published import put, to_torch
from steer.observation import Batch, Observation, Task
from steer.selection import Selection, choose, reduce_scores
from steer.spec import Array
from tests.golden.comparison import Comparison, equal
from tests.golden.comparison import close as absolutely_close
from tests.golden.vgps_actor import Actor, load_actor, log_prob

Q_BOUND = 2e-5
FEATURE_BOUND = 5e-5
DENSITY_BOUND = 2e-4
"""Of log-densities: the published inverse of tanh and ours round differently, and a narrow Gaussian magnifies that."""
EXACT_BOUND = 1e-6
"""Of what is a handful of float operations: un-normalised and mapped actions."""
RELATIVE = 1e-5
"""Of the largest golden number; added to every bound."""
Arrays = Mapping[str, Array]


def compare(folder: Path) -> Iterator[Comparison]:
    """Every critic and every encoder variant below `folder`."""
    files = sorted(folder.rglob("*.npz"))
    found = checkpoints(folder)
    if not files or not found:
        raise FileNotFoundError(
            f"{folder}: {len(files)} .npz files and {len(found)} checkpoints: expected some of both"
        )
    used: set[Path] = set()
    for file in files:
        with np.load(file, allow_pickle=False) as opened:
            arrays = dict(opened)
        if "b_q_target" in arrays:
            beside = _beside(file, folder, found)
            used.update(beside)
            for checkpoint in beside:
                yield from compare_critic(checkpoint, str(checkpoint.relative_to(folder)), arrays)
        elif any(name.endswith(".image") for name in arrays):
            yield from compare_variants(file, arrays)
        else:
            raise ValueError(f"{file}: neither a critic file nor encoder variants: {sorted(arrays)[:5]}")
    if unused := sorted(set(found) - used):
        raise ValueError(f"no critic file belongs to {[str(path) for path in unused]}")


def checkpoints(folder: Path) -> list[Path]:
    """MessagePack files of checkpoints, of both forms."""
    entries = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [p for p in entries if p.name == "checkpoint" or re.fullmatch(r"checkpoint_\d+", p.name)]


def _beside(file: Path, folder: Path, found: list[Path]) -> list[Path]:
    """The checkpoints below the nearest folder around `file` that has any."""
    for parent in file.parents:
        below = [path for path in found if path.is_relative_to(parent)]
        if below or parent == folder:
            return below
    return []


def compare_critic(checkpoint: Path, source: str, arrays: Arrays) -> Iterator[Comparison]:
    """One checkpoint against one critic file; a missing array is a `KeyError`."""
    size = arrays["b_image"].shape[1:3]
    target, online = (
        build(read_arrays(checkpoint, ("state", part, "modules_critic")), Stated(image_size=size), source)
        for part in ("target_params", "params")
    )
    with torch.inference_mode():
        yield from _batch(source, target, online, arrays)
        yield from _features(source, target.encoder, arrays)
        yield from _actor(source, load_actor(_actor_arrays(checkpoint), target.config), arrays)
        yield from _frame(source, target, arrays)
    names = [match[1] for name in arrays if (match := re.fullmatch(r"r_(\w+)_low", name))]
    if not names:
        raise KeyError("r_*_low: no re-ranking")
    for name in names:
        yield from _rerank(source, target, name, {k.removeprefix(f"r_{name}_"): v for k, v in arrays.items()})


def _batch(source: str, target: ValueNetwork, online: ValueNetwork, arrays: Arrays) -> Iterator[Comparison]:
    image, text = _tensor(arrays["b_image"]), _tensor(arrays["b_language"])
    actions, several = _tensor(arrays["b_action"])[:, None], _tensor(arrays["b_multi_action"])
    q_target = target.score(target.embed(image, text), actions)[..., 0].numpy()
    embedded = online.embed(image, text)
    yield close(source, "b_q_target", q_target, arrays["b_q_target"], Q_BOUND)
    yield close(source, "b_q_min", reduce_scores(q_target, "min"), arrays["b_q_min"], Q_BOUND)
    yield close(source, "b_q_online", online.score(embedded, actions)[..., 0], arrays["b_q_online"], Q_BOUND)
    yield close(source, "b_multi_q_online", online.score(embedded, several), arrays["b_multi_q_online"], Q_BOUND)


def _features(source: str, encoder: Encoder, arrays: Arrays) -> Iterator[Comparison]:
    count = len(arrays["i_pooled"])
    seen = trace(encoder, _tensor(arrays["b_image"])[:count], _tensor(arrays["b_language"])[:count])
    wanted = {f"i_{name}" for name in seen}
    given = {name for name in arrays if name.startswith("i_")}
    if wanted != given:
        raise KeyError(f"features {sorted(wanted ^ given)} are on one side only")
    for name, value in seen.items():
        yield close(source, f"i_{name}", value, arrays[f"i_{name}"], FEATURE_BOUND)


def _actor_arrays(checkpoint: Path) -> Arrays:
    return dict(read_arrays(checkpoint, ("state", "params", "modules_actor")))


def _actor(source: str, actor: Actor, arrays: Arrays) -> Iterator[Comparison]:
    mean, std = actor(_tensor(arrays["b_image"]), _tensor(arrays["b_language"]))
    likelihood = log_prob(mean, std, _tensor(arrays["b_actor_logprob_action"]))
    yield close(source, "b_actor_loc", mean, arrays["b_actor_loc"], FEATURE_BOUND)
    yield close(source, "b_actor_scale", std, arrays["b_actor_scale"], FEATURE_BOUND)
    yield close(source, "b_actor_mode", mean.tanh(), arrays["b_actor_mode"], FEATURE_BOUND)
    yield close(source, "b_actor_logprob", likelihood, arrays["b_actor_logprob"], DENSITY_BOUND)


def _frame(source: str, target: ValueNetwork, arrays: Arrays) -> Iterator[Comparison]:
    """A frame of full size, with several candidates and with one."""
    embedded = target.embed(_tensor(arrays["c_image"]), _tensor(arrays["c_language"]))
    actions = _tensor(arrays["c_action"])[None]
    yield close(source, "c_q_members", target.score(embedded, actions)[:, 0], arrays["c_q_members"], Q_BOUND)
    single = target.score(embedded, actions[:, :1])[:, 0, 0].min()
    yield close(source, "c_q_single", single, arrays["c_q_single"], Q_BOUND)


def _rerank(source: str, network: ValueNetwork, name: str, given: Arrays) -> Iterator[Comparison]:
    """The whole path of a decision through `VGPSCritic`: chunk, un-normalised, mapped, scored, chosen."""
    bounds = Bounds(tuple(given["low"].tolist()), tuple(given["high"].tolist()), 5.0)
    config = VGPSConfig(replace(network.config, image_size=None), bounds)
    critic = VGPSCritic(config, network, EmbeddingTable([name], given["language"]))
    first = given["chunk_normalised"][:, 0, 0]
    raw = np.where(given["policy_mask"], first * given["policy_std"] + given["policy_mean"], first)
    observation = Observation.single({"image": given["image"][0]})
    context = critic.encode(Batch.stack([observation], [Task(name)]))
    members = critic.score(context, raw.astype(np.float32)[None, :, None])[:, 0]
    q = reduce_scores(members, critic.spec.reduction)
    where = f"r_{name}_"
    yield close(source, f"{where}raw_first_action", raw, given["raw_first_action"], EXACT_BOUND)
    yield close(source, f"{where}critic_action", bounds.to_critic(raw), given["critic_action"], EXACT_BOUND)
    yield close(source, f"{where}q_members", members, given["q_members"], Q_BOUND)
    yield close(source, f"{where}q", q, given["q"], Q_BOUND)
    yield equal(source, f"{where}argmax", choose(q, Selection(), 0), int(given["argmax"]))
    temperatures = [key.removeprefix("softmax_T") for key in given if key.startswith("softmax_T")]
    if not temperatures:
        raise KeyError(f"{where}softmax_T*")
    for text in temperatures:
        logits = q / float(text)
        odds = np.exp(logits - logits.max())
        yield close(
            source, f"{where}softmax_T{text}", odds / odds.sum(), given[f"softmax_T{text}"], Q_BOUND / float(text)
        )
        choices = np.argmax(logits + given[f"gumbel_T{text}"], axis=-1).astype(np.int32)
        yield equal(source, f"{where}choice_T{text}", choices, given[f"choice_T{text}"])


def compare_variants(file: Path, arrays: Arrays) -> Iterator[Comparison]:
    """Encoders alone, each with its own weights."""
    configurations = json.loads(file.with_suffix(".json").read_text())
    names = {name.removesuffix(".image") for name in arrays if name.endswith(".image")}
    if names != set(configurations):
        raise KeyError(f"{file}: variants {sorted(names ^ set(configurations))} are in the .npz or the .json only")
    for name, stated in configurations.items():
        given = {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}
        yield from _variant(f"{file.name}: {name}", stated, given)


def _variant(source: str, stated: Mapping[str, Any], given: Arrays) -> Iterator[Comparison]:
    published = {k.removeprefix("param.").replace(".", "/"): v for k, v in given.items() if k.startswith("param.")}
    temperature = stated.get("softmax_temperature", 1.0)
    config = infer_encoder(
        {name: value.shape for name, value in published.items()},
        Stated(
            activation=stated["act"],
            pooling=stated["pooling_method"],
            softmax_temperature=temperature if temperature > 0 else 1.0,
        ),
    )
    yield equal(source, "configuration from the parameters", _words(config), _stated_words(stated))
    encoder = Encoder(config).eval()
    tensors = to_torch((f"encoder/encoder/{name}", value) for name, value in published.items())
    put(encoder, {name.removeprefix("encoder."): value for name, value in tensors.items()})
    text = _tensor(given["cond"]) if "cond" in given else None
    with torch.inference_mode():
        seen = trace(encoder, _tensor(given["image"]), text)
    yield close(source, "out", seen["pooled"], given["out"], FEATURE_BOUND)
    for key in given:
        if key.startswith("mid."):
            yield close(source, key, seen[key.removeprefix("mid.")], given[key], FEATURE_BOUND)


def _words(config: EncoderConfig) -> dict[str, Any]:
    """An inferred configuration in the words of the .json."""
    return {
        "stage_sizes": list(config.stages),
        "num_filters": config.filters,
        "block": {"basic": "ResNetBlock", "bottleneck": "BottleneckResNetBlock"}[config.block],
        "add_spatial_coordinates": config.coordinates,
        "use_film": config.conditioning == "film",
        "use_multiplicative_cond": config.conditioning == "multiplicative",
        "norm": config.norm,
    }


def _stated_words(stated: Mapping[str, Any]) -> dict[str, Any]:
    keys = (
        "stage_sizes",
        "num_filters",
        "block",
        "add_spatial_coordinates",
        "use_film",
        "use_multiplicative_cond",
        "norm",
    )
    return {key: stated[key] for key in keys}


def trace(encoder: Encoder, images: Tensor, text: Tensor | None) -> dict[str, Array]:
    """Outputs of the layers under their published names, NHWC."""
    seen: dict[str, Array] = {}
    modules = dict(encoder.named_modules())
    handles = []
    for published, ours in _layers(encoder.config).items():

        def keep(module: nn.Module, args: Any, output: Tensor, name: str = published) -> None:
            seen[name] = (output.movedim(1, -1) if output.ndim == 4 else output).numpy()

        handles.append(modules[ours].register_forward_hook(keep))

    def keep_input(module: nn.Module, args: tuple[Tensor]) -> None:
        seen["input_scaled"] = args[0].movedim(1, -1).numpy()

    handles.append(encoder.coordinates.register_forward_pre_hook(keep_input))
    encoder(images, text)
    for handle in handles:
        handle.remove()
    return seen


def _layers(config: EncoderConfig) -> dict[str, str]:
    """Published layer name -> module path here."""
    with torch.device("meta"):
        modules = {name for name, _ in Encoder(config).named_modules()}
    block = "ResNetBlock" if config.block == "basic" else "BottleneckResNetBlock"
    norm = "MyGroupNorm" if config.norm == "group" else "LayerNorm"
    condition = "FilmConditioning" if config.conditioning == "film" else "Dense"
    names = {"conv_init": "conv_init", "norm_init": "norm_init", "pooled": "pooling"}
    if config.coordinates:
        names["AddSpatialCoordinates_0"] = "coordinates"
    for i in range(sum(config.stages)):
        inner = {f"Conv_{j}": f"convs.{j}" for j in range(3)} | {f"{norm}_{j}": f"norms.{j}" for j in range(3)}
        inner |= {"conv_proj": "conv_proj", "norm_proj": "norm_proj"}
        names[f"{block}_{i}"] = f"blocks.{i}"
        names |= {f"{block}_{i}.{published}": f"blocks.{i}.{ours}" for published, ours in inner.items()}
        names[f"{condition}_{i}"] = f"conditions.{i}"
        if condition == "FilmConditioning":
            names |= {
                f"{condition}_{i}.Dense_{j}": f"conditions.{i}.{part}" for j, part in enumerate(("scale", "shift"))
            }
    return {published: ours for published, ours in names.items() if ours in modules}


def close(source: str, quantity: str, ours: Any, golden: Array, bound: float) -> Comparison:
    """Within `bound`, and `RELATIVE` of the largest golden number."""
    return absolutely_close(source, quantity, ours, golden, bound + RELATIVE * float(np.abs(golden).max(initial=0.0)))


def _tensor(value: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value))
