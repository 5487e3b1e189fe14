"""`pi_sim.estimate` of any torch module: secrets, opened outputs, and errors."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import conv2d, embedding
from torch.nn.functional import scaled_dot_product_attention as attend
from transformers import MixtralConfig, MixtralForCausalLM

import pi_sim
from pi_sim.cost import derived
from pi_sim.cost.cost import Cost
from pi_sim.errors import UsageError
from pi_sim.graph import reference
from pi_sim.graph.capture import capture_model, trace_module
from pi_sim.graph.experts import select_largest
from pi_sim.specs import load_executable_protocol
from tests.helpers.hf_models import build_model


def check(module: nn.Module, *given: Tensor) -> list[str]:
    """Return a module's operations, after checking its graph's results and price."""
    graph = trace_module(module.eval(), given, {})
    reals = [value for value in given if value.is_floating_point()]
    inputs = dict(zip((name for name in graph.inputs), reals, strict=True))
    tokens = next((value for value in given if not value.is_floating_point()), torch.empty(0))
    with torch.no_grad():
        read = list(reference.evaluate(graph, module.state_dict(), tokens, inputs))[-1][2]
        torch.testing.assert_close(read, module(*given), atol=1e-5, rtol=1e-5)
    assert pi_sim.estimate(module, given).total == derived.derive_graph_cost(graph, load_executable_protocol("crypten"))
    return [op.name for _, op in graph.census()]


class Lambda(nn.Module):
    """Module that calls a function."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.randn(8, 8))

    def forward(self, *given: Tensor) -> Tensor:
        return self.function(self, *given)


X = torch.randn(2, 6, 8)


def test_a_linear_map_is_counted_by_hand() -> None:
    found = pi_sim.estimate(nn.Linear(8, 4), torch.zeros(2, 6, 8), networks=["lan"])
    both, revealed = 8 * (96 + 32), 8 * 48
    assert found.total == Cost(2, sent=(both + revealed, both), offline=8 * 48, serial=both + revealed)
    assert (found.model, found.batch, found.seq_len, found.networks[0].name) == ("Linear", 2, 6, "lan")


@pytest.mark.slow
def test_torchs_own_encoder_layer_is_expressed() -> None:
    operations = check(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), X)
    assert operations == [
        "linear", "matmul", "scale", "softmax", "matmul", "linear", "add", "layernorm", "linear", "relu", "linear",
        "add", "layernorm", "reveal",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "operations"),
    [
        (lambda m, x: attend(x, x, x, is_causal=True), ["matmul", "scale", "softmax", "matmul"]),
        (lambda m, x: attend(x, x, x, MASK, scale=1.0), ["matmul", "softmax", "matmul"]),
        (lambda m, x: attend(x, x, x, ADDED), ["matmul", "scale", "add", "softmax", "matmul"]),
        (lambda m, x: torch.einsum("btd,bsd->bts", x, x), ["matmul"]),
        (lambda m, x: x.clone().add_(x).relu_(), ["add", "relu"]),
        (lambda m, x: functional.glu(x @ m.weight), ["linear", "scale", "tanh", "add", "scale", "multiply"]),
        (lambda m, x: (x - x.mean(-1, keepdim=True)) ** 2, ["sum", "scale", "neg", "add", "square"]),
    ],
)  # fmt: skip
def test_what_torch_defines_in_steps_is_expressed(function: object, operations: list[str]) -> None:
    assert check(Lambda(function), X) == [*operations, "reveal"]


MASK = torch.ones(6, 6, dtype=torch.bool).triu()
ADDED = torch.randn(6, 6).masked_fill(~MASK, -torch.inf)


def test_grouped_heads_share_their_keys() -> None:
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8)
    shared = Lambda(lambda m, q, k: attend(q, k, k, enable_gqa=True))
    assert check(shared, query, key) == ["matmul", "scale", "softmax", "matmul", "reveal"]


class Bag(nn.Module):
    """Embedded tokens, weighted by a public mask."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.table(tokens) * mask[..., None]


def test_integers_are_secret_where_an_embedding_reads_them() -> None:
    tokens, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 1, 0]])
    graph = trace_module(Bag(), (), {"mask": mask, "tokens": tokens})
    assert (graph.input, graph.vocabulary, graph.inputs) == ((1, 3), 10, {})
    assert [op.name for _, op in graph.census()] == ["embedding", "mask", "reveal"]
    assert pi_sim.estimate(Bag(), {"tokens": tokens, "mask": mask}).embedding_and_head == {"table", "output"}


def test_public_integers_have_values() -> None:
    tokens, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 1, 0]])
    with pytest.raises(UsageError, match="the input mask is public and has no data on the meta device"):
        pi_sim.estimate(Bag().to("meta"), (tokens.to("meta"), mask.to("meta")))
    on_meta, here = (pi_sim.estimate(Bag().to(device), (tokens, mask)).rows for device in ("meta", "cpu"))
    assert on_meta == here


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda m, t: embedding(t[:, :2], m.weight), "aten.slice of the model: tokens may only be embedded"),
        (lambda m, t: embedding(t + 1, m.weight), "aten.add of the model: tokens may only be embedded"),
        (lambda m, t: embedding(t, m.weight) @ embedding(t, m.weight[:4]).mT, "table of another size"),
        (lambda m, t: conv2d(embedding(t, m.weight), m.weight[None, None, :3]), "aten.conv2d .* another way"),
        (lambda m, t: t.sum(), "nothing that depends on its inputs or weights"),
        (lambda m, t: m.weight.svd()[0], "aten.*svd of the model: it is not in the vocabulary; extend pi_sim"),
    ],
)  # fmt: skip
def test_tokens_are_never_taken_for_public(function: object, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        pi_sim.estimate(Lambda(function), torch.tensor([[1, 2, 3]]))


def test_a_model_of_transformers_answers_without_its_cache() -> None:
    """Eager and fused attention give the same price."""
    tokens = torch.zeros(1, 8, dtype=torch.long)
    eager, fused = (
        pi_sim.estimate(build_model("llama-grouped", attn_implementation=kind), tokens) for kind in ("eager", "sdpa")
    )
    assert fused.total == eager.total
    assert [row.op for row in fused.rows].count("reveal") == 1
    assert (fused.seq_len, fused.embedding_and_head) == (8, {"model.embed_tokens", "lm_head", "output"})


def test_what_has_no_price_is_named_with_module_and_file() -> None:
    with pytest.raises(UsageError, match=r"^1: .*tanh.*delphi\.toml"):
        pi_sim.estimate(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), X, protocol="delphi")


@pytest.mark.parametrize(
    "spelling",
    [
        lambda self, x: x @ self.weight.T,
        lambda self, x: torch.matmul(x, self.weight),
        lambda self, x: torch.mm(x[0], self.weight),
        lambda self, x: torch.bmm(x, self.weight.expand(2, 8, 8)),
        lambda self, x: torch.bmm(x, self.weight.repeat_interleave(1, 0).unsqueeze(0).expand(2, -1, -1)),
        lambda self, x: torch.addmm(self.weight[0], x[0], self.weight),
        lambda self, x: torch.addmm(self.weight[0], x[0], self.weight, beta=0.5, alpha=2.0),
        lambda self, x: torch.baddbmm(x[:, :, :1], x, self.weight.expand(2, 8, 8)),
        lambda self, x: torch.einsum("btd,de->bte", x, self.weight),
        lambda self, x: torch.einsum("btd,hdk->bhtk", x, self.weight.view(2, 8, 4)),
        lambda self, x: self.weight @ x.transpose(1, 2),
        lambda self, x: functional.linear(x, 2 * self.weight, self.weight[0]),
    ],
)
def test_a_product_with_a_weight_is_a_linear_map(spelling: object) -> None:
    operations = check(Lambda(spelling), X)
    assert "matmul" not in operations
    assert operations.count("linear") == 1


def test_a_product_of_activations_is_no_linear_map() -> None:
    assert check(Lambda(lambda self, x: functional.linear(x[0], x[1])), X) == ["matmul", "reveal"]
    assert check(Lambda(lambda self, x: x @ self.weight.expand(2, 8, 8).contiguous()), X) == ["linear", "reveal"]


@pytest.mark.parametrize("row", [[0.1, 0.4, 0.2, 0.3], [0.5, 0.5, 0.0, 0.0], [0.0, 0.7, 0.7, 0.7]])
def test_the_largest_numbers_are_selected_once_each(row: list[float]) -> None:
    x = torch.tensor([row])
    selection = select_largest(x, 2)
    assert selection.sum(-1).tolist() == [[1.0, 1.0]]
    assert (selection @ x.unsqueeze(-1)).flatten().tolist() == x.topk(2).values.flatten().tolist()


def test_all_experts_are_evaluated_whatever_the_router_selects() -> None:
    with torch.device("meta"):
        config = MixtralConfig(
            num_hidden_layers=1, hidden_size=32, intermediate_size=64, num_local_experts=4, num_experts_per_tok=2,
            num_attention_heads=4, num_key_value_heads=2, vocab_size=50, attn_implementation="eager",
        )  # fmt: skip
        model = MixtralForCausalLM(config).eval()
    graph = capture_model(model, 6)
    experts = [node.op for node in graph.nodes if node.module.endswith("experts") and node.op.name == "linear"]
    assert [op.shapes for op in experts] == [((6, 32), (32, 128)), ((6, 64), (64, 32))] * 4
    assert [node.op.name for node in graph.nodes].count("clamp") == 3  # all pairs, then two places


class Named(nn.Module):
    """Function under a class name that says nothing of it; its own small numbers may be the eps of a norm."""

    def __init__(self, function: object, **weights: Tensor) -> None:
        super().__init__()
        self.function, self.eps = function, 1e-3
        for name, weight in weights.items():
            self.register_parameter(name, nn.Parameter(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def standardise(self: Named, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()


def divide_by_root_mean_square(self: Named, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


W, V = torch.randn(8), torch.randn(8)


@pytest.mark.parametrize(
    ("module", "operation"),
    [
        (Named(lambda self, x: 0.5 * x * (1 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))), "gelu"),
        (Named(lambda self, x: 0.5 * x * (1 + torch.erf(x / 2**0.5))), "gelu"),
        (Named(lambda self, x: x * torch.sigmoid(x)), "silu"),
        (Named(lambda self, x: x * (x > 0)), "relu"),
        (Named(standardise), "layernorm"),
        (Named(lambda self, x: standardise(self, x) * self.gain + self.bias, gain=W, bias=V), "layernorm"),
        (Named(lambda self, x: self.scale * divide_by_root_mean_square(self, x), scale=W), "rmsnorm"),
        (Named(lambda self, x: divide_by_root_mean_square(self, x) * (1 + self.scale), scale=W), "rmsnorm"),
    ],
)
def test_a_function_is_known_by_what_it_computes(module: nn.Module, operation: str) -> None:
    operations = check(nn.Sequential(nn.Linear(8, 8), module), X)
    assert [name for name in operations if name != "add"] == ["linear", operation, "reveal"]


def test_a_function_close_to_another_is_not_taken_for_it() -> None:
    assert "silu" not in check(nn.Sequential(Named(lambda self, x: x * torch.sigmoid(1.001 * x))), X)
