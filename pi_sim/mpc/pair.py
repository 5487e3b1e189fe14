"""Two parties as two processes on this machine, and a third one as their dealer."""

import json
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph.sharing import one_hot, share_tensor
from pi_sim.mpc import process
from pi_sim.mpc.dealer import call
from pi_sim.mpc.dealer import process as service
from pi_sim.mpc.dealer.choice import DealerSpec
from pi_sim.mpc.dealer.kinds import FIRST_PARTY, THIRD_PARTY
from pi_sim.mpc.device import CPU
from pi_sim.mpc.kernels.reveal import CLIENT
from pi_sim.mpc.members import ChildProcess, supervise
from pi_sim.mpc.party import Counters
from pi_sim.mpc.process import PartyJob
from pi_sim.network import Network


@dataclass(frozen=True)
class PartyCounters:
    """What both parties counted: `counts[rank][sequence]`.

    `session[rank]` is what each counted before the first sequence, opening weights that stay put. `seconds` are those
    of everything, `link` what one party measured of the connection itself, see `pi_sim.mpc.overhead`.
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
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch, _bind_listener(port) as listener, _bind_listener(0) as calls:
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
        members = [ChildProcess(f"party {job.rank}", process, job, Path(job.folder)) for job in parties]
        if choice.kind == THIRD_PARTY:
            members.append(_dealer_process(choice, parties[0], calls, Path(scratch)))
        supervise(members, len(tokens), timeout, progress)
        return _collect_result(folders, started)


def _collect_result(folders: list[Path], started: float) -> RunResult:
    """What both parties left in their folders, of a run that began at a time of `time.perf_counter`."""
    counted = [json.loads((folder / process.COUNTERS_FILE).read_text(encoding="utf-8")) for folder in folders]
    counts, session = ([each[key] for each in counted] for key in ("sequences", "session"))
    logits = load_file(folders[CLIENT] / process.LOGITS_FILE)["logits"]
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
        save_file({"tokens": share}, folder / process.TOKENS_FILE)
    return folders


def _with_address(choice: DealerSpec, calls: socket.socket) -> DealerSpec:
    """A third party with its port, and a token that this run's processes alone know."""
    if choice.kind != THIRD_PARTY:
        return choice
    return replace(choice, port=calls.getsockname()[1], token=secrets.token_hex(call.TOKEN_BYTES))


def _dealer_process(choice: DealerSpec, party: PartyJob, calls: socket.socket, scratch: Path) -> ChildProcess:
    """The third process: it is told what a party is told, and nothing of tokens and weights."""
    folder = scratch / "dealer"
    folder.mkdir(mode=0o700)
    job = service.DealerJob(
        bundle=party.bundle,
        protocol=party.protocol,
        sequences=party.sequences,
        token=choice.token,
        listener=calls.fileno(),
        timeout=party.timeout,
        threads=party.threads,
    )
    return ChildProcess("the dealer", service, job, folder)
