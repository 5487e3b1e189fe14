"""The command line: frozen names, promised keys, and no torch where nothing must be derived."""

import json

import click
import pytest

from pi_sim.cli import main
from tests.helpers.cli import WITHOUT_CRYPTEN, invoke, python

COMMANDS = {
    "estimate": {
        "--model", "--size", "--seq-len", "--batch", "--past", "--inner", "--protocol", "--network", "--machine",
        "--by", "--top", "--format",
    },
    "compare": {
        "--size", "--seq-len", "--batch", "--past", "--inner", "--protocol", "--network", "--machine",
        "--by", "--format",
    },
    "sweep": {
        "--model", "--size", "--seq-len", "--batch", "--past", "--inner", "--protocol", "--network", "--machine",
        "--out", "--report", "--records",
    },
    "validate": {"--out", "--format"},
    "run two-party": {
        "--model", "--size", "--seq-len", "--protocol", "--sequences", "--network", "--bundle", "--port", "--timeout",
        "--dealer", "--device", "--allow-inexact", "--json",
    },
    "run party": {
        "--rank", "--rendezvous", "--bundle", "--protocol", "--sequences", "--timeout", "--dealer", "--keys",
        "--no-tls", "--device", "--json",
    },
    "keys": {"--out"},
    "export": {"--model", "--size", "--seq-len", "--out"},
    "deal": {"--bundle", "--protocol", "--sequences", "--out"},
    "train": {"--model", "--from", "--recipe", "--size", "--corpus", "--seed", "--tokens", "--set", "--out"},
    "convert": {
        "--size", "--norm", "--final-norm", "--activation", "--attention", "--relu-after-norm", "--ffn", "--drop-ffn",
        "--set", "--corpus", "--out",
    },
    "diagnose": {
        "--model", "--size", "--seq-len", "--sequences", "--corpus", "--protocol", "--out", "--json", "--format",
    },
    "report": {"--records", "--out"},
    "models": {"--format"},
    "protocols": {"--format"},
    "networks": {"--format"},
    "calibrate": {"--out", "--format", "--force"},
    "bench": {"--protocol", "--out", "--quick", "--json"},
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_names_are_frozen(command: str) -> None:
    """Names may be added, never renamed: other people's scripts call them."""
    subcommand: click.Command = main
    for name in command.split():
        assert isinstance(subcommand, click.Group)
        subcommand = subcommand.commands[name]
    options = {option for parameter in subcommand.params for option in parameter.opts}
    assert options >= COMMANDS[command]


@pytest.mark.slow
def test_json_has_the_promised_keys() -> None:
    result = invoke("estimate", "--model", "relu_nonorm", "--seq-len", "16", "--format", "json")
    record = json.loads(result.stdout)
    assert set(record) >= {"model", "size", "protocol", "seq_len", "total", "rows", "conventions"}
    promised = {"rounds", "bytes", "offline_bytes", "seconds", "compute_seconds"}
    assert set(record["total"]) >= promised | {"bytes_by_party", "ahead_bytes", "session_bytes", "first_query_seconds"}
    assert set(record["total"]["seconds"]) == {"lan", "wan"}
    assert set(record["rows"][0]) >= {"module", "op", "count", "rounds", "bytes", "offline_bytes"}
    for key in ("rounds", "bytes", "offline_bytes"):
        assert sum(row[key] for row in record["rows"]) == record["total"][key]


@pytest.mark.slow
def test_a_known_estimate_needs_neither_torch_nor_crypten() -> None:
    arguments = ["estimate", "--seq-len", "6"]
    first = invoke(*arguments)
    code = WITHOUT_CRYPTEN.replace(
        "main({})", f"main({arguments}, standalone_mode=False); assert 'torch' not in sys.modules"
    )
    again = python(code)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout


def test_help_does_not_import_torch() -> None:
    code = "import sys; from pi_sim.cli import main; main(['--help'], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    assert python(code).returncode == 0
