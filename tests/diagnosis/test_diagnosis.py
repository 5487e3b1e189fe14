"""Quick diagnoses during training, and full ones."""

import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from pi_sim.diagnosis.diagnose import quick_diagnosis
from pi_sim.errors import UsageError
from pi_sim.zoo.layers import DyT, LearnableLeakyReLU
from pi_sim.zoo.scales import ScaledModel
from tests.helpers.sample_diagnosis import CONFIGS, HEADS, LAYERS, WIDTH, diagnose_model, model


def test_a_poisoned_weight_is_counted_and_becomes_null(ids: Tensor) -> None:
    network = model()
    network.transformer.h[1].mlp.c_proj.weight.data[0, 0] = torch.nan  # one column of the second block's output
    network.transformer.h[0].attn.c_attn.weight.data[:, 0] = torch.nan  # the first head's queries
    diagnosis = quick_diagnosis(network, ids)
    assert diagnosis["entropy"][0][0] is None and None not in diagnosis["entropy"][0][1:]
    assert diagnosis["entropy"][1] == [None] * HEADS  # the residual stream carries it everywhere
    assert diagnosis["non_finite"]["nan"] == [ids.numel() * WIDTH] * LAYERS
    assert diagnosis["overload"] + diagnosis["collapse"] <= 0.5


def test_infinities_are_counted_separately_from_nan(ids: Tensor) -> None:
    network = model()
    network.transformer.h[1].mlp.c_proj.bias.data[3] = torch.inf
    assert quick_diagnosis(network, ids)["non_finite"] == {"nan": [0, 0], "inf": [0, ids.numel()]}


def test_slopes_by_layer_and_alphas_with_inverse_std(ids: Tensor) -> None:
    network = model()
    network.transformer.h[1].mlp.act = LearnableLeakyReLU(nn.Parameter(torch.tensor([0.25])))
    network.transformer.h[0].ln_1 = DyT(WIDTH, 0.5)
    embedded = network.transformer.wte(ids) + network.transformer.wpe(torch.arange(ids.shape[1]))
    numbers: list[float] = embedded.double().flatten().tolist()
    mean = sum(numbers) / len(numbers)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in numbers) / len(numbers))
    diagnosis = quick_diagnosis(network, ids)
    assert diagnosis["slopes"] == [None, 0.25]
    (alpha,) = diagnosis["alphas"]
    assert (alpha["module"], alpha["alpha"]) == ("transformer.h.0.ln_1", 0.5)
    assert alpha["inverse_std"] == pytest.approx(1 / deviation, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_training_is_not_disturbed(training: bool, ids: Tensor) -> None:
    network = ScaledModel(model(), 2.0, 2.0).train(training)
    state = torch.get_rng_state()
    diagnosis = quick_diagnosis(network, ids)
    assert torch.get_rng_state().equal(state)
    assert network.training == network.model.transformer.h[0].training == training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    assert diagnosis == quick_diagnosis(network.eval(), ids)


def test_attention_without_probabilities_is_refused(ids: Tensor) -> None:
    network: Any = AutoModelForCausalLM.from_config(CONFIGS["gpt2"], attn_implementation="sdpa")
    with pytest.raises(UsageError, match="use eager attention"):
        quick_diagnosis(network, ids)
    assert not network.transformer.h[0].attn._forward_hooks


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(UsageError, match="Linear has no attention"):
        quick_diagnosis(nn.Linear(2, 2), torch.zeros(1, 2))


@pytest.mark.parametrize("family", CONFIGS)
def test_single_sequences_give_the_same_diagnosis_as_a_batch(family: str, ids: Tensor) -> None:
    network = model(family)
    together, singly = quick_diagnosis(network, ids), diagnose_model(network, ids)
    for layer in range(LAYERS):
        assert singly["entropy"][layer] == pytest.approx(together["entropy"][layer], rel=1e-5)
    assert singly["non_finite"] == together["non_finite"]
    assert all(None not in shares for shares in singly["sparsity"].values())
    for name in ("overload", "collapse"):
        assert singly[name] == pytest.approx(sum(singly["by_layer"][name]) / LAYERS)


LONG = """
import resource, torch
from transformers import GPT2Config, GPT2LMHeadModel
from pi_sim.diagnosis.diagnose import diagnose, quick_diagnosis
from pi_sim.graph.capture import capture_model
T, H, V = 2048, 8, 32768
config = GPT2Config(n_layer=1, n_head=H, n_embd=32, vocab_size=V, n_positions=T, bos_token_id=0, eos_token_id=0)
config._attn_implementation = "eager"
model, ids = GPT2LMHeadModel(config).eval(), torch.zeros(1, T, dtype=torch.long)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / (4 * H * T * T)
capture_model(model, T)
with torch.no_grad():
    model(ids, use_cache=False)
plain = peak()
quick_diagnosis(model, ids)
quick = peak()
diagnose(model, ids, [], lambda share: None)
print(quick - plain, peak() - plain)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_long_sequences_need_little_more_memory_than_the_model_itself() -> None:
    """Counted in attention matrices (1, H, T, T) above the model's own peak, which is more than two."""
    freeing = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}  # return freed memory at once
    environment = {**os.environ, **freeing}
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, env=environment, check=True)
    quick, full = map(float, done.stdout.split())
    assert quick < 0.25
    assert full < 1.25
