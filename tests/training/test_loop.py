import os
import signal
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from steer.checkpoints import read_checkpoint
from steer.errors import ConfigError
from steer.training.loop import LoopConfig, TrainingInterrupted, train
from steer.training.meter import DivergedError
from steer.training.state import latest_step
from tests.training.toys import Mean, Noise

CONFIG = LoopConfig(steps=40, log_every=10, save_every=10)
QUIET = Console(quiet=True)


def interrupt(at: int) -> Mean:
    """An objective during whose step `at` this process gets a SIGINT."""
    return Mean(on_step=lambda step: os.kill(os.getpid(), signal.SIGINT) if step == at else None)


def stopped(out: Path, at: int) -> Mean:
    objective = interrupt(at)
    with pytest.raises(TrainingInterrupted, match=f"stopped at step {at} of 40.*--resume"):
        train(objective, Noise(), CONFIG, out, console=QUIET)
    return objective


def test_a_run_ends_in_a_checkpoint_beside_its_state_and_logs(tmp_path: Path) -> None:
    out = train(Mean(), Noise(), CONFIG, tmp_path / "run", console=QUIET)

    assert read_checkpoint(out).kind == "toy"
    assert latest_step(out / "training") == 40
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_scalars_are_means_between_two_logs(tmp_path: Path) -> None:
    objective = Mean()
    out = train(objective, Noise(), CONFIG, tmp_path / "run", console=QUIET)

    events = EventAccumulator(str(out / "logs"))
    events.Reload()

    logged = {event.step: event.value for event in events.Scalars("loss")}
    assert logged == pytest.approx({s: sum(objective.losses[s - 10 : s]) / 10 for s in (10, 20, 30, 40)}, rel=1e-5)


@pytest.mark.parametrize("at", [7, 10, 39])
def test_a_resumed_run_has_the_very_losses_of_one_never_stopped(tmp_path: Path, at: int) -> None:
    whole = Mean()
    train(whole, Noise(), CONFIG, tmp_path / "whole", console=QUIET)
    first, second = stopped(tmp_path / "parts", at), Mean()

    train(second, Noise(seed=99), CONFIG, tmp_path / "parts", resume=True, console=QUIET)

    assert first.losses + second.losses == whole.losses
    assert read_checkpoint(tmp_path / "parts").version == read_checkpoint(tmp_path / "whole").version


def test_resuming_a_finished_run_leaves_it_alone(tmp_path: Path) -> None:
    out = train(Mean(), Noise(), CONFIG, tmp_path / "run", console=QUIET)
    again = Mean()

    train(again, Noise(), CONFIG, out, resume=True, console=QUIET)

    assert again.losses == []


def test_a_run_killed_between_its_last_save_and_publishing_is_finished_by_resuming(tmp_path: Path) -> None:
    out = train(Mean(), Noise(), CONFIG, tmp_path / "run", console=QUIET)
    version = read_checkpoint(out).version
    (out / "manifest.json").unlink()

    train(Mean(), Noise(), CONFIG, out, resume=True, console=QUIET)

    assert read_checkpoint(out).version == version


def test_a_finished_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    out = train(Mean(), Noise(), CONFIG, tmp_path / "run", console=QUIET)
    with pytest.raises(ConfigError, match="holds a finished run"):
        train(Mean(), Noise(), CONFIG, out, console=QUIET)

    other = Mean()
    train(other, Noise(seed=1), CONFIG, out, overwrite=True, console=QUIET)

    assert len(other.losses) == 40


def test_a_stopped_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 15)

    with pytest.raises(ConfigError, match="stopped at step 15"):
        train(Mean(), Noise(), CONFIG, tmp_path / "run", console=QUIET)


def test_a_folder_with_other_things_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")

    with pytest.raises(ConfigError, match="holds something else"):
        train(Mean(), Noise(), CONFIG, tmp_path, console=QUIET)
    train(Mean(), Noise(), CONFIG, tmp_path, overwrite=True, console=QUIET)

    assert (tmp_path / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize(
    ("resume", "overwrite", "message"), [(True, False, "nothing to resume"), (True, True, "exclude")]
)
def test_flags_that_make_no_sense_are_refused(tmp_path: Path, resume: bool, overwrite: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(Mean(), Noise(), CONFIG, tmp_path / "run", resume=resume, overwrite=overwrite, console=QUIET)


def test_a_run_is_not_resumed_with_another_length(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 15)

    with pytest.raises(ConfigError, match="started with 40 steps, not 50"):
        train(Mean(), Noise(), LoopConfig(steps=50), tmp_path / "run", resume=True, console=QUIET)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    objective = Mean(nan_at=25)

    with pytest.raises(DivergedError, match=r"nan within the 10 steps up to step 30: lower the learning rate"):
        train(objective, Noise(), CONFIG, tmp_path / "run", console=QUIET)

    assert latest_step(tmp_path / "run" / "training") == 20
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    def twice(step: int) -> None:
        if step == 15:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(Mean(on_step=twice), Noise(), CONFIG, tmp_path / "run", console=QUIET)

    assert not isinstance(caught.value, TrainingInterrupted)
    assert latest_step(tmp_path / "run" / "training") == 10


def test_the_handlers_of_the_caller_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    stopped(tmp_path / "run", 5)

    assert signal.getsignal(signal.SIGINT) is before


def test_progress_is_said_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(Mean(), Noise(), CONFIG, tmp_path / "run", title="policy", console=Console(width=80))

    assert "policy: 40/40 loss" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        train(Mean(), Noise(), LoopConfig(steps=1, device="cuda:7"), tmp_path / "run", console=QUIET)
