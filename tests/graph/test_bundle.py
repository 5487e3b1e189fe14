"""Bundles: shares add up, are uniformly random alone, and survive the round trip through files."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pi_sim.errors import UsageError
from pi_sim.graph import bundle
from pi_sim.graph.bundle import one_hot, share_tensor, to_fixed_point
from pi_sim.graph.capture import capture_model
from pi_sim.specs import load_model_card, load_size
from pi_sim.zoo.build import build_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[bundle.Bundle, dict[str, torch.Tensor]]:
    model = build_model(load_model_card("relu_nonorm"), load_size("tiny")).eval()
    folder = tmp_path_factory.mktemp("export") / "bundle"
    origin = {"model": "relu_nonorm", "size": "tiny", "seq_len": 8}
    bundle.write_bundle(folder, capture_model(model, 8), model.state_dict(), origin, Path("nowhere"))
    return bundle.read_bundle(folder), model.state_dict()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_shares_add_up_in_the_ring(values: list[int]) -> None:
    ring = torch.tensor(values, dtype=torch.long)
    first, second = share_tensor(ring)
    assert torch.equal(first + second, ring)


def test_a_share_alone_is_uniform() -> None:
    """Every byte value of either share of a constant appears about equally often."""
    for share in share_tensor(to_fixed_point(torch.ones(100_000))):
        counts = torch.bincount(share.view(torch.uint8).long(), minlength=256).double()
        expected = counts.mean()
        chi_squared = ((counts - expected) ** 2 / expected).sum().item()
        assert chi_squared < 400  # 255 degrees of freedom: exceeded once in 10^8 trials


def test_one_hot_tokens_are_plain_integers() -> None:
    assert one_hot(torch.tensor([[2, 0]]), 3).tolist() == [[[0, 0, 1], [1, 0, 0]]]


def test_a_bundle_comes_back_as_it_was(exported: tuple[bundle.Bundle, dict[str, torch.Tensor]]) -> None:
    opened, weights = exported
    graph = capture_model(build_model(load_model_card("relu_nonorm"), load_size("tiny")).eval(), 8)
    assert opened.graph.nodes == graph.nodes
    assert opened.graph.weights == graph.weights
    assert all(torch.equal(opened.graph.constants[name], value) for name, value in graph.constants.items())
    first, second = opened.party_shares(0), opened.party_shares(1)
    for name in graph.weights:
        restored = (first[name] + second[name]).double() / 2**16
        torch.testing.assert_close(restored, weights[name].double(), atol=2**-17, rtol=0)


def test_no_file_of_a_bundle_holds_a_plain_weight(exported: tuple[bundle.Bundle, dict[str, torch.Tensor]]) -> None:
    opened, weights = exported
    plain = weights["transformer.wte.weight"][0]
    needles = {plain.numpy().tobytes(), to_fixed_point(plain).numpy().tobytes()}
    for path in opened.folder.iterdir():
        content = path.read_bytes()
        assert not any(needle in content for needle in needles), path.name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_weight_beyond_the_ring_is_named(tmp_path: Path, value: float) -> None:
    model = build_model(load_model_card("relu_nonorm"), load_size("tiny")).eval()
    weights = model.state_dict()
    weights["transformer.h.0.attn.c_attn.weight"] = torch.full_like(
        weights["transformer.h.0.attn.c_attn.weight"], value
    )
    origin = {"model": "relu_nonorm", "size": "tiny", "seq_len": 8}
    with pytest.raises(UsageError, match=r"h\.0\.attn\.c_attn\.weight holds numbers that do not fit"):
        bundle.write_bundle(tmp_path / "bundle", capture_model(model, 8), weights, origin, Path("nowhere"))
    assert not (tmp_path / "bundle").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path, exported: tuple[bundle.Bundle, dict[str, torch.Tensor]]) -> None:
    (tmp_path / "precious").write_text("data")
    opened, weights = exported
    with pytest.raises(UsageError, match="is not empty"):
        bundle.write_bundle(tmp_path, opened.graph, weights, {}, Path("nowhere"))
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_failed_export_leaves_nothing(
    tmp_path: Path, exported: tuple[bundle.Bundle, dict[str, torch.Tensor]]
) -> None:
    with pytest.raises(KeyError):
        bundle.write_bundle(tmp_path / "new", exported[0].graph, {}, {}, Path("nowhere"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["graph.json", "constants.safetensors", "format", "nothing there"])
def test_a_damaged_bundle_is_one_sentence(
    damage: str, tmp_path: Path, exported: tuple[bundle.Bundle, dict[str, torch.Tensor]]
) -> None:
    if damage != "nothing there":
        for path in exported[0].folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        if damage == "format":
            public = json.loads((tmp_path / "graph.json").read_text())
            (tmp_path / "graph.json").write_text(json.dumps({**public, "format": 0}))
        else:
            (tmp_path / damage).write_bytes(b"{")
    with pytest.raises(UsageError, match=r"export (it|the bundle) again"):
        bundle.read_bundle(tmp_path)
