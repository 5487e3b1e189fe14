"""Rewriting keeps the logits in real arithmetic, and applies where it should and nowhere else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.graph.capture import capture_model, trace_module
from pi_sim.graph.folding import PASSES, fold_weights, rewrite
from pi_sim.graph.ops import Graph
from pi_sim.graph.reference import evaluate, reference_logits
from pi_sim.graph.widths import infer_widths
from pi_sim.mpc.rewriting import rewrite_graph
from tests.helpers.hf_models import FAMILIES, build_random_model, input_length
from tests.helpers.tiny_models import tiny_model

LENGTH = 8
CARDS = [name for name in specs.list_names("models") if not name.startswith("aero_entropy")]


def perturbed(card: str) -> Any:
    """Return a small model in double precision, its norms and biases away from zero and one."""
    model = tiny_model(card).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def check_graph(graph: Graph) -> None:
    """Every input is defined before it is read, in the shape that the operation expects; every weight is read."""
    shapes = {**graph.weights, "tokens": (*graph.input, graph.vocabulary), **graph.inputs}
    shapes |= {name: tuple(value.shape) for name, value in graph.constants.items()}
    for node in graph.nodes:
        assert tuple(shapes[name] for name in node.inputs) == node.op.shapes, node
        shapes[node.name] = node.op.result_shape
    assert set(graph.weights) <= {name for node in graph.nodes for name in node.inputs}


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS)
def test_the_logits_of_a_rewritten_model_are_the_same(card: str) -> None:
    model = perturbed(card)
    ids = torch.arange(LENGTH)[None] % model.config.vocab_size
    graph, weights = capture_model(model, LENGTH), model.state_dict()
    rewriting = rewrite(graph, list(PASSES))
    check_graph(rewriting.graph)
    expected = reference_logits(graph, weights, ids)
    rewritten = reference_logits(rewriting.graph, fold_weights(rewriting.folds, weights), ids)
    torch.testing.assert_close(rewritten, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_any_architecture_is_rewritten_exactly(family: str) -> None:
    model = build_random_model(family).double()
    graph, weights = capture_model(model, input_length(family)), model.state_dict()
    rewriting = rewrite(graph, list(PASSES))
    check_graph(rewriting.graph)
    generator = torch.Generator().manual_seed(1)
    inputs = {name: torch.randn(shape, generator=generator).double() for name, shape in graph.inputs.items()}
    ids = torch.randint(max(1, graph.vocabulary), graph.input, generator=generator)
    expected, rewritten = (
        [value for node, _, value in evaluate(some, values, ids, inputs) if node.op.name == "reveal"]
        for some, values in ((graph, weights), (rewriting.graph, fold_weights(rewriting.folds, weights)))
    )
    torch.testing.assert_close(rewritten, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("gelu_ln", {"norms": 4, "scale": 2, "centring": 5, "affine": 1, "causal": 4, "factors": 1}),
        ("relu_nonorm", {"norms": 0, "scale": 2, "centring": 0, "causal": 4, "factors": 0}),
        ("dyt_gelu", {"norms": 8, "scale": 2, "centring": 0, "causal": 4, "factors": 6}),
        ("rmsnorm_silu", {"norms": 4, "scale": 2, "centring": 0, "affine": 1, "causal": 4, "factors": 1}),
    ],
)
def test_places_of_every_pass_in_two_layers(card: str, expected: dict[str, int]) -> None:
    """The tied head keeps the factors of the last norm."""
    steps = {step.name: step.count for step in rewrite(capture_model(perturbed(card), LENGTH), list(PASSES)).steps}
    assert {name: steps[name] for name in expected} == expected


class PostNorm(nn.Module):
    """A norm that a residual sum reads, as in BERT: neither its factor nor its centring can move."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        normalised = self.norm(x + self.first(x))
        return normalised + self.second(normalised)


class RootMeanSquare(nn.Module):
    """A root mean square reads the mean of a row, which must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer, self.rms = nn.Linear(8, 8), nn.LayerNorm(8, bias=False), nn.RMSNorm(8)
        self.second = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.second(self.layer(hidden)) + self.second(self.rms(hidden))


class SharedWeight(nn.Module):
    """Two maps with one weight, of which a norm precedes one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.map = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(self.norm(x)) + self.map(x)


@pytest.mark.parametrize("module", [PostNorm, RootMeanSquare, SharedWeight])
def test_what_others_read_stays_where_it_is(module: Callable[[], nn.Module]) -> None:
    graph = trace_module(module(), (torch.randn(2, 3, 8),), {})
    rewriting = rewrite(graph, ["weights", "norms", "centring"])
    assert [step.count for step in rewriting.steps[1:]] == [0, 0]


class TwoSlices(nn.Module):
    """Two ranges of one map under one factor."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.map(x)
        return torch.cat([hidden[..., :4], hidden[..., 4:6]], -1) * 0.5


class OverlappingSlices(TwoSlices):
    """A factor of some columns of which others are read without it."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.map(x)
        return hidden[..., :4] * 0.5 + hidden[..., 2:6]


class SliceAndWhole(TwoSlices):
    """A factor of some columns of a map that is read whole too."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.map(x)
        return hidden[..., :4] * 0.5 + hidden.tanh()[..., :4]


class SharedQueries(TwoSlices):
    """Queries that are the keys as well: a factor would be squared."""

    def forward(self, x: Tensor) -> Tensor:
        queries = self.map(x)
        return (queries @ queries.transpose(1, 2) * 0.35).softmax(-1)


class RotatedHead(TwoSlices):
    """Rotary positions of one head, which read a map whole and in halves."""

    def forward(self, x: Tensor) -> Tensor:
        queries, angles = self.map(x), torch.arange(40.0, dtype=x.dtype).view(5, 8)
        halves = torch.cat([-queries[..., 4:], queries[..., :4]], -1)
        return (queries * angles.cos() + halves * angles.sin()) * 0.35


class ComputedBias(nn.Module):
    """A bias and a factor that are computed from weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(8, 8)), nn.Parameter(torch.rand(8))
        self.gamma = nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.tanh() * (1 + self.gamma), self.weight, self.bias * self.gamma * 0.3)


class ConstantInput(nn.Module):
    """A linear map of a public constant and a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.offset = nn.Linear(8, 8), nn.Parameter(torch.rand(8))
        self.register_buffer("constant", torch.arange(40.0).view(1, 5, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.map(self.constant.to(x.dtype) + self.offset) + x


@pytest.mark.parametrize(
    ("module", "folds"),
    [
        (TwoSlices, 0),
        (OverlappingSlices, 0),
        (SliceAndWhole, 0),
        (SharedQueries, 0),
        (RotatedHead, 0),
        (ComputedBias, 0),
        (ConstantInput, 0),
    ],
)
def test_any_graph_is_rewritten_exactly(module: Callable[[], nn.Module], folds: int) -> None:
    model = module().double()
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    graph, weights = trace_module(model, (x,), {}), model.state_dict()
    rewriting = rewrite(graph, list(PASSES))
    check_graph(rewriting.graph)
    inputs, ids = dict.fromkeys(graph.inputs, x), torch.zeros(1, 1, dtype=torch.long)
    expected, rewritten = (
        [value for node, _, value in evaluate(some, values, ids, inputs) if node.op.name == "reveal"]
        for some, values in ((graph, weights), (rewriting.graph, fold_weights(rewriting.folds, weights)))
    )
    torch.testing.assert_close(rewritten, expected, atol=1e-6, rtol=1e-6)
    assert next(step.count for step in rewriting.steps if step.name == "scale") == folds


def test_an_unknown_pass_is_refused() -> None:
    graph = trace_module(nn.Linear(2, 2), (torch.zeros(1, 2),), {})
    with pytest.raises(UsageError, match="no rewriting pass 'speed'; known: weights, "):
        rewrite(graph, ["speed"])


def test_rewriting_twice_changes_nothing_more() -> None:
    graph = rewrite(capture_model(perturbed("gelu_ln"), LENGTH), list(PASSES)).graph
    steps = {step.name: step.count for step in rewrite(graph, list(PASSES)).steps}
    assert {name: steps[name] for name in ("norms", "scale")} == {"norms": 0, "scale": 0}


def test_a_protocol_without_rewrites_runs_the_captured_graph() -> None:
    graph = capture_model(perturbed("gelu_ln"), LENGTH)
    assert rewrite_graph(graph, specs.load_executable_protocol("crypten")).graph.nodes == graph.nodes


@pytest.mark.parametrize("card", ["gelu_ln", "rmsnorm_silu", "dyt_gelu", "relu_nonorm"])
def test_no_reader_needs_more_bits_than_a_value_has(card: str) -> None:
    protocol = specs.load_executable_protocol("lean")
    graph = rewrite_graph(capture_model(perturbed(card), LENGTH), protocol).graph
    check_graph(graph)
    bits = {node.name: int(node.op.attribute("bits", 64)) for node in graph.nodes}
    assert set(bits.values()) >= {32, 64}


def test_widths_follow_from_the_readers() -> None:
    class Chain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * x.tanh()).relu() + x.tanh()

    graph = trace_module(Chain(), (torch.zeros(2, 3),), {})

    def operand_bits(op: Any) -> tuple[int, ...]:
        if op.name in ("relu", "tanh", "reveal"):
            return (32,)
        return (min(64, int(op.attribute("bits", 64)) + 16),) * len(op.shapes)

    narrowed = infer_widths(graph, operand_bits, lambda op: op.name != "reveal")
    bits = {node.name: node.op.attribute("bits") for node in narrowed.nodes}
    first_tanh, product, relu, second_tanh, total, _ = [node.name for node in narrowed.nodes]
    assert [bits[name] for name in (first_tanh, product, relu, second_tanh, total)] == [48, 32, 32, 32, None]
