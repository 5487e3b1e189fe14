"""The two ways a command ends without a result, in one sentence; and how it says something that is not a failure."""

import click


class PiSimError(Exception):
    """Anything the user can act upon: one sentence that names the cause and the next step."""

    exit_status = 1


class UsageError(PiSimError):
    """The request cannot be met as it was asked: exit status 2."""

    exit_status = 2


class UnpricedError(UsageError):
    """A protocol has neither kernel nor price for an operation."""


class MissingDependencyError(UsageError):
    """A package that the request needs cannot be imported."""


class RunError(PiSimError):
    """The request was sound and its execution failed: exit status 1."""


def warn(sentence: str) -> None:
    """Say on standard error what is worth knowing about work that goes on all the same."""
    click.echo(f"pi-sim: warning: {sentence}", err=True)
