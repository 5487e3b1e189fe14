"""The lab's page, made of records by hand."""

import json
import math
from pathlib import Path
from typing import Any

import click
import pytest

from pi_sim import records, specs
from pi_sim.cli import main
from pi_sim.errors import UsageError
from pi_sim.records import TrainingRecord
from pi_sim.report import figures, model_lab, norm_free
from pi_sim.report.figures import Recovery
from pi_sim.report.model_lab import Lab
from pi_sim.report.pages import render_page, write_lab
from tests.helpers.golden import Golden
from tests.helpers.sample_records import estimate, held_out, training_record

WORTH = {"gelu_ln": 20.0, "relu_ln": 20.4, "gelu_nonorm": 22.0, "relu_nonorm": 21.0, "dyt_gelu": 24.0}
FIRST_LAYER = {"gelu_nonorm": 0.95, "relu_nonorm": 0.85}
MACHINE = {"versions": {"torch": "1"}, "machine": {"cpu": "a processor", "cores": 2, "system": "Linux"}}


UNREAD = {
    **{"entropy": [], "entropy_share": [], "overload": 0.0, "collapse": 0.0, "non_finite": {"nan": [], "inf": []}},
    **{"histograms": [], "by_layer": {"overload": [], "collapse": []}, "ranges": [], "truncations": [], "missing": []},
}
"""Fields of a diagnosis that the page does not read."""


def observations(first: float, **more: Any) -> list[dict[str, Any]]:
    """Four looks into two layers of two heads; layer 0 ends at `first` of its maximum entropy."""
    return [
        {
            "step": step,
            "tokens": step * 4096,
            "held_out_loss": 4.0 - step / 100,
            "entropy": [[3.0, 3.0], [2.0, 2.0]],
            "overload": 0.0,
            "collapse": 0.0,
            "non_finite": {"nan": [0, 0], "inf": [0, 0]},
            "entropy_share": [[1 - (1 - first) * step / 90] * 2, [0.5, 0.6]],
            **more,
        }
        for step in (0, 30, 60, 90)
    ]


def training(model: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
    worth = WORTH.get(model, 23.0) + seed / 10
    held_out = {"perplexity": worth, "bits_per_byte": 1.7, "tokens": 651_129, "sample": {"sequences": 32, "loss": 3.0}}
    found = observations(FIRST_LAYER.get(model, 0.8))
    known = "gelu_ln" if model not in WORTH or model == "dyt_gelu" else model
    record = training_record(known, seed, card=model, held_out=held_out, observations=found, seconds=360.0, threads=1)
    return {**record, "architecture": specs.load_model_card(model).architecture.model_dump(mode="json"), **changes}


def recipe(**changes: Any) -> dict[str, Any]:
    return {**training_record("gelu_ln")["recipe"], **changes}


def save(
    folder: Path,
    name: str,
    record: dict[str, Any],
    kind: str = "training",
    command: str | None = None,
    settings: str = "",
) -> None:
    """Write a record made by a command; by default that of its training from scratch, with settings."""
    folder.mkdir(parents=True, exist_ok=True)
    if command is None:
        command = f"train --model {record['card']} --seed {record['seed']}{settings} --out runs/{name}"
    envelope = {"kind": kind, "version": records.VERSION, "argv": ["pi-sim", *command.split()]}
    (folder / f"{name}.json").write_text(json.dumps({**envelope, **record, **MACHINE}))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Five designs by two seeds, one that diverged, two with something changed, two conversions and a control."""
    folder = tmp_path / "records" / "lab"
    for model in WORTH:
        alphas = {"alphas": [{"module": "a", "alpha": 2.0, "inverse_std": 1.0}]} if model == "dyt_gelu" else {}
        for seed in (0, 1):
            seen = observations(FIRST_LAYER.get(model, 0.8) + seed / 100, **alphas)
            save(folder, f"{model}-seed{seed}", training(model, seed, observations=seen))
    slopes = observations(0.8, slopes=[0.0125, -0.25])
    save(folder, "lrelu_nonorm-seed0", training("lrelu_nonorm", observations=slopes))
    lost = {"held_out": None, "diverged": {"step": 30}, "observations": observations(1.0)[:2]}
    save(folder, "softmax_only-seed0", training("softmax_only", **lost))
    unscaled = training("gelu_nonorm", recipe=recipe(logit_scale=None), observations=observations(0.99))
    save(folder, "gelu_nonorm-unscaled-seed0", unscaled, settings=" --set logit_scale=none")
    design = {**training("dyt_gelu")["architecture"], "alpha_other": 4.0}
    save(folder, "dyt_gelu-alpha4-seed0", training("dyt_gelu", architecture=design), settings=" --set alpha_other=4.0")
    side = {**held_out(20.0), "sample": {"sequences": 32, "loss": 3.0}}
    history = {
        "model": "stage1", "source": "gelu_ln-tiny", "kind": "conversion", "surgery": {"activation": "relu"},
        "before": side, "after": held_out(80.0),
        "argv": ["pi-sim", "convert", "models/weights/gelu_ln-tiny", "--activation", "relu", "--out", "runs/stage1"],
    }  # fmt: skip
    converted = {**training("gelu_ln")["architecture"], "activation": "relu"}
    command = "train --from runs/stage1 --tokens 4915200 --out runs/stage1-finetuned"
    save(folder, "stage1-finetuned", training("gelu_ln", architecture=converted, origin=history), command=command)
    control = {"model": "gelu_ln-tiny", "kind": "training", "held_out": side}
    command = "train --from models/weights/gelu_ln-tiny --tokens 4915200 --out runs/control-finetuned"
    save(folder, "control-finetuned", training("gelu_ln", origin=control), command=command)
    zeros = {"qkv": [0.0, 0.0], "up": [0.0, 0.0], "down": [0.5, 0.7]}
    chosen = {"size": "own", "seq_len": 64, "sequences": 32, "protocol": "crypten_tanh", "text": "held-out"}
    flops = {"per_token": 100, "saved": 20.0, "share": 0.2}
    seen = {"model": "runs/relu_ln-seed0", **chosen, "sparsity": zeros, "flops": flops, **UNREAD}
    options = "--model runs/relu_ln-seed0 --seq-len 64 --protocol crypten_tanh"
    command = f"diagnose {options} --json reports/records/lab/diagnosis-relu_ln-seed0.json"
    save(folder, "diagnosis-relu_ln-seed0", seen, "diagnosis", command)
    save(
        folder, "estimate-gelu_ln", estimate("gelu_ln").to_json(), "estimate", "estimate --model gelu_ln --format json"
    )
    return load(tmp_path / "records")


def load(folder: Path) -> Lab:
    loaded = model_lab.load([folder])
    assert loaded is not None
    return loaded


def page(lab: Lab) -> str:
    """The page without its figures."""
    return render_page("model_lab", model_lab.context(lab), {})


def again(folder: Path, name: str, record: TrainingRecord, **changes: Any) -> None:
    """Write a record once more, with changes."""
    table = json.loads(records.dumps(record))
    save(folder, name, {**table, **changes}, command=" ".join(table["argv"][1:]))


@pytest.mark.slow
def test_the_page(lab: Lab, tmp_path: Path, golden: Golden) -> None:
    written = write_lab([tmp_path / "records"], tmp_path / "out")
    golden("lab", written[-1].read_text(encoding="utf-8").rstrip("\n"))
    assert {path.stem for path in written[:-1]} == {
        f"lab-{name}" for name in ("quality", "entropy", "entropy-along", "changed", "slopes", "recovery")
    }
    repeated = write_lab([tmp_path / "records"], tmp_path / "again")
    assert [path.read_bytes() for path in repeated] == [path.read_bytes() for path in written]


def test_every_command_of_the_page_is_one_that_pi_sim_knows(lab: Lab) -> None:
    commands = model_lab.context(lab)["commands"]
    lines = [line.strip() for line in commands if line.strip().startswith("pi-sim")]
    assert len(lines) > 10
    for line in lines:
        name, *words = line.replace("$seed", "0").partition(">")[0].split()[1:]
        command = main.commands[name]
        assert isinstance(command.make_context(name, words), click.Context)


def test_designs_are_compared_by_the_recipe_that_most_share(lab: Lab) -> None:
    assert list(lab.groups) == [
        *("gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm", "lrelu_nonorm", "softmax_only", "dyt_gelu")
    ]
    assert len(lab.changed) == 2
    assert len(lab.conversions) == 2


def test_a_change_is_described_against_the_same_design(lab: Lab) -> None:
    assert [lab.changes(group) for group in lab.changed] == [["alpha_other 4 for 1"], ["logit_scale none for 4"]]
    titles = [title for title, _ in model_lab.changed_maps(lab)]
    assert titles == ["dyt_gelu\nalpha_other 4", "gelu_nonorm\nlogit_scale none"]


def test_a_claim_is_judged_by_its_seeds(lab: Lab) -> None:
    claims = {row["claim"]: row["verdict"] for row in model_lab.context(lab)["claims"]}
    chance = "ranges apart, by chance in 2 of 6"
    assert len(claims) == 5
    assert claims["gelu_ln ahead of relu_ln"] == f"similar size; {chance}"
    assert claims["gelu_ln ahead of dyt_gelu"] == f"same sign, far larger; {chance}"


def test_a_training_that_diverged_has_no_perplexity_and_no_heads(lab: Lab) -> None:
    context = model_lab.context(lab)
    assert {row["model"]: row["mean"] for row in context["quality"]}["softmax_only"] == "diverged, 1 of 1"
    assert "softmax_only" not in list(context["entropy"]["model"])


@pytest.mark.parametrize(
    ("gelu", "relu", "verdict"),
    [
        ((0.95, 0.96), (0.85, 0.86), "Every seed shows more with GELU, as the papers report."),
        ((0.85, 0.86), (0.95, 0.96), "Every seed shows the opposite of what the papers report."),
        ((0.85, 0.95), (0.86, 0.96), "the seeds do not show what the papers report"),
        ((0.95,), (0.85,), "One seed decides nothing."),
    ],
)
def test_overload_is_reported_only_where_every_seed_shows_it(
    gelu: tuple[float, ...], relu: tuple[float, ...], verdict: str, tmp_path: Path
) -> None:
    for model, ends in (("gelu_ln", (0.5,)), ("gelu_nonorm", gelu), ("relu_nonorm", relu)):
        for seed, end in enumerate(ends):
            save(tmp_path / "lab", f"{model}-seed{seed}", training(model, seed, observations=observations(end)))
    text = page(load(tmp_path))
    assert verdict in text
    assert ("**not reproduced**" in text) == (min(gelu) < max(relu))


def test_trainings_that_diverged_leave_the_claim_open(lab: Lab, tmp_path: Path) -> None:
    for seed, record in enumerate(lab.groups["relu_nonorm"]["record"]):
        again(tmp_path / "records" / "lab", f"relu_nonorm-seed{seed}", record, held_out=None)
    assert model_lab.context(load(tmp_path / "records"))["overload"] is None


def test_another_size_or_text_is_a_change_of_its_own(lab: Lab, tmp_path: Path) -> None:
    folder, usual = tmp_path / "records" / "lab", lab.first["gelu_ln"]
    again(folder, "larger", usual, dimensions={**usual.dimensions.model_dump(), "layers": 12})
    again(folder, "other", usual, corpus={"name": "stdlib", "sha256": "1" * 64, "tokens_seen": 4_915_200})
    changes = [row["changed"] for row in model_lab.context(load(tmp_path / "records"))["causes"]]
    assert "layers 12 for 4" in changes
    assert "corpus stdlib for packages, text 11111111 for 00000000" in changes


def test_a_claim_is_repeated_with_what_was_changed(lab: Lab, tmp_path: Path) -> None:
    assert [row["claim"] for row in model_lab.context(lab)["changed_claims"]] == ["gelu_ln ahead of dyt_gelu"]
    for model, perplexity in {"gelu_ln": 30.0, "relu_ln": 27.0}.items():
        usual = lab.first[model]
        changes = {"recipe": {**usual.recipe.model_dump(), "init_std": 0.5}, "held_out": held_out(perplexity)}
        again(tmp_path / "records" / "lab", f"{model}-init5", usual, **changes)
    (_, row) = model_lab.context(load(tmp_path / "records"))["changed_claims"]
    cells = [row[key] for key in ("changed", "claim", "published", "usual", "here")]
    assert cells == ["init_std 0.5 for 0.05", "gelu_ln ahead of relu_ln", "+2.5%", "+2.0%", "-10.0%"]


def test_a_conversion_whose_loss_overflows_is_drawn(lab: Lab) -> None:
    _, record, origin = lab.conversions[0]
    overflow = record.observations[0].model_copy(update={"held_out_loss": 800.0})
    recovery = model_lab.recovery(record.model_copy(update={"observations": (overflow,)}), origin)
    assert recovery.perplexities == {0: math.inf}


def test_more_conversions_than_colours_are_all_drawn() -> None:
    many = [Recovery(str(number), 20.0, {0: 80.0, 10: 21.0}) for number in range(8)]
    assert len(figures.recoveries(many).axes[0].get_legend_handles_labels()[1]) == 8


def test_without_the_baseline_there_is_a_sentence(tmp_path: Path) -> None:
    save(tmp_path / "lab", "relu_ln-seed0", training("relu_ln"))
    with pytest.raises(UsageError, match="no training of gelu_ln to compare with"):
        model_lab.load([tmp_path])


def test_conversions_are_distinguished_from_further_training(lab: Lab) -> None:
    rows = [
        [row[key] for key in ("surgery", "before", "after", "end", "against_control")]
        for row in model_lab.context(lab)["conversions"]
    ]
    assert rows == [["none (control)", 20.0, None, 20.0, ""], ["activation relu", 20.0, 80.0, 20.0, "+0.0%"]]


def test_a_conversion_with_other_tokens_has_no_control(lab: Lab, tmp_path: Path) -> None:
    _, record, _ = lab.conversions[1]
    corpus = {**record.corpus.model_dump(), "tokens_seen": 8192}
    again(tmp_path / "records" / "lab", "stage1-finetuned", record, corpus=corpus)
    (_, row) = model_lab.context(load(tmp_path / "records"))["conversions"]
    assert row["against_control"] == "no control"


def test_a_claim_of_another_size_names_what_brings_it_closer(lab: Lab, tmp_path: Path) -> None:
    (path,) = (path for path, group in lab.trainings.groupby("path") if path.name == "dyt_gelu-alpha4-seed0.json")
    again(path.parent, path.stem, records.load(path, TrainingRecord), held_out=held_out(21.0))
    claims = {row["claim"]: row for row in model_lab.context(load(tmp_path / "records"))["claims"]}
    assert claims["gelu_ln ahead of dyt_gelu"]["closer"] == "alpha_other 4 for 1: +4.7%"
    assert claims["gelu_ln ahead of relu_ln"]["closer"] == ""


@pytest.mark.parametrize(
    ("inverse_stds", "correlations"),
    [((1.0, 2.0, 3.0), [1.0]), ((3.0, 2.0, 1.0), [-1.0]), ((1.0, 1.0, 1.0), []), ((1.0, None, None), [])],
)
def test_alpha_is_correlated_with_its_input(
    inverse_stds: tuple[float | None, ...], correlations: list[float], tmp_path: Path
) -> None:
    alphas = [{"module": "a", "alpha": 1.0 + i, "inverse_std": std} for i, std in enumerate(inverse_stds)]
    save(tmp_path / "lab", "gelu_ln-seed0", training("gelu_ln"))
    save(tmp_path / "lab", "dyt_gelu-seed0", training("dyt_gelu", observations=observations(0.8, alphas=alphas)))
    assert model_lab.context(load(tmp_path))["alpha_correlations"] == pytest.approx(correlations)


def test_slopes_alphas_and_zeros(lab: Lab) -> None:
    context = model_lab.context(lab)
    assert context["slope_ends"] == [0.0125, 0.25]
    assert context["alpha_ratios"] == [2.0, 2.0]
    assert context["sparsity"] == [{"model": "relu_ln-seed0", "qkv": 0.0, "up": 0.0, "down": 0.6, "saved": 0.2}]


def test_the_figure_of_the_readme_needs_runs_of_every_design(lab: Lab) -> None:
    assert norm_free.readme_drawings([], lab) == {}


def test_without_trainings_there_is_no_page(tmp_path: Path) -> None:
    assert write_lab([tmp_path], tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"model": "x"}'])
def test_a_file_that_is_no_record_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "estimate-x.json").write_text(text)
    with pytest.raises(UsageError, match=r"estimate-x\.json is not a pi-sim record"):
        model_lab.load([tmp_path])
