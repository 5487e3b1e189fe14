"""The two ways a command ends without a result; the command line prints their one sentence and exits."""


class PiSimError(Exception):
    """Anything the user can act upon: one sentence that names the cause and the next step."""

    exit_status = 1


class UsageError(PiSimError):
    """The request cannot be met as it was asked: exit status 2."""

    exit_status = 2


class RunError(PiSimError):
    """The request was sound and its execution failed: exit status 1."""
