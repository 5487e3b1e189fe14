"""Fine-tuning of a checkpoint that pi-sim trained, of a converted one and of one from elsewhere."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from click.testing import Result
from tokenizers import Tokenizer, processors
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
)

from pi_sim import records, specs
from pi_sim.errors import UsageError
from pi_sim.records import ConversionRecord, CorpusId, TrainingRecord
from pi_sim.training import callbacks, corpus, evaluation
from pi_sim.training.fine_tuning import SourceCheckpoint, plan_fine_tuning
from pi_sim.zoo import build
from pi_sim.zoo.surgery import apply_surgery
from tests.helpers.cli import invoke
from tests.helpers.small_training import STEPS, read_weights

pytestmark = pytest.mark.slow

SURGERY = {"activation": "gelu"}
SMALL = {
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"vocab_size": 320, "max_position_embeddings": 16},
}


def quality(folder: Path, texts: Path) -> dict[str, object]:
    return evaluation.measure_quality(
        build.load_checkpoint(folder), corpus.load_tokenizer(folder), corpus.load_corpus(str(texts)), 16
    )


@pytest.fixture(scope="module")
def converted(trained: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained checkpoint after surgery, with a conversion's record."""
    folder = tmp_path_factory.mktemp("converted") / "mine"
    folder.mkdir()
    build.save_checkpoint(apply_surgery(build.load_checkpoint(trained), SURGERY).half(), folder)
    shutil.copy(trained / "tokenizer.json", folder)
    source = records.load(trained / "record.json", TrainingRecord)
    record = ConversionRecord(
        argv=("pi-sim", "convert", "out", "--activation", "gelu"),
        **source.model_dump(include={"card", "size", "dimensions"}),
        source="out",
        surgery=SURGERY,
        architecture=source.architecture.model_copy(update=SURGERY),
        corpus=CorpusId(name=source.corpus.name, sha256=source.corpus.sha256),
        seq_len=source.dimensions.context,
        before=source.held_out,
        after=quality(folder, texts),
    )
    records.save(folder / "record.json", record)
    return folder


def tune(source: Path, size: str, out: Path, *more: str) -> Result:
    return invoke("train", "--from", source, "--size", size, "--out", out, *more)


@pytest.fixture(scope="module")
def tuned(converted: Path, size: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    result = tune(converted, size, out)
    assert result.exit_code == 0, result.stderr
    return out


def test_the_record_has_the_quality_before_and_after_surgery_and_observations(tuned: Path, converted: Path) -> None:
    record, conversion = records.load(tuned / "record.json"), records.load(converted / "record.json")
    assert record.kind == "training"
    shared = conversion.model_dump(include={"kind", "surgery", "before", "after", "source"})
    assert record.origin == records.Origin(model="mine", **shared)
    assert record.card == "relu_nonorm"
    assert record.architecture.activation == "gelu"
    assert record.dimensions == conversion.dimensions
    assert (record.recipe.embedding_scale, record.recipe.logit_scale) == (None, None)
    assert [row.step for row in record.observations] == list(range(STEPS + 1))
    after = conversion.after.sample.loss
    assert record.observations[0].held_out_loss == pytest.approx(after, rel=1e-5)
    assert record.held_out.loss < conversion.after.loss


def test_the_model_continues_the_converted_one(tuned: Path, converted: Path, texts: Path) -> None:
    assert build.read_config(tuned).pi_sim["activation"] == "gelu"
    expected = records.load(tuned / "record.json").held_out.loss
    assert quality(tuned, texts)["loss"] == pytest.approx(expected, rel=1e-5)
    assert (tuned / "tokenizer.json").read_text() == (converted / "tokenizer.json").read_text()
    before, after = read_weights(converted), read_weights(tuned)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_an_interrupted_fine_tuning_continues_to_the_same_weights(
    tuned: Path, converted: Path, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InterruptingCallback(callbacks.InterruptCallback):
        def on_step_begin(self, args: object, state: object, control: object, **_: object) -> None:
            if getattr(state, "global_step", 0) == 3:
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "InterruptCallback", InterruptingCallback)
        assert tune(converted, size, tmp_path / "out").exit_code == 130
    assert tune(converted, size, tmp_path / "out").exit_code == 0
    expected, resumed_weights = read_weights(tuned), read_weights(tmp_path / "out")
    assert all(torch.equal(expected[name], resumed_weights[name]) for name in expected)
    uninterrupted, resumed = (records.load(folder / "record.json") for folder in (tuned, tmp_path / "out"))
    assert uninterrupted.observations == resumed.observations


def test_a_trained_checkpoint_can_be_fine_tuned(trained: Path, size: str, tmp_path: Path) -> None:
    result = tune(trained, size, tmp_path / "out", "--tokens", "256", "--set", "learning_rate=1e-4", "--seed", "2")
    assert result.exit_code == 0, result.stderr
    record, source = (records.load(folder / "record.json") for folder in (tmp_path / "out", trained))
    assert record.recipe.learning_rate == 1e-4
    assert record.corpus.tokens_seen == 256
    assert record.origin == records.Origin(model="out", kind="training", argv=source.argv, held_out=source.held_out)
    start = source.held_out.sample.loss
    assert record.observations[0].held_out_loss == pytest.approx(start, rel=1e-5)


def test_a_fine_tuning_of_a_fine_tuning_records_all_origins(tuned: Path, size: str, tmp_path: Path) -> None:
    tune(tuned, size, tmp_path / "out", "--tokens", "128")
    way = records.load(tmp_path / "out" / "record.json").origin
    assert (way.kind, way.origin.kind, way.origin.surgery) == ("training", "conversion", SURGERY)


def test_the_title_is_the_checkpoint_s_name(converted: Path, size: str) -> None:
    plan = plan_fine_tuning(
        SourceCheckpoint(converted), size=specs.load_size(size), seed=1, tokens=512, settings=("bf16=true",)
    )
    assert plan.title == "mine-finetuned-bf16=true-tokens=512-seed1"
    assert plan.steps == 4


def test_a_recipe_comes_from_the_recorded_or_the_chosen_card(
    converted: Path, foreign: Path, size: str, texts: Path
) -> None:
    small, source = specs.load_size(size), SourceCheckpoint(foreign)
    own = plan_fine_tuning(SourceCheckpoint(converted), size=small, tokens=512, recipe="paper")
    assert (own.recipe.batch_size, own.recipe.fp16, own.recipe.tokens) == (512, True, 512)
    assert (own.recipe.embedding_dropout, own.recipe.embedding_scale) == (0.0, None)  # as the checkpoint has them
    assert own.title == "mine-finetuned-recipe=paper-tokens=512"
    card = specs.load_model_card("relufied1")
    other = plan_fine_tuning(source, size=small, corpus=str(texts), card=card, recipe="paper")
    assert (other.recipe.tokens, other.recipe.schedule, other.recipe.bf16) == (30_000_000_000, "cosine", True)
    with pytest.raises(UsageError, match="foreign names no known card; name one, such as --model relu"):
        plan_fine_tuning(source, size=small, corpus=str(texts), recipe="paper")


def test_a_shorter_context_can_be_trained(converted: Path, size: str, tmp_path: Path) -> None:
    result = tune(converted, size, tmp_path / "out", "--tokens", "128", "--set", "context=8")
    assert result.exit_code == 0, result.stderr
    record = records.load(tmp_path / "out" / "record.json")
    assert (record.dimensions.context, record.corpus.tokens_seen, len(record.loss_curve)) == (8, 128, 2)
    assert build.read_config(tmp_path / "out").max_position_embeddings == 16


# A checkpoint from elsewhere


@pytest.fixture
def foreign(trained: Path, tmp_path: Path) -> Path:
    """A Llama with tied embeddings, whose tokenizer adds a start token, truncates and pads; its end token is `</s>`."""
    folder = tmp_path / "foreign"
    table = json.loads((trained / "tokenizer.json").read_text().replace("<|endoftext|>", "</s>"))
    encoder = Tokenizer.from_str(json.dumps(table))
    encoder.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 0)])
    encoder.enable_truncation(8)
    encoder.enable_padding(length=8)
    torch.manual_seed(0)
    config = LlamaConfig(tie_word_embeddings=True, **SMALL)
    LlamaForCausalLM(config).save_pretrained(folder)
    encoder.save(str(folder / "tokenizer.json"))
    return folder


def test_a_foreign_checkpoint_can_be_fine_tuned(foreign: Path, size: str, texts: Path, tmp_path: Path) -> None:
    result = tune(foreign, size, tmp_path / "out", "--corpus", str(texts))
    assert result.exit_code == 0, result.stderr
    record = records.load(tmp_path / "out" / "record.json")
    assert (record.card, record.origin) == ("foreign", records.Origin(model="foreign"))
    assert record.dimensions == records.Dimensions(layers=1, heads=2, width=16, context=16, vocabulary=320)
    assert record.held_out.loss < record.observations[0].held_out_loss
    assert quality(tmp_path / "out", texts)["loss"] == pytest.approx(record.held_out.loss, rel=1e-5)


def test_a_foreign_tokenizer_adds_no_start_truncation_or_padding(foreign: Path, trained: Path, texts: Path) -> None:
    documents = corpus.load_corpus(str(texts)).training
    encoded = corpus.encode_documents(corpus.load_tokenizer(foreign), documents)
    expected = corpus.encode_documents(corpus.load_tokenizer(trained), documents)
    assert [ids.tolist() for ids in encoded] == [ids.tolist() for ids in expected]


def test_a_tokenizer_without_an_end_token_is_refused(foreign: Path, size: str, texts: Path, tmp_path: Path) -> None:
    path = foreign / "tokenizer.json"
    path.write_text(path.read_text().replace("</s>", "<stop>"))
    result = tune(foreign, size, tmp_path / "out", "--corpus", str(texts))
    assert (result.exit_code, "has no token that ends a text" in result.stderr) == (2, True)


def test_a_tokenizer_of_another_model_is_refused(foreign: Path, size: str, texts: Path, tmp_path: Path) -> None:
    config = LlamaConfig.from_pretrained(foreign)
    config.vocab_size = 200
    LlamaForCausalLM(config).save_pretrained(foreign)
    result = tune(foreign, size, tmp_path / "out", "--corpus", str(texts))
    assert (result.exit_code, "has 300 tokens, more than its model's 200" in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (
            BloomConfig(vocab_size=320, hidden_size=16, n_layer=1, n_head=2),
            "its context; choose one with --set context=",
        ),
        (CohereConfig(logit_scale=0.5, **SMALL), "CohereForCausalLM has custom logits"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_and_leaves_nothing(
    config: PreTrainedConfig, complaint: str, foreign: Path, size: str, texts: Path, tmp_path: Path
) -> None:
    AutoModelForCausalLM.from_config(config).save_pretrained(foreign)
    result = tune(foreign, size, tmp_path / "out", "--corpus", str(texts))
    assert (result.exit_code, complaint in result.stderr) == (2, True)
    assert result.stderr.count("pi-sim: ") == 1
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_a_record_needs_a_corpus_and_a_size(foreign: Path, size: str, texts: Path) -> None:
    for more, complaint in (
        (("--size", size), "name a corpus"),
        (("--corpus", str(texts)), "does not state its size"),
    ):
        result = invoke("train", "--from", foreign, *more)
        assert (result.exit_code, complaint in result.stderr) == (2, True)


# What is refused


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--model", "relu_ln"), "either --model"),
        (("--recipe", "unknown"), "the card relu_nonorm has no recipe 'unknown'"),
        (("--set", "context=32"), "the model's context is 16 tokens; choose --set context= between 2 and 16"),
        (("--set", "context=long"), "'context': Input should be a valid integer"),
        (("--set", "norm=dyt"), "is not KEY=VALUE with a key among tokens"),
        (("--set", "logit_scale=2"), "is not KEY=VALUE with a key among tokens"),
    ],
)
def test_settings_that_the_checkpoint_determines_are_refused(
    more: tuple[str, ...], complaint: str, converted: Path, size: str, tmp_path: Path
) -> None:
    result = tune(converted, size, tmp_path / "out", *more)
    assert (result.exit_code, complaint in result.stderr) == (2, True)
    assert len(result.stderr.splitlines()) == 1


def test_a_command_without_card_and_checkpoint_is_refused() -> None:
    result = invoke("train")
    assert (result.exit_code, "give either --model" in result.stderr) == (2, True)


def test_an_unknown_recorded_size_must_be_replaced(converted: Path) -> None:
    result = invoke("train", "--from", converted)
    assert (result.exit_code, "names the size small, which is unknown here" in result.stderr) == (2, True)


def test_a_folder_without_a_checkpoint_is_refused(size: str, tmp_path: Path) -> None:
    result = tune(tmp_path, size, tmp_path / "out")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
