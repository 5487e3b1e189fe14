"""Shipped weights against their cards and records."""

from pathlib import Path

import pytest

from pi_sim import records, specs
from pi_sim.errors import UsageError
from pi_sim.report import terminal
from pi_sim.training import corpus, evaluation
from pi_sim.zoo import source
from pi_sim.zoo.source import ModelSource
from tests.helpers.cli import invoke
from tests.helpers.small_training import make_plan

SHIPPED = [name for name in specs.list_names("models") if source.weights_folder(name, "tiny").is_dir()]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_reproduce_their_record(name: str) -> None:
    folder = source.weights_folder(name, "tiny")
    sample = records.load(folder / "record.json").held_out.sample
    ids = evaluation.held_out_tokens(folder, sample.sequences, specs.load_size("tiny").context)
    assert evaluation.mean_loss(ModelSource.parse(name, "tiny").load(), ids) == pytest.approx(sample.loss, rel=1e-4)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_records_fit_their_cards(name: str) -> None:
    record = records.load(source.weights_folder(name, "tiny") / "record.json")
    assert record.architecture == specs.load_model_card(name).architecture
    assert record.recipe == make_plan("tiny", Path("packages"), card=name).recipe
    assert record.corpus.sha256 == corpus.load_manifest().sha256


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_records_count_their_weights(name: str) -> None:
    record = records.load(source.weights_folder(name, "tiny") / "record.json")
    assert record.parameters == ModelSource.parse(name, "tiny").load().num_parameters()
    assert record.trained_parameters == ModelSource.parse(name, "tiny").meta().num_parameters()


def test_a_shipped_record_without_its_quality_is_named(tmp_path: Path) -> None:
    record = records.load(source.weights_folder("gelu_ln", "tiny") / "record.json")
    records.save(tmp_path / "record.json", record.model_copy(update={"held_out": None}))
    with pytest.raises(UsageError, match=r"record\.json does not state"):
        terminal.heldout_quality(tmp_path)


def test_models_lists_every_card_weight_and_size() -> None:
    output = invoke("models").stdout
    designs, weights, note, names = (block.splitlines() for block in output.rstrip().split("\n\n"))
    rows = [
        [line for line in box[3:] if line.startswith("│ ") and not line.startswith("│  ")] for box in (designs, weights)
    ]
    assert [[row.split()[1] for row in table] for table in rows] == [specs.list_names("models"), SHIPPED]
    assert "init_std 0.05" in note[0]
    assert names[0] == f"sizes: {', '.join(specs.list_names('models/sizes'))}"
    assert max(map(len, output.splitlines())) <= 80
