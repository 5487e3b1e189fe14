"""One party of a run across two machines: it meets the other, computes on its shares, and audits both's counters."""

# MERGED: Two machines' counters laid beside each other, after the run and outside of what is counted.

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import RunError, UsageError
from pi_sim.graph import bundle
from pi_sim.graph.bundle import Bundle
from pi_sim.graph.ops import Graph
from pi_sim.mpc.dealer.dealers import FIRST_PARTY, THIRD_PARTY, Dealer, DealerSpec, RunIdentity
from pi_sim.mpc.kernels.local import CLIENT
from pi_sim.mpc.launch import PartyCounters, threads_per_party
from pi_sim.mpc.party import CPU, Counters, PartyResult, open_dealer, require_device, run_party, sequence_progress
from pi_sim.mpc.transport import wire
from pi_sim.mpc.transport.handshake import expand_token_shares, perform_handshake, share_tokens
from pi_sim.mpc.transport.link import Link
from pi_sim.mpc.transport.rendezvous import Transport, accept_peer, connect_to_server, is_loopback, listen_at
from pi_sim.mpc.transport.tls import TlsTransport, choose_transport
from pi_sim.network import PRESETS
from pi_sim.records import PartyRecord, PayloadBytes, Perplexity
from pi_sim.run import dealing
from pi_sim.run.accuracy import perplexity
from pi_sim.run.audit import audit_run, summarize_counters
from pi_sim.run.dealing import require_executable_protocol
from pi_sim.run.two_party import estimate_bundle, held_out_ids
from pi_sim.specs import ExecutableProtocol


@dataclass(frozen=True)
class PartyRequest:
    """Which party, where both meet, and what they run."""

    rank: int
    host: str
    port: int
    bundle: Path
    protocol: str
    sequences: int = 1
    timeout: float = 60.0
    dealer: str = FIRST_PARTY
    """first-party, or this party's file of what `pi-sim deal` wrote."""
    keys: Path | None = None
    encrypted: bool = True
    """False if it need not be, off the loopback; on the loopback it is if there are keys."""
    device: str = CPU

    @property
    def dealer_spec(self) -> DealerSpec:
        """The dealer that was named; two machines have no third one."""
        if self.dealer == THIRD_PARTY:
            raise UsageError("a third party deals to two processes of one machine only; give a file of `pi-sim deal`.")
        return DealerSpec.parse(self.dealer)


def run_remote_party(
    request: PartyRequest, warn: Callable[[str], None], progress: Callable[[float], None]
) -> PartyRecord:
    """This party's record, with the keys of an estimate and what was measured beside them.

    Of the bundle only this party's share file is opened. Raises `RunError` where the parties do not meet or agree,
    where the other one vanishes, stalls for longer than the time-out or sends something else than what is due, and
    where either party's measured rounds or bytes part from the predicted ones.
    """
    started, rank = time.perf_counter(), request.rank
    require_device(request.device)
    entrance, task = choose_transport(request.host, request.keys, request.encrypted, warn), _prepare_task(request)
    predicted = estimate_bundle(task.bundle, task.protocol, [PRESETS["lan"], PRESETS["wan"]], request.dealer_spec)
    dealing.check_own_dealt_file(request.dealer_spec, rank, task.terms, request.sequences, predicted.total.offline)
    with closing(_connect(request, entrance, warn)) as connection:
        played = _run_graph(task, request, connection, progress)
        theirs = exchange_counters(connection, rank, played, len(task.bundle.graph.nodes))
    counted = _pair_counters(rank, played, theirs, time.perf_counter() - started)
    audit_run(task.bundle.graph, task.protocol, counted)
    sent, received = played.payload_bytes
    quality = None if task.ids is None or played.logits is None else perplexity(played.logits, task.ids)
    return PartyRecord(
        **predicted.to_json(),
        rank=rank,
        sequences=request.sequences,
        dealer=task.dealer.kind,
        device=request.device,
        encrypted=isinstance(entrance, TlsTransport),
        measured=summarize_counters(counted, rank=rank).model_copy(update={"peer_wait_seconds": None}),
        payload_bytes=PayloadBytes(sent=sent, received=received),
        perplexity=None if task.ids is None else Perplexity(private=quality),
    )


@dataclass(frozen=True)
class PartyTask:
    """What a party holds before it meets the other; the ids (N, T) of the text are the client's alone."""

    bundle: Bundle
    protocol: ExecutableProtocol
    sequences: int
    shares: dict[str, Tensor]
    ids: Tensor | None
    terms: RunIdentity
    dealer: Dealer


def _prepare_task(request: PartyRequest) -> PartyTask:
    """All that takes time or may be missing, before the other party waits for it."""
    torch.set_num_threads(threads_per_party() if is_loopback(request.host) else os.cpu_count() or 1)
    protocol, opened = require_executable_protocol(request.protocol), bundle.read_bundle(request.bundle)
    shares = opened.party_shares(request.rank)
    ids = held_out_ids(opened, request.sequences) if request.rank == CLIENT else None
    terms = RunIdentity.of_run(opened, protocol)
    dealer = open_dealer(request.dealer_spec, request.rank, terms, request.sequences, request.timeout)
    return PartyTask(opened, protocol, request.sequences, shares, ids, terms, dealer)


def _connect(request: PartyRequest, entrance: Transport, warn: Callable[[str], None]) -> wire.Connection:
    if request.rank == CLIENT:
        return connect_to_server(request.host, request.port, entrance, request.timeout)
    return accept_peer(listen_at(request.host, request.port), entrance, request.timeout, warn)


def _run_graph(
    task: PartyTask, request: PartyRequest, connection: wire.Connection, progress: Callable[[float], None]
) -> PartyResult:
    graph, told = task.bundle.graph, sequence_progress(task.sequences, progress)
    source = perform_handshake(connection, task.dealer, task.terms.agreement_terms(task.sequences))
    onehots = _one_hot_shares(connection, graph, task.sequences, task.ids)
    link = Link(connection, request.rank, common_clock=False)
    played = run_party(graph, task.protocol, task.shares, link, source, onehots, told, request.device)
    link.finish()
    return played


def _one_hot_shares(connection: wire.Connection, graph: Graph, sequences: int, ids: Tensor | None) -> Iterator[Tensor]:
    """This party's shares of the tokens; the client alone has the ids (N, T)."""
    if ids is not None:
        return share_tokens(connection, ids.unsqueeze(1), graph.vocabulary)
    return expand_token_shares(connection, sequences, (*graph.input, graph.vocabulary))


def _pair_counters(
    rank: int, mine: PartyResult, theirs: tuple[Counters, list[Counters]], seconds: float
) -> PartyCounters:
    """Both parties' counters, the server's first."""
    ends = [(mine.session, mine.sequences), theirs]
    sessions, counts = zip(*(ends if rank == 0 else reversed(ends)), strict=True)
    return PartyCounters(list(counts), list(sessions), seconds, mine.link)


COUNTER_NAMES = ("rounds", "sent", "received", "crypten_rounds", "crypten_bytes", "offline", "requested")
MAX_COUNTERS_BYTES = 2**26
"""Bytes of all counters of a long run, and far more than that."""


def exchange_counters(
    connection: wire.Connection, rank: int, mine: PartyResult, nodes: int
) -> tuple[Counters, list[Counters]]:
    """What the other party counted in its session and in each sequence, up to each of so many nodes.

    The server tells first, so that neither has to send while the other does.
    """
    text = json.dumps({"session": mine.session, "sequences": mine.sequences}).encode()
    if rank == 0:
        wire.send_text(connection, text)
    theirs = wire.receive_text(connection, MAX_COUNTERS_BYTES)
    if rank == 1:
        wire.send_text(connection, text)
    return _parse_peer_counters(theirs, len(mine.sequences), nodes)


def _parse_peer_counters(text: bytes, sequences: int, nodes: int) -> tuple[Counters, list[Counters]]:
    try:
        told = json.loads(text)
        session, each = _counter_values(told["session"]), [_counter_values(one) for one in told["sequences"]]
        reached = [[(int(rounds), int(sent)) for rounds, sent in one["nodes"]] for one in told["sequences"]]
    except Exception:  # whatever nonsense leads to
        raise RunError("the other party's counters cannot be read; is it another version of pi-sim?") from None
    if [len(one) for one in reached] != [nodes] * sequences:
        raise RunError("the other party counted other sequences or nodes than this one.")
    return session, [{**one, "nodes": points} for one, points in zip(each, reached, strict=True)]


def _counter_values(told: dict[str, Any]) -> Counters:
    return {name: int(told[name]) for name in COUNTER_NAMES}
