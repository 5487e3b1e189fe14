"""Capture: graphs against the models' logits, and errors for operations outside the vocabulary."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.cost.cost import Cost
from pi_sim.errors import UsageError
from pi_sim.graph import reference
from pi_sim.graph.capture import capture_model, trace_module
from pi_sim.graph.ops import Op
from pi_sim.specs import list_names, load_model_card, load_size
from pi_sim.zoo.build import build_model
from pi_sim.zoo.source import ModelSource


def small(**options: object) -> GPT2LMHeadModel:
    """Return Hugging Face's GPT-2, with weights large enough that every operation matters."""
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_positions=16, vocab_size=50, initializer_range=0.2, bos_token_id=0,
        eos_token_id=0, attn_implementation="eager", **{"activation_function": "gelu"} | options,
    )  # fmt: skip
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).eval()


def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens).logits


@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_graph_computes_hugging_faces_logits(activation: str, tied: bool) -> None:
    model = small(activation_function=activation, tie_word_embeddings=tied)
    tokens = torch.randint(50, (2, 12))
    read = reference.reference_logits(capture_model(model, 12, batch=2), model.state_dict(), tokens)
    torch.testing.assert_close(read, logits(model, tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("card", list_names("models"))
def test_every_card_is_captured(card: str) -> None:
    model = build_model(load_model_card(card), load_size("tiny")).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)  # else scales of one and biases of zero could go missing
    graph = capture_model(model, 10)
    tokens = torch.randint(graph.vocabulary, (1, 10))
    read = reference.reference_logits(graph, model.state_dict(), tokens)
    torch.testing.assert_close(read, logits(model, tokens), atol=1e-4, rtol=1e-4)
    on_meta = capture_model(ModelSource.parse(card, "tiny").meta(), 10)
    assert list(on_meta.census()) == list(graph.census())


def test_only_tokens_and_weights_are_secret() -> None:
    graph = capture_model(small(), 8)
    names = {"tokens", *graph.weights, *(node.name for node in graph.nodes)}
    for node in graph.nodes:
        assert node.op.secret == tuple(name in names for name in node.inputs)
    assert {tuple(value.shape) for value in graph.constants.values()} == {(1, 8), (1, 1, 8, 8)}


def test_masked_places_are_a_public_mask() -> None:
    graph = capture_model(small(), 8)
    masks = [graph.constants[node.inputs[1]] for node in graph.nodes if node.op.name == "softmax"]
    assert len(masks) == 2
    assert all(torch.equal(mask[0, 0], torch.ones(8, 8).tril().bool()) for mask in masks)


def test_modules_name_where_an_operation_came_from() -> None:
    modules = {node.op.name: node.module for node in capture_model(small(), 8).nodes}
    assert modules["gelu"] == "transformer.h.1.mlp.act"
    assert modules["softmax"] == "transformer.h.1.attn"
    assert capture_model(small(), 8).embedding_and_head() == {"transformer.wte", "lm_head", "output"}


@pytest.mark.parametrize("length", [0, 17])
def test_a_sequence_must_fit_the_context(length: int) -> None:
    with pytest.raises(UsageError, match="context is 16 tokens; choose --seq-len between 1 and 16"):
        capture_model(small(), length)


def test_what_cannot_be_expressed_is_named_with_its_module() -> None:
    with pytest.raises(UsageError, match=r"aten\.mish of transformer\.h\.0\.mlp\.act.*pi_sim/graph/aten"):
        capture_model(small(activation_function="mish"), 8)


class Odd(nn.Module):
    """Model with an operation after its logits."""

    def __init__(self, odd: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.odd, self.config, self.device = small(), odd, small().config, torch.device("cpu")

    def forward(self, tokens: Tensor, **options: object) -> tuple[Tensor]:
        return (self.odd(self.inner(tokens, **options).logits),)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (lambda x: torch.add(x, x, alpha=2), "it scales its summand"),
        (lambda x: torch.div(x, 2.0, rounding_mode="floor"), "it rounds"),
        (lambda x: x / 0.0, "the divisor is zero"),
        (lambda x: x.to(torch.long), "not floating"),
        (lambda x: nn.functional.dropout(x, 0.5, training=True), "training mode"),
        (lambda x: x.softmax(1), "not over the last dimension"),
        (lambda x: x @ torch.ones(50, 50), "one factor is public"),
        (lambda x: torch.cat([x, torch.ones(1, 8, 50)]), "one part is public"),
        (lambda x: x[..., ::3], "it skips elements unevenly"),
        (lambda x: x[x.sum(-1) > 0], r"aten\.gt|cannot trace"),
        (lambda x: x.where(x > 0, x), "aten.gt"),
        (lambda x: x.masked_fill(MASK == 0, -torch.inf) * -2, "masked scores may only go through softmax"),
        (lambda x: torch.stack([x, torch.ones(1, 8, 50)]), "one part is public"),
        (lambda x: x**3, "its exponent is not 2"),
        (lambda x: x.sum((1, 2)), "not over one dimension"),
        (lambda x: x.clamp(max=1.0), "not two public numbers"),
    ],
)
def test_nothing_is_taken_for_something_else(odd: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        capture_model(Odd(odd), 8)


MASK = torch.ones(8, 50).tril()
LOWEST = torch.finfo(torch.float32).min
HIDDEN = (1 - MASK) * LOWEST


@pytest.mark.slow
@pytest.mark.parametrize(
    ("odd", "operations"),
    [
        (lambda x: nn.functional.leaky_relu(x, 0.1), ["scale", "relu", "scale", "add"]),
        (lambda x: x - 2 * x, ["scale", "neg", "add"]),
        (lambda x: 1 - x, ["neg", "add"]),
        (lambda x: x - 0.5, ["add"]),
        (lambda x: x + torch.zeros_like(x), []),
        (lambda x: x * 1.0, []),
        (lambda x: x * torch.ones(8, 50), []),
        (lambda x: x * MASK, ["mask"]),
        (lambda x: (MASK > 0) * x, ["mask"]),
        (lambda x: x * (MASK - 0.5), ["scale_by"]),
        (lambda x: x / (MASK + 1), ["scale_by"]),
        (lambda x: x / x.square().sum(-1, keepdim=True), ["square", "sum", "reciprocal", "multiply"]),
        (lambda x: 2 / (x**2 + 1), ["square", "add", "reciprocal", "scale"]),
        (lambda x: x.sum(1), ["sum", "view"]),
        (lambda x: x[:, -3:], ["slice"]),
        (lambda x: torch.cat(x.chunk(3, 1)[1:], 1), ["slice", "slice", "concat"]),
        (lambda x: x[:, :1] + torch.zeros(8, 50), ["slice", "expand"]),
        (lambda x: nn.functional.hardtanh(x), ["clamp"]),
        (lambda x: x.clamp(-0.5, 0.1), ["clamp"]),
        (lambda x: torch.tanh(x) + torch.erf(x), ["tanh", "erf", "add"]),
        (lambda x: nn.functional.silu(x), ["silu"]),
        (lambda x: nn.functional.rms_norm(x, (50,)), ["rmsnorm"]),
        (lambda x: x + torch.tensor([0.5]), ["add"]),
        (lambda x: x[..., 1::2], ["view", "slice", "view"]),
        (lambda x: x[:, 0], ["slice", "view"]),
        (lambda x: x[:, [5, 2]], ["slice", "slice", "concat"]),
        (lambda x: torch.cat(x.split([3, 5], 1), 1), ["slice", "slice", "concat"]),
        (lambda x: torch.stack(x.unbind(1), 1), [*["slice", "view"] * 8, *["view"] * 8, "concat"]),
        (lambda x: x.permute(2, 0, 1), ["transpose", "transpose"]),
        (lambda x: x.mean(1), ["sum", "view", "scale"]),
        (lambda x: x.sigmoid(), ["scale", "tanh", "add", "scale"]),
        (lambda x: torch.cat([torch.empty(0), x], 1), []),
        (lambda x: x.masked_fill(MASK == 0, 0.0), ["mask"]),
        (lambda x: torch.where(MASK > 0, x, x.square()), ["square", "mask", "mask", "add"]),
        (lambda x: x.masked_fill(MASK == 0, -torch.inf).softmax(-1), ["softmax"]),
        (lambda x: (2 * x.masked_fill(MASK == 0, -torch.inf)).softmax(-1), ["scale", "softmax"]),
        (lambda x: (x.masked_fill(MASK == 0, -torch.inf) / 4).float().softmax(-1), ["scale", "softmax"]),
        (lambda x: x.masked_fill(MASK == 0, LOWEST).clamp(min=LOWEST).softmax(-1), ["softmax"]),
        (lambda x: torch.max(x.masked_fill(MASK == 0, LOWEST), torch.tensor(LOWEST)).softmax(-1), ["softmax"]),
        (lambda x: (x + HIDDEN).view(8, 50).softmax(-1).view(1, 8, 50), ["view", "softmax", "view"]),
        (lambda x: x.clamp(-65504, 65504), []),
        (lambda x: x.sigmoid_(), ["scale", "tanh", "add", "scale"]),
        (lambda x: nn.functional.silu(x.clone().add_(x)), ["add", "silu"]),
    ],
)
def test_arithmetic_becomes_few_operations(odd: Callable[[Tensor], Tensor], operations: list[str]) -> None:
    """Operations without effect leave no node, and the graph computes the model's logits."""
    model, tokens = Odd(odd), torch.randint(50, (1, 8))
    graph = capture_model(model, 8)
    plainly = [node.op.name for node in capture_model(model.inner, 8).nodes[:-1]]
    assert [node.op.name for node in graph.nodes] == [*plainly, *operations, "reveal"]
    with torch.no_grad():
        torch.testing.assert_close(reference.reference_logits(graph, model.state_dict(), tokens), model(tokens)[0])


def test_an_operation_survives_json() -> None:
    op = Op("layernorm", ((2, 3), (3,)), (True, True), (("eps", 1e-5),))
    assert Op.from_json(op.to_json()) == op
    with pytest.raises(ValueError, match="unknown operation"):
        Op("magic", (), ())


Steps = Callable[["Maps", Tensor], object]


class Maps(nn.Module):
    """Two linear maps, combined by `steps`."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.first, self.second, self.steps = nn.Linear(4, 4), nn.Linear(4, 4), steps

    def forward(self, x: Tensor) -> object:
        return self.steps(self, x)


@pytest.mark.parametrize(
    ("steps", "marked"),
    [
        (lambda self, x: self.second(self.first(x)), ["second"]),
        (lambda self, x: self.second(self.first(x)).reshape(8).unsqueeze(0), ["second"]),
        (lambda self, x: self.second(self.first(x))[:, -1], ["second"]),
        (lambda self, x: (self.first(x), self.second(x)), ["first", "second"]),
        (lambda self, x: (y := self.first(x), self.second(y)), ["second"]),
        (lambda self, x: torch.relu(self.second(x)), []),
        (lambda self, x: self.first(x) + self.second(x), []),
        (lambda self, x: torch.cat([self.first(x), x]), []),
    ],
)
def test_what_the_client_alone_sees_is_marked(steps: Steps, marked: list[str]) -> None:
    graph = trace_module(Maps(steps), (torch.zeros(2, 4),), {})
    linear = [node for node in graph.nodes if node.op.name == "linear"]
    assert [node.module for node in linear if node.op.attribute("client_only")] == marked


@pytest.mark.parametrize(
    ("protocol", "saved"), [("lean_outsourced", Cost.symmetric(1, 8 * 300, 16 * 300)), ("crypten", Cost())]
)
def test_a_protocol_may_leave_the_truncation_to_the_client(protocol: str, saved: Cost) -> None:
    shapes, card = ((3, 8), (8, 100), (100,)), specs.load_executable_protocol(protocol)
    inner, last = (
        derived.derive_price(Op("linear", shapes, (True,) * 3, more), card).cost
        for more in ((), (("client_only", True),))
    )
    assert Cost.symmetric(inner.rounds - last.rounds, inner.bytes - last.bytes, inner.offline - last.offline) == saved
