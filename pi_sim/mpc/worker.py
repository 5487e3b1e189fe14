"""Processes that do one job each: started with the job on their standard input, ended when that closes.

A worker therefore never outlives the process that started it, and no job, with its secrets, touches the disk.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ConfigDict

from pi_sim.errors import PiSimError


class Job(BaseModel):
    """Parameters of a worker, sent as one line of JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    listener: int | None = None
    """Descriptor of a bound socket that the worker inherits."""


JobT = TypeVar("JobT", bound=Job)


def start(
    module: str, job: Job, stdout: int | None = None, stderr: IO[bytes] | None = None
) -> "subprocess.Popen[bytes]":
    """Start `python -m MODULE` with a job. Its standard input stays open: closing it ends the worker."""
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        pass_fds=[] if job.listener is None else [job.listener],
        start_new_session=True,
    )
    if process.stdin:
        with suppress(BrokenPipeError):  # the worker has ended already; its exit status says why
            process.stdin.write(job.model_dump_json().encode() + b"\n")
            process.stdin.flush()
    return process


def run_job(run: Callable[[JobT], Any], kind: type[JobT]) -> int:
    """Run the job on standard input; return the exit status. A failure is one sentence on standard error."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 1  # the parent has gone
    job = kind.model_validate_json(line)
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
    """End the process when its standard input closes.

    Reads past Python's buffer, whose lock this thread would still hold when the interpreter ends.
    """
    while os.read(0, 4096):
        pass
    os._exit(1)
