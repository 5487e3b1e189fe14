"""Training: its checkpoint and record, its recipe, and the observations during training."""

import importlib.util
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import CausalLMOutput

from pi_sim import records
from pi_sim.diagnosis import diagnose
from pi_sim.errors import UsageError
from pi_sim.training import callbacks, corpus, entropy_penalty, evaluation, plan
from pi_sim.training import train as training
from pi_sim.zoo import build, scales
from tests.helpers.small_training import STEPS, make_plan, read_weights, train

# The training


@pytest.mark.slow
def test_a_checkpoint_is_complete(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "record.json",
    }
    assert {weight.dtype for weight in read_weights(trained).values()} == {torch.float16}
    record = records.load(trained / "record.json")
    assert [step for step, _ in record.loss_curve] == list(range(1, STEPS + 1))
    assert record.corpus.tokens_seen == 1280
    assert record.seconds > 0
    assert record.threads == torch.get_num_threads()
    assert record.parameters - record.trained_parameters == 300 * 16  # the head, tied while it was trained


@pytest.mark.slow
def test_more_than_one_pass_over_the_corpus_is_reported(trained: Path, size: str, texts: Path, tmp_path: Path) -> None:
    assert records.load(trained / "record.json").corpus.epochs < 1
    result = train(size, texts, tmp_path / "out", "--tokens", "14000")
    assert "14,080 tokens are 1.1 passes" in result.stderr
    assert records.load(tmp_path / "out" / "record.json").corpus.epochs > 1


@pytest.mark.slow
def test_a_training_that_diverges_ends_early_and_its_record_says_so(size: str, texts: Path, tmp_path: Path) -> None:
    result = train(size, texts, tmp_path / "out", "--set", "learning_rate=1e30")
    record = records.load(tmp_path / "out" / "record.json")
    step = record.diverged.step
    assert step < STEPS
    assert (record.loss_curve[-1], record.held_out) == ((step, None), None)
    assert None not in [loss for _, loss in record.loss_curve[:-1]]
    assert record.corpus.tokens_seen == 128 * step
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'out'}: diverged at step {step}\n"
    assert f"diverged: its loss at step {step} of 10 is not finite" in result.stderr
    assert not all(weight.isfinite().all() for weight in read_weights(tmp_path / "out").values())


@pytest.mark.slow
def test_a_divergence_at_the_last_step_is_recorded(size: str, texts: Path, tmp_path: Path) -> None:
    train(size, texts, tmp_path / "out", "--set", "learning_rate=1e30", "--tokens", "128")
    assert records.load(tmp_path / "out" / "record.json").diverged.step == 1


@pytest.mark.slow
def test_weights_beyond_float16_are_stored_in_float32(
    size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow = partial(torch.nn.init.constant_, val=70_000.0)
    build_small = build.build_model
    monkeypatch.setattr(
        plan, "build_model", lambda *of: _with(build_small(*of), "transformer.h.0.mlp.c_proj.bias", grow)
    )
    result = train(size, texts, tmp_path / "out")
    assert "holds float32" in result.stderr
    assert {weight.dtype for weight in read_weights(tmp_path / "out").values()} == {torch.float32}
    record = records.load(tmp_path / "out" / "record.json")
    ids = evaluation.held_out_chunks(corpus.load_tokenizer(tmp_path / "out"), corpus.load_corpus(str(texts)), 16)
    assert evaluation.mean_loss(build.load_checkpoint(tmp_path / "out"), ids) == pytest.approx(
        record.held_out.loss, rel=1e-5
    )


def _with(model: torch.nn.Module, name: str, change: Callable[[torch.Tensor], object]) -> torch.nn.Module:
    change(model.get_parameter(name))
    return model


# The recipe


DECAYS = {"linear": lambda left: left, "polynomial": lambda left: left**2, "cosine": lambda left: _cosine(left)}


def _cosine(left: float) -> float:
    return (1 + math.cos(math.pi * (1 - left))) / 2


@pytest.mark.slow
@pytest.mark.parametrize("schedule", DECAYS)
def test_a_schedule_decays_to_zero_after_its_warm_up(
    schedule: str, size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []
    monkeypatch.setattr(callbacks.ProgressBarCallback, "_print_line", lambda self, state: rates.append(_rate(state)))
    train(size, texts, tmp_path / "out", "--set", f"schedule={schedule}", "--set", "warmup_ratio=0.2")
    left = [(STEPS - step) / (STEPS - 2) for step in range(2, STEPS)]
    assert rates == pytest.approx([0.0, 5e-4, *(1e-3 * DECAYS[schedule](share) for share in left)])


def _rate(state: object) -> float:
    return float(state.log_history[-1]["learning_rate"])


def test_matrices_decay_and_gains_do_not(size: str, texts: Path) -> None:
    chosen = make_plan(size, texts, "norm=dyt", "temperature=true", "entropy_penalty=1e-5")
    model = entropy_penalty.make_trainable(chosen.build_model(), chosen.recipe)
    decayed, free = (group["params"] for group in training._make_optimizer(chosen, model).param_groups)
    named = {id(weight): name for name, weight in model.named_parameters()}
    names = [named[id(weight)] for weight in decayed]
    assert len(names) == 6  # two tables, and the matrices of the one layer
    assert all(name.endswith(".weight") for name in names)
    assert len(decayed) + len(free) == len(list(model.parameters()))


def test_the_recipe_sets_adam_s_beta2(size: str, texts: Path) -> None:
    for settings, beta2 in (((), 0.999), (("adam_beta2=0.95",), 0.95)):
        chosen = make_plan(size, texts, *settings)
        groups = training._make_optimizer(
            chosen, entropy_penalty.make_trainable(chosen.build_model(), chosen.recipe)
        ).param_groups
        assert {group["betas"] for group in groups} == {(0.9, beta2)}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt", "llama"])
def test_embedding_dropout_applies_in_every_family(family: str, size: str, texts: Path) -> None:
    """In training mode only, and not twice."""
    native = "rmsnorm" if family == "llama" else "layernorm"
    design = (f"family={family}", f"norm={native}", f"final_norm={native}")
    for rate in (0.5, 0.0):
        chosen = make_plan(size, texts, *design, f"embedding_dropout={rate}")
        model = entropy_penalty.make_trainable(chosen.build_model(), chosen.recipe)
        assert len({seeded_loss(model.train(), seed) for seed in (0, 1)}) == (2 if rate else 1)
        assert len({seeded_loss(model.eval(), seed) for seed in (0, 1)}) == 1
        assert [model.embedding_dropout, getattr(model.model.config, "embd_pdrop", 0.0)].count(rate) == (
            1 if rate else 2
        )


def seeded_loss(model: scales.ScaledModel, seed: int) -> float:
    torch.manual_seed(seed)
    return float(model(torch.arange(16).repeat(8, 1)).loss.detach())


@pytest.mark.slow
def test_bfloat16_trains_to_nearly_the_same_model(trained: Path, size: str, texts: Path, tmp_path: Path) -> None:
    train(size, texts, tmp_path / "out", "--set", "bf16=true")
    exact, rounded = (records.load(folder / "record.json") for folder in (trained, tmp_path / "out"))
    assert rounded.loss_curve != exact.loss_curve
    assert rounded.held_out.loss == pytest.approx(exact.held_out.loss, rel=0.01)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what fp16 needs")
def test_float16_without_a_gpu_is_refused(size: str, texts: Path, tmp_path: Path) -> None:
    result = train(size, texts, tmp_path / "out", "--set", "fp16=true")
    assert (result.exit_code, "fp16 needs a CUDA GPU" in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="fp16 needs a CUDA GPU")
def test_float16_trains_to_nearly_the_same_model(trained: Path, size: str, texts: Path, tmp_path: Path) -> None:
    assert train(size, texts, tmp_path / "out", "--set", "fp16=true").exit_code == 0
    exact, rounded = (records.load(folder / "record.json") for folder in (trained, tmp_path / "out"))
    assert rounded.held_out.loss == pytest.approx(exact.held_out.loss, rel=0.01)


def test_training_without_accelerate_names_the_extra(
    size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "accelerate" else find_spec(name))
    result = train(size, texts, tmp_path / "out")
    assert (result.exit_code, "pip install 'pi-sim[train]'" in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_two_kinds_of_mixed_precision_are_refused(size: str, texts: Path, tmp_path: Path) -> None:
    result = train(size, texts, tmp_path / "out", "--set", "fp16=true", "--set", "bf16=true")
    assert (result.exit_code, "fp16 and bf16 exclude each other" in result.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [8, 320])
def test_every_step_trains_on_a_full_batch_in_every_pass(
    batch: int, size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_counts, forward = [], scales.ScaledModel.forward

    def count(model: scales.ScaledModel, input_ids: torch.Tensor) -> object:
        token_counts.append(input_ids.numel() if model.training else 0)
        return forward(model, input_ids)

    monkeypatch.setattr(scales.ScaledModel, "forward", count)
    result = train(size, texts, tmp_path / "out", "--tokens", "16000", "--set", f"batch_size={batch}")
    assert "passes over" in result.stderr
    assert sum(token_counts) == records.load(tmp_path / "out" / "record.json").corpus.tokens_seen


@pytest.mark.parametrize(
    ("batch", "length", "parts"),
    [(32, 128, 1), (512, 128, 16), (48, 128, 2), (8, 1024, 2), (7, 1024, 7), (1000, 4096, 1000), (2, 10_000, 2)],
)
def test_a_batch_is_cut_into_equal_parts_that_fit_into_memory(batch: int, length: int, parts: int) -> None:
    assert training._accumulation_steps(batch, length) == parts


def test_long_texts_are_evaluated_in_small_batches() -> None:
    batch_sizes: list[int] = []

    class Uniform(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, ids: torch.Tensor, use_cache: bool) -> CausalLMOutput:
            batch_sizes.append(len(ids))
            return CausalLMOutput(logits=torch.zeros(*ids.shape, 8))

    assert evaluation.mean_loss(Uniform(), torch.zeros(5, 2048, dtype=torch.int64)) == pytest.approx(math.log(8))
    assert evaluation.mean_loss(Uniform(), torch.zeros(40, 128, dtype=torch.int64)) == pytest.approx(math.log(8))
    assert batch_sizes == [2, 2, 1, 32, 8]
    assert [callbacks.chunk_limit(torch.zeros(32, length)) for length in (16, 128, 1024, 8192)] == [8, 8, 4, 1]


# Observations during training


def test_a_training_is_observed_from_its_first_step_to_its_last(trained: Path) -> None:
    record = records.load(trained / "record.json")
    observations = record.observations
    assert [row.step for row in observations] == list(range(STEPS + 1))
    assert [row.tokens for row in observations] == [128 * row.step for row in observations]
    assert observations[-1].held_out_loss == pytest.approx(record.held_out.sample.loss, rel=1e-4)
    assert observations[-1].held_out_loss < observations[0].held_out_loss
    assert {(len(row.entropy), len(row.entropy[0])) for row in observations} == {(1, 2)}  # layers, heads


@pytest.mark.parametrize("steps", [1, 7, 20, 21, 1201])
def test_observations_are_evenly_spaced_and_include_the_last_step(steps: int) -> None:
    due = [step for step in range(1, steps + 1) if callbacks.is_observation_due(step, steps)]
    assert len(due) == min(steps, callbacks.OBSERVATION_COUNT)
    assert due[-1] == steps
    gaps = {after - before for before, after in pairwise([0, *due])}
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.slow
def test_observations_do_not_change_the_training(
    size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, Any]:
        assert not model.training
        return {**diagnose.quick_diagnosis(model, ids), "overload": torch.rand(()).item()}

    dropout = ("--set", "embedding_dropout=0.5")
    monkeypatch.setattr(callbacks, "quick_diagnosis", draw)
    assert train(size, texts, tmp_path / "observed", *dropout).exit_code == 0
    monkeypatch.setattr(callbacks.ObservationCallback, "_append_observation", lambda *_: None)
    assert train(size, texts, tmp_path / "alone", *dropout).exit_code == 0
    observed, expected = read_weights(tmp_path / "observed"), read_weights(tmp_path / "alone")
    assert all(torch.equal(observed[name], expected[name]) for name in expected)
    assert records.load(tmp_path / "alone" / "record.json").observations == ()
    assert len({row.overload for row in records.load(tmp_path / "observed" / "record.json").observations}) > 1


def test_held_out_text_shorter_than_a_context_is_refused_before_training(size: str, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("".join(f"{number % 7}\n" * 40 for number in range(100)))
    wide = Path(size).read_text().replace("context = 16", "context = 400").replace("batch_size = 8", "batch_size = 1")
    (tmp_path / "wide.toml").write_text(wide)
    result = train(str(tmp_path / "wide.toml"), tmp_path / "lines.txt", tmp_path / "out")
    assert result.exit_code == 2
    assert "step" not in result.stderr
    assert "shorter than one context of 400 tokens" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_folder_inside_the_corpus_is_refused(size: str, texts: Path) -> None:
    assert "give another --out" in train(size, texts, texts / "runs" / "out").stderr


def test_the_recorded_quality_is_the_checkpoint_s(trained: Path, texts: Path) -> None:
    model, record = build.load_checkpoint(trained), records.load(trained / "record.json")
    ids = evaluation.held_out_chunks(corpus.load_tokenizer(trained), corpus.load_corpus(str(texts)), 16)
    assert evaluation.mean_loss(model, ids) == pytest.approx(record.held_out.loss, rel=1e-5)
    assert record.held_out.tokens == ids[:, 1:].numel()


@pytest.mark.parametrize(
    ("lacking", "complaint"),
    [
        ("tokenizer.json", r"has no tokenizer \(tokenizer.json, "),
        ("record.json", "has no record.json"),
        ("corpus", "has no corpus"),
        ("name", "has no corpus.name"),
    ],
)
def test_a_checkpoint_without_a_corpus_is_refused(lacking: str, complaint: str, trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "copy"))
    evaluation.check_recorded_corpus(folder)
    if lacking.endswith(".json"):
        (folder / lacking).unlink()
    else:
        record = json.loads((folder / "record.json").read_text())
        (record["corpus"] if lacking == "name" else record).pop(lacking)
        (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=f"copy.* {complaint}"):
        evaluation.check_recorded_corpus(folder)


def test_held_out_tokens_are_the_first_chunks(trained: Path, texts: Path) -> None:
    ids = evaluation.held_out_chunks(corpus.load_tokenizer(trained), corpus.load_corpus(str(texts)), 16)
    few = evaluation.held_out_tokens(trained, 3, 16)
    assert few.dtype == torch.int64
    assert torch.equal(few, ids[:3])
    with pytest.raises(UsageError, match="ask for at most"):
        evaluation.held_out_tokens(trained, 10**6, 16)
