"""Private generation from the command line: the plain model's text, exact counts of every step, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from pi_sim import records
from pi_sim.errors import RunError
from pi_sim.mpc.sampling import Sampler, Sampling
from pi_sim.records import PartyRecord, RunRecord
from pi_sim.zoo.source import weights_folder
from tests.helpers.cli import invoke, refused
from tests.helpers.party_processes import free_address, start_parties, wait_for_exit

PROMPT = ("--prompt", "The history of")
PROMPT_TOKENS, TOKENS = 6, 4


def generate(tmp_path: Path, *options: str) -> tuple[RunRecord, Result]:
    """Continue the prompt; return the record and what was printed."""
    path = tmp_path / "run.json"
    result = invoke("run", "two-party", "--generate", str(TOKENS), "--json", str(path), *options)
    assert result.exit_code == 0, result.output
    return records.load(path, RunRecord), result


@pytest.mark.parties
@pytest.mark.parametrize("protocol", ["lean", pytest.param("crypten_tanh", marks=pytest.mark.slow)])
def test_the_text_is_the_plain_models_and_every_step_costs_what_was_estimated(tmp_path: Path, protocol: str) -> None:
    record, result = generate(tmp_path, "--model", "relu_nonorm", "--protocol", protocol, *PROMPT)
    text = record.generation
    assert text and record.agreement
    assert (text.prompt_tokens, text.agreement, record.agreement.top1) == (PROMPT_TOKENS, TOKENS, 1.0)
    assert text.text == text.plain_text and result.stdout.startswith(f"{text.text}\n")
    assert [step.past for step in text.steps] == [PROMPT_TOKENS + index for index in range(TOKENS - 1)]
    assert sum(step.bytes for step in (text.prefill, *text.steps)) == record.measured.bytes
    lengths = ("--prompt-len", str(PROMPT_TOKENS), "--generate", str(TOKENS))
    model = weights_folder("relu_nonorm", "tiny")
    estimate = invoke("estimate", "--model", model, "--protocol", protocol, *lengths, "--format", "json")
    total = json.loads(estimate.stdout)["total"]
    for key in ("rounds", "bytes", "bytes_by_party", "ahead_bytes", "session_bytes", "offline_bytes"):
        assert total[key] == json.loads(record.measured.model_dump_json())[key], key


@pytest.mark.parties
def test_a_bundle_generates_with_dealt_files_and_a_seed(tmp_path: Path) -> None:
    bundle, dealt = str(tmp_path / "bundle"), str(tmp_path / "dealt")
    model, lean = ("--model", "relu_nonorm"), ("--protocol", "lean")
    lengths = ("--seq-len", str(PROMPT_TOKENS), "--generate", str(TOKENS))
    assert invoke("export", *model, *lean, *lengths, "--out", bundle).exit_code == 0
    assert invoke("deal", "--bundle", bundle, *lean, "--out", dealt).exit_code == 0
    choice = ("--temperature", "0.8", "--top-p", "0.9", "--seed", "3")
    first, _ = generate(tmp_path, "--bundle", bundle, *lean, *PROMPT, *choice, "--dealer", dealt)
    second, _ = generate(tmp_path, *model, *lean, *PROMPT, *choice)
    assert first.generation and second.generation
    assert first.generation.text == second.generation.text == second.generation.plain_text
    assert first.measured.offline_bytes == second.measured.offline_bytes


@pytest.mark.slow
def test_a_bundle_continues_one_prompt_of_its_length(tmp_path: Path) -> None:
    bundle = str(tmp_path / "bundle")
    model, lengths = ("--model", "relu_nonorm", "--protocol", "lean"), ("--seq-len", "8", "--generate", "2")
    assert invoke("export", *model, *lengths, "--out", bundle).exit_code == 0
    run = ("run", "two-party", "--bundle", bundle, "--protocol", "lean", *PROMPT)
    assert "continues prompts of 8 tokens, this one has 6" in refused(invoke(*run, "--generate", "2"))
    assert "was exported for 2 tokens" in refused(invoke(*run, "--generate", "3"))
    assert "was exported to generate text; give --generate 2" in refused(invoke(*run))
    party = ("run", "party", "--rank", "1", "--rendezvous", "127.0.0.1:7000", "--bundle", bundle, "--protocol", "lean")
    assert "continues one prompt; leave --sequences out" in refused(invoke(*party, *PROMPT, "--sequences", "2"))
    assert "continues prompts of 8 tokens" in refused(invoke(*party, *PROMPT))


@pytest.mark.parties
@pytest.mark.slow
def test_two_parties_generate_and_only_the_client_has_the_text(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    lengths = ("--seq-len", str(PROMPT_TOKENS), "--generate", str(TOKENS))
    assert invoke("export", "--model", "relu_nonorm", "--protocol", "lean", *lengths, "--out", bundle).exit_code == 0
    paths = [tmp_path / f"party{rank}.json" for rank in (0, 1)]
    options = {"json": list(map(str, paths))}
    with start_parties([bundle, bundle], free_address(), "--protocol", "lean", *PROMPT, **options) as parties:
        (server_status, server_out, _), (client_status, client_out, _) = map(wait_for_exit, parties)
    assert server_status == client_status == 0
    server, client = (records.load(path, PartyRecord) for path in paths)
    assert server.generation is None and client.generation
    assert client.generation.text in client_out and client.generation.text not in server_out
    assert server.measured.bytes == client.measured.bytes == client.total.bytes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--generate", "200", *PROMPT), "the model's context is 128 tokens; choose a smaller --generate"),
        (("--generate", "125", *PROMPT), "a prompt of 6 tokens and 125 more exceed the model's context of 128"),
        (("--generate", "2", "--batch", "2", *PROMPT), "--generate continues one prompt"),
        (("--generate", "2", "--sequences", "3"), "--generate continues one prompt"),
    ],
)
def test_what_cannot_be_generated_is_said(options: tuple[str, ...], sentence: str) -> None:
    result = invoke("run", "two-party", "--model", "relu_nonorm", "--protocol", "lean", *options)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_an_estimate_of_a_generation_needs_both_lengths() -> None:
    for options in (("--prompt-len", "4"), ("--generate", "4")):
        assert "give both --prompt-len and --generate" in invoke("estimate", *options).stderr
    assert "leave --seq-len" in invoke("estimate", "--prompt-len", "4", "--generate", "4", "--seq-len", "8").stderr


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=9), st.floats(1e-300, 100), st.floats(0.01, 1), st.integers(0, 99)
)
def test_a_token_is_chosen_at_any_temperature(logits: list[float], temperature: float, top_p: float, seed: int) -> None:
    settings = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    tokens = [Sampler(settings).choose(torch.tensor(logits)) for _ in range(2)]
    assert tokens[0] == tokens[1] and 0 <= tokens[0] < len(logits)
    assert Sampler(Sampling()).choose(torch.tensor(logits)) == int(torch.tensor(logits).argmax())


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(RunError, match="not finite"):
        Sampler(Sampling()).choose(torch.tensor([1.0, float("nan")]))
