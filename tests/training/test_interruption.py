"""Trainings that are interrupted, repeated or cannot be written: nothing is lost, and errors name the right folder."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pi_sim import records
from pi_sim.errors import UsageError
from pi_sim.training import callbacks, checkpoints, evaluation
from pi_sim.training import train as training
from tests.helpers.cli import invoke
from tests.helpers.file_size_limit import file_size_limit
from tests.helpers.small_training import make_plan, read_weights, train

pytestmark = pytest.mark.slow

LARGEST_WITHOUT = {"tokenizer.json": 2_000, "model.safetensors": 20_000, "optimizer.pt": 50_000}


class InterruptingCallback(callbacks.InterruptCallback):
    """Callback of a user who presses Ctrl-C during a step."""

    step = 4

    def on_step_begin(self, args: object, state: object, control: object, **_: object) -> None:
        if getattr(state, "global_step", 0) == self.step - 1:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_training_continues_to_the_same_weights(
    trained: Path, size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "InterruptCallback", InterruptingCallback)
        stopped = train(size, texts, tmp_path / "out")
    assert stopped.exit_code == 130
    assert "stopped after 4 of 10 steps; repeat the command" in stopped.stderr
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert train(size, texts, tmp_path / "out").exit_code == 0
    assert_same(trained, tmp_path / "out")


def assert_same(uninterrupted: Path, resumed: Path) -> None:
    """Two checkpoints have the same weights, loss curve and observations."""
    expected, weights = read_weights(uninterrupted), read_weights(resumed)
    assert all(torch.equal(expected[name], weights[name]) for name in expected)
    assert curve(uninterrupted) == curve(resumed)
    assert observations(uninterrupted) == observations(resumed)


def curve(folder: Path) -> list[tuple[int, float]]:
    return [tuple(point) for point in records.load(folder / "record.json").loss_curve]


def observations(folder: Path) -> list[dict[str, object]]:
    return list(records.load(folder / "record.json").observations)


def test_a_training_interrupted_after_its_last_step_takes_no_further_step(
    trained: Path, size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "measure_quality", interrupt)
        stopped = train(size, texts, tmp_path / "out")
    assert (stopped.exit_code, "repeat the command to continue" in stopped.stderr) == (130, True)
    assert train(size, texts, tmp_path / "out").exit_code == 0
    assert_same(trained, tmp_path / "out")


def test_no_loss_is_missing_from_the_curve_of_an_interrupted_training(
    trained: Path, size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CURVE_POINTS", 3)  # a mean of four steps each
    monkeypatch.setattr(training, "CHECKPOINT_COUNT", 1)
    monkeypatch.setattr(InterruptingCallback, "step", 6)
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "InterruptCallback", InterruptingCallback)
        train(size, texts, tmp_path / "out")
    train(size, texts, tmp_path / "out")
    ends, means = zip(*curve(tmp_path / "out"), strict=True)
    assert ends == (4, 6, 8, 10)
    losses = dict(curve(trained))
    for first, last, mean in zip((0, *ends), ends, means, strict=False):
        assert mean == pytest.approx(sum(losses[step + 1] for step in range(first, last)) / (last - first), abs=2e-4)


def test_an_incomplete_checkpoint_is_ignored(tmp_path: Path) -> None:
    for step in (8, 16, 120):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert checkpoints.last_checkpoint(tmp_path) is None
    for step in (8, 16):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").touch()
    assert checkpoints.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-16")


def test_an_output_folder_that_cannot_be_written_is_refused(size: str, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke(
        "train", "--model", "relu_ln", "--size", size, "--corpus", texts, "--out", tmp_path / "file" / "out"
    )
    assert result.exit_code == 2
    assert "cannot be written (Not a directory)" in result.stderr


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors", "optimizer.pt"])
def test_a_full_disk_is_one_sentence(file: str, size: str, texts: Path, tmp_path: Path) -> None:
    with file_size_limit(LARGEST_WITHOUT[file]):
        result = train(size, texts, tmp_path / "out")
    assert result.exit_code in (1, 2)
    assert result.stderr.splitlines()[-1].startswith(f"pi-sim: {tmp_path / 'out'}")
    assert "cannot be written" in result.stderr


def test_a_finished_checkpoint_is_staged_inside_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    checkpoints.prepare_folder(out, {})

    def fill(folder: Path) -> None:
        (folder / "record.json").touch()
        (folder / "model.safetensors").touch()
        assert list(tmp_path.iterdir()) == [out]
        assert not (out / "record.json").exists()

    checkpoints.move_finished(out, fill)
    assert {path.name for path in out.iterdir()} == {"record.json", "model.safetensors"}


def test_a_crash_while_finishing_can_be_repeated(
    trained: Path, size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "shutil", SimpleNamespace(rmtree=crash))
        assert train(size, texts, tmp_path / "out").exit_code == 130
    assert train(size, texts, tmp_path / "out").exit_code == 0
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert_same(trained, tmp_path / "out")


def test_a_divergence_survives_an_interruption(
    size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    diverging = ("--set", "learning_rate=1e30")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_result", interrupt)
        assert train(size, texts, tmp_path / "out", *diverging).exit_code == 130
    monkeypatch.setattr(training, "_run_trainer", None)  # no further step
    result = train(size, texts, tmp_path / "out", *diverging)
    assert (result.exit_code, "diverged at step" in result.stdout) == (0, True)


def test_a_plan_that_cannot_be_read_is_one_sentence(size: str, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "plan.json").write_text("{")
    with pytest.raises(UsageError, match=r"plan\.json cannot be read; remove its folder"):
        training.train(make_plan(size, texts), tmp_path)


def test_another_training_does_not_continue_an_interrupted_one(size: str, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "plan.json").write_text("{}")
    with pytest.raises(UsageError, match="other settings"):
        training.train(make_plan(size, texts), tmp_path)


def test_another_number_of_processes_does_not_continue_an_interrupted_one(
    size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "InterruptCallback", InterruptingCallback)
        train(size, texts, tmp_path / "out")
    path = tmp_path / "out" / "checkpoints" / "plan.json"
    path.write_text(path.read_text().replace('"processes": 1', '"processes": 2'))
    result = train(size, texts, tmp_path / "out")
    assert (result.exit_code, "other settings" in result.stderr) == (2, True)


def test_a_folder_in_use_is_left_alone(trained: Path, size: str, texts: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        training.train(make_plan(size, texts), trained)
