"""`ModelName`: one string names a model or robot, `kind:place?key=value`.

diffusion:runs/base          openvla:PATH?unnorm_key=bridge_orig&device=cuda
grpc://host:50051            openpi://host:8000
runs/base                    our own checkpoint folders carry their kind
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from steer.errors import CheckpointError, ConfigError
from steer.options import refuse_unknown

_KIND = re.compile(r"^([A-Za-z][A-Za-z0-9_+-]*):")


@dataclass(frozen=True)
class ModelName:
    """A parsed name. `options` are texts; the family that takes them checks them."""

    kind: str
    place: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Split a name; without a kind, the place is one of our checkpoint folders and its config.json says."""
        place, _, query = text.partition("?")
        try:
            options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        except ValueError as error:
            raise ConfigError(
                f"model name {text!r}: cannot read the options {query!r}: write ?key=value&key=value"
            ) from error
        match = _KIND.match(place)
        if match:
            rest = place[match.end() :]
            return cls(match.group(1), rest.removeprefix("//"), options)
        if not place:
            raise ConfigError("the model name is empty: give kind:place or the path of a checkpoint folder")
        return cls(_kind_of(Path(place)), place, options)

    def refuse_unknown(self, *known: str) -> None:
        """Raise `ConfigError` for an option the family does not take."""
        refuse_unknown(f"{self.kind}:{self.place}", self.options, known)

    def __str__(self) -> str:
        query = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.kind}:{self.place}" + (f"?{query}" if query else "")


def _kind_of(path: Path) -> str:
    """The kind a checkpoint folder states."""
    config = path / "config.json"
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint folder: check the path, or write kind:place")
    if not config.exists():
        raise CheckpointError(
            f"{path}: not one of our checkpoint folders (no config.json): write kind:{path} for another format"
        )
    try:
        kind = json.loads(config.read_text()).get("kind")
    except (json.JSONDecodeError, AttributeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{config}: not readable as JSON ({error}): the checkpoint is damaged, copy it again"
        ) from error
    if not isinstance(kind, str):
        raise CheckpointError(f"{config}: states no kind: not one of our checkpoint folders, write kind:{path}")
    return kind
