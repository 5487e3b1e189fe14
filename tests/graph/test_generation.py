"""Graphs of a prompt and of decoding steps: their logits, the rows that they cache, and those that are interpolated."""

import pytest
import torch
from torch import Tensor

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.cost.census import Census
from pi_sim.cost.cost import ZERO_COST
from pi_sim.cost.pricing import price_census
from pi_sim.errors import UsageError
from pi_sim.graph import capture, reference
from pi_sim.graph.capture import capture_generation, capture_model
from pi_sim.graph.ops import Graph
from pi_sim.mpc.rewriting import rewrite_graph
from tests.helpers.hf_models import CAUSAL, build_model, build_random_model

PROMPT, TOKENS = 5, 6


def chain_logits(graphs: list[Graph], weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Return the logits (N, V) of a prompt and of every step behind it, by the graphs in the clear."""
    cache: dict[str, Tensor] = {}
    logits = []
    for index, graph in enumerate(graphs):
        tokens = ids[:, : PROMPT + index] if index == 0 else ids[:, PROMPT + index - 1 : PROMPT + index]
        rows = {}
        for node, _, value in reference.evaluate(graph, weights, tokens, {name: cache[name] for name in graph.inputs}):
            rows[node.name] = value
        logits.append(value[0, -1])
        for name, source in graph.cache.items():
            cache[name] = torch.cat([cache[name], rows[source]], 2) if name in cache else rows[source]
    return torch.stack(logits)


@pytest.mark.slow
@pytest.mark.parametrize("family", CAUSAL)
def test_a_prompt_and_its_steps_compute_what_the_whole_text_does(family: str) -> None:
    model, ids = build_random_model(family), torch.randint(4, 50, (1, PROMPT + TOKENS - 1))
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits[0, PROMPT - 1 :]
        logits = chain_logits(capture_generation(model, PROMPT, TOKENS), dict(model.state_dict()), ids)
    torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", CAUSAL)
def test_a_step_between_two_traced_ones_is_as_if_it_were_traced(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, traced = build_model(family), []
    monkeypatch.setattr(
        capture, "_trace_step", lambda *args, trace=capture._trace_step: traced.append(1) or trace(*args)
    )
    graph = capture_generation(model, PROMPT, TOKENS)[3]
    if family != "mistral":  # its sliding window is no linear function of the position
        assert len(traced) == 3  # the prompt, and the first and the last step
    expected = capture_model(model, 1, past=PROMPT + 2)
    assert (graph.nodes, graph.inputs, graph.cache) == (expected.nodes, expected.inputs, expected.cache)
    assert graph.constants.keys() == expected.constants.keys()
    assert all(torch.equal(value, expected.constants[name]) for name, value in graph.constants.items())


@pytest.mark.parametrize("family", ["gpt2", "llama-grouped"])
@pytest.mark.parametrize("protocol", ["lean", "crypten"])
def test_the_price_of_a_step_is_the_sum_of_its_operations(family: str, protocol: str) -> None:
    executable = specs.load_executable_protocol(protocol)
    for graph in capture_generation(build_model(family), PROMPT, 2):
        rewritten = rewrite_graph(graph, executable).graph
        rows = price_census(Census.from_graph(rewritten), executable)
        assert sum((row.cost for row in rows), ZERO_COST) == derived.derive_graph_cost(rewritten, executable)


def test_a_step_opens_its_own_rows_under_lean_and_the_whole_cache_under_stock_kernels() -> None:
    def products(protocol: str, past: int) -> int:
        executable = specs.load_executable_protocol(protocol)
        graph = rewrite_graph(capture_model(build_model("llama-grouped"), 1, past=past), executable).graph
        rows = price_census(Census.from_graph(graph), executable)
        return sum(row.cost.bytes for row in rows if row.op == "matmul")

    heads, shared, width, layers = 4, 2, 8, 2
    query, rows, weight = heads * width, shared * width, heads
    for past in (6, 11):
        words = layers * (2 * rows + query + weight * (past + 1))
        assert 6 * words <= products("lean", past) <= 6 * words + 8 * 4 * layers * heads * width
    assert products("crypten", 11) - products("crypten", 6) > products("lean", 11) - products("lean", 6)


def test_rows_that_something_else_reads_stay_shared() -> None:
    lean = specs.load_executable_protocol("lean")
    graph = capture_generation(build_model("gpt2"), PROMPT, 1)[0]
    name = next(iter(graph.cache.values()))
    index = next(index for index, node in enumerate(graph.nodes) if node.name == name)
    reader = capture.trace_module(torch.nn.ReLU(), (torch.zeros(1, 4, PROMPT, 8),), {}).nodes[0]
    shape = graph.nodes[index].op.result_shape
    relu = type(reader)("relu", type(reader.op)("relu", (shape,), (True,)), (name,), "")
    opened = type(reader)("reveal0", type(reader.op)("reveal", (shape,), (True,)), ("relu",), "")
    graph.nodes[index + 1 : index + 1] = [relu, opened]
    marked = {node.name: node.op.attribute("masked") for node in rewrite_graph(graph, lean).graph.nodes}
    assert marked[name] is None
    assert all(marked[other] for other in graph.cache.values() if other != name)


def test_a_model_without_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="has no decoding step"):
        capture_generation(build_model("bert"), PROMPT, 2)
    with pytest.raises(UsageError, match="context is 16 tokens"):
        capture_generation(build_model("gpt2"), 14, 4)
