"""A private run on this machine: two parties as processes, and a third one if a third party deals.

All processes are watched; none is left behind, whatever ends the run.
"""

import json
import math
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from pi_sim.errors import RunError, UsageError
from pi_sim.graph.bundle import Bundle
from pi_sim.mpc import worker
from pi_sim.mpc.dealer import server
from pi_sim.mpc.dealer.dealers import THIRD_PARTY, DealerSpec
from pi_sim.mpc.party import COUNTERS_FILE, CPU, INPUTS_FILE, LOGITS_FILE, Counters, PartyJob, sequence_progress
from pi_sim.mpc.runtime import CLIENT
from pi_sim.mpc.sampling import Sampling
from pi_sim.network import Network
from pi_sim.specs import ExecutableProtocol

PARTY_COUNT = 2
GRACE_PERIOD_S = 5.0
"""Seconds that a party has to notice the failure of the other one."""
FIRST_PARTY_DEALER = DealerSpec()


class TimeLimitError(RunError):
    """Run that was ended because it took longer than its caller allows."""


class ChildProcess(NamedTuple):
    """A process of a run: its name in messages, its job, and a folder for what it prints on stderr."""

    name: str
    job: worker.Job
    folder: Path

    def start(self, stdout: int) -> "subprocess.Popen[bytes]":
        """Run the module that defines the job; its standard error goes to a file."""
        with (self.folder / "errors").open("wb") as errors:
            return worker.start(type(self.job).__module__, self.job, stdout, errors)

    def failure_reason(self, status: int | None) -> str | None:
        """Return why the process failed, or None if it succeeded; `status` is None for a process that did not exit.

        The reason is its last line on standard error or the signal that killed it. A dealer that is still running is
        not a failure.
        """
        lines = (self.folder / "errors").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if status is None:
            return f"{self.name} did not exit" if isinstance(self.job, PartyJob) else None
        if status < 0:
            return f"{self.name} was killed by {signal.Signals(-status).name}"
        return f"{self.name}: {lines[-1] if lines else f'exit status {status}'}".rstrip(".") if status else None


def supervise(
    members: list[ChildProcess],
    sequences: int,
    timeout: float,
    progress: Callable[[float], None],
    limit: float = math.inf,
    on_token: Callable[[int], None] = lambda token: None,
) -> None:
    """Start all processes, the parties first, and end all when one fails.

    Party 0's progress and the client's tokens are forwarded meanwhile.

    Raises `RunError` with the reason of every process that failed, and `TimeLimitError` after `limit` seconds.
    """
    outputs = [subprocess.PIPE] * PARTY_COUNT + [subprocess.DEVNULL] * (len(members) - PARTY_COUNT)
    processes = [member.start(stdout) for member, stdout in zip(members, outputs, strict=True)]
    followers = [
        threading.Thread(target=_forward_progress, args=(processes[0].stdout, sequences, progress), daemon=True),
        threading.Thread(target=_forward_tokens, args=(processes[1].stdout, on_token), daemon=True),
    ]
    for follower in followers:
        follower.start()
    try:
        statuses = _wait_for_exit(processes, timeout, limit)
    finally:
        for process in processes:
            process.kill()
        for follower in followers:
            follower.join()
        for process in processes:
            process.communicate()  # waits, and closes the pipes
    if all(status is None for status in statuses):
        raise TimeLimitError(f"the run did not end within {limit:.0f} s.")
    failures = [member.failure_reason(status) for member, status in zip(members, statuses, strict=True)]
    if any(failures):
        raise RunError(f"the run failed; {'; '.join(filter(None, failures))}.")


def _forward_progress(lines: Iterable[bytes], sequences: int, progress: Callable[[float], None]) -> None:
    """Report the completed fraction from the lines that party 0 prints after every node."""
    on_node = sequence_progress(sequences, progress)
    for line in lines:
        state = json.loads(line)
        with suppress(OSError):  # nobody reads the progress any more; the run goes on
            on_node(state["done"], state["total"])


def _forward_tokens(lines: Iterable[bytes], on_token: Callable[[int], None]) -> None:
    """Forward the tokens from the lines that the client prints, which reports its progress too."""
    for line in lines:
        state = json.loads(line)
        if "token" in state:
            with suppress(OSError):
                on_token(state["token"])


def _wait_for_exit(
    processes: "list[subprocess.Popen[bytes]]", timeout: float, limit: float = math.inf
) -> list[int | None]:
    """Return all exit statuses, None for a process that did not exit within `limit`, or in time after another one.

    After a failure the remaining processes have `GRACE_PERIOD_S`, after a success `timeout` seconds, as long as a
    message may take. Processes after the two parties, the dealer, are not waited for.
    """
    deadline = time.monotonic() + limit
    while any(party.poll() is None for party in processes[:PARTY_COUNT]) and time.monotonic() < deadline:
        statuses = [status for process in processes if (status := process.poll()) is not None]
        if statuses:
            deadline = min(deadline, time.monotonic() + (GRACE_PERIOD_S if any(statuses) else timeout))
        time.sleep(0.01)
    return [process.poll() for process in processes]


@dataclass(frozen=True)
class PartyCounters:
    """Counters of both parties: `counts[rank][sequence]`, and `session[rank]` from before the first sequence.

    The session is the opening of fixed weights. `seconds` is the time of the whole run, `link` what party 0 measured of
    the connection itself, see `pi_sim.mpc.transport.link`.
    """

    counts: list[list[Counters]]
    session: list[Counters]
    seconds: float
    link: dict[str, float]


@dataclass(frozen=True)
class RunResult(PartyCounters):
    """Counters of a run with the logits (N, T, V) that the client opened, and the larger party's peak of memory."""

    logits: Tensor
    memory_bytes: int


def run_local(
    bundle: Bundle,
    protocol: ExecutableProtocol,
    inputs: Mapping[str, Tensor],
    *,
    port: int = 0,
    timeout: float = 60.0,
    network: Network | None = None,
    dealer: DealerSpec = FIRST_PARTY_DEALER,
    device: str = CPU,
    progress: Callable[[float], None] = lambda fraction: None,
    limit: float = math.inf,
    sampling: Sampling | None = None,
    on_token: Callable[[int], None] = lambda token: None,
) -> RunResult:
    """Evaluate a bundle's graphs on the client's inputs between two local processes, sequence by sequence.

    `on_token` gets every token that the client chooses by `sampling` as input of a decoding step.

    Inputs are token ids (N, B, T) and real numbers (N, ...) by name. Each party has a folder of its own for its
    results, the client's with its inputs. Raises `RunError` if a process
    fails, with its name and reason, and `TimeLimitError` if all take more than `limit` seconds; nothing is left running
    or on disk, whatever ends the run.
    """
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch,
        _bind_listener(port) as party_listener,
        _bind_listener(0) as dealer_listener,
    ):
        sequences = len(next(iter(inputs.values())))
        folders = _create_folders(Path(scratch), inputs)
        spec = replace(dealer, port=dealer_listener.getsockname()[1], token=secrets.token_hex(server.TOKEN_BYTES))
        server_job = PartyJob(
            rank=0,
            bundle=bundle.folder,
            folder=folders[0],
            protocol=protocol,
            port=party_listener.getsockname()[1],
            listener=party_listener.fileno(),
            timeout=timeout,
            threads=threads_per_party(),
            network=network,
            sequences=sequences,
            device=device,
            dealer=spec,
        )
        own = {"rank": 1, "folder": folders[1], "listener": None, "sampling": sampling}
        client_job = server_job.model_copy(update=own)
        members = [ChildProcess(f"party {job.rank}", job, job.folder) for job in (server_job, client_job)]
        if spec.kind == THIRD_PARTY:
            members.append(_dealer_process(server_job, dealer_listener, Path(scratch)))
        supervise(members, sequences * len(bundle.graphs), timeout, progress, limit, on_token)
        return _collect_result(folders, started)


def _collect_result(folders: list[Path], started: float) -> RunResult:
    """Read the results from both parties' folders; the run started at `started` by `time.perf_counter`."""
    server, client = (json.loads((folder / COUNTERS_FILE).read_text(encoding="utf-8")) for folder in folders)
    counts, session = ([server[key], client[key]] for key in ("sequences", "session"))
    logits = load_file(folders[CLIENT] / LOGITS_FILE)["logits"]
    memory = max(server["memory_bytes"], client["memory_bytes"])
    return RunResult(counts, session, time.perf_counter() - started, server["link"], logits, memory)


def threads_per_party() -> int:
    """Return the number of threads of a party: half of this machine's cores."""
    return max(1, (os.cpu_count() or 2) // 2)


def _bind_listener(port: int) -> socket.socket:
    """Bind a listening socket on the loopback here, so that a port in use is an immediate `UsageError`."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError):
        raise UsageError(f"port {port} cannot be used; choose another --port, or none for any free one.") from None


def _create_folders(scratch: Path, inputs: Mapping[str, Tensor]) -> list[Path]:
    """Create a private folder per party, the client's with its inputs."""
    folders = [scratch / f"party{rank}" for rank in (0, 1)]
    for folder in folders:
        folder.mkdir(mode=0o700)
    save_file({name: value.contiguous() for name, value in inputs.items()}, folders[CLIENT] / INPUTS_FILE)
    return folders


def _dealer_process(party: PartyJob, listener: socket.socket, scratch: Path) -> ChildProcess:
    """Return the third process: it gets the public parameters of a party, and no inputs or weights.

    Only the processes of this run know the token that its callers must send.
    """
    folder = scratch / "dealer"
    folder.mkdir(mode=0o700)
    job = server.DealerJob(
        bundle=party.bundle,
        protocol=party.protocol,
        sequences=party.sequences,
        token=party.dealer.token,
        listener=listener.fileno(),
        timeout=party.timeout,
        threads=party.threads,
    )
    return ChildProcess("the dealer", job, folder)
