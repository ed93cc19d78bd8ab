"""`chunk_family`: the registry's entry of a family that is trained here. Imports torch only when one is loaded or trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.config import TrainingConfig, chunk_sampler, require_torch
from steer.model_name import ModelName
from steer.options import integer
from steer.registry import Family, Trainable

if TYPE_CHECKING:
    from policies.sampling import ChunkPolicy
    from policies.training import ChunkObjective
    from steer.checkpoints import Checkpoint
    from steer.data.frames import Frames


def chunk_family(
    kind: str,
    summary: str,
    config: type[TrainingConfig],
    policy: Callable[[], Any],
    objective: Callable[[], Any],
    options: tuple[str, ...] = (),
) -> Family:
    """The family `kind:PATH?device=cpu&...`.

    policy: imports and returns the class, with load(path, device, **options). objective: imports and returns the class of what
    trains it. options: whole numbers that the policy's `load` takes besides the device.
    """

    def load(name: ModelName) -> ChunkPolicy:
        """One of our checkpoint folders as a policy."""
        require_torch(f"running a {kind} policy")
        name.refuse_unknown("device", *options)
        given = {key: integer(name.options, key, 0) for key in options if key in name.options}
        loaded: ChunkPolicy = policy().load(Path(name.place), name.options.get("device", "cpu"), **given)
        return loaded

    def train(config: Any, frames: Frames, seed: int = 0, start: Checkpoint | None = None) -> ChunkObjective[Any]:
        """What trains a policy on these frames, or trains the one in `start` further."""
        require_torch(f"training a {kind} policy")
        made: ChunkObjective[Any] = objective()(config, frames, seed, start)
        return made

    return Family(kind, summary, load, Trainable(config, train, chunk_sampler))
