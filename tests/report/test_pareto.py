"""Quality against seconds: the front, whose perplexities are compared, and the page."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pi_sim.reporting import sweeps
from pi_sim.reporting.pareto import comparisons, front
from pi_sim.reporting.trained import Quality, gather

from pi_sim.errors import UsageError
from pi_sim.network import PRESETS
from pi_sim.sweep.table import EMPTY_RESULT, SweepRow
from tests.helpers import sample_records
from tests.helpers.golden import Golden
from tests.helpers.sample_records import training_record

DESIGNS = {"gelu_ln": (811, 324_000_000), "relu_ln": (707, 282_000_000), "relu_nonorm": (527, 278_000_000)}
"""Rounds and bytes."""
OTHER_TEXT = {"name": "novels", "sha256": "1" * 64, "tokens_seen": 4_915_200}


def answer(model: str, network: str, protocol: str = "crypten") -> SweepRow:
    rounds, sent = DESIGNS[model]
    seconds = PRESETS[network].seconds(rounds, sent)
    return SweepRow(
        model, "tiny", 128, 1, None, False, protocol, None, network, rounds, sent, 197_000_000, None, seconds, None
    )


def refusal(model: str) -> SweepRow:
    return SweepRow._make(
        (model, "tiny", 128, 1, None, False, "bolt", None, "wan", *EMPTY_RESULT, "bolt has no price.")
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
    sample_records.save(folder / f"{name}.json", "training", record)


def changed(model: str, part: str, **values: object) -> dict[str, object]:
    record = training_record(model, 5)
    return {**record, part: {**record[part], **values}}


def worth(folder: Path) -> list[Quality]:
    return gather([folder], [(model, "tiny") for model in DESIGNS])


def test_the_front_of_a_table_made_by_hand() -> None:
    points = {
        "slow and good": (9.0, 1.0),
        "fast and bad": (1.0, 9.0),
        "between": (5.0, 5.0),
        "between, again": (5.0, 5.0),
        "as slow, worse": (5.0, 6.0),
        "as good, slower": (6.0, 5.0),
        "beaten by all": (10.0, 10.0),
    }
    assert front(points) == ["fast and bad", "between", "between, again", "slow and good"]


@given(points=st.dictionaries(st.text(), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_whatever_is_not_on_the_front_is_beaten_by_what_is(points: dict[str, tuple[float, float]]) -> None:
    best = front(points)
    beaten = {name for name, point in points.items() if any(_better(points[each], point) for each in best)}
    assert beaten == set(points) - set(best)


def _better(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] <= other[1] and one != other


def test_only_what_was_trained_alike_is_compared(folder: Path) -> None:
    alike, novels = worth(folder)
    assert {model: seeds.values for model, seeds in alike.perplexities.items()} == {
        "gelu_ln": (20.0, 20.1),
        "relu_ln": (20.4, 20.5),
        "relu_nonorm": (21.0, 21.1),
    }
    assert (alike.size, alike.corpus, alike.tokens) == ("tiny", "packages", 4_915_200)
    assert (novels.corpus, list(novels.perplexities)) == ("novels", ["relu_ln"])


def test_designs_that_diverged_or_have_no_price_are_left_out(folder: Path) -> None:
    for seed in (0, 1):
        save(folder, f"gelu_ln-{seed}", training_record("gelu_ln", seed, held_out=None))
    (folder / "lab" / "copy.json").unlink()
    (found,) = comparisons(ANSWERS, worth(folder))
    assert list(found.designs) == ["relu_ln", "relu_nonorm"]
    assert "- gelu_ln (tiny)" in sweeps.page(ANSWERS, {"a.svg": found})
    unpriced = [refusal("relu_ln"), *(each for each in ANSWERS if each.model != "relu_ln")]
    assert list(comparisons(unpriced, worth(folder))) == []


def test_a_model_with_a_config_has_no_training(folder: Path) -> None:
    assert gather([folder], [("bert-base", "own")]) == []


def test_a_damaged_record_is_named(folder: Path) -> None:
    save(folder, "damaged", training_record("relu_ln"))
    record = json.loads((folder / "damaged.json").read_text(encoding="utf-8"))
    del record["held_out"]
    (folder / "damaged.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UsageError, match=r"damaged\.json has no held_out"):
        worth(folder)


def test_the_page(folder: Path, golden: Golden) -> None:
    stranger = answer("gelu_ln", "lan")._replace(model="bert-base", size="own")
    found = dict(zip(["figures/a.svg"], comparisons(ANSWERS, worth(folder)), strict=True))
    golden("sweep", sweeps.page([*ANSWERS, stranger], found))


def test_a_page_without_perplexities_says_so() -> None:
    assert "so there is nothing to" in sweeps.page(ANSWERS, {})


def test_the_same_answers_draw_the_same_figures(folder: Path, tmp_path: Path) -> None:
    written = sweeps.report(ANSWERS, worth(folder), tmp_path / "page.md")
    first = [path.read_text() for path in written]
    assert [path.name for path in written] == ["page-1.svg", "page.md"]
    assert "figures/page-1.svg" in first[-1]
    assert [path.read_text() for path in sweeps.report(ANSWERS, worth(folder), tmp_path / "page.md")] == first
    assert all(name in first[0] for name in ("lan", "wan", "relu_nonorm", "perplexity"))


def test_a_front_is_one_network_s(folder: Path) -> None:
    (found,) = comparisons(ANSWERS, worth(folder))
    assert found.front("wan") == ["relu_nonorm", "relu_ln", "gelu_ln"]
