"""Whole designs between two real parties, untrained: every counter as predicted, the logits as in the clear.

Trained models are run by `tests/run/test_two_party.py`; here stand designs that bring operations of their own.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pi_sim import specs
from pi_sim.graph import bundle
from pi_sim.graph.capture import capture
from pi_sim.mpc import pair
from pi_sim.run.audit import check
from tests.helpers.tiny_models import tiny_model

pytestmark = pytest.mark.parties

STOCK = "crypten_tanh"
DESIGNS = [
    *((card, STOCK) for card in ("dyt_hardtanh_relu", "derf_gelu", "rmsnorm_silu", "quad_2relu", "lrelu_nonorm")),
    *(("gelu_ln", "shaft"), ("quad_2quad", "mpcformer"), ("quad_2relu", "lean")),
]


@pytest.mark.parametrize(("card", "protocol"), DESIGNS)
def test_a_design_runs_as_predicted(card: str, protocol: str, ids: Tensor, tmp_path: Path) -> None:
    """Large weights, so that norms stay within their domain; one sequence."""
    model, folder, tokens = tiny_model(card), tmp_path / "bundle", ids[:1]
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)
        expected = model(tokens).logits
    graph = capture(model, tokens.shape[1])
    bundle.write(folder, graph, model.state_dict(), {"model": card, "size": "own", "seq_len": tokens.shape[1]}, folder)
    path, connection = specs.find("protocols", protocol), {"port": 0, "timeout": 60, "network": None}
    found = pair.run(folder, path, tokens.unsqueeze(1), graph.vocabulary, **connection, progress=lambda part: None)
    check(graph, specs.protocol_card(protocol), found)
    torch.testing.assert_close(found.logits, expected, atol=0.05, rtol=0.02)
