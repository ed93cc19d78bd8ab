"""`Processes`: several processes of one learner. The first waits for episodes, writes and speaks; all learn.

Every process draws the same batches and works on its share (`steer.training.objective.Placed`), so that the run is the same for any
number of them. With one process nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list

from steer.training.device import make_accelerator
from steer.training.objective import Objective, Placed

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

# A robot may be away for long; until episodes come, the other processes wait for the first.
_PATIENCE = timedelta(days=7)


class Processes:
    """This process among those of its run."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    @classmethod
    def of(cls, device: str) -> Processes:
        """On a device (cpu, cuda, cuda:1, auto), and among the processes that `accelerate launch` started, if it did."""
        return cls(make_accelerator(device, patience=_PATIENCE))

    @property
    def first(self) -> bool:
        """Is this the one that writes and speaks?"""
        return bool(self._accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        """Where this process learns."""
        device: torch.device = self._accelerator.device
        return device

    @property
    def _several(self) -> bool:
        return bool(self._accelerator.num_processes > 1)

    def place(self, objective: Objective) -> None:
        """Move what is learned to the device, and let its gradients be shared."""
        if isinstance(objective, Placed) and (self._several or self.device.type != "cpu"):
            objective.prepare(self._accelerator)

    def wait(self) -> None:
        """Until all are here."""
        if self._several:
            self._accelerator.wait_for_everyone()

    def any(self, flag: bool) -> bool:
        """Is it true in any of them?"""
        if not self._several:
            return flag
        gathered: Any = self._accelerator.gather(torch.tensor([flag], device=self.device))
        return bool(gathered.any())

    def after_first(self, make: Callable[[], T]) -> T:
        """`make` in the first process, and only then in the others: they find what it left on the disk."""
        if not self.first:
            self.wait()
            return make()
        made = make()
        self.wait()
        return made

    def told(self, value: T) -> T:
        """What the first process has here, in all of them."""
        if not self._several:
            return value
        box = [value]
        broadcast_object_list(box)
        return box[0]
