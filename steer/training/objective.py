"""`Objective`: what a policy or a critic brings to be trained. It brings no loop; `steer.training.loop` is the only one.

An objective owns its networks, optimisers, targets, averages and random generators, and knows its own schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator

# Nested dicts, lists and tuples of tensors, numpy arrays and JSON values; see `steer.training.state`.
State: TypeAlias = Mapping[str, Any]
Metrics: TypeAlias = Mapping[str, "float | Tensor"]


class Objective(Protocol):
    """One training problem."""

    def step(self, batch: Any) -> Metrics:
        """One update. The metrics hold "loss", 0-d tensors where possible (the loop reads them only now and then)."""
        ...

    def state(self) -> State:
        """Everything the next step depends on, so that a resumed run continues bit for bit."""
        ...

    def restore(self, state: State) -> None: ...

    def save(self, path: Path) -> str:
        """Write the checkpoint folder that serving reads; returns its version."""
        ...


@runtime_checkable
class Placed(Protocol):
    """An objective that can run on other devices, in lower precision, or in several processes.

    `prepare` hands its modules and optimisers to accelerate. Every process draws the same batch and works on its share, so
    that the run is the same for any number of processes.
    """

    def prepare(self, accelerator: Accelerator) -> None: ...


class Sampler(Protocol):
    """Endless batches with a position that can be saved."""

    def sample(self) -> Any: ...

    def state(self) -> Any: ...

    def restore(self, state: Any) -> None: ...


def share(rows: Tensor, accelerator: Accelerator | None) -> Tensor:
    """This process's share of a batch's rows, on its device; all of them before `prepare`."""
    if accelerator is None:
        return rows
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    return mine.to(accelerator.device)


def backward(loss: Tensor, accelerator: Accelerator | None) -> None:
    """Gradients of `loss`, through the accelerator once there is one."""
    if accelerator is None:
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    else:
        accelerator.backward(loss)
