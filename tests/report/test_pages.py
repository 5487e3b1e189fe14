"""The page on norm-free models, made of records by hand: text is compared with tests/golden exactly."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pi_sim import records, specs
from pi_sim.cli import main
from pi_sim.errors import UsageError
from pi_sim.report import norm_free, styles
from pi_sim.report.figures import WRONG
from pi_sim.report.pages import render_page, write_norm_free, write_report
from tests.helpers.golden import Golden
from tests.helpers.sample_records import PERPLEXITIES, held_out, run_record, save, training_record

pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.fixture
def full(sources: Path) -> Path:
    """Records of the four designs: two seeds, another recipe and another final norm; a run each, one of them wrong."""
    for model in PERPLEXITIES:
        save(sources / f"run-{model}-tiny-crypten.json", "run", run_record(model))
        for seed in (0, 1):
            save(sources / f"training-{model}-seed{seed}.json", "training", training_record(model, seed))
    broken = run_record("gelu_ln", perplexity={"plain": 21.0, "private": None})
    save(sources / "run-gelu_ln-tiny-crypten.json", "run", broken)
    save(sources / "run-gelu_ln-tiny-crypten_tanh.json", "run", run_record("gelu_ln", "crypten_tanh"))
    kept = {**specs.load_model_card("relu_nonorm").architecture.model_dump(), "final_norm": "layernorm"}
    extra = training_record("relu_nonorm", architecture=kept)
    path = sources / "training-relu_nonorm-final_norm.json"
    save(path, "training", extra, f"train --model relu_nonorm --set final_norm=layernorm --out runs/{path.stem}")
    path = sources / "training-another-init.json"
    command = f"train --model gelu_ln --set init_std=0.02 --out runs/{path.stem}"
    save(path, "training", another_recipe("gelu_ln", 19.0), command)
    return sources


def another_recipe(model: str, perplexity: float) -> dict[str, Any]:
    """A training from smaller weights than the size's recipe has."""
    recipe = {**specs.load_size("tiny").training.model_dump(), "init_std": 0.02}
    return training_record(model, recipe=recipe, held_out=held_out(perplexity))


def page(*sources: Path) -> str:
    """The page without its figures, which take longer to draw than all else."""
    return render_page("norm_free", norm_free.context(norm_free.load(list(sources))), {})


def rows(text: str, *cells: str) -> list[list[str]]:
    """The lines of the page's tables that hold these cells."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return [line for line in lines if set(cells) <= set(line)]


def test_the_page(full: Path, tmp_path: Path, golden: Golden) -> None:
    """All but the last line, which tells the machine."""
    text = write_norm_free([full], tmp_path)[-1].read_text(encoding="utf-8")
    golden("page", text.rpartition("\n\n")[0])


@pytest.mark.slow
def test_the_same_records_make_the_same_bytes(full: Path, tmp_path: Path) -> None:
    first, second = (write_norm_free([full], tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert [path.name for path in first] == [
        *("operations-tiny.svg", "tradeoff-tiny.svg", "loss-tiny.svg"),
        "norm-free.md",
    ]


@pytest.mark.slow
def test_every_figure_is_in_the_page(full: Path, tmp_path: Path) -> None:
    *figures, written = write_norm_free([full], tmp_path)
    text = written.read_text(encoding="utf-8")
    assert all(f"](figures/{figure.name})" in text for figure in figures)


def test_a_run_alone_makes_a_smaller_page(sources: Path, tmp_path: Path) -> None:
    save(sources / "run.json", "run", run_record(agreement=None, perplexity={"plain": None, "private": 9.0}))
    *figures, written = write_report([sources], tmp_path)
    assert [figure.name for figure in figures] == ["operations-tiny.svg"]
    text = written.read_text(encoding="utf-8")
    assert "How far the papers' order holds" not in text
    assert "### Training" not in text


def test_a_training_that_diverged_is_behind_every_other(full: Path) -> None:
    nothing = {"held_out": held_out(None), "loss_curve": [[10, 8.0], [20, None]]}
    for seed in (0, 1):
        record = training_record("relu_nonorm", seed, **nothing)
        save(full / f"training-relu_nonorm-seed{seed}.json", "training", record)
    text = page(full)
    (row,) = rows(text, "relu_nonorm ahead of gelu_nonorm")
    assert row[1] == "overflow and 22.05"
    assert row[-1] == "unlike the published order"


def test_the_main_table_tells_means_over_the_seeds(full: Path) -> None:
    row = rows(page(full), "gelu_nonorm", "none", "crypten")[0]
    assert row[2:5] == ["22.05", "2", "+10.0%"]


def test_another_recipe_has_its_own_table_and_a_warning(full: Path) -> None:
    text = page(full)
    assert rows(text, "init_std 0.02 for 0.05", "gelu_ln", "19.00", "20.05", "-5.2%")
    assert "gelu_ln reaches 19.00 instead of 20.05 with init_std 0.02 for 0.05" in text


def test_what_a_record_adds_to_its_corpus_parts_no_seeds(full: Path) -> None:
    corpus = {**training_record("gelu_ln")["corpus"], "epochs": 0.43}
    save(full / "training-gelu_ln-seed1.json", "training", training_record("gelu_ln", seed=1, corpus=corpus))
    assert rows(page(full), "gelu_ln", "20.05", "2")


def test_a_worse_recipe_is_no_warning(full: Path) -> None:
    save(full / "training-another-init.json", "training", another_recipe("gelu_ln", 25.0))
    text = page(full)
    assert rows(text, "init_std 0.02 for 0.05", "25.00")
    assert "depends on the recipe that they share" not in text


def test_the_recipe_is_told_beside_the_published_numbers(full: Path) -> None:
    text = page(full)
    assert "standard deviation of 0.05, not GPT-2's 0.02" in text
    assert "scale of the embedding that starts at 11.3137 and a learned scale of the logits that starts at 4." in text


def test_privacy_is_told_against_the_same_tokens(full: Path) -> None:
    """23.02 is not what privacy makes of 22.05: on the same tokens the plain model has 23.00."""
    lines = page(full).partition("### Accuracy of private")[0]
    assert rows(lines, "gelu_nonorm", "+0.1%")
    assert rows(lines, "gelu_ln", "crypten", "wrong")


def test_lengths_and_networks_are_kept_apart(full: Path) -> None:
    lead = "one sequence of 128 tokens, measured between two processes on one machine on the imitated network `lan`"
    assert lead in page(full)
    save(full / "run-short.json", "run", run_record(seq_len=64))
    save(full / "run-loopback.json", "run", run_record(network="none"))
    text = page(full)
    overview = text.partition("### Accuracy of private")[0]
    told = [row[6:8] for row in rows(overview, "relu_nonorm", "crypten")]
    assert told == [["64", "lan"], ["128", "lan"], ["128", "none"]]
    assert len(rows(text.partition("Rounds:")[2].partition("###")[0], "relu_nonorm")) == 2


def test_the_commands_make_every_record(full: Path) -> None:
    """A training writes its record in its own folder; the page reads those of a folder of records."""
    lines = page(full).splitlines()
    for path in full.glob("training-*.json"):
        folder = f"runs/{path.stem}"
        assert f"cp {folder}/record.json reports/records/{path.name}" in lines
        assert sum(line.startswith("pi-sim train") and line.endswith(f" --out {folder}") for line in lines) == 1


def test_shipped_weights_are_trained_in_their_place(full: Path) -> None:
    weights = specs.data_root() / "models" / "weights" / "gelu_ln-tiny"
    command = "train --model gelu_ln --seed 7 --out models/weights/gelu_ln-tiny"
    save(weights / "record.json", "training", training_record("gelu_ln", seed=7), command)
    lines = page(full).splitlines()
    assert "pi-sim train --model gelu_ln --seed 7 --out models/weights/gelu_ln-tiny" in lines


def test_parameters_that_folding_adds_are_not_trained(full: Path) -> None:
    for path in full.glob("training-*.json"):
        record = records.load(path)
        save(path, "training", {**record.model_dump(), "trained_parameters": 1_071_872})
    assert "2,048: 1.07 M trained parameters (1.33 M after folding unties the head), trained on" in page(full)


def test_layernorm_is_drawn_for_its_rounds(full: Path) -> None:
    """Its bytes are a sliver of the bar."""
    drawn = styles.svg(norm_free.drawings(norm_free.load([full])[0])["operations-tiny"])
    assert ">layernorm</text>" in drawn
    assert ">rounds</text>" in drawn
    assert ">123</text>" in drawn


def test_a_wrong_result_is_no_ordinary_point(full: Path) -> None:
    size = norm_free.load([full])[0]
    assert {(run.model, run.is_wrong) for run in norm_free.tradeoff_runs(size)} >= {
        ("gelu_ln", True),
        ("relu_ln", False),
    }
    figure = norm_free.drawings(size)["tradeoff-tiny"]()
    assert WRONG in {line.get_marker() for line in figure.axes[0].lines}
    assert "A cross: the private result is wrong." in render_page(
        "norm_free", norm_free.context([size]), ["tradeoff-tiny"]
    )


def test_an_unwritable_place_is_one_sentence(full: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, ["report", "--records", str(full), "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


def test_a_later_folder_overrides(full: Path, tmp_path: Path) -> None:
    changed = run_record("relu_ln", perplexity={"plain": 77.77, "private": 77.77})
    save(tmp_path / "later" / "any-name.json", "run", changed)
    text = page(full, tmp_path / "later")
    assert "any-name.json" in text
    assert "run-relu_ln-tiny-crypten.json" not in text


def test_without_a_run_the_sentence_names_the_command(sources: Path, tmp_path: Path) -> None:
    save(sources / "training.json", "training", training_record("gelu_ln"))
    with pytest.raises(UsageError, match=r"no record of a run in .*; pi-sim run two-party --model relu_nonorm --json"):
        write_report([sources], tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"kind": "run", "version": 2, ', "is not a pi-sim record; make it again or remove it."),
        ('{"kind": "run", "version": 1}', "is a record of version 1, this pi-sim reads version 2; make it again"),
        ("[]", "is not a pi-sim record; make it again or remove it."),
        ('{"kind": "ruin", "version": 2}', "is not a pi-sim record; make it again or remove it."),
        ('{"kind": "run", "version": 2}', "has no model; make it again or remove it."),
    ],
)
def test_a_damaged_record_is_one_sentence(text: str, sentence: str, sources: Path, tmp_path: Path) -> None:
    (sources / "run.json").write_text(text)
    result = CliRunner().invoke(main, ["report", "--records", str(sources), "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert str(sources / "run.json") in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_command_prints_the_page_last(full: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", "--records", str(full), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == str(tmp_path / "out" / "norm-free.md")
