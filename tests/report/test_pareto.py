"""Quality against seconds: the front, whose perplexities are compared, and the page."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pi_sim.errors import UsageError
from pi_sim.grid.table import EMPTY_RESULT, SweepRow
from pi_sim.network import PRESETS
from pi_sim.report import sweep
from pi_sim.report.pages import render_page, write_sweep
from pi_sim.report.sweep import DesignComparison, compare_designs, load_qualities
from pi_sim.zoo.source import ModelSource
from tests.helpers.golden import Golden
from tests.helpers.sample_records import save as save_record
from tests.helpers.sample_records import training_record

DESIGNS = {"gelu_ln": (811, 324_000_000), "relu_ln": (707, 282_000_000), "relu_nonorm": (527, 278_000_000)}
"""Rounds and bytes."""
OTHER_TEXT = {"name": "novels", "sha256": "1" * 64, "tokens_seen": 4_915_200}


def answer(model: str, network: str, protocol: str = "crypten") -> SweepRow:
    rounds, sent = DESIGNS[model]
    seconds = PRESETS[network].seconds(rounds, sent)
    key = (model, "tiny", 128, 1, None, False, protocol, None, network)
    costs = (rounds, sent, sent, sent, 0, 0, 197_000_000)
    return SweepRow._make((*key, *costs, seconds, seconds, None, None, None, None, None))


def refusal(model: str) -> SweepRow:
    return SweepRow._make(
        (model, "tiny", 128, 1, None, False, "bolt", None, "wan", *EMPTY_RESULT, None, "bolt has no price.")
    )


ANSWERS = [*(answer(model, network) for model in DESIGNS for network in ("lan", "wan")), *map(refusal, DESIGNS)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds of each design, and trainings that are not to be compared with them."""
    for model in DESIGNS:
        for seed in (0, 1):
            save(tmp_path, f"{model}-{seed}", training_record(model, seed))
    save(tmp_path / "lab", "copy", training_record("gelu_ln", 0))
    save(tmp_path / "lab", "fine-tuned", training_record("gelu_ln", 7, origin={"model": "gelu_ln"}))
    save(tmp_path / "lab", "lone-recipe", changed("relu_ln", "recipe", learning_rate=9.0))
    save(tmp_path / "lab", "other-size", training_record("relu_ln", 8, size="gpt2"))
    save(tmp_path / "lab", "other-design", changed("relu_ln", "architecture", final_norm="none"))
    save(tmp_path / "lab", "other-dimensions", changed("relu_ln", "dimensions", layers=9))
    save(tmp_path / "lab", "other-text", training_record("relu_ln", 9, corpus=OTHER_TEXT))
    (tmp_path / "estimate.json").write_text('{"model": "gelu_ln"}')
    return tmp_path


def save(folder: Path, name: str, record: dict[str, object]) -> None:
    save_record(folder / f"{name}.json", "training", record)


def changed(model: str, part: str, **values: object) -> dict[str, object]:
    record = training_record(model, 5)
    return {**record, part: {**record[part], **values}}


def qualities(folder: Path) -> pd.DataFrame:
    return load_qualities([folder], [ModelSource.parse(model, "tiny") for model in DESIGNS])


def page(answers: list[SweepRow], compared: dict[str, DesignComparison]) -> str:
    return render_page("sweep", sweep.context(answers, compared), compared)


def test_only_what_was_trained_alike_is_compared(folder: Path) -> None:
    frame = qualities(folder)
    alike, novels = (frame[frame["text"] == text].set_index("model") for text in ("packages", "novels"))
    assert {model: seeds.values for model, seeds in alike["seeds"].items()} == {
        "gelu_ln": (20.0, 20.1),
        "relu_ln": (20.4, 20.5),
        "relu_nonorm": (21.0, 21.1),
    }
    assert set(alike["size"]) == {"tiny"}
    assert set(alike["trained_tokens"]) == {4_915_200}
    assert list(novels.index) == ["relu_ln"]


def test_designs_that_diverged_or_have_no_price_are_left_out(folder: Path) -> None:
    for seed in (0, 1):
        save(folder, f"gelu_ln-{seed}", training_record("gelu_ln", seed, held_out=None))
    (folder / "lab" / "copy.json").unlink()
    (comparison,) = compare_designs(ANSWERS, qualities(folder))
    assert list(comparison.designs) == ["relu_ln", "relu_nonorm"]
    assert "- gelu_ln (tiny)" in page(ANSWERS, {"a": comparison})
    unpriced = [refusal("relu_ln"), *(answer for answer in ANSWERS if answer.model != "relu_ln")]
    assert compare_designs(unpriced, qualities(folder)) == []


def test_a_model_with_a_config_has_no_training(folder: Path) -> None:
    assert load_qualities([folder], [ModelSource.parse("bert-base", "tiny")]).empty


def test_a_damaged_record_is_named(folder: Path) -> None:
    save(folder, "damaged", training_record("relu_ln"))
    record = json.loads((folder / "damaged.json").read_text(encoding="utf-8"))
    del record["held_out"]
    (folder / "damaged.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UsageError, match=r"damaged\.json has no held_out"):
        qualities(folder)


def test_the_page(folder: Path, golden: Golden) -> None:
    stranger = answer("gelu_ln", "lan")._replace(model="bert-base", size="own")
    (comparison,) = compare_designs(ANSWERS, qualities(folder))
    golden("sweep", page([*ANSWERS, stranger], {"a": comparison}))


def test_a_page_without_perplexities_says_so() -> None:
    assert "There is nothing to compare" in page(ANSWERS, {})


def test_the_same_answers_draw_the_same_figures(folder: Path, tmp_path: Path) -> None:
    written = write_sweep(ANSWERS, qualities(folder), tmp_path / "page.md")
    first = [path.read_text() for path in written]
    assert [path.name for path in written] == ["page-1.svg", "page.md"]
    assert "figures/page-1.svg" in first[-1]
    assert [path.read_text() for path in write_sweep(ANSWERS, qualities(folder), tmp_path / "page.md")] == first
    assert all(name in first[0] for name in ("lan", "wan", "relu_nonorm", "perplexity"))


def test_a_front_is_one_network_s(folder: Path) -> None:
    (comparison,) = compare_designs(ANSWERS, qualities(folder))
    assert comparison.front("wan") == ["relu_nonorm", "relu_ln", "gelu_ln"]
