"""The processes of a run on one machine: started, watched, and never left behind."""

# MERGED: Two parties as two processes on this machine, and a third one as their dealer.

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
from typing import NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from pi_sim.errors import RunError, UsageError
from pi_sim.graph.bundle import one_hot, share_tensor
from pi_sim.mpc import party_main, worker
from pi_sim.mpc.dealer import server
from pi_sim.mpc.dealer.dealer_spec import DealerSpec
from pi_sim.mpc.dealer.dealers import FIRST_PARTY, THIRD_PARTY
from pi_sim.mpc.kernels.local import CLIENT
from pi_sim.mpc.party import CPU, Counters, sequence_progress
from pi_sim.mpc.party_main import PartyJob
from pi_sim.network import Network

PARTY_COUNT = 2
GRACE_PERIOD_S = 5.0
"""Seconds that a party gets to notice that the other one has failed."""


class ChildProcess(NamedTuple):
    """A process of a run: what it is called, its module, its job, and its folder."""

    name: str
    module: ModuleType
    job: party_main.PartyJob | server.DealerJob
    folder: Path

    def start(self, stdout: int) -> "subprocess.Popen[bytes]":
        worker.save_job(self.job, self.folder / "job.json")
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
            return f"{self.name} did not end" if self.module is party_main else None
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


@dataclass(frozen=True)
class PartyCounters:
    """What both parties counted: `counts[rank][sequence]`.

    `session[rank]` is what each counted before the first sequence, opening weights that stay put. `seconds` are those
    of everything, `link` what one party measured of the connection itself, see `pi_sim.mpc.transport.link`.
    """

    counts: list[list[Counters]]
    session: list[Counters]
    seconds: float
    link: dict[str, float]


@dataclass(frozen=True)
class RunResult(PartyCounters):
    """The same with the logits (N, T, V) that the client opened."""

    logits: Tensor


def run_local(
    bundle: Path,
    protocol: Path,
    tokens: Tensor,
    vocabulary: int,
    *,
    port: int = 0,
    timeout: float = 60.0,
    network: Network | None = None,
    dealer: str = FIRST_PARTY,
    device: str = CPU,
    progress: Callable[[float], None] = lambda fraction: None,
) -> RunResult:
    """Evaluate a bundle's graph on token ids (N, B, T), one sequence after another, between two local processes.

    Each party finds its own shares of the tokens and its own results in a folder of its own. Raises `RunError` when
    a party fails, naming it and its reason; nothing is left running or on disk, whatever ends the run.
    """
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch,
        _bind_listener(port) as listener,
        _bind_listener(0) as calls,
    ):
        folders = _share_tokens(Path(scratch), tokens, vocabulary)
        choice = _with_address(DealerSpec.parse(dealer), calls)
        parties = [
            PartyJob(
                rank=rank,
                bundle=str(bundle),
                folder=str(folder),
                protocol=str(protocol),
                port=listener.getsockname()[1],
                listener=listener.fileno() if rank == 0 else None,
                timeout=timeout,
                threads=threads_per_party(),
                network=asdict(network) if network else None,
                sequences=len(tokens),
                device=device,
                dealer=asdict(choice),
            )
            for rank, folder in enumerate(folders)
        ]
        members = [ChildProcess(f"party {job.rank}", party_main, job, Path(job.folder)) for job in parties]
        if choice.kind == THIRD_PARTY:
            members.append(_dealer_process(choice, parties[0], calls, Path(scratch)))
        supervise(members, len(tokens), timeout, progress)
        return _collect_result(folders, started)


def _collect_result(folders: list[Path], started: float) -> RunResult:
    """What both parties left in their folders, of a run that began at a time of `time.perf_counter`."""
    counted = [json.loads((folder / party_main.COUNTERS_FILE).read_text(encoding="utf-8")) for folder in folders]
    counts, session = ([each[key] for each in counted] for key in ("sequences", "session"))
    logits = load_file(folders[CLIENT] / party_main.LOGITS_FILE)["logits"]
    return RunResult(counts, session, time.perf_counter() - started, counted[0]["link"], logits)


def threads_per_party() -> int:
    """A party's share of this machine's cores."""
    return max(1, (os.cpu_count() or 2) // 2)


def _bind_listener(port: int) -> socket.socket:
    """The socket on which party 0 will wait, bound here so that a port in use is found out at once."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError):
        raise UsageError(f"port {port} cannot be used; choose another --port, or none for any free one.") from None


def _share_tokens(scratch: Path, tokens: Tensor, vocabulary: int) -> list[Path]:
    """A private folder per party with its shares of the one-hot tokens (N, B, T, V)."""
    folders = [scratch / f"party{rank}" for rank in (0, 1)]
    for folder, share in zip(folders, share_tensor(one_hot(tokens, vocabulary)), strict=True):
        folder.mkdir(mode=0o700)
        save_file({"tokens": share}, folder / party_main.TOKENS_FILE)
    return folders


def _with_address(choice: DealerSpec, calls: socket.socket) -> DealerSpec:
    """A third party with its port, and a token that this run's processes alone know."""
    if choice.kind != THIRD_PARTY:
        return choice
    return replace(choice, port=calls.getsockname()[1], token=secrets.token_hex(server.TOKEN_BYTES))


def _dealer_process(choice: DealerSpec, party: PartyJob, calls: socket.socket, scratch: Path) -> ChildProcess:
    """The third process: it is told what a party is told, and nothing of tokens and weights."""
    folder = scratch / "dealer"
    folder.mkdir(mode=0o700)
    job = server.DealerJob(
        bundle=party.bundle,
        protocol=party.protocol,
        sequences=party.sequences,
        token=choice.token,
        listener=calls.fileno(),
        timeout=party.timeout,
        threads=party.threads,
    )
    return ChildProcess("the dealer", server, job, folder)
