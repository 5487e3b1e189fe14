"""One decoding step: its logits are the last row of the whole text's, and its cost grows with the cache alone."""

import pytest
import torch
from families import CAUSAL, drawn, made
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.cost import phantom
from pi_sim.cost.census import Census, census
from pi_sim.cost.cost import ZERO
from pi_sim.cost.pricing import priced
from pi_sim.graph import plain
from pi_sim.graph.capture import capture

PAST = 11


def cached(model: PreTrainedModel, text: Tensor) -> dict[str, Tensor]:
    """Keys and values of a text; what a window no longer keeps of it is zero, for none of it may be read."""
    with torch.no_grad():
        layers = model(text, use_cache=True).past_key_values.layers
    kept = [each for layer in layers for each in (layer.keys, layer.values)]
    whole = [functional.pad(each, (0, 0, PAST - each.shape[2], 0)) for each in kept]
    return {f"inputs.cached_{index}": each for index, each in enumerate(whole)}


@pytest.mark.parametrize("family", CAUSAL)
def test_a_steps_logits_are_the_last_of_the_whole_text(family: str) -> None:
    model, text = drawn(family), torch.randint(4, 50, (2, PAST + 1))
    with torch.no_grad():
        whole = model(text, use_cache=False).logits[:, -1:]
    graph, cache = capture(model, 1, batch=2, past=PAST), cached(model, text[:, :-1])
    assert {name: value.shape for name, value in cache.items()} == graph.inputs
    read = list(plain.read(graph, model.state_dict(), text[:, -1:], cache))[-1][2]
    torch.testing.assert_close(read, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_a_steps_price_is_the_sum_of_its_operations(family: str) -> None:
    protocol, graph = specs.protocol_card("crypten"), capture(made(family), 1, past=PAST)
    assert sum((row.cost for row in priced(Census.of(graph), protocol)), ZERO) == phantom.whole(graph, protocol)
    assert [node.op.name for node in graph.nodes].count("reveal") == 1  # new keys and values stay shared


def test_only_attention_grows_with_the_cache() -> None:
    short, long = (census("gpt2", "tiny", 1, past=past).counts for past in (16, 32))
    differing = {op.name for _, op in short.keys() ^ long.keys()}
    assert differing == {"matmul", "scale", "softmax"}
    assert {op.shapes[0] for _, op in long if op.name == "softmax"} == {(1, 12, 1, 33)}


def test_grouped_heads_cache_what_they_share() -> None:
    graph = capture(made("llama-grouped"), 1, batch=3, past=PAST)
    assert set(graph.inputs.values()) == {(3, 2, PAST, 8)}
