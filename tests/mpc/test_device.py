"""The device of a party. Tests that need a GPU are skipped without one; its products are in test_primitives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PI_SIM = [sys.executable, "-m", "pi_sim"]
RUN = [*PI_SIM, "run", "two-party", "--model", "gelu_ln", "--seq-len", "16", "--device", "cuda"]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
pytestmark = pytest.mark.gpu


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_machine_without_a_gpu_says_so() -> None:
    result = subprocess.run(RUN, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.strip() == "pi-sim: torch sees no CUDA GPU on this machine; use --device cpu."


@needs_gpu
@pytest.mark.parametrize("dealer", ["first-party", "third-party"])
@pytest.mark.parametrize("protocol", ["crypten_tanh", "shaft", "lean", "lean_wan", "lean_outsourced"])
def test_a_run_on_a_gpu(tmp_path: Path, protocol: str, dealer: str) -> None:
    """It is audited like any other: graph and counters are the same."""
    path = tmp_path / "run.json"
    subprocess.run([*RUN, "--protocol", protocol, "--dealer", dealer, "--json", str(path)], check=True)
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["device"] == "cuda"
    assert record["measured"]["bytes"] == record["total"]["bytes"]
    if protocol != "shaft":  # its softmax needs a smaller range of scores
        assert record["agreement"]["max_abs"] < 0.3


@needs_gpu
def test_products_equal_those_of_the_cpu() -> None:
    from pi_sim.mpc.party import device_context

    a, b = (torch.randint(-(2**62), 2**62, shape) for shape in ((2, 30, 3000), (2, 3000, 20)))
    with device_context("cuda"):
        assert torch.equal((a.cuda() @ b.cuda()).cpu(), a @ b)
