"""One party of a run across two machines: it meets the other, computes on its shares, and audits both's counters."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph import bundle
from pi_sim.graph.bundle import Bundle
from pi_sim.graph.ops import Graph
from pi_sim.mpc import tokens, wire
from pi_sim.mpc.dealer.choice import Choice
from pi_sim.mpc.dealer.kinds import FIRST, THIRD, Dealer
from pi_sim.mpc.dealer.terms import Terms
from pi_sim.mpc.device import CPU, require_device
from pi_sim.mpc.kernels.reveal import CLIENT
from pi_sim.mpc.link import Link
from pi_sim.mpc.meeting import greet
from pi_sim.mpc.pair import Counted, threads
from pi_sim.mpc.party import Counts, Played, fraction_of, play
from pi_sim.mpc.rendezvous import Door, call, wait
from pi_sim.mpc.tls import Tls
from pi_sim.network import PRESETS
from pi_sim.records import PartyRecord, PayloadBytes, Perplexity
from pi_sim.run import deal as dealings
from pi_sim.run.audit import check, measured
from pi_sim.run.counters import exchange
from pi_sim.run.executable import executable
from pi_sim.run.place import door, listen, loopback
from pi_sim.run.quality import perplexity
from pi_sim.run.two_party import held_out, predict
from pi_sim.specs import ProtocolCard


@dataclass(frozen=True)
class Request:
    """Which party, where both meet, and what they run."""

    rank: int
    host: str
    port: int
    bundle: Path
    protocol: str
    sequences: int = 1
    timeout: float = 60.0
    dealer: str = FIRST
    """first-party, or this party's file of what `pi-sim deal` wrote."""
    keys: Path | None = None
    encrypted: bool = True
    """False if it need not be, off the loopback; on the loopback it is if there are keys."""
    device: str = CPU

    @property
    def dealer_spec(self) -> Choice:
        """The dealer that was named; two machines have no third one."""
        if self.dealer == THIRD:
            raise UsageError("a third party deals to two processes of one machine only; give a file of `pi-sim deal`.")
        return Choice.parse(self.dealer)


def party(request: Request, warn: Callable[[str], None], progress: Callable[[float], None]) -> PartyRecord:
    """This party's record, with the keys of an estimate and what was measured beside them.

    Of the bundle only this party's share file is opened. Raises `RunError` where the parties do not meet or agree,
    where the other one vanishes, stalls for longer than the time-out or sends something else than what is due, and
    where either party's measured rounds or bytes part from the predicted ones.
    """
    started, rank = time.perf_counter(), request.rank
    require_device(request.device)
    entrance, task = door(request.host, request.keys, request.encrypted, warn), _prepare(request)
    predicted = predict(task.bundle, task.protocol, [PRESETS["lan"], PRESETS["wan"]], request.dealer_spec)
    dealings.require_own(request.dealer_spec, rank, task.terms, request.sequences, predicted.total.offline)
    with closing(_meet(request, entrance, warn)) as connection:
        played = _play(task, request, connection, progress)
        theirs = exchange(connection, rank, played, len(task.bundle.graph.nodes))
    counted = _counted(rank, played, theirs, time.perf_counter() - started)
    check(task.bundle.graph, task.protocol, counted)
    sent, received = played.payload_bytes
    quality = None if task.ids is None or played.logits is None else perplexity(played.logits, task.ids)
    return PartyRecord(
        **predicted.to_json(),
        rank=rank,
        sequences=request.sequences,
        dealer=task.dealer.kind,
        device=request.device,
        encrypted=isinstance(entrance, Tls),
        measured=measured(counted, rank=rank).model_copy(update={"peer_wait_seconds": None}),
        payload_bytes=PayloadBytes(sent=sent, received=received),
        perplexity=None if task.ids is None else Perplexity(private=quality),
    )


@dataclass(frozen=True)
class Task:
    """What a party holds before it meets the other; the ids (N, T) of the text are the client's alone."""

    bundle: Bundle
    protocol: ProtocolCard
    sequences: int
    shares: dict[str, Tensor]
    ids: Tensor | None
    terms: Terms
    dealer: Dealer


def _prepare(request: Request) -> Task:
    """All that takes time or may be missing, before the other party waits for it."""
    torch.set_num_threads(threads() if loopback(request.host) else os.cpu_count() or 1)
    protocol, opened = executable(request.protocol), bundle.read(request.bundle)
    shares = opened.party_shares(request.rank)
    ids = held_out(opened, request.sequences) if request.rank == CLIENT else None
    terms = Terms.of_run(opened, protocol)
    dealer = request.dealer_spec.open(request.rank, terms, request.sequences, request.timeout)
    return Task(opened, protocol, request.sequences, shares, ids, terms, dealer)


def _meet(request: Request, entrance: Door, warn: Callable[[str], None]) -> wire.Connection:
    if request.rank == CLIENT:
        return call(request.host, request.port, entrance, request.timeout)
    return wait(listen(request.host, request.port), entrance, request.timeout, warn)


def _play(task: Task, request: Request, connection: wire.Connection, progress: Callable[[float], None]) -> Played:
    graph, told = task.bundle.graph, fraction_of(task.sequences, progress)
    source = greet(connection, task.dealer, task.terms.agreement_terms(task.sequences))
    onehots = _onehots(connection, graph, task.sequences, task.ids)
    link = Link(connection, request.rank, common_clock=False)
    played = play(graph, task.protocol, task.shares, link, source, onehots, told, request.device)
    link.finish()
    return played


def _onehots(connection: wire.Connection, graph: Graph, sequences: int, ids: Tensor | None) -> Iterator[Tensor]:
    """This party's shares of the tokens; the client alone has the ids (N, T)."""
    if ids is not None:
        return tokens.share(connection, ids.unsqueeze(1), graph.vocabulary)
    return tokens.expand(connection, sequences, (*graph.input, graph.vocabulary))


def _counted(rank: int, mine: Played, theirs: tuple[Counts, list[Counts]], seconds: float) -> Counted:
    """Both parties' counters, the server's first."""
    ends = [(mine.session, mine.sequences), theirs]
    sessions, counts = zip(*(ends if rank == 0 else reversed(ends)), strict=True)
    return Counted(list(counts), list(sessions), seconds, mine.link)
