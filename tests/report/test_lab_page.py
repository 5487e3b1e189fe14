"""The lab's page, made of records by hand."""

import json
import math
from pathlib import Path
from typing import Any

import click
import pytest
from pi_sim.reporting.figures import recovery
from pi_sim.reporting.lab import causes, conversion, entropy, findings, learned, page, quality, sparsity
from pi_sim.reporting.lab.findings import Lab
from pi_sim.reporting.recorded import Training

from pi_sim import records, specs
from pi_sim.cli import main
from pi_sim.errors import UsageError
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


def save(folder: Path, name: str, record: dict[str, Any], kind: str = "training") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"kind": kind, "version": records.VERSION, **record, **MACHINE})
    (folder / f"{name}.json").write_text(text)


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
    save(folder, "gelu_nonorm-unscaled-seed0", unscaled)
    design = {**training("dyt_gelu")["architecture"], "alpha_other": 4.0}
    save(folder, "dyt_gelu-alpha4-seed0", training("dyt_gelu", architecture=design))
    side = {**held_out(20.0), "sample": {"sequences": 32, "loss": 3.0}}
    history = {
        "model": "stage1", "source": "gelu_ln-tiny", "kind": "conversion", "surgery": {"activation": "relu"},
        "before": side, "after": held_out(80.0),
    }  # fmt: skip
    converted = {**training("gelu_ln")["architecture"], "activation": "relu"}
    save(folder, "stage1-finetuned", training("gelu_ln", architecture=converted, origin=history))
    control = {"model": "gelu_ln-tiny", "kind": "training", "held_out": side}
    save(folder, "control-finetuned", training("gelu_ln", origin=control))
    zeros = {"qkv": [0.0, 0.0], "up": [0.0, 0.0], "down": [0.5, 0.7]}
    chosen = {"size": "own", "seq_len": 64, "sequences": 32, "protocol": "crypten_tanh", "text": "held-out"}
    flops = {"per_token": 100, "saved": 20.0, "share": 0.2}
    seen = {"model": "runs/relu_ln-seed0", **chosen, "sparsity": zeros, "flops": flops, **UNREAD}
    save(folder, "diagnosis-relu_ln-seed0", seen, "diagnosis")
    save(folder, "estimate-gelu_ln", estimate("gelu_ln").to_json(), "estimate")
    found = findings.gather([tmp_path / "records"])
    assert found is not None
    return found


@pytest.mark.slow
def test_the_page(lab: Lab, tmp_path: Path, golden: Golden) -> None:
    written = page.report([tmp_path / "records"], tmp_path / "out")
    text = written[-1].read_text(encoding="utf-8")
    golden("lab", text)
    assert {path.stem for path in written[:-1]} == {
        f"lab-{name}" for name in ("quality", "entropy", "entropy-along", "changed", "slopes", "recovery")
    }
    again = page.report([tmp_path / "records"], tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_every_command_of_the_page_is_one_that_pi_sim_knows(lab: Lab) -> None:
    lines = [line.strip() for line in page.provenance.commands(lab).splitlines() if line.strip().startswith("pi-sim")]
    assert len(lines) > 10
    for line in lines:
        name, *words = line.replace("$seed", "0").partition(">")[0].split()[1:]
        command = main.commands[name]
        assert isinstance(command.make_context(name, words), click.Context)


def test_designs_are_compared_by_the_recipe_that_most_share(lab: Lab) -> None:
    assert list(lab.compared) == [
        *("gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm", "lrelu_nonorm", "softmax_only", "dyt_gelu")
    ]
    assert len(lab.changed) == 2
    assert len(lab.conversions) == 2


def test_what_was_changed_is_told_against_the_same_design(lab: Lab) -> None:
    table = causes.table(lab)
    assert "logit_scale none for 4" in table
    assert "alpha_other 4 for 1" in table
    assert [title for title, _ in causes.matrices(lab)] == ["dyt_gelu\nalpha_other 4", "gelu_nonorm\nlogit_scale none"]


def test_a_claim_is_judged_by_its_seeds(lab: Lab) -> None:
    table = quality.claims(lab)
    assert "| gelu_ln ahead of relu_ln" in table
    assert table.count("as published; ranges apart, by chance in 2 of 6") == 5
    assert "softmax_only" not in table


def test_a_training_that_diverged_has_no_perplexity_and_no_heads(lab: Lab) -> None:
    assert "diverged, 1 of 1" in quality.table(lab)
    assert "softmax_only" not in entropy.table(lab)
    assert "softmax_only" not in [title for title, _ in entropy.matrices(lab)]


@pytest.mark.parametrize(
    ("gelu", "relu", "verdict"),
    [
        ((0.95, 0.96), (0.85, 0.86), "every seed shows what the papers report"),
        ((0.85, 0.86), (0.95, 0.96), "the opposite of what the papers report"),
        ((0.85, 0.96), (0.86, 0.95), "do not decide it"),
        ((0.30, 0.31), (0.20, 0.21), "do not decide it"),
        ((0.95,), (0.85,), "of one seed"),
    ],
)
def test_overload_is_said_to_be_found_only_where_every_seed_shows_it(
    gelu: tuple[float, ...], relu: tuple[float, ...], verdict: str, tmp_path: Path
) -> None:
    for model, ends in (("gelu_ln", (0.5,)), ("gelu_nonorm", gelu), ("relu_nonorm", relu)):
        for seed, end in enumerate(ends):
            save(tmp_path / "lab", f"{model}-seed{seed}", training(model, seed, observations=observations(end)))
    found = findings.gather([tmp_path])
    assert found is not None
    assert verdict in entropy.verdict(found)


def test_what_diverged_leaves_the_claim_open(lab: Lab) -> None:
    lost = [each for each in lab.trainings if each.model != "relu_nonorm"]
    for each in lab.compared["relu_nonorm"]:
        record = {**each.record, "held_out": None, "observations": each.record["observations"][:2]}
        lost.append(Training(each.path, record, False))
    assert entropy.verdict(Lab(lost, [], {})) == ""


def test_another_size_is_a_change_of_its_own(lab: Lab) -> None:
    usual = lab.first("gelu_ln").record
    larger = {**usual, "dimensions": {**usual["dimensions"], "layers": 12}}
    other = {**usual, "corpus": {**usual["corpus"], "name": "stdlib", "sha256": "1" * 64}}
    changed = [Training(Path(f"{number}.json"), record, False) for number, record in enumerate((larger, other))]
    table = causes.table(Lab([*lab.trainings, *changed], [], {}))
    assert "layers 12 for 4" in table
    assert "corpus stdlib for packages" in table


def test_a_claim_is_told_with_what_was_changed(lab: Lab) -> None:
    assert causes.claims(lab) == ""
    worth = {"gelu_ln": 30.0, "relu_ln": 27.0}
    changed = [
        Training(Path(f"{model}.json"), {**record, "recipe": {**record["recipe"], "init_std": 0.5}}, False)
        for model, record in ((model, with_perplexity(lab.first(model).record, worth[model])) for model in worth)
    ]
    found = causes.claims(Lab([*lab.trainings, *changed], [], {}))
    cells = [cell.strip() for cell in found.splitlines()[2].split("|")[1:-1]]
    assert cells == ["init_std 0.5 for 0.05", "gelu_ln ahead of relu_ln", "+2.5%", "+2.0%", "-10.0%"]


def with_perplexity(record: dict[str, Any], perplexity: float) -> dict[str, Any]:
    return {**record, "held_out": {**record["held_out"], "perplexity": perplexity}}


def test_commands_name_what_is_not_the_default(lab: Lab) -> None:
    first = lab.first("gelu_ln").record
    record = {**first, "size": "gpt2", "corpus": {**first["corpus"], "name": "stdlib"}}
    other = Lab([*lab.trainings, Training(Path("large-seed0.json"), record, False)], lab.diagnoses, lab.estimates)
    found = page.provenance.commands(other)
    assert "--model gelu_ln --seed $seed --size gpt2 --corpus stdlib" in found
    assert "--model runs/relu_ln-seed0 --seq-len 64 --protocol crypten_tanh --json" in found


def test_a_conversion_beyond_all_numbers_is_drawn(lab: Lab) -> None:
    record = {**lab.conversions[0].record, "observations": observations(0.5, held_out_loss=800.0)}
    assert conversion.recoveries(Lab([Training(Path("x.json"), record, False)], [], {}))[0].perplexities[0] == math.inf


def test_more_conversions_than_colours_are_all_drawn() -> None:
    many = [recovery.Recovery(str(number), 20.0, [0, 10], [80.0, 21.0]) for number in range(8)]
    assert len(recovery.recoveries(many).axes[0].get_legend_handles_labels()[1]) == 8


def test_without_the_baseline_there_is_a_sentence(tmp_path: Path) -> None:
    save(tmp_path / "lab", "relu_ln-seed0", training("relu_ln"))
    with pytest.raises(UsageError, match="no training of gelu_ln to compare with"):
        findings.gather([tmp_path])


def test_conversions_are_told_from_training_on(lab: Lab) -> None:
    rows = [line.split("|")[1:-1] for line in conversion.table(lab).splitlines()[2:]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["gelu_ln-tiny", "none, to compare", "20.00", "", "4,915,200", "20.00", "+0.0%"],
        ["gelu_ln-tiny", "activation relu", "20.00", "80.00", "4,915,200", "20.00", "+0.0%"],
    ]


def test_slopes_alphas_and_zeros_are_told(lab: Lab) -> None:
    assert "end between 0.013 and 0.250 in size" in learned.slopes(lab)
    assert "2.00 to 2.00 times 1 / std" in learned.alphas(lab)
    assert "60.0" in sparsity.table(lab)


def test_without_trainings_there_is_no_page(tmp_path: Path) -> None:
    assert page.report([tmp_path], tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"model": "x"}'])
def test_an_estimate_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "estimate-x.json").write_text(text)
    with pytest.raises(UsageError, match=r"estimate-x\.json is not a pi-sim record"):
        findings.gather([tmp_path])
