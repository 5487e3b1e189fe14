"""Capture of untouched Hugging Face families: the graph computes their results, from weights and from shapes alone."""

from functools import cache

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedModel,
)

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.cost.census import Census, capture_census
from pi_sim.cost.cost import ZERO_COST
from pi_sim.cost.pricing import price_census
from pi_sim.errors import UsageError
from pi_sim.graph import reference
from pi_sim.graph.capture import capture_model
from pi_sim.graph.ops import Graph
from pi_sim.zoo.source import ModelSource
from pi_sim.zoo.tasks import find_task, pool
from tests.helpers.hf_models import (
    BLOCKS,
    CAUSAL,
    COMMON,
    FAMILIES,
    IMAGES,
    build_model,
    build_random_model,
    input_length,
)

EXECUTABLE = [
    name for name in specs.list_names("protocols") if isinstance(specs.load_protocol(name), specs.ExecutableProtocol)
]


@cache
def captured(family: str) -> Graph:
    """Capture a model with weights, for a batch of two texts or images."""
    return capture_model(build_random_model(family), input_length(family), batch=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_computes_hugging_faces_results(family: str) -> None:
    model, graph = build_random_model(family), captured(family)
    given = torch.randn(2, 3, 8, 8) if family in IMAGES else torch.randint(4, 50, (2, 12))
    with torch.no_grad():
        output = model(given, **({"use_cache": False} if family in CAUSAL else {}))
    expected = (output.last_hidden_state.mean(1),) if find_task(model) == "vectors" else output.to_tuple()
    inputs = {"inputs.pixel_values": given} if family in IMAGES else {}
    read = reference.evaluate(graph, model.state_dict(), given, inputs)
    revealed = [value for node, _, value in read if node.op.name == "reveal"]
    for ours, theirs in zip(revealed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


PADDED = ["bert", "bert-classifier", "roberta"]
LENGTHS = torch.tensor([12, 7])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", PADDED)
def test_padding_changes_no_result(family: str, pooling: str) -> None:
    """Texts of two lengths in one batch: the graph's results at tokens are transformers' with its attention mask."""
    model, ids = build_random_model(family), torch.randint(4, 50, (2, 12))
    model.pooling = pooling
    is_token = torch.arange(12) < LENGTHS[:, None]
    ids = ids.where(is_token, model.config.pad_token_id)
    with torch.no_grad():
        output = model(ids, attention_mask=is_token.long())
    graph = capture_model(model, 12, batch=2, padded=True)
    weights = (is_token / LENGTHS[:, None]).unsqueeze(1)
    masks = {
        "inputs.attention_mask": torch.where(is_token, 0.0, -200.0)[:, None, None],
        "inputs.pooling_weights": weights,
    }
    read = list(reference.evaluate(graph, model.state_dict(), ids, {name: masks[name] for name in graph.inputs}))[-1][2]
    if find_task(model) == "vectors":
        expected = pool(output.last_hidden_state, pooling, weights)
    else:
        expected = output.logits
        if expected.dim() == 3:
            read, expected = read[is_token], expected[is_token]
    torch.testing.assert_close(read, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_alone_give_the_same_graph(family: str) -> None:
    """Public cosines are rebuilt for the meta device, where buffers have no data."""
    with torch.device("meta"):
        shapes = build_model(family)
    ours, theirs = capture_model(shapes, input_length(family), batch=2), captured(family)
    assert (ours.nodes, ours.weights, ours.inputs) == (theirs.nodes, theirs.weights, theirs.inputs)
    assert ours.constants.keys() == theirs.constants.keys()
    assert all(torch.equal(ours.constants[name], value) for name, value in theirs.constants.items())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_sum_of_prices_is_the_price_of_the_sum(family: str) -> None:
    kinds = {"attention_types": [[["local"], 1]]} if family == "gpt-neo" else {}
    graph = capture_model(build_model(family, num_hidden_layers=1, **kinds), input_length(family))
    for protocol in map(specs.load_executable_protocol, EXECUTABLE):
        assert sum(
            (row.cost for row in price_census(Census.from_graph(graph), protocol)), ZERO_COST
        ) == derived.derive_graph_cost(graph, protocol)


@pytest.mark.parametrize(
    ("family", "op", "count"),
    [("gpt2", "gelu", 2), ("bert", "gelu", 2), ("bloom", "gelu", 2), ("llama", "rmsnorm", 5), ("gemma", "rmsnorm", 5)],
)
def test_what_transformers_writes_out_in_steps_is_one_operation(family: str, op: str, count: int) -> None:
    model = build_model(family)
    names = [node.op.name for node in capture_model(model, 8).nodes]
    assert names.count(op) == count
    assert not {"square", "erf"} & set(names)
    assert "tanh" not in names or family == "bert"  # whose pooler has one
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.slow
def test_a_norm_of_another_form_is_not_taken_for_llamas() -> None:
    """The form of a norm is determined by its results, not by its class name."""

    class HalvedRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(32))

        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True))

    model = build_model("llama")
    model.model.layers[0].input_layernorm = HalvedRMSNorm()
    with pytest.raises(UsageError, match=r"aten\.rsqrt of model\.layers\.0\.input_layernorm.*pi_sim/graph/aten"):
        capture_model(model, 8)


def test_a_causal_mask_is_known_as_one() -> None:
    """Mistral's window hides earlier tokens too, once the text is longer; an encoder hides none."""
    assert {family: attributes(captured(family)) for family in ("gpt2", "mistral", "bert")} == {
        "gpt2": {(("causal", True),)}, "mistral": {()}, "bert": {()},
    }  # fmt: skip
    assert attributes(capture_model(build_model("mistral"), 5)) == {(("causal", True),)}


def attributes(graph: Graph) -> set[tuple[tuple[str, object], ...]]:
    return {node.op.attributes for node in graph.nodes if node.op.name == "softmax"}


def test_positions_and_token_types_are_public() -> None:
    for family in ("bert", "roberta"):
        graph = captured(family)
        assert [node.op.name for node in graph.nodes if "embed" in node.op.name or node.op.name == "lookup"] == [
            "embedding", "lookup", "lookup",
        ]  # fmt: skip
        assert graph.inputs == {}


def classifier() -> PreTrainedModel:
    """Return a causal classifier, which reads the last token before the padding."""
    torch.manual_seed(0)
    return GPT2ForSequenceClassification(GPT2Config(**{**COMMON, "pad_token_id": 1})).eval()


def test_no_token_of_a_whole_text_is_padding() -> None:
    model, ids = classifier(), torch.randint(4, 50, (2, 12))
    read = reference.reference_logits(capture_model(model, 12, batch=2), model.state_dict(), ids)
    with torch.no_grad():
        torch.testing.assert_close(read, model(ids).logits, atol=1e-5, rtol=1e-5)


def test_positions_that_depend_on_secret_padding_are_refused() -> None:
    with pytest.raises(UsageError, match="or texts may be padded"):
        capture_model(classifier(), 12, padded=True)


def test_dynamic_positions_are_those_of_the_length() -> None:
    model, ids = build_random_model("llama-dynamic"), torch.randint(4, 50, (1, 24))  # of a context of 16
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
    read = reference.reference_logits(capture_model(build_random_model("llama-dynamic"), 24), model.state_dict(), ids)
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UsageError, match="context is 16 tokens; choose --seq-len between 1 and 32"):
        capture_model(model, 33)


def test_what_torch_cannot_trace_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    model = build_model("gpt2")
    model.transformer.h[1].mlp.act = Branch()
    with pytest.raises(UsageError) as refusal:
        capture_model(model, 8)
    sentence = "transformer.h.1.mlp.act: a branch depends on values, which are secret, or not known before a run."
    assert str(refusal.value) == f"torch.export cannot trace this model: {sentence}"
    assert capfd.readouterr() == ("", "")


def test_an_images_tokens_are_those_of_the_graph() -> None:
    """DeiT has a distillation token beside the class token, SigLIP neither."""
    model = DeiTForImageClassificationWithTeacher(DeiTConfig(**{**BLOCKS, "image_size": 8, "patch_size": 4})).eval()
    assert capture_model(model, 6).tokens == capture_model(model, 5).tokens == 6
    with pytest.raises(UsageError, match="reads every image as 6 tokens; leave --seq-len out"):
        capture_model(model, 7)


def test_an_image_is_the_only_secret_input() -> None:
    graph = captured("vit")
    assert (graph.input, graph.inputs) == ((), {"inputs.pixel_values": (2, 3, 8, 8)})
    assert graph.embedding_and_head() == {"classifier", "output"}
    patches = next(node for node in graph.nodes if node.op.name == "linear")
    assert patches.op.shapes == ((2, 4, 48), (48, 32), (32,))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kernel_size": 5, "stride": 3}, "its patches overlap or leave gaps"),
        ({"kernel_size": 5, "stride": 5, "padding": 1}, "it pads, dilates or groups"),
        ({"kernel_size": 3, "stride": 3}, "its patches do not cover the image"),
    ],
)
def test_other_convolutions_are_refused_by_name(change: dict[str, int], reason: str) -> None:
    model = build_model("vit")
    model.vit.embeddings.patch_embeddings.projection = nn.Conv2d(3, 32, **change)
    with pytest.raises(UsageError, match=rf"aten\.conv2d of vit\.embeddings\.patch_embeddings\.projection: {reason}"):
        capture_model(model, 5)


@pytest.mark.parametrize(
    ("family", "length", "past", "sentence"),
    [
        ("vit", 12, None, "reads every image as 5 tokens; leave --seq-len out"),
        ("vit", 5, 3, "an image model has no decoding step"),
        ("bert", 1, 3, "BertModel has no decoding step"),
        ("gpt2", 1, 16, "context is 16 tokens; choose --past between 1 and 15"),
        ("roberta", 13, None, "context is 12 tokens"),
    ],
)
def test_what_a_model_cannot_read_is_said(family: str, length: int, past: int | None, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        capture_model(build_model(family), length, past=past)


def test_a_mask_that_no_machine_holds_is_refused() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    with torch.device("meta"):
        model = MistralForCausalLM(MistralConfig(num_hidden_layers=1, max_position_embeddings=32768))
    with pytest.raises(UsageError, match="a mask of 32,768 x 32,768 is too large; choose --seq-len up to 16,384"):
        capture_model(model, 32768)


def test_a_buffer_without_data_that_cannot_be_made_again_is_named() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shift", torch.ones(32))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.shift

    with torch.device("meta"):
        model = build_model("gpt2")
        model.transformer.ln_f = Shifted()
    with pytest.raises(UsageError, match=r"buffer transformer\.ln_f\.shift has no data on the meta device"):
        capture_model(model, 8)


PAST = 11


def cached(model: PreTrainedModel, text: Tensor) -> dict[str, Tensor]:
    """Return keys and values of a text, zero outside a sliding window, where nothing may be read."""
    with torch.no_grad():
        layers = model(text, use_cache=True).past_key_values.layers
    kept = [each for layer in layers for each in (layer.keys, layer.values)]
    whole = [functional.pad(each, (0, 0, PAST - each.shape[2], 0)) for each in kept]
    return {f"inputs.cached_{index}": each for index, each in enumerate(whole)}


@pytest.mark.slow
@pytest.mark.parametrize("family", CAUSAL)
def test_a_steps_logits_are_the_last_of_the_whole_text(family: str) -> None:
    model, text = build_random_model(family), torch.randint(4, 50, (2, PAST + 1))
    with torch.no_grad():
        whole = model(text, use_cache=False).logits[:, -1:]
    graph, cache = capture_model(model, 1, batch=2, past=PAST), cached(model, text[:, :-1])
    assert {name: value.shape for name, value in cache.items()} == graph.inputs
    read = list(reference.evaluate(graph, model.state_dict(), text[:, -1:], cache))[-1][2]
    torch.testing.assert_close(read, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_a_steps_price_is_the_sum_of_its_operations(family: str) -> None:
    protocol, graph = specs.load_executable_protocol("crypten"), capture_model(build_model(family), 1, past=PAST)
    assert sum(
        (row.cost for row in price_census(Census.from_graph(graph), protocol)), ZERO_COST
    ) == derived.derive_graph_cost(graph, protocol)
    assert [node.op.name for node in graph.nodes].count("reveal") == 1  # new keys and values stay shared


@pytest.mark.slow
def test_only_attention_grows_with_the_cache() -> None:
    short, long = (capture_census(ModelSource.parse("gpt2", "tiny"), 1, past=past).counts for past in (16, 32))
    differing = {op.name for _, op in short.keys() ^ long.keys()}
    assert differing == {"matmul", "scale", "softmax"}
    assert {op.shapes[0] for _, op in long if op.name == "softmax"} == {(1, 12, 1, 33)}


def test_grouped_heads_cache_what_they_share() -> None:
    graph = capture_model(build_model("llama-grouped"), 1, batch=3, past=PAST)
    assert set(graph.inputs.values()) == {(3, 2, PAST, 8)}


ENCODER_DECODERS = {
    "T5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 50},
    "Bart": {
        "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "vocab_size": 50,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_a_decoder_attends_to_its_encoder(family: str) -> None:
    config = getattr(transformers, f"{family}Config")(**ENCODER_DECODERS[family], attn_implementation="eager")
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    tokens, output = torch.randint(4, 50, (2, 6)), torch.randint(4, 50, (2, 3))
    graph = capture_model(model, 6, batch=2, output_length=3)
    with torch.no_grad():
        expected = model(tokens, decoder_input_ids=output).logits
    inputs = {"inputs.decoder_input_ids": output}
    logits = list(reference.evaluate(graph, dict(model.state_dict()), tokens, inputs))[-1][2]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    tables = [node.op for node in graph.nodes if node.op.name == "embedding"]
    assert [op.attribute("reused", False) for op in tables] == [False, True]  # one table for both
