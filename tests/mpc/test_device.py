"""Where a party computes. What needs a GPU is skipped without one; its products are tested in test_primitives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PI_SIM = [sys.executable, "-m", "pi_sim"]
RUN = [*PI_SIM, "run", "two-party", "--model", "gelu_ln", "--seq-len", "16", "--device", "cuda"]
with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_machine_without_a_gpu_says_so() -> None:
    found = subprocess.run(RUN, capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr.strip() == "pi-sim: torch sees no CUDA GPU on this machine; use --device cpu."


@with_gpu
@pytest.mark.parametrize("dealer", ["first-party", "third-party"])
@pytest.mark.parametrize("protocol", ["crypten_tanh", "shaft", "lean"])
def test_a_run_on_a_gpu(tmp_path: Path, protocol: str, dealer: str) -> None:
    """Audited like any other; the graph and its counts are the same."""
    record = tmp_path / "run.json"
    subprocess.run([*RUN, "--protocol", protocol, "--dealer", dealer, "--json", str(record)], check=True)
    found = json.loads(record.read_text(encoding="utf-8"))
    assert found["device"] == "cuda"
    assert found["measured"]["bytes"] == found["total"]["bytes"]
    if protocol != "shaft":  # its softmax is for scores of a smaller range
        assert found["agreement"]["max_abs"] < 0.3


@with_gpu
def test_products_are_those_of_the_processor() -> None:
    from pi_sim.mpc.party import device_context

    a, b = (torch.randint(-(2**62), 2**62, shape) for shape in ((2, 30, 3000), (2, 3000, 20)))
    with device_context("cuda"):
        assert torch.equal((a.cuda() @ b.cuda()).cpu(), a @ b)
