"""Two parties as two processes on this machine: started, watched, and never left behind."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from pi_sim.errors import RunError, UsageError
from pi_sim.graph.sharing import one_hot, split
from pi_sim.mpc import child, process
from pi_sim.mpc.dealer import call
from pi_sim.mpc.dealer import process as service
from pi_sim.mpc.dealer.choice import Choice
from pi_sim.mpc.dealer.kinds import FIRST, THIRD
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
    dealer: str = FIRST,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Outcome:
    """Evaluate a bundle's graph on token ids (N, B, T), one sequence after another, between two local processes.

    Each party finds its own shares of the tokens and its own results in a folder of its own. Raises `RunError` when
    a party fails, naming it and its reason; nothing is left running or on disk, whatever ends the run.
    """
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch,
        _listen(port) as listener,
        _listen(0) as calls,
    ):
        folders = _share_tokens(Path(scratch), tokens, vocabulary)
        choice = _reachable(Choice.named(dealer), calls)
        parties = [
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
                sequences=len(tokens),
                dealer=asdict(choice),
            )
            for rank, folder in enumerate(folders)
        ]
        members = [Member(f"party {job.rank}", process, job, Path(job.result)) for job in parties]
        if choice.kind == THIRD:
            members.append(_dealer(choice, parties[0], calls, Path(scratch)))
        _watch(members, len(tokens), timeout, progress)
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


def _reachable(choice: Choice, calls: socket.socket) -> Choice:
    """A third party with its port, and a token that this run's processes alone know."""
    if choice.kind != THIRD:
        return choice
    return replace(choice, port=calls.getsockname()[1], token=secrets.token_hex(call.TOKEN))


def _dealer(choice: Choice, party: Job, calls: socket.socket, scratch: Path) -> "Member":
    """The third process: it is told what a party is told, and nothing of tokens and weights."""
    folder = scratch / "dealer"
    folder.mkdir(mode=0o700)
    job = service.Job(
        bundle=party.bundle,
        protocol=party.protocol,
        sequences=party.sequences,
        token=choice.token,
        listener=calls.fileno(),
        timeout=party.timeout,
        threads=party.threads,
    )
    return Member("the dealer", service, job, folder)


class Member(NamedTuple):
    """A process of a run: what it is called, its module, its job, and its folder."""

    name: str
    module: ModuleType
    job: Job | service.Job
    folder: Path

    def start(self, stdout: int) -> "subprocess.Popen[bytes]":
        child.save(self.job, self.folder / "job.json")
        with (self.folder / "errors").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", self.module.__name__, str(self.folder / "job.json")],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=errors,
                pass_fds=[self.job.listener] if self.job.listener is not None else [],
                start_new_session=True,
            )

    def failure(self, status: int | None) -> str | None:
        """What it said, which signal ended it, or that it never ended; None after a success."""
        said = (self.folder / "errors").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if status is None:
            return f"{self.name} did not end"
        if status < 0:
            return f"{self.name} was ended by {signal.Signals(-status).name}"
        return f"{self.name}: {said[-1] if said else f'exit status {status}'}".rstrip(".") if status else None


def _watch(members: list[Member], sequences: int, timeout: float, progress: Callable[[float], None]) -> None:
    """Start all processes, follow party 0's progress, and end all when one fails."""
    running = [each.start(subprocess.DEVNULL if number else subprocess.PIPE) for number, each in enumerate(members)]
    follower = threading.Thread(target=_follow, args=(running[0].stdout, sequences, progress), daemon=True)
    follower.start()
    try:
        statuses = _settle(running, timeout)
    finally:
        for each in running:
            each.kill()
            each.wait()
        follower.join()
        for stream in (running[0].stdout, *(each.stdin for each in running)):
            if stream:
                stream.close()
    reasons = [said for each, status in zip(members, statuses, strict=True) if (said := each.failure(status))]
    if reasons:
        raise RunError(f"the run failed; {'; '.join(reasons)}.")


def _follow(lines: Iterable[bytes], sequences: int, progress: Callable[[float], None]) -> None:
    """Report the fraction done, from what party 0 says after every node."""
    finished = 0
    for line in lines:
        state = json.loads(line)
        with suppress(OSError):  # whoever watched has gone; the run goes on
            progress((finished + state["done"] / state["of"]) / sequences)
        finished += state["done"] == state["of"]


def _settle(parties: "list[subprocess.Popen[bytes]]", timeout: float) -> list[int | None]:
    """All exit statuses, None for a process that did not end in time after another one.

    After a failure the others have a few seconds left, after a success as long as a message may take.
    """
    deadline = float("inf")
    while any(party.poll() is None for party in parties) and time.monotonic() < deadline:
        ended = [status for party in parties if (status := party.poll()) is not None]
        if ended:
            deadline = min(deadline, time.monotonic() + (GRACE if any(ended) else timeout))
        time.sleep(0.01)
    return [party.poll() for party in parties]
