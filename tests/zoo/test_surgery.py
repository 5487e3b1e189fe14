"""Surgery changes what it names in any Hugging Face model and nothing else, once or several times."""

import re
from copy import deepcopy
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.zoo import build, modules, surgery
from pi_sim.zoo.layers import DyT, FusedFFN, LearnableLeakyReLU, NoFFN, Rectified
from pi_sim.zoo.scales import ScaledModel
from tests.helpers.surgery_cases import (
    FAMILIES,
    IMPOSSIBLE,
    NORM_FREE,
    POSSIBLE,
    SOFTMAX_ONLY,
    SWITCHES,
    fresh_model,
    perturbed,
)
from tests.helpers.tiny_models import hugging_face


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), POSSIBLE)
def test_every_switch_trains_and_comes_back_from_disk(family: str, name: str, ids: Tensor, tmp_path: Path) -> None:
    model = ScaledModel(surgery.apply_surgery(fresh_model(family), SWITCHES[name]), 4.0, 3.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = model(ids).loss
    first.backward()
    optimizer.step()
    assert model(ids).loss < first
    model.load_state_dict(model.state_dict())
    plain = model.fold().eval()
    build.save_checkpoint(plain, tmp_path)
    loaded = build.load_checkpoint(tmp_path)
    assert torch.equal(loaded(ids).logits, plain(ids).logits)
    assert loaded.config.pi_sim == specs.Surgery(**SWITCHES[name]).plan()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), POSSIBLE)
def test_every_switch_changes_the_logits_that_it_should(family: str, name: str, ids: Tensor) -> None:
    """Only a switch to the family's own module, or one with neutral start values, leaves the logits unchanged."""
    neutral = {"gelu", "temperature", "rmsnorm" if family == "llama" else "layernorm"}
    before = fresh_model(family)(ids).logits
    after = surgery.apply_surgery(fresh_model(family), SWITCHES[name])(ids).logits
    assert torch.isfinite(after).all()
    assert torch.allclose(before, after, atol=1e-6) == (name in neutral)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_nothing_switched_the_logits_are_hugging_face_s(family: str, ids: Tensor, tmp_path: Path) -> None:
    model = fresh_model(family)
    build.save_checkpoint(ScaledModel(model, None, None).fold(), tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(theirs).__module__.startswith("transformers.models")
    torch.testing.assert_close(theirs(ids).logits, model(ids).logits)


NORM = r"(ln_.|norm)\."
GONE = {
    "rmsnorm": r"(ln_.|norm)\.bias$",
    "no norm": NORM,
    "scaled FFN": NORM,
    "fused FFN": rf"{NORM}|\.mlp\.",
    "no FFN": r"\.1\.(mlp|ln_2|post_attention_layernorm)\.",
}
"""Weights that a switch may remove, by switch."""
NEW = r"\.(alpha|shift|slope|inverse_temperature|beta|inverse_alpha|mlp\.weight|mlp\.bias)$"
"""Weights that a switch may add, the matrix of a fused FFN among them."""


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return every weight by its path, without the modules that surgery wraps around others."""
    named = model.state_dict().items()
    return {re.sub(r"(ln_.|norm)\.norm\.", r"\1.", path).replace(".ffn.", "."): each.clone() for path, each in named}


@pytest.mark.parametrize(("family", "name"), POSSIBLE)
def test_surgery_leaves_other_weights_untouched(family: str, name: str) -> None:
    model = perturbed(fresh_model(family))
    before, after = weights(model), weights(surgery.apply_surgery(model, SWITCHES[name]))
    assert all(torch.equal(after[path], before[path]) for path in before.keys() & after.keys())
    assert all(re.search(NEW, path) for path in after.keys() - before.keys())
    assert all(re.search(GONE.get(name, "(?!)"), path) for path in before.keys() - after.keys())


@pytest.mark.parametrize(("family", "name"), sorted(IMPOSSIBLE))
def test_what_a_family_cannot_be_is_refused_with_a_reason(family: str, name: str) -> None:
    with pytest.raises(UsageError, match=r"has no separate FFN module|and no gate"):
        surgery.apply_surgery(fresh_model(family), SWITCHES[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_has_an_alpha_of_its_own(family: str) -> None:
    model = surgery.apply_surgery(fresh_model(family), SWITCHES["DyT"])
    alphas = [module.alpha.item() for module in model.modules() if isinstance(module, DyT)]
    assert alphas == pytest.approx([0.8, 0.2, 0.8, 0.2, 0.2] if family != "opt" else [0.2, 0.8, 0.2, 0.8, 0.2])


def test_one_slope_for_all_is_one_parameter() -> None:
    for name, count in (("slope by layer", 2), ("slope of all", 1)):
        model = surgery.apply_surgery(fresh_model("gpt2"), SWITCHES[name])
        slopes = [module.slope for module in model.modules() if isinstance(module, LearnableLeakyReLU)]
        assert (len(slopes), len(set(slopes))) == (2, count)


def test_an_ffn_is_dropped_with_the_norm_before_it() -> None:
    model = surgery.apply_surgery(fresh_model("gpt2"), {"dropped_ffn": [1]})
    assert isinstance(model.transformer.h[1].mlp, NoFFN)
    assert modules.block_norm_paths(model) == [f"transformer.h.{place}" for place in ("0.ln_1", "0.ln_2", "1.ln_1")]


def test_a_fused_ffn_computes_what_its_two_matrices_did(ids: Tensor) -> None:
    model = surgery.apply_surgery(fresh_model("gpt2"), SOFTMAX_ONLY)
    before = model(ids).logits
    after = surgery.apply_surgery(model, {"ffn": "fused"})(ids).logits
    assert isinstance(model.transformer.h[0].mlp.ffn, FusedFFN)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_the_final_norm_is_a_choice_of_its_own() -> None:
    model = surgery.apply_surgery(hugging_face("gelu"), {"norm": "none"})
    assert not modules.block_norm_paths(model)
    assert modules.final_norm_paths(model) == ["transformer.ln_f"]


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        ({"norm": "batchnorm"}, "'norm': Input should be 'layernorm'"),
        ({"nrom": "none"}, "'nrom': Extra inputs"),
        ({"activation": "sine"}, "'activation': Input should be 'gelu'"),
        ({"slope": 0.1}, "^surgery: slope = 0.1 does nothing unless activation is leaky_relu or learnable_lrelu"),
        ({"alpha_attention": 0.5, "norm": "none"}, "does nothing unless norm is dyt or dyt-hardtanh or derf"),
        ({"temperature": True, "attention": "2relu"}, "does nothing unless attention is softmax"),
        ({"ffn": "scaled"}, "needs norm = none as well"),
        ({**NORM_FREE, "ffn": "fused"}, "needs activation = identity, and no gate"),
        ({**NORM_FREE, "relu_after_norm": True}, "relu_after_norm needs a norm before the ReLU, not norm = none"),
        ({"ffn": "mlp"}, "ffn = mlp changes nothing, and surgery takes nothing back"),
        ({"temperature": False, "activation": "relu"}, "temperature = False changes nothing"),
        ({"alpha_other": 0.2}, "alpha_other = 0.2 does nothing unless norm or final_norm is dyt or"),
        ({"slope": 0.01, "activation": "relu"}, "slope = 0.01 does nothing unless activation is leaky_relu"),
        ({"dropped_ffn": [2]}, "has no layer 2: dropped_ffn may name 0 to 1"),
    ],
)
def test_surgery_that_means_nothing_is_refused(plan: surgery.Plan, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        surgery.apply_surgery(fresh_model("gpt2"), plan)


@pytest.mark.parametrize(
    ("switches", "complaint"),
    [
        ({"ffn": "scaled"}, "only with norm = none"),
        ({**NORM_FREE, "ffn": "fused"}, "only activation = identity allows"),
        ({**NORM_FREE, "relu_after_norm": True}, "needs a norm before the ReLU"),
    ],
)
def test_a_card_that_no_model_can_be_is_refused(switches: surgery.Plan, complaint: str) -> None:
    design = {"norm": "layernorm", "final_norm": "layernorm", "activation": "gelu", **switches}
    with pytest.raises(UsageError, match=complaint):
        specs.validate_table(specs.Architecture, design, "a card")


def test_one_operation_may_follow_another(ids: Tensor, tmp_path: Path) -> None:
    """Rectified norms become DyT without losing their ReLU, and the result is rebuilt from disk."""
    model = surgery.apply_surgery(fresh_model("gpt2"), {"relu_after_norm": True, "activation": "relu"})
    surgery.apply_surgery(model, {"norm": "dyt"})
    first = model.transformer.h[0].ln_1
    assert isinstance(first, Rectified)
    assert isinstance(first.norm, DyT)
    assert model.config.pi_sim == {"relu_after_norm": True, "activation": "relu", "norm": "dyt"}
    build.save_checkpoint(ScaledModel(model, None, None).fold(), tmp_path)
    torch.testing.assert_close(build.load_checkpoint(tmp_path)(ids).logits, model(ids).logits)


@pytest.mark.slow
def test_a_second_operation_leaves_a_loadable_model_or_is_refused(ids: Tensor) -> None:
    """After any two switches in either order, the stored plan and the weights rebuild the same logits."""
    family, refused = fresh_model("gpt2"), 0
    once = [perturbed(surgery.apply_surgery(deepcopy(family), plan)) for plan in SWITCHES.values()]
    for first, plan in product(once, SWITCHES.values()):
        try:
            twice = surgery.apply_surgery(deepcopy(first), plan)
        except UsageError:
            refused += 1
            continue
        again = surgery.apply_surgery(deepcopy(family), twice.config.pi_sim)
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
    model = surgery.apply_surgery(surgery.apply_surgery(fresh_model("gpt2"), first), second)
    assert model.config.pi_sim == left


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ("relu after norm", "relu after norm", "no norm in its blocks to put a ReLU after"),
        ("relu after norm", "no norm", "^the model after this surgery: relu_after_norm needs a norm"),
        ("temperature", "temperature", "has no attention without a temperature"),
        ("temperature", "2relu", "temperature = True does nothing unless attention is softmax"),
        ("2relu", "temperature", "temperature = True does nothing unless attention is softmax"),
        ("no FFN", "no FFN", "no separate FFN module"),
    ],
)
def test_what_a_second_operation_cannot_do_is_refused(first: str, second: str, complaint: str) -> None:
    model = surgery.apply_surgery(fresh_model("gpt2"), SWITCHES[first])
    with pytest.raises(UsageError, match=complaint):
        surgery.apply_surgery(model, SWITCHES[second])


def test_fusing_keeps_the_factors_that_scaling_learned(ids: Tensor) -> None:
    model = surgery.apply_surgery(fresh_model("gpt2"), {**SOFTMAX_ONLY, "ffn": "scaled"})
    for block in model.transformer.h:
        block.mlp.beta.data.fill_(0.5)
        block.mlp.inverse_alpha.data.fill_(3.0)
    before = model(ids).logits
    torch.testing.assert_close(surgery.apply_surgery(model, {"ffn": "fused"})(ids).logits, before, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="is one matrix already"):
        surgery.apply_surgery(model, {"ffn": "scaled"})


def test_a_norm_that_is_gone_cannot_be_replaced() -> None:
    model = surgery.apply_surgery(hugging_face("gelu"), {"norm": "none"})
    with pytest.raises(UsageError, match="GPT2LMHeadModel has no norm in its blocks that surgery could make dyt"):
        surgery.apply_surgery(model, {"norm": "dyt"})
