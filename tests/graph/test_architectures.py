"""Architectures of transformers and public models: each is priced from its shapes, and computes what the model does."""

import pytest
import torch

from pi_sim import specs
from pi_sim.cost.census import Census, scenario_census
from pi_sim.cost.cost import ZERO_COST
from pi_sim.cost.pricing import price_census
from pi_sim.errors import UsageError
from pi_sim.graph import reference
from pi_sim.graph.capture import capture_model
from pi_sim.graph.ops import Graph
from pi_sim.zoo.source import ModelSource, list_configs
from pi_sim.zoo.tasks import find_task, reads_images
from tests.helpers.architectures import ARCHITECTURES, ENCODER_DECODERS, build_tiny

pytestmark = pytest.mark.slow

TOKENS = 12
PATCHES = 4
"""Of an image; other tokens of it are the model's own."""


def capture_tiny(architecture: str) -> Graph:
    """Capture the tiny model from its shapes alone."""
    model = build_tiny(architecture, "meta")
    return capture_model(model, PATCHES + 1 if reads_images(model) else TOKENS)


def is_priced(census: Census, protocol: str) -> bool:
    rows = price_census(census, specs.load_executable_protocol(protocol))
    return sum((row.cost for row in rows), ZERO_COST).bytes > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_is_priced_and_its_graph_computes_its_results(architecture: str) -> None:
    graph, model = capture_tiny(architecture), build_tiny(architecture, "cpu")
    assert is_priced(Census.from_graph(graph), "crypten")
    ids, image = torch.randint(4, 50, (1, TOKENS)), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        output = model(image if reads_images(model) else ids)
    expected = output.last_hidden_state.mean(1) if find_task(model) == "vectors" else output.logits
    inputs = {"inputs.pixel_values": image} if reads_images(model) else {}
    revealed = [
        value
        for node, _, value in reference.evaluate(graph, model.state_dict(), ids, inputs)
        if node.op.name == "reveal"
    ]
    torch.testing.assert_close(revealed[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ENCODER_DECODERS)
def test_an_encoder_decoder_reads_two_secret_texts(architecture: str) -> None:
    graph, model = capture_tiny(architecture), build_tiny(architecture, "cpu")
    assert is_priced(Census.from_graph(graph), "crypten")
    assert graph.input_shapes == dict.fromkeys(("tokens", "inputs.decoder_input_ids"), (1, TOKENS, 50))
    source, target = torch.randint(4, 50, (2, 1, TOKENS))
    with torch.no_grad():
        expected = model(input_ids=source, decoder_input_ids=target).logits
    read = reference.evaluate(graph, model.state_dict(), source, {"inputs.decoder_input_ids": target})
    torch.testing.assert_close(list(read)[-1][2], expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UsageError, match="has no decoding step"):
        capture_model(model, 1, past=4)


@pytest.mark.parametrize("name", list_configs())
def test_every_public_model_is_priced(name: str) -> None:
    source = ModelSource.parse(name, "tiny")
    length = None if name.startswith("vit") else 128
    tokens, census = scenario_census(source, length, 1, None, inner=False)
    assert tokens == (length or 197)
    assert is_priced(census, "crypten")
