"""The one training loop. It drives any `Objective`, and knows nothing of what is learned.

It owns device, precision and processes (accelerate), the progress bar, TensorBoard, and saving: a run that is stopped
(Ctrl-C, a crash, a full disk) goes on from its last state with the very losses it would have had.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from steer.errors import ConfigError
from steer.training.device import Precision, make_accelerator
from steer.training.interrupts import Interrupts
from steer.training.meter import Meter
from steer.training.objective import Objective, Placed, Sampler
from steer.training.progress import TrainingProgress
from steer.training.run_folder import RunFolder
from steer.training.state import read_state, write_state


class TrainingInterrupted(KeyboardInterrupt):
    """The run was stopped and its state saved; the message says how to go on."""


@dataclass(frozen=True)
class LoopConfig:
    """How a run is driven; what is learned is the objective's business."""

    steps: int
    """Updates."""
    seed: int = 0
    """Seed of torch's global generator."""
    log_every: int = 50
    """Updates between two logs."""
    save_every: int = 1000
    """Updates between two saved states."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, or auto."""
    precision: Precision = "no"
    """Mixed precision: bf16 or fp16."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")


def train(
    objective: Objective,
    sampler: Sampler,
    config: LoopConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    title: str = "training",
    console: Console | None = None,
) -> Path:
    """Run `config.steps` updates and publish the checkpoint as `out`; returns `out`.

    resume: go on from the last saved state; a finished run is left as it is. overwrite: discard an earlier run in `out`.
    Raises `ConfigError` when `out` may not be used, `DivergedError` on a non-finite loss, `CheckpointError` when the disk
    is full, and `TrainingInterrupted` after a signal.
    """
    folder = RunFolder(out)
    if resume and folder.finished:
        return folder.path
    accelerator = make_accelerator(config.device, config.precision)
    if accelerator.is_main_process:
        folder.claim(resume, overwrite)
    accelerator.wait_for_everyone()
    torch.manual_seed(config.seed)
    if isinstance(objective, Placed):
        objective.prepare(accelerator)
    elif accelerator.device.type != "cpu" or accelerator.num_processes > 1:
        raise ConfigError(
            f"this objective trains on one CPU only, {accelerator.device} was asked for: use --device cpu"
        )
    run = _Run(objective, sampler, config, folder, accelerator)
    if resume:
        run.restore()
    run.go(title, console)
    if accelerator.is_main_process:
        folder.publish(objective.save)
    accelerator.wait_for_everyone()
    return folder.path


class _Run:
    """The state of one call of `train`."""

    def __init__(
        self, objective: Objective, sampler: Sampler, config: LoopConfig, folder: RunFolder, accelerator: Accelerator
    ) -> None:
        self.objective, self.sampler, self.config = objective, sampler, config
        self.folder, self.accelerator = folder, accelerator
        self.step = self.saved = 0

    def go(self, title: str, console: Console | None) -> None:
        """All remaining updates, then one last save."""
        quiet = None if self.accelerator.is_main_process else Console(quiet=True)
        writer = SummaryWriter(str(self.folder.logs), purge_step=self.step + 1) if quiet is None else None
        meter = Meter()
        try:
            with (
                Interrupts() as interrupts,
                TrainingProgress(title, self.step, self.config.steps, quiet or console) as bar,
            ):
                while self.step < self.config.steps:
                    meter.add(self.objective.step(self.sampler.sample()))
                    self.step += 1
                    stop = self._any(interrupts.requested)
                    if stop or self._due(self.config.log_every) or self._due(self.config.save_every):
                        meter.check(self.step)
                    if stop or self._due(self.config.save_every):
                        self.save()
                    if self._due(self.config.log_every):
                        self._log(meter.read(), writer, bar)
                    if stop:
                        raise TrainingInterrupted(
                            f"stopped at step {self.step} of {self.config.steps}, state saved in {self.folder.training}: "
                            "run the same command with --resume to go on"
                        )
        finally:
            if writer is not None:
                writer.close()

    def save(self) -> None:
        """Publish the state of this step."""
        if self.accelerator.is_main_process and self.saved != self.step:
            state = {
                "steps": self.config.steps,
                "torch_rng": torch.get_rng_state(),
                "objective": self.objective.state(),
                "sampler": self.sampler.state(),
            }
            write_state(self.folder.training, self.step, state)
        self.saved = self.step
        self.accelerator.wait_for_everyone()

    def restore(self) -> None:
        """Go back to the last saved state. Raises `ConfigError` when the run was of another length."""
        step, state = read_state(self.folder.training)
        if state["steps"] != self.config.steps:
            raise ConfigError(
                f"{self.folder.path}: this run was started with {state['steps']} steps, not {self.config.steps}: its schedule "
                "depends on it; resume with the same number, or start anew"
            )
        self.objective.restore(state["objective"])
        self.sampler.restore(state["sampler"])
        torch.set_rng_state(state["torch_rng"])
        self.step = self.saved = step

    def _due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.config.steps

    def _any(self, flag: bool) -> bool:
        """Whether the flag is set in any process: all must leave the loop at the same step."""
        if self.accelerator.num_processes == 1:
            return flag
        flags: Any = self.accelerator.gather(torch.tensor([flag], device=self.accelerator.device))
        return bool(flags.any())

    def _log(self, means: dict[str, float], writer: SummaryWriter | None, bar: TrainingProgress) -> None:
        bar.show(self.step, means.get("loss", float("nan")))
        if writer is not None:
            for name, value in means.items():
                writer.add_scalar(name, value, self.step)
