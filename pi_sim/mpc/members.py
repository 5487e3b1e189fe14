"""The processes of a run on one machine: started, watched, and never left behind."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from pi_sim.errors import RunError
from pi_sim.mpc import child, process
from pi_sim.mpc.dealer import process as service
from pi_sim.mpc.party import sequence_progress

PARTY_COUNT = 2
GRACE_PERIOD_S = 5.0
"""Seconds that a party gets to notice that the other one has failed."""


class ChildProcess(NamedTuple):
    """A process of a run: what it is called, its module, its job, and its folder."""

    name: str
    module: ModuleType
    job: process.PartyJob | service.DealerJob
    folder: Path

    def start(self, stdout: int) -> "subprocess.Popen[bytes]":
        child.save_job(self.job, self.folder / "job.json")
        with (self.folder / "errors").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", self.module.__name__, str(self.folder / "job.json")],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=errors,
                pass_fds=[self.job.listener] if self.job.listener is not None else [],
                start_new_session=True,
            )

    def failure_reason(self, status: int | None) -> str | None:
        """What it said, which signal ended it, or that it never ended; None after a success.

        A dealer that is still there has nothing to answer for.
        """
        said = (self.folder / "errors").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if status is None:
            return f"{self.name} did not end" if self.module is process else None
        if status < 0:
            return f"{self.name} was ended by {signal.Signals(-status).name}"
        return f"{self.name}: {said[-1] if said else f'exit status {status}'}".rstrip(".") if status else None


def supervise(members: list[ChildProcess], sequences: int, timeout: float, progress: Callable[[float], None]) -> None:
    """Start all processes, follow party 0's progress, and end all when one fails."""
    running = [each.start(subprocess.DEVNULL if number else subprocess.PIPE) for number, each in enumerate(members)]
    follower = threading.Thread(target=_forward_progress, args=(running[0].stdout, sequences, progress), daemon=True)
    follower.start()
    try:
        statuses = _wait_for_exit(running, timeout)
    finally:
        for each in running:
            each.kill()
            each.wait()
        follower.join()
        for stream in (running[0].stdout, *(each.stdin for each in running)):
            if stream:
                stream.close()
    reasons = [said for each, status in zip(members, statuses, strict=True) if (said := each.failure_reason(status))]
    if reasons:
        raise RunError(f"the run failed; {'; '.join(reasons)}.")


def _forward_progress(lines: Iterable[bytes], sequences: int, progress: Callable[[float], None]) -> None:
    """Report the fraction done, from what party 0 says after every node."""
    told = sequence_progress(sequences, progress)
    for line in lines:
        state = json.loads(line)
        with suppress(OSError):  # whoever watched has gone; the run goes on
            told(state["done"], state["of"])


def _wait_for_exit(running: "list[subprocess.Popen[bytes]]", timeout: float) -> list[int | None]:
    """All exit statuses, None for a process that did not end in time after another one.

    After a failure the others have a few seconds left, after a success as long as a message may take. A dealer, which
    comes after the parties, is not waited for.
    """
    deadline = float("inf")
    while any(party.poll() is None for party in running[:PARTY_COUNT]) and time.monotonic() < deadline:
        ended = [status for each in running if (status := each.poll()) is not None]
        if ended:
            deadline = min(deadline, time.monotonic() + (GRACE_PERIOD_S if any(ended) else timeout))
        time.sleep(0.01)
    return [each.poll() for each in running]
