"""Two parties as two processes on this machine: started, watched, and never left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from pi_sim.errors import RunError, UsageError
from pi_sim.graph.sharing import one_hot, split
from pi_sim.mpc.kernels.reveal import CLIENT
from pi_sim.mpc.process import Job
from pi_sim.network import Network

GRACE = 5.0
"""Seconds that a party gets to notice that the other one has failed."""


Counts = dict[str, Any]
"""What one party counted for one sequence, see `pi_sim.mpc.party.Party`."""


@dataclass(frozen=True)
class Outcome:
    """What both parties counted, `counts[rank][sequence]`, and the logits (N, T, V) that the client opened.

    `session[rank]` is what each counted before the first sequence, opening weights that stay put.
    """

    counts: list[list[Counts]]
    session: list[Counts]
    logits: Tensor
    seconds: float


def run(
    bundle: Path,
    protocol: Path,
    tokens: Tensor,
    vocabulary: int,
    *,
    port: int = 0,
    timeout: float = 60.0,
    network: Network | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Outcome:
    """Evaluate a bundle's graph on token ids (N, B, T), one sequence after another, between two local processes.

    Each party finds its own shares of the tokens and its own results in a folder of its own. Raises `RunError` when
    a party fails, naming it and its reason; nothing is left running or on disk, whatever ends the run.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch, _listen(port) as listener:
        folders = _share_tokens(Path(scratch), tokens, vocabulary)
        jobs = [
            Job(
                rank=rank,
                bundle=str(bundle),
                tokens=str(folder / "tokens.safetensors"),
                protocol=str(protocol),
                result=str(folder),
                port=listener.getsockname()[1],
                listener=listener.fileno() if rank == 0 else None,
                timeout=timeout,
                threads=threads(),
                network=asdict(network) if network else None,
            )
            for rank, folder in enumerate(folders)
        ]
        _watch(jobs, folders, len(tokens), progress)
        counted = [json.loads((folder / "counts.json").read_text(encoding="utf-8")) for folder in folders]
        counts, session = ([each[key] for each in counted] for key in ("sequences", "session"))
        logits = load_file(folders[CLIENT] / "logits.safetensors")["logits"]
        return Outcome(counts, session, logits, time.perf_counter() - started)


def threads() -> int:
    """A party's share of this machine's cores."""
    return max(1, (os.cpu_count() or 2) // 2)


def _listen(port: int) -> socket.socket:
    """The socket on which party 0 will wait, bound here so that a port in use is found out at once."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError):
        raise UsageError(f"port {port} cannot be used; choose another --port, or none for any free one.") from None


def _share_tokens(scratch: Path, tokens: Tensor, vocabulary: int) -> list[Path]:
    """A private folder per party with its shares of the one-hot tokens (N, B, T, V)."""
    folders = [scratch / f"party{rank}" for rank in (0, 1)]
    for folder, share in zip(folders, split(one_hot(tokens, vocabulary)), strict=True):
        folder.mkdir(mode=0o700)
        save_file({"tokens": share}, folder / "tokens.safetensors")
    return folders


def _watch(jobs: list[Job], folders: list[Path], sequences: int, progress: Callable[[float], None]) -> None:
    """Start both parties, follow party 0's progress, and end both when one fails."""
    parties = [_start(job, folder) for job, folder in zip(jobs, folders, strict=True)]
    follower = threading.Thread(target=_follow, args=(parties[0].stdout, sequences, progress), daemon=True)
    follower.start()
    try:
        statuses = _settle(parties, jobs[0].timeout)
    finally:
        for party in parties:
            party.kill()
            party.wait()
        follower.join()
        for stream in (parties[0].stdin, parties[1].stdin, parties[0].stdout):
            if stream:
                stream.close()
    _raise_failure(statuses, folders)


def _follow(lines: Iterable[bytes], sequences: int, progress: Callable[[float], None]) -> None:
    """Report the fraction done, from what party 0 says after every node."""
    finished = 0
    for line in lines:
        state = json.loads(line)
        with suppress(OSError):  # whoever watched has gone; the run goes on
            progress((finished + state["done"] / state["of"]) / sequences)
        finished += state["done"] == state["of"]


def _start(job: Job, folder: Path) -> "subprocess.Popen[bytes]":
    job.save(folder / "job.json")
    with (folder / "errors").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "pi_sim.mpc.process", str(folder / "job.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if job.rank == 0 else subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[job.listener] if job.listener is not None else [],
            start_new_session=True,
        )


def _settle(parties: "list[subprocess.Popen[bytes]]", timeout: float) -> list[int | None]:
    """Both parties' exit statuses, None for one that did not end in time after the other.

    After a failure the other party has a few seconds left, after a success as long as a message may take.
    """
    deadline = float("inf")
    while any(party.poll() is None for party in parties) and time.monotonic() < deadline:
        ended = [status for party in parties if (status := party.poll()) is not None]
        if ended:
            deadline = min(deadline, time.monotonic() + (GRACE if any(ended) else timeout))
        time.sleep(0.01)
    return [party.poll() for party in parties]


def _raise_failure(statuses: list[int | None], folders: list[Path]) -> None:
    """Say for every party that failed what it said, which signal ended it, or that it never ended."""
    reasons = []
    for rank, (status, folder) in enumerate(zip(statuses, folders, strict=True)):
        said = (folder / "errors").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if status is None:
            reasons.append(f"party {rank} did not end")
        elif status < 0:
            reasons.append(f"party {rank} was ended by {signal.Signals(-status).name}")
        elif status:
            reasons.append(f"party {rank}: {said[-1] if said else f'exit status {status}'}")
    if reasons:
        raise RunError("the run failed; " + "; ".join(reason.rstrip(".") for reason in reasons) + ".")
