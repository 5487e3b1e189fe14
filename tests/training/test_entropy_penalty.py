"""AERO's entropy regularization against its formula, one head and one query at a time, and beside the loss it joins."""

import math

import pytest
import torch
from torch import Tensor

from pi_sim import specs
from pi_sim.training import entropy_penalty
from pi_sim.training.entropy_penalty import Penalised
from pi_sim.zoo import build
from pi_sim.zoo.scales import Scaled
from tests.helpers.tiny_models import SMALL, design_model

WEIGHT, MARGIN = 1e-5, 0.2
NORM_FREE = {"norm": "none", "final_norm": "none", "activation": "relu"}


def penalised(margin: float = MARGIN, weight: float = WEIGHT) -> Penalised:
    """A small model in float64, heads with thresholds of their own and far from looking everywhere alike."""
    model = Penalised(design_model(**NORM_FREE).double(), 4.0, 3.0, weight=weight, margin=margin).double().train()
    torch.nn.init.uniform_(model.threshold, 0.2, 0.9)
    for block in model.model.transformer.h:
        block.attn.c_attn.weight.data.mul_(20)
    return model


def attentions(model: Scaled, ids: Tensor) -> list[list[list[list[float]]]]:
    """Each layer's (B, H, T) rows of attention, as transformers itself hands them out."""
    embedded = model.table(ids) * model.embedding_scale
    found = model.model.base_model(inputs_embeds=embedded, output_attentions=True).attentions
    return [layer.tolist() for layer in found]


@pytest.mark.parametrize("margin", [0.0, MARGIN])
def test_the_penalty_is_its_formula_one_query_at_a_time(margin: float, ids: Tensor) -> None:
    model, most, penalties, free = penalised(margin), math.log(ids.shape[1]), [], 0
    for layer, sequences in enumerate(attentions(model, ids)):
        for head in range(2):
            total = 0.0
            for row in (row for sequence in sequences for row in sequence[head]):
                entropy = -sum(each * math.log(each) for each in row if each > 0)
                delta = entropy - model.threshold[layer, head].item() * most
                free += abs(delta) <= margin * most
                total += delta**2 if abs(delta) > margin * most else 0.0
            penalties.append(total)
    with_it, without = model(ids).loss.item(), Scaled.forward(model, ids).loss.item()
    assert with_it - without == pytest.approx(WEIGHT * sum(penalties) / len(penalties), rel=1e-6)
    assert (free > 0) == (margin > 0)


def test_evaluation_is_without_a_penalty(ids: Tensor) -> None:
    model = penalised(weight=1.0)
    assert model(ids).loss > model.eval()(ids).loss
    torch.testing.assert_close(model(ids).loss, Scaled.forward(model, ids).loss)


def test_only_a_recipe_with_a_penalty_gets_one() -> None:
    recipe = specs.size("tiny").training
    for weight, kind in ((0.0, Scaled), (WEIGHT, Penalised)):
        asked = recipe.model_copy(update={"entropy_penalty": weight})
        assert type(entropy_penalty.trainable(design_model(**NORM_FREE), asked)) is kind


def gradient(model: Scaled, ids: Tensor) -> Tensor:
    """Of the loss by the first layer's queries, keys and values."""
    weight = model.model.transformer.h[0].attn.c_attn.weight
    (found,) = torch.autograd.grad(model(ids).loss, weight)
    return found


def test_the_published_weight_is_felt_beside_the_cross_entropy() -> None:
    """As many tokens as a step of the tiny size sees; were they averaged over, the share would be thousands less."""
    size = SMALL.model_copy(update={"width": 32, "context": 128})
    card = specs.model_card("aero_entropy")
    torch.manual_seed(0)
    model = Penalised(build.build(card, size), 4.0, 3.0, weight=WEIGHT, margin=MARGIN).train()
    ids = torch.randint(0, size.vocabulary, (32, size.context))
    whole = gradient(model, ids)
    model.weight = 0.0
    plain = gradient(model, ids)
    assert 1e-4 < (whole - plain).norm() / plain.norm() < 10
