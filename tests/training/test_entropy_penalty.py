"""AERO's entropy regularization against its formula, by head and query, and relative to the cross-entropy."""

import math

import pytest
import torch
from torch import Tensor

from pi_sim import specs
from pi_sim.training import entropy_penalty
from pi_sim.training.entropy_penalty import EntropyPenalized
from pi_sim.zoo import build
from pi_sim.zoo.scales import ScaledModel
from tests.helpers.tiny_models import SMALL, design_model

WEIGHT, MARGIN = 1e-5, 0.2
NORM_FREE = {"norm": "none", "final_norm": "none", "activation": "relu"}


def penalized_model(margin: float = MARGIN, weight: float = WEIGHT) -> EntropyPenalized:
    """Return a small model in float64, its heads with different thresholds and far from uniform attention."""
    model = (
        EntropyPenalized(design_model(**NORM_FREE).double(), 4.0, 3.0, weight=weight, margin=margin).double().train()
    )
    torch.nn.init.uniform_(model.threshold, 0.2, 0.9)
    for block in model.model.transformer.h:
        block.attn.c_attn.weight.data.mul_(20)
    return model


def attentions(model: ScaledModel, ids: Tensor) -> list[list[list[list[float]]]]:
    """Return each layer's (B, H, T) rows of attention as transformers itself returns them."""
    embedded = model.embedding(ids) * model.embedding_scale
    layers = model.model.base_model(inputs_embeds=embedded, output_attentions=True).attentions
    return [layer.tolist() for layer in layers]


@pytest.mark.parametrize("margin", [0.0, MARGIN])
def test_the_penalty_equals_its_formula(margin: float, ids: Tensor) -> None:
    model, maximum, penalties, unpenalized = penalized_model(margin), math.log(ids.shape[1]), [], 0
    for layer, sequences in enumerate(attentions(model, ids)):
        for head in range(2):
            total = 0.0
            for row in (row for sequence in sequences for row in sequence[head]):
                entropy = -sum(p * math.log(p) for p in row if p > 0)
                delta = entropy - model.threshold[layer, head].item() * maximum
                unpenalized += abs(delta) <= margin * maximum
                total += delta**2 if abs(delta) > margin * maximum else 0.0
            penalties.append(total)
    with_it, without = model(ids).loss.item(), ScaledModel.forward(model, ids).loss.item()
    assert with_it - without == pytest.approx(WEIGHT * sum(penalties) / len(penalties), rel=1e-6)
    assert (unpenalized > 0) == (margin > 0)


def test_evaluation_has_no_penalty(ids: Tensor) -> None:
    model = penalized_model(weight=1.0)
    assert model(ids).loss > model.eval()(ids).loss
    torch.testing.assert_close(model(ids).loss, ScaledModel.forward(model, ids).loss)


def test_only_a_recipe_with_a_penalty_adds_it() -> None:
    recipe = specs.load_size("tiny").training
    for weight, kind in ((0.0, ScaledModel), (WEIGHT, EntropyPenalized)):
        penalized = recipe.model_copy(update={"entropy_penalty": weight})
        assert type(entropy_penalty.make_trainable(design_model(**NORM_FREE), penalized)) is kind


def gradient(model: ScaledModel, ids: Tensor) -> Tensor:
    """Return the gradient of the loss with respect to the first layer's query, key and value weights."""
    weight = model.model.transformer.h[0].attn.c_attn.weight
    (result,) = torch.autograd.grad(model(ids).loss, weight)
    return result


def test_the_published_weight_matters_relative_to_the_cross_entropy() -> None:
    """On the tokens of one step at size tiny; a mean over them would make the share thousands of times smaller."""
    size = SMALL.model_copy(update={"width": 32, "context": 128})
    card = specs.load_model_card("aero_entropy")
    torch.manual_seed(0)
    model = EntropyPenalized(build.build_model(card, size), 4.0, 3.0, weight=WEIGHT, margin=MARGIN).train()
    ids = torch.randint(0, size.vocabulary, (32, size.context))
    regularized = gradient(model, ids)
    model.weight = 0.0
    plain = gradient(model, ids)
    assert 1e-4 < (regularized - plain).norm() / plain.norm() < 10
