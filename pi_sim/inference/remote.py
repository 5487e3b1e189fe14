"""One party of a run across two machines: it meets the other, computes on its shares, and audits both parties.

The parties exchange their counters after the run, outside of the counted communication.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import RunError, UsageError
from pi_sim.graph.bundle import Bundle, read_bundle
from pi_sim.inference import dealing
from pi_sim.inference.checks import audit_run, summarize_counters
from pi_sim.inference.domains import warn_of_domains
from pi_sim.inference.generation import OnText, TokenStream, check_prompt, describe_generation, join_counters
from pi_sim.inference.inputs import TOKENS, InputChoice, RunInputs, load_text_tokenizer
from pi_sim.inference.two_party import estimate_bundle, judge_results, read_bundle_inputs, save_results
from pi_sim.mpc.dealer.dealers import THIRD_PARTY, Dealer, DealerSpec, RunIdentity
from pi_sim.mpc.launch import PartyCounters, threads_per_party
from pi_sim.mpc.party import (
    CPU,
    Counters,
    PartyResult,
    client_shares,
    open_dealer,
    require_device,
    run_party,
    sequence_progress,
    server_shares,
    step_inputs,
)
from pi_sim.mpc.runtime import CLIENT
from pi_sim.mpc.sampling import Sampling
from pi_sim.mpc.transport.connection import (
    Connection,
    Transport,
    accept_peer,
    connect_to_server,
    is_loopback,
    listen_at,
    receive_text,
    send_text,
)
from pi_sim.mpc.transport.handshake import perform_handshake
from pi_sim.mpc.transport.link import Link
from pi_sim.mpc.transport.tls import TlsTransport, choose_transport
from pi_sim.network import PRESETS
from pi_sim.records import PartyRecord, PayloadBytes
from pi_sim.specs import ExecutableProtocol


@dataclass(frozen=True, kw_only=True)
class PartyRequest:
    """Inputs of one party: its rank, where the parties meet, and the computation."""

    rank: int
    host: str
    port: int
    bundle: Path
    protocol: ExecutableProtocol
    sequences: int = 1
    input: InputChoice = field(default_factory=InputChoice)
    """The client's input; the server needs none."""
    sampling: Sampling = field(default_factory=Sampling)
    """How the client chooses the tokens that a bundle generates."""
    out: Path | None = None
    """File for the client's results."""
    timeout: float = 60.0
    dealer: DealerSpec = field(default_factory=DealerSpec)
    """The first party, or this party's file of those that `pi-sim deal` wrote."""
    keys: Path | None = None
    encrypted: bool = True
    """False allows a plain connection off the loopback; on the loopback `keys` alone decide."""
    device: str = CPU

    def __post_init__(self) -> None:
        if self.dealer.kind == THIRD_PARTY:
            raise UsageError("a third party deals to two processes of one machine only; give a file of `pi-sim deal`.")


def run_remote_party(
    request: PartyRequest,
    warn: Callable[[str], None],
    progress: Callable[[float], None],
    on_text: OnText = lambda text: None,
) -> PartyRecord:
    """Run one party; return a record of the prediction and of the measurement of both parties.

    Only this party's share file of the bundle is read. Raises `RunError` if the parties do not meet or agree, if the
    other one vanishes, stalls for longer than the time-out or sends something unexpected, and if either party's
    measured rounds or bytes differ from the predicted ones.
    """
    started, rank = time.perf_counter(), request.rank
    require_device(request.device)
    transport, task = (
        choose_transport(request.host, request.keys, request.encrypted, warn),
        _prepare_task(request, warn, on_text),
    )
    estimate = estimate_bundle(task.bundle, request.protocol, [PRESETS["lan"], PRESETS["wan"]], request.dealer)
    dealing.check_own_dealt_file(request.dealer, rank, task.identity, request.sequences, estimate.total.offline)
    with closing(_connect(request, transport, warn)) as connection:
        result = _run_graph(task, request, connection, progress)
        peer = exchange_counters(connection, rank, result, [len(graph.nodes) for graph in task.bundle.graphs])
    counters = _pair_counters(rank, result, peer, time.perf_counter() - started)
    audit_run(task.bundle.graphs, request.protocol, counters)
    sent, received = result.payload_bytes
    return PartyRecord(
        **estimate.to_json(),
        rank=rank,
        sequences=request.sequences,
        dealer=task.dealer.kind,
        device=request.device,
        encrypted=isinstance(transport, TlsTransport),
        measured=summarize_counters(join_counters(counters) if task.bundle.steps else counters, rank=rank).model_copy(
            update={"peer_wait_seconds": None}
        ),
        payload_bytes=PayloadBytes(sent=sent, received=received),
        **_judge_results(request, task, counters, result.logits),
    )


def _judge_results(
    request: PartyRequest, task: "PartyTask", counters: PartyCounters, results: Tensor | None
) -> dict[str, Any]:
    """Return what the client's results are worth, and save them; nothing at the server."""
    if task.inputs is None or results is None:
        return {}
    if request.out:
        save_results(request.out, results[: task.inputs.count] if not task.bundle.steps else results[:, -1])
    if task.stream:
        logits, prompt = results[:, -1], task.inputs.values[TOKENS][0]
        generation = describe_generation(task.stream, prompt, counters, logits, request.sampling, rank=CLIENT)
        return {"generation": generation}
    return judge_results(task.bundle, task.inputs, results, None, predicts_text=request.input.prompt is None)


@dataclass(frozen=True)
class PartyTask:
    """Data that a party holds before it meets the other; the inputs are the client's alone."""

    bundle: Bundle
    shares: dict[str, Tensor]
    inputs: RunInputs | None
    identity: RunIdentity
    dealer: Dealer
    stream: TokenStream | None
    """Text that the client generates, None at the server and of a bundle of one graph."""


def _prepare_task(request: PartyRequest, warn: Callable[[str], None], on_text: OnText) -> PartyTask:
    """Read everything that takes time or may be missing, before the other party waits for it."""
    torch.set_num_threads(threads_per_party() if is_loopback(request.host) else os.cpu_count() or 1)
    dealing.check_executable(request.protocol)
    bundle = read_bundle(request.bundle)
    dealing.check_deployment(bundle, request.protocol)
    warn_of_domains(bundle.ranges, request.protocol, warn)
    identity = RunIdentity.of_run(bundle, request.protocol)
    generates = request.rank == CLIENT and bundle.steps
    return PartyTask(
        bundle=bundle,
        shares=bundle.party_shares(request.rank),
        inputs=_read_inputs(request, bundle) if request.rank == CLIENT else None,
        identity=identity,
        dealer=open_dealer(request.dealer, request.rank, identity, request.sequences, request.timeout),
        stream=TokenStream(load_text_tokenizer(bundle.folder), on_text) if generates else None,
    )


def _read_inputs(request: PartyRequest, bundle: Bundle) -> RunInputs:
    """Return the client's inputs, as many as both parties agree on."""
    request.input.check(bundle.folder)
    if bundle.steps and request.sequences > 1:
        raise UsageError(f"{bundle.folder} continues one prompt; leave --sequences out.")
    count = request.sequences * bundle.origin["batch"]
    inputs = read_bundle_inputs(replace(request.input, sequences=count), bundle)
    if bundle.steps:
        check_prompt(bundle, inputs)
    if inputs.batches != request.sequences:
        raise UsageError(f"there are {inputs.count} inputs; give --sequences {inputs.batches} at both parties.")
    return inputs


def _connect(request: PartyRequest, transport: Transport, warn: Callable[[str], None]) -> Connection:
    if request.rank == CLIENT:
        return connect_to_server(request.host, request.port, transport, request.timeout)
    return accept_peer(listen_at(request.host, request.port), transport, request.timeout, warn)


def _run_graph(
    task: PartyTask, request: PartyRequest, connection: Connection, progress: Callable[[float], None]
) -> PartyResult:
    graph, report_node = task.bundle.graph, sequence_progress(request.sequences * len(task.bundle.graphs), progress)
    source = perform_handshake(connection, task.dealer, task.identity.agreement_terms(request.sequences))
    if task.inputs:
        inputs = client_shares(graph, task.inputs.shared_values(graph))
    else:
        inputs = server_shares(graph, request.sequences)
    link = Link(connection, request.rank, common_clock=False)
    graphs = task.bundle.graphs
    steps = step_inputs(request.sampling, task.stream.write) if task.stream else step_inputs(None)
    result = run_party(graphs, request.protocol, task.shares, link, source, inputs, report_node, request.device, steps)
    link.finish()
    return result


PeerCounters = tuple[Counters, list[Counters]]
"""A party's counters of its session, and of each sequence."""


def _pair_counters(rank: int, result: PartyResult, peer: PeerCounters, seconds: float) -> PartyCounters:
    """Return the counters of both parties, the server's first."""
    pair = [(result.session, result.sequences), peer]
    sessions, sequences = zip(*(pair if rank == 0 else reversed(pair)), strict=True)
    return PartyCounters(list(sequences), list(sessions), seconds, result.link)


COUNTER_NAMES = ("rounds", "sent", "received", "crypten_rounds", "crypten_bytes", "offline", "requested")
MAX_COUNTERS_BYTES = 2**26
"""Limit on the size of a counters message; those of a long run are far smaller."""


def exchange_counters(connection: Connection, rank: int, result: PartyResult, nodes: Sequence[int]) -> PeerCounters:
    """Send this party's counters and return the other party's, which must cover the `nodes` of every graph.

    The server sends first, so that the parties never send at once.
    """
    text = json.dumps({"session": result.session, "sequences": result.sequences}).encode()
    if rank == 0:
        send_text(connection, text)
    reply = receive_text(connection, MAX_COUNTERS_BYTES)
    if rank == 1:
        send_text(connection, text)
    return _parse_peer_counters(reply, len(result.sequences), nodes)


def _parse_peer_counters(text: bytes, evaluations: int, nodes: Sequence[int]) -> PeerCounters:
    try:
        message = json.loads(text)
        session = _counter_values(message["session"])
        counters = [
            {**_counter_values(entry), "ahead": _ahead_values(entry["ahead"])} for entry in message["sequences"]
        ]
        by_node = [[(int(rounds), int(sent)) for rounds, sent in entry["nodes"]] for entry in message["sequences"]]
    except Exception:  # nonsense raises nearly anything
        raise RunError("the other party's counters cannot be read; is it another version of pi-sim?") from None
    if [len(points) for points in by_node] != [*nodes] * (evaluations // len(nodes)):
        raise RunError("the other party counted other sequences or nodes than this one.")
    return session, [{**values, "nodes": points} for values, points in zip(counters, by_node, strict=True)]


def _ahead_values(table: dict[str, Any]) -> Counters:
    """Return counters and seconds of the preparation of a sequence."""
    return {**_counter_values(table), "seconds": float(table["seconds"])}


def _counter_values(table: dict[str, Any]) -> Counters:
    return {name: int(table[name]) for name in COUNTER_NAMES}
