"""Checkpoint folders: the one format for every model that we train.

    config.json           kind, format version, typed configuration, spec, transforms with their statistics
    weights.safetensors   numbers only; nothing is ever pickled
    manifest.json         sha256 of each of the two; the version is the hash of the manifest
    README.md             a model card
    documents/NAME.json   what was said of the model later (the verdict); not part of the version

A folder is written aside and published by one rename: a reader sees a whole checkpoint or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steer.errors import CheckpointError, MissingExtraError
from steer.files import fsync_tree, replace_folder
from steer.serial import to_json
from steer.transforms import Pipeline

FORMAT = 1
_HASHED = ("config.json", "weights.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. `config` and `spec` are JSON; the family turns them into its own types."""

    path: Path
    kind: str
    config: Any
    spec: Any
    transforms: Pipeline
    weights: Mapping[str, np.ndarray]
    version: str
    documents: Mapping[str, Any] = field(default_factory=dict)


def write_checkpoint(
    path: Path,
    *,
    kind: str,
    config: object,
    spec: object,
    transforms: Pipeline,
    weights: Mapping[str, np.ndarray],
    card: str,
    documents: Mapping[str, Any] | None = None,
) -> str:
    """Write and publish a checkpoint folder, replacing one that is there; returns its version."""
    save = _safetensors("save_file")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        aside.mkdir()
        content = {
            "format": FORMAT,
            "kind": kind,
            "config": to_json(config),
            "spec": to_json(spec),
            "transforms": transforms.to_json(),
        }
        (aside / "config.json").write_text(json.dumps(content, indent=1))
        save({name: np.ascontiguousarray(value) for name, value in weights.items()}, aside / "weights.safetensors")
        manifest = {name: _sha256(aside / name) for name in _HASHED}
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1))
        (aside / "README.md").write_text(card)
        (aside / "documents").mkdir()
        for name, document in (documents or {}).items():
            (aside / "documents" / f"{name}.json").write_text(json.dumps(to_json(document), indent=1))
        fsync_tree(aside)
        replace_folder(aside, path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot write the checkpoint ({error.strerror or error}): free space and save again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return _version(manifest)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint folder. Raises `CheckpointError` for anything missing, truncated or changed."""
    path = Path(path)
    manifest = _json(path, "manifest.json")
    for name in _HASHED:
        if not (path / name).exists():
            raise CheckpointError(f"{path}: {name} is missing: the checkpoint is incomplete, copy it again")
        if _sha256(path / name) != manifest.get(name):
            raise CheckpointError(
                f"{path}: {name} is not what the manifest says (truncated or changed): copy the checkpoint again"
            )
    content = _json(path, "config.json")
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {content.get('format')!r}, this version reads {FORMAT}: use the Steer that wrote it"
        )
    documents = {
        file.stem: _json(path, f"documents/{file.name}") for file in sorted((path / "documents").glob("*.json"))
    }
    return Checkpoint(
        path,
        content["kind"],
        content["config"],
        content["spec"],
        Pipeline.from_json(content["transforms"]),
        _safetensors("load_file")(path / "weights.safetensors"),
        _version(manifest),
        documents,
    )


def read_version(path: Path) -> str:
    """The version of a checkpoint folder, as its manifest states it; nothing is verified."""
    return _version(_json(Path(path), "manifest.json"))


def add_document(path: Path, name: str, document: Any) -> None:
    """Attach a JSON document to a checkpoint (its version stays)."""
    target = Path(path) / "documents" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    aside.write_text(json.dumps(to_json(document), indent=1))
    os.replace(aside, target)


def require_kind(checkpoint: Checkpoint, kind: str) -> None:
    """Raise `CheckpointError` when a family is handed another family's folder."""
    if checkpoint.kind != kind:
        raise CheckpointError(
            f"{checkpoint.path}: holds a {checkpoint.kind!r}, expected a {kind!r}: name it {checkpoint.kind}:PATH"
        )


def require_weights(checkpoint: Checkpoint, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `CheckpointError` unless exactly the wanted tensors are there, in their shapes."""
    missing = sorted(set(wanted) - set(checkpoint.weights))
    extra = sorted(set(checkpoint.weights) - set(wanted))
    if missing or extra:
        raise CheckpointError(
            f"{checkpoint.path}: weights do not fit the configuration: missing {missing[:5]}, unexpected {extra[:5]}"
        )
    for name, shape in wanted.items():
        if checkpoint.weights[name].shape != tuple(shape):
            raise CheckpointError(
                f"{checkpoint.path}: {name} has shape {checkpoint.weights[name].shape}, expected {tuple(shape)}"
            )


def _version(manifest: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(manifest), sort_keys=True).encode()).hexdigest()[:12]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(path: Path, name: str) -> Any:
    try:
        return json.loads((path / name).read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: {name} is missing: not a checkpoint folder, or an incomplete one") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: {name} is not readable as JSON ({error}): copy the checkpoint again") from error


def _safetensors(function: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("safetensors", "train", "reading and writing checkpoints") from error
    return getattr(safetensors.numpy, function)
