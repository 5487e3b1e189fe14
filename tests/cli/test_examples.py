"""Help: every command ends with examples, which it accepts."""

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from pi_sim.cli import main
from pi_sim.cli.examples import EXAMPLES


def list_commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from list_commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


COMMANDS = dict(list_commands(main))


def test_every_command_has_examples() -> None:
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("words", EXAMPLES)
def test_examples_end_the_help(words: str) -> None:
    shown = CliRunner().invoke(main, [*words.split(), "--help"], terminal_width=200).output
    assert shown.endswith("Examples:\n" + "".join(f"    {line}\n" for line in EXAMPLES[words]))


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_has_options_that_exist(line: str) -> None:
    words = next(words for words in COMMANDS if line.startswith(f"pi-sim {words}"))
    command, arguments = COMMANDS[words], shlex.split(line.removeprefix(f"pi-sim {words}"))
    with click.Context(command) as context:
        _, values, _ = command.make_parser(context).parse_args(arguments)
    assert not any(values) or any(isinstance(parameter, click.Argument) for parameter in command.params)
