"""A process that does one job, read from a file, and that cannot outlive whoever started it."""

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pi_sim.errors import PiSimError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

JobT = TypeVar("JobT", bound="DataclassInstance")


def save_job(job: "DataclassInstance", path: Path) -> None:
    """Write what `perform` reads."""
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")


def run_job(run: Callable[[JobT], Any], kind: type[JobT], path: str) -> int:
    """Run the job in a file; a failure is one sentence on standard error and the exit status.

    The process ends when its standard input closes.
    """
    job = kind(**json.loads(Path(path).read_text(encoding="utf-8")))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run(job)
    except PiSimError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


def _end_with_parent() -> None:
    """Read past Python's buffer, whose lock this thread would still hold when the interpreter ends."""
    while os.read(0, 4096):
        pass
    os._exit(1)
