"""A third-party dealer, as a process of its own: `python -m pi_sim.mpc.dealer.process JOB.json`.

It reads the public part of the bundle alone, draws a seed for each party, and sends party 0 its shares while the
parties run. It ends when both parties have gone, or when its standard input closes.
"""

import secrets
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from pi_sim import specs
from pi_sim.errors import RunError
from pi_sim.graph import bundle
from pi_sim.mpc import child, phantom, wire
from pi_sim.mpc.dealer import call
from pi_sim.mpc.dealer.kinds import DEALING_NUMBER_BYTES
from pi_sim.mpc.dealer.source import DealerSource
from pi_sim.mpc.dealer.stream import AesCtrPrg, new_seed
from pi_sim.mpc.dealer.tape import Demand, raw_bytes
from pi_sim.mpc.dealer.terms import RunIdentity


@dataclass(frozen=True)
class DealerJob:
    """What the dealer is told. `listener` is the descriptor of a bound socket."""

    bundle: str
    protocol: str
    sequences: int
    token: str
    listener: int
    timeout: float
    threads: int


def serve_parties(job: DealerJob) -> None:
    """Find out what will be needed, answer both parties, then deal."""
    torch.set_num_threads(job.threads)
    opened, protocol = bundle.read_bundle(Path(job.bundle)), specs.load_executable_protocol(job.protocol)
    tape = phantom.record_demand(opened.graph, protocol)
    with socket.socket(fileno=job.listener) as listener:
        parties = call.accept_parties(
            listener, bytes.fromhex(job.token), RunIdentity.of_run(opened, protocol), job.sequences, job.timeout
        )
    seeds, number = (new_seed(), new_seed()), secrets.token_bytes(DEALING_NUMBER_BYTES)
    for party, each in zip(parties, seeds, strict=True):
        wire.send_all(party, call.WELCOME.pack(number, each))
    with suppress(RunError):  # a party that goes ends the dealing, and says itself why it went
        _stream_shares(tape, DealerSource(*map(AesCtrPrg, seeds)), job.sequences, parties)


def _stream_shares(tape: Demand, source: DealerSource, sequences: int, parties: tuple[socket.socket, socket.socket]) -> None:
    """Send party 0's shares as fast as it takes them, then wait until both parties have hung up."""
    for party in parties:
        party.settimeout(None)
    for shares in tape.replay(source, sequences):
        for share in shares:
            wire.send_all(parties[0], raw_bytes(share))
    for party in parties:
        wire.receive_exactly(party, bytearray(1))


if __name__ == "__main__":
    sys.exit(child.run_job(serve_parties, DealerJob, sys.argv[1]))
