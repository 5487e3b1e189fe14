"""Exceptions with exit statuses (1: the execution failed, 2: the request cannot be met), and warnings."""

import click


class PiSimError(Exception):
    """Error that the user can act upon: one sentence that names the cause and the next step."""

    exit_status = 1


class UsageError(PiSimError):
    """Request that cannot be met as it stands: exit status 2."""

    exit_status = 2


class UnpricedError(UsageError):
    """Protocol without a kernel or a price for an operation."""


class MissingDependencyError(UsageError):
    """Package that the request needs and that cannot be imported."""


class RunError(PiSimError):
    """Failure while a valid request was executed: exit status 1."""


def warn(sentence: str) -> None:
    """Print a warning to standard error; the command goes on."""
    click.echo(f"pi-sim: warning: {sentence}", err=True)
