"""Randomness serves once: two openings under one mask tell the difference of what they hide.

A dealt file is marked in this user's state folder and renamed before the first share is drawn from it. So a second use
is refused, and so is a copy's by the same user on the same machine. A copy that is used on another machine, or by
another user, is not recognised there; both parties' files would have to be copied, or the other party refuses.
"""

import os
from pathlib import Path

from pi_sim.errors import UsageError
from pi_sim.mpc.dealer.header import Header, used_path


def check_unused(path: Path, header: Header) -> None:
    """A `UsageError` where this user has used the file, or a copy of it."""
    if _marker_path(header).exists():
        raise UsageError(f"{path} was used already, and randomness serves once; deal anew.")


def mark_used(path: Path, header: Header) -> None:
    """Mark and rename a file; a `UsageError` where somebody else was quicker, or where that cannot be written."""
    mark = _marker_path(header)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch(exist_ok=False)
        path.rename(used_path(path))
    except FileExistsError:
        raise UsageError(f"{path} was used already, and randomness serves once; deal anew.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be marked as used ({error.strerror}: {error.filename}).") from None


def _marker_path(header: Header) -> Path:
    """An empty file: in `$XDG_STATE_HOME/pi-sim`, by default `~/.local/state/pi-sim`."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
    return Path(state) / "pi-sim/dealings" / f"{header.number}.party{header.rank}"
