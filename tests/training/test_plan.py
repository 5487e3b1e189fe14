"""Training plans: overrides and recipes, and refusals before anything is written."""

import math
from pathlib import Path

import pytest

from pi_sim import records, specs
from pi_sim.errors import UsageError
from pi_sim.training import checkpoints
from tests.helpers.cli import invoke
from tests.helpers.small_training import make_plan, train


def test_settings_override_design_and_recipe(size: str, texts: Path) -> None:
    chosen = make_plan(size, texts, "final_norm=layernorm", "logit_scale=none", "learning_rate=0.5", seed=3)
    assert chosen.card.architecture.final_norm == "layernorm"
    assert chosen.recipe.logit_scale is None
    assert chosen.recipe.learning_rate == 0.5
    assert chosen.title == "relu_nonorm-small-final_norm=layernorm-learning_rate=0.5-logit_scale=none-seed3"


@pytest.mark.parametrize(
    "setting",
    [
        *("depth=3", "final_norm", "final_norm=batchnorm", "learning_rate=fast", "learning_rate=inf", "tokens=0"),
        *("entropy_margin=0.5", "alpha_other=0.2", "slope=0.1"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_status_2(setting: str) -> None:
    result = invoke("train", "--model", "relu_nonorm", "--set", setting)
    assert result.exit_code == 2
    assert setting.split("=")[0] in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("first", [("--tokens", "5"), ("--set", "tokens=5")])
def test_a_setting_given_twice_is_refused(first: tuple[str, str]) -> None:
    result = invoke("train", "--model", "relu_nonorm", *first, "--set", "tokens=7")
    assert result.exit_code == 2
    assert "tokens is set twice" in result.stderr


@pytest.fixture
def card(tmp_path: Path) -> str:
    """A card with two recipes."""
    path = tmp_path / "mine.toml"
    shipped = (specs.data_root() / "models" / "relu_nonorm.toml").read_text().partition("[training")[0]
    recipes = "[training.small]\nweight_decay = 0.25\n[training.paper]\nlogit_scale = 'none'\nbatch_size = 4\n"
    path.write_text(shipped + recipes)
    return str(path)


def test_a_card_s_recipe_is_by_default_the_one_for_the_size(card: str, size: str, texts: Path) -> None:
    default = make_plan(size, texts, card=card)
    named = make_plan(size, texts, "batch_size=2", card=card, recipe="paper")
    assert (default.recipe.weight_decay, default.recipe.batch_size, default.recipe.logit_scale) == (0.25, 8, 4.0)
    assert (named.recipe.weight_decay, named.recipe.batch_size, named.recipe.logit_scale) == (0.1, 2, None)
    assert named.title == f"{named.card.name}-small-recipe=paper-batch_size=2"
    assert make_plan(size, texts, card=card, recipe="small").recipe == default.recipe


def test_an_unknown_recipe_is_refused_with_the_known_ones(card: str, size: str) -> None:
    result = invoke("train", "--model", card, "--size", size, "--recipe", "unknown")
    assert result.exit_code == 2
    assert "has no recipe 'unknown'; choose among its own: small, paper" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", specs.list_names("models"))
def test_every_recipe_of_every_card_is_valid(name: str, texts: Path) -> None:
    for recipe in specs.load_model_card(name).training:
        chosen = make_plan("gpt2", texts, card=name, recipe=recipe)
        assert chosen.recipe != specs.load_size("gpt2").training


def test_a_scale_may_start_at_sqrt_width(size: str, texts: Path) -> None:
    assert make_plan(size, texts, "embedding_scale=sqrt(width)").recipe.embedding_scale == math.sqrt(16)
    paper = make_plan("gpt2", texts, card="dyt_gelu", recipe="paper").recipe
    assert (paper.embedding_scale, paper.embedding_dropout, paper.adam_beta2) == (math.sqrt(768), 0.0, 0.95)


def test_a_record_older_than_a_setting_has_its_default() -> None:
    path = specs.data_root() / "models" / "weights" / "relu_nonorm-tiny" / "record.json"
    recipe = records.load(path, records.TrainingRecord).recipe
    older = recipe.model_dump(exclude={"adam_beta2"})
    assert specs.Recipe(**older) == recipe == specs.load_size("tiny").training


def test_a_vocabulary_smaller_than_any_tokenizer_is_refused(size: str, texts: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.toml"
    few.write_text(Path(size).read_text().replace("vocabulary = 300", "vocabulary = 256"))
    result = train(str(few), texts, tmp_path / "out")
    assert (result.exit_code, "has a vocabulary of 256; a tokenizer needs at least 257" in result.stderr) == (2, True)


def test_an_impossible_design_is_refused_at_once_and_leaves_nothing(size: str, tmp_path: Path) -> None:
    """The refusal precedes the corpus, which does not exist here."""
    chosen = ("--model", "aero_scaled", "--set", "family=opt", "--size", size, "--corpus", tmp_path / "texts")
    result = invoke("train", *chosen, "--out", tmp_path / "out")
    assert (result.exit_code, "OPTForCausalLM has no separate FFN module" in result.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_refusal_removes_only_new_folders(tmp_path: Path) -> None:
    for existing in (False, True):
        out = tmp_path / str(existing)
        if existing:
            checkpoints.prepare_folder(out, {})
        with pytest.raises(UsageError), checkpoints.remove_if_refused(out):
            checkpoints.prepare_folder(out, {})
            raise UsageError("no.")
        assert out.exists() == existing
    with pytest.raises(UsageError), checkpoints.remove_if_refused(tmp_path / "late"):
        state = checkpoints.prepare_folder(tmp_path / "late", {}) / "checkpoint-1" / checkpoints.STATE_FILE
        state.parent.mkdir()
        state.touch()
        raise UsageError("no.")
    assert state.exists()
