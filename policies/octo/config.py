"""`OctoConfig`: what `config.json` of a checkpoint says, in one typed form for the versions 1.0 and 1.5.

The file names Python modules and classes. They are compared with an allow-list and never imported: each stands for code of
this package, and anything else is refused. Imports no jax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steer.errors import CheckpointError

_IMAGE = ("octo.model.components.tokenizers", "ImageTokenizer")
_LANGUAGE = ("octo.model.components.tokenizers", "LanguageTokenizer")
_STEM = ("octo.model.components.vit_encoders", "SmallStem16")
_HEAD = ("octo.model.components.action_heads", "DiffusionActionHead")


@dataclass(frozen=True)
class CameraConfig:
    """One image tokenizer. key: name of the image in observations and goals ("image_primary")."""

    name: str
    key: str
    goal: bool
    features: tuple[int, ...]
    num_features: int


@dataclass(frozen=True)
class HeadConfig:
    """The diffusion head: H steps of A axes, `diffusion_steps` turns, x_t clipped to +-`max_action`."""

    readout: str
    action_dim: int
    horizon: int
    hidden: int
    time_dim: int
    blocks: int
    layer_norm: bool
    diffusion_steps: int
    max_action: float


@dataclass(frozen=True)
class T5Config:
    """Dimensions of the language encoder (Raffel et al. 2020). The defaults are those of t5-base."""

    vocab_size: int = 32128
    d_model: int = 768
    num_layers: int = 12
    num_heads: int = 12
    d_kv: int = 64
    d_ff: int = 3072
    num_buckets: int = 32
    max_distance: int = 128
    epsilon: float = 1e-6


# Checkpoints name their encoder; the dimensions of these are known, others bring NAME/config.json.
T5_BY_NAME: Mapping[str, T5Config] = {
    "t5-small": T5Config(d_model=512, num_layers=6, num_heads=8, d_ff=2048),
    "t5-base": T5Config(),
    "t5-large": T5Config(d_model=1024, num_layers=24, num_heads=16, d_ff=4096),
}


@dataclass(frozen=True)
class OctoConfig:
    """The whole model. cameras and readouts are in the order of the sequence.

    window: frames of history it was trained with; max_window: rows of the position tables.
    repeats_language, exact_attention: True in 1.5; 1.0 has neither (its rule is off by one, see `attention`).
    """

    cameras: tuple[CameraConfig, ...]
    encoder: str
    language_tokens: int
    readouts: tuple[tuple[str, int], ...]
    head: HeadConfig
    width: int
    layers: int
    heads: int
    mlp: int
    window: int
    max_window: int
    repeats_language: bool
    exact_attention: bool

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)


def parse_config(content: Any, source: str) -> OctoConfig:
    """Read the content of `config.json`; raises `CheckpointError` that names `source` and the key."""
    root = _Section(content, source)
    model = root.section("model")
    transformer = model.section("transformer_kwargs")
    if transformer.get("add_position_embedding", False):
        raise CheckpointError(f"{source}: add_position_embedding is set: published Octo models have none, as here")
    width = model.integer("token_embedding_size")
    heads = transformer.integer("num_attention_heads")
    if width % heads:
        raise CheckpointError(f"{source}: token width {width} is no multiple of the {heads} attention heads")
    return OctoConfig(
        cameras=tuple(_camera(name, section) for name, section in model.sections("observation_tokenizers")),
        encoder=_encoder(model),
        language_tokens=_language_tokens(root),
        readouts=_readouts(model),
        head=_head(model),
        width=width,
        layers=transformer.integer("num_layers"),
        heads=heads,
        mlp=transformer.integer("mlp_dim"),
        window=root.integer("window_size", 2),
        max_window=model.integer("max_horizon"),
        repeats_language=bool(model.get("repeat_task_tokens", False)),
        exact_attention=bool(model.get("use_correct_attention", False)),
    )


class _Section:
    """A JSON object with the path that leads to it, for error messages."""

    def __init__(self, content: Any, where: str) -> None:
        if not isinstance(content, dict):
            raise CheckpointError(f"{where}: expected an object, got {type(content).__name__}: not an Octo checkpoint")
        self.content = content
        self.where = where

    def get(self, key: str, default: Any = None) -> Any:
        return self.content.get(key, default)

    def section(self, key: str) -> _Section:
        if key not in self.content:
            raise CheckpointError(f"{self.where}: lacks {key!r}; it has {sorted(self.content)}")
        return _Section(self.content[key], f"{self.where}: {key}")

    def sections(self, key: str) -> list[tuple[str, _Section]]:
        section = self.section(key)
        return [(name, section.section(name)) for name in section.content]

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CheckpointError(f"{self.where}: {key} is {value!r}, expected a whole number above 0")
        return value

    def kwargs(self, *allowed: tuple[str, str]) -> _Section:
        """The arguments of a module that is on the allow-list."""
        given = (self.get("module"), self.get("name"))
        if given not in allowed:
            known = [".".join(name) for name in allowed]
            raise CheckpointError(
                f"{self.where}: names {given[0]}.{given[1]}, which is not known here: known is {known}"
            )
        if self.get("args"):
            raise CheckpointError(f"{self.where}: has positional arguments {self.get('args')}, expected keywords only")
        return self.section("kwargs")


def _camera(name: str, section: _Section) -> CameraConfig:
    kwargs = section.kwargs(_IMAGE)
    for option in ("use_token_learner", "conditioning_kwargs", "task_film_keys"):
        if kwargs.get(option):
            raise CheckpointError(f"{kwargs.where}: {option} is set, which no published model uses: not supported")
    stem = kwargs.section("encoder").kwargs(_STEM)
    keys, goals = _keys(kwargs, "obs_stack_keys"), _keys(kwargs, "task_stack_keys")
    if len(keys) != 1 or goals not in ((), keys):
        raise CheckpointError(f"{kwargs.where}: stacks {keys} with goals {goals}, expected one image with its own goal")
    features = stem.get("features", (32, 96, 192, 384))
    return CameraConfig(name, keys[0], bool(goals), tuple(int(f) for f in features), stem.integer("num_features", 512))


def _keys(kwargs: _Section, name: str) -> tuple[str, ...]:
    value = kwargs.get(name, ())
    if not all(isinstance(key, str) and key.isidentifier() for key in value):
        raise CheckpointError(f"{kwargs.where}: {name} is {value!r}, expected plain names, not patterns")
    return tuple(value)


def _encoder(model: _Section) -> str:
    tokenizers = dict(model.sections("task_tokenizers"))
    if list(tokenizers) != ["language"]:
        raise CheckpointError(f"{model.where}: task tokenizers are {list(tokenizers)}, expected 'language' alone")
    name = tokenizers["language"].kwargs(_LANGUAGE).get("encoder")
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise CheckpointError(f"{model.where}: language encoder is {name!r}, expected a plain name such as 't5-base'")
    return name


def _language_tokens(root: _Section) -> int:
    if root.get("text_processor") is None:
        return 16
    kwargs = root.section("text_processor").section("kwargs")
    return _Section(kwargs.get("tokenizer_kwargs") or {}, kwargs.where).integer("max_length", 16)


def _readouts(model: _Section) -> tuple[tuple[str, int], ...]:
    section = model.section("readouts")
    return tuple((f"readout_{name}", section.integer(name)) for name in section.content)


def _head(model: _Section) -> HeadConfig:
    heads = dict(model.sections("heads"))
    if list(heads) != ["action"]:
        raise CheckpointError(f"{model.where}: heads are {list(heads)}, expected 'action' alone")
    kwargs = heads["action"].kwargs(_HEAD)
    if kwargs.get("use_map", False):
        raise CheckpointError(f"{kwargs.where}: use_map is set, which no published model uses: not supported")
    horizon = "action_horizon" if "action_horizon" in kwargs.content else "pred_horizon"
    readout = str(kwargs.get("readout_key", "readout_action"))
    if readout not in dict(_readouts(model)):
        raise CheckpointError(f"{kwargs.where}: reads {readout!r}, but the readouts are {dict(_readouts(model))}")
    return HeadConfig(
        readout=readout,
        action_dim=kwargs.integer("action_dim", 7),
        horizon=kwargs.integer(horizon, 1),
        hidden=kwargs.integer("hidden_dim", 256),
        time_dim=kwargs.integer("time_dim", 32),
        blocks=kwargs.integer("num_blocks", 3),
        layer_norm=bool(kwargs.get("use_layer_norm", True)),
        diffusion_steps=kwargs.integer("diffusion_steps", 20),
        max_action=float(kwargs.get("max_action", 5.0)),
    )
