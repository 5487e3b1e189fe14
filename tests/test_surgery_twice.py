"""Operations that follow one another: what they leave is one plan that loads, or a refusal."""

from copy import deepcopy
from itertools import product
from pathlib import Path

import pytest
import torch
from switches import NORM_FREE, SOFTMAX_ONLY, SWITCHES, disturbed, fresh
from torch import Tensor
from untrained import hugging_face

from pi_sim.errors import UsageError
from pi_sim.zoo import build, surgery
from pi_sim.zoo.layers import DyT, Rectified
from pi_sim.zoo.scales import Scaled


def test_one_operation_may_follow_another(ids: Tensor, tmp_path: Path) -> None:
    """Rectified norms become DyT without losing their ReLU, and the whole history comes back from disk."""
    model = surgery.operate(fresh("gpt2"), {"relu_after_norm": True, "activation": "relu"})
    surgery.operate(model, {"norm": "dyt"})
    first = model.transformer.h[0].ln_1
    assert isinstance(first, Rectified)
    assert isinstance(first.norm, DyT)
    assert model.config.pi_sim == {"relu_after_norm": True, "activation": "relu", "norm": "dyt"}
    build.save(Scaled(model, None, None).fold(), tmp_path)
    torch.testing.assert_close(build.load(tmp_path)(ids).logits, model(ids).logits)


def test_a_second_operation_leaves_a_loadable_model_or_is_refused(ids: Tensor) -> None:
    """Any two switches in either order: what the config tells is what the model is, with its weights and its logits."""
    family, refused = fresh("gpt2"), 0
    once = [disturbed(surgery.operate(deepcopy(family), plan)) for plan in SWITCHES.values()]
    for first, plan in product(once, SWITCHES.values()):
        try:
            twice = surgery.operate(deepcopy(first), plan)
        except UsageError:
            refused += 1
            continue
        again = surgery.operate(deepcopy(family), twice.config.pi_sim)
        again.load_state_dict(twice.state_dict())
        assert torch.equal(again(ids).logits, twice(ids).logits), (first.config.pi_sim, plan)
    assert 0 < refused < len(SWITCHES) ** 2 / 3


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        ({"activation": "leaky_relu", "slope": 0.1}, {"activation": "relu"}, {"activation": "relu"}),
        (
            {"activation": "leaky_relu", "slope": 0.1},
            {"activation": "leaky_relu", "slope": 0.01},
            {"activation": "leaky_relu"},
        ),
        (SWITCHES["slope of all"], SWITCHES["slope by layer"], SWITCHES["slope by layer"]),
        ({"norm": "dyt", "alpha_attention": 0.8, "alpha_other": 0.2}, {"norm": "rmsnorm"}, {"norm": "rmsnorm"}),
        ({"dropped_ffn": [1]}, {"dropped_ffn": [0]}, {"dropped_ffn": [0, 1]}),
        ({**NORM_FREE, "dropped_ffn": [1]}, {"ffn": "scaled"}, {**NORM_FREE, "dropped_ffn": [1], "ffn": "scaled"}),
    ],
)
def test_a_switch_takes_its_settings_with_it(first: surgery.Plan, second: surgery.Plan, left: surgery.Plan) -> None:
    model = surgery.operate(surgery.operate(fresh("gpt2"), first), second)
    assert model.config.pi_sim == left


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ("relu after norm", "relu after norm", "no norm in its blocks to put a ReLU after"),
        ("relu after norm", "no norm", "^the model after this surgery: relu_after_norm needs a norm"),
        ("temperature", "temperature", "has no attention without a temperature"),
        ("temperature", "2relu", "temperature = True does nothing unless attention is softmax"),
        ("2relu", "temperature", "temperature = True does nothing unless attention is softmax"),
        ("no FFN", "no FFN", "no FFN as a module of its own"),
    ],
)
def test_what_a_second_operation_cannot_do_is_refused(first: str, second: str, complaint: str) -> None:
    model = surgery.operate(fresh("gpt2"), SWITCHES[first])
    with pytest.raises(UsageError, match=complaint):
        surgery.operate(model, SWITCHES[second])


def test_fusing_keeps_the_factors_that_scaling_learned(ids: Tensor) -> None:
    model = surgery.operate(fresh("gpt2"), {**SOFTMAX_ONLY, "ffn": "scaled"})
    for block in model.transformer.h:
        block.mlp.beta.data.fill_(0.5)
        block.mlp.inverse_alpha.data.fill_(3.0)
    before = model(ids).logits
    torch.testing.assert_close(surgery.operate(model, {"ffn": "fused"})(ids).logits, before, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="is one matrix already"):
        surgery.operate(model, {"ffn": "scaled"})


def test_a_norm_that_is_gone_cannot_be_replaced() -> None:
    model = surgery.operate(hugging_face("gelu"), {"norm": "none"})
    with pytest.raises(UsageError, match="GPT2LMHeadModel has no norm in its blocks that surgery could make dyt"):
        surgery.operate(model, {"norm": "dyt"})
