"""The weights that ship: they fit their cards, and their records tell the truth about them."""

from pathlib import Path

import pytest

from pi_sim import records, specs
from pi_sim.errors import UsageError
from pi_sim.training import held_out, manifest, plan
from pi_sim.zoo import build, catalogue
from tests.helpers.cli import invoke

SHIPPED = [name for name in specs.names("models") if catalogue.weights_folder(name, "tiny").is_dir()]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_reproduce_their_record(name: str) -> None:
    folder = catalogue.weights_folder(name, "tiny")
    sample = records.load(folder / "record.json").held_out.sample
    ids = held_out.held_out_tokens(folder, sample.sequences, specs.size("tiny").context)
    assert held_out.loss(build.load_model(name, "tiny"), ids) == pytest.approx(sample.loss, rel=1e-4)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_records_fit_their_cards(name: str) -> None:
    record = records.load(catalogue.weights_folder(name, "tiny") / "record.json")
    assert record.architecture == specs.model_card(name).architecture
    assert record.recipe == plan.make(name, "tiny", "packages", 0, None, ()).recipe
    assert record.corpus.sha256 == manifest.committed().sha256


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_records_count_their_weights(name: str) -> None:
    record = records.load(catalogue.weights_folder(name, "tiny") / "record.json")
    assert record.parameters == build.load_model(name, "tiny").num_parameters()
    assert record.trained_parameters == build.meta_model(name, "tiny").num_parameters()


def test_a_shipped_record_without_its_quality_is_named(tmp_path: Path) -> None:
    record = records.load(catalogue.weights_folder("gelu_ln", "tiny") / "record.json")
    records.save(tmp_path / "record.json", record.model_copy(update={"held_out": None}))
    with pytest.raises(UsageError, match=r"record\.json does not tell"):
        catalogue.quality(tmp_path)


def test_models_lists_every_card_and_size() -> None:
    _, *lines, _, sizes, _ = invoke("models").stdout.splitlines()
    assert [line.split()[0] for line in lines] == specs.names("models")
    assert [line.split()[0] for line in lines if line.split()[-3] == "tiny"] == SHIPPED
    assert sizes == f"sizes: {', '.join(specs.names('models/sizes'))}"
