"""Training of one model by two processes on the CPU, started by torchrun and accelerate."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import Result

from pi_sim import records
from pi_sim.errors import UsageError
from pi_sim.training import distributed
from tests.helpers.cli import invoke
from tests.helpers.small_training import read_weights, train

pytestmark = pytest.mark.parties

STEPS = 100
TOKENS = str(STEPS * 8 * 16)
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "bf16", "--dynamo_backend", "no", "--main_process_port", "0")  # fmt: skip
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def start(size: str, texts: Path, out: Path, *more: str, launcher: tuple[str, ...] = TORCHRUN) -> subprocess.Popen[str]:
    options = ("--model", "relu_nonorm", "--size", size, "--corpus", str(texts), "--out", str(out), *more)
    command = [sys.executable, "-m", *launcher, "-m", "pi_sim", "train", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **QUIET}, **pipes)


def finish(started: subprocess.Popen[str]) -> tuple[str, str]:
    return started.communicate(timeout=240)


@pytest.fixture(scope="module")
def alone(size: str, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a training by one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    assert train(size, texts, out, "--tokens", TOKENS).exit_code == 0
    return out


@pytest.fixture(scope="module")
def finished(size: str, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Output folder, standard output and standard error of a training by two processes."""
    out = tmp_path_factory.mktemp("together") / "out"
    return out, *finish(start(size, texts, out, "--tokens", TOKENS))


@pytest.fixture(scope="module")
def together(finished: tuple[Path, str, str]) -> Path:
    assert finished[0].is_dir(), finished[2]
    return finished[0]


def test_two_processes_train_the_same_model_as_one(alone: Path, together: Path) -> None:
    one, two = (records.load(folder / "record.json") for folder in (alone, together))
    assert (one.processes, two.processes) == (1, 2)
    assert two.corpus == one.corpus
    assert [step for step, _ in two.loss_curve] == list(range(1, STEPS + 1))
    assert [loss for _, loss in two.loss_curve] == pytest.approx([loss for _, loss in one.loss_curve], abs=2e-3)
    assert two.held_out.loss == pytest.approx(one.held_out.loss, abs=2e-3)
    assert [row.step for row in two.observations] == [row.step for row in one.observations]


def test_only_rank_zero_prints(finished: tuple[Path, str, str]) -> None:
    out, stdout, stderr = finished
    assert stdout.startswith(f"{out}: held-out perplexity")
    assert len(stdout.splitlines()) == 1
    assert len(re.findall(r"step 100/100", stderr)) == 1


def test_an_interruption_of_all_processes_continues_to_the_same_weights(
    together: Path, size: str, texts: Path, tmp_path: Path
) -> None:
    started = start(size, texts, tmp_path / "out", "--tokens", TOKENS)
    assert started.stderr is not None
    while "step" not in (line := started.stderr.readline()):
        assert line, "ended before its first step"
    started.send_signal(signal.SIGINT)
    _, stderr = finish(started)
    (stopped,) = re.findall(r"stopped after (\d+) of 100 steps; repeat the command", stderr)
    assert 0 < int(stopped) < STEPS
    _, stderr = finish(start(size, texts, tmp_path / "out", "--tokens", TOKENS))
    assert min(map(int, re.findall(r"step (\d+)/100", stderr))) > int(stopped)  # it did not start again
    expected, resumed = read_weights(together), read_weights(tmp_path / "out")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    first, second = (records.load(folder / "record.json") for folder in (together, tmp_path / "out"))
    assert first.observations == second.observations


def test_the_recipe_decides_the_precision_under_accelerate(
    trained: Path, size: str, texts: Path, tmp_path: Path
) -> None:
    _, stderr = finish(start(size, texts, tmp_path / "out", launcher=ACCELERATE))
    assert (tmp_path / "out" / "record.json").is_file(), stderr
    one, two = (records.load(folder / "record.json") for folder in (trained, tmp_path / "out"))
    assert two.processes == 2
    assert two.held_out.loss == pytest.approx(one.held_out.loss, abs=1e-5)  # bfloat16's would differ


def test_a_batch_that_does_not_divide_is_refused_once(size: str, texts: Path, tmp_path: Path) -> None:
    started = start(size, texts, tmp_path / "out", "--set", "batch_size=7")
    _, stderr = finish(started)
    assert started.returncode != 0
    assert stderr.count("pi-sim: a batch of 7 does not divide among 2 processes") == 1


def test_a_failure_of_rank_zero_ends_all_with_its_message(size: str, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    begin = time.monotonic()
    _, stderr = finish(start(size, texts, tmp_path / "out"))
    assert time.monotonic() - begin < 100  # no process waits for rank zero
    assert stderr.count("exists already and is not an interrupted training") == 1
    assert "pi_sim/training" not in stderr  # no traceback of pi-sim's


# Several GPUs, without any


def gpus(monkeypatch: pytest.MonkeyPatch, number: int, **environment: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_one_process_for_several_gpus_is_refused(
    size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 2)
    result: Result = invoke(
        "train", "--model", "relu_nonorm", "--size", size, "--corpus", texts, "--out", tmp_path / "o"
    )
    assert result.exit_code == 2
    assert "torchrun --nproc-per-node 2 -m pi_sim train" in result.stderr


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2, WORLD_SIZE="3", LOCAL_WORLD_SIZE="3")
    with pytest.raises(UsageError, match="this machine has 2"):
        distributed.check_gpus()
    gpus(monkeypatch, 3)
    distributed.check_gpus()
