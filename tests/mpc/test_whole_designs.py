"""Whole designs between two real parties, untrained: every counter as predicted, the logits as in the clear.

Trained models are run by `tests/inference/test_two_party.py`; here stand designs that bring operations of their own.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pi_sim import specs
from pi_sim.graph import bundle
from pi_sim.inference.checks import audit_run
from pi_sim.inference.dealing import deployment_of
from pi_sim.inference.two_party import rewrite_model
from pi_sim.mpc import launch
from tests.helpers.tiny_models import tiny_model

pytestmark = pytest.mark.parties

STOCK = "crypten_tanh"
DESIGNS = [
    *((card, STOCK) for card in ("dyt_hardtanh_relu", "derf_gelu", "rmsnorm_silu", "quad_2relu", "lrelu_nonorm")),
    *(("gelu_ln", "shaft"), ("quad_2quad", "mpcformer"), ("quad_2relu", "lean_outsourced")),
    *((card, "lean") for card in ("dyt_gelu", "derf_gelu", "rmsnorm_silu", "lrelu_nonorm", "quad_2quad", "aero_fused")),
]


@pytest.mark.parametrize(("card", "protocol"), DESIGNS)
def test_a_design_runs_as_predicted(card: str, protocol: str, ids: Tensor, tmp_path: Path) -> None:
    """Large weights, so that norms stay within their domain; one sequence."""
    model, folder, tokens = tiny_model(card), tmp_path / "bundle", ids[:1]
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)
        expected = model(tokens).logits
    executable = specs.load_executable_protocol(protocol)
    graph, weights = rewrite_model(model, tokens.shape[1], executable)
    origin = {"model": card, "size": "own", "seq_len": tokens.shape[1]}
    bundle.write_bundle(folder, graph, weights, origin, folder, deployment_of(executable))
    result = launch.run_local(bundle.read_bundle(folder), executable, {"tokens": tokens.unsqueeze(1)})
    audit_run([graph], executable, result)
    torch.testing.assert_close(result.logits, expected, atol=0.05, rtol=0.02)
