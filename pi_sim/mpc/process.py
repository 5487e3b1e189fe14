"""One party of a run, as a process of its own: `python -m pi_sim.mpc.process JOB.json`.

Of the bundle it opens the public files and the party's own shares. It meets the other party, checks that both hold the
same graph and protocol, evaluates the graph once per sequence, and writes what it counted; the client also writes the
logits that were opened to it. It ends when its standard input closes, so it cannot outlive whoever started it.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pi_sim import specs
from pi_sim.graph import bundle
from pi_sim.mpc import backend, child
from pi_sim.mpc.dealer.choice import Choice
from pi_sim.mpc.dealer.provider import Provider
from pi_sim.mpc.dealer.terms import Terms
from pi_sim.mpc.kernels.reveal import CLIENT
from pi_sim.mpc.link import Link
from pi_sim.mpc.meeting import greet, meet
from pi_sim.mpc.party import Party
from pi_sim.network import Network


@dataclass(frozen=True)
class Job:
    """What one party is told. `listener` is the descriptor of a bound socket (party 0), `port` where to find it.

    `dealer` are the fields of a `pi_sim.mpc.dealer.choice.Choice`.
    """

    rank: int
    bundle: str
    tokens: str
    protocol: str
    result: str
    port: int
    listener: int | None
    timeout: float
    threads: int
    network: dict[str, Any] | None
    sequences: int
    dealer: dict[str, Any] = field(default_factory=dict)


def _run(job: Job) -> None:
    torch.set_num_threads(job.threads)
    protocol = specs.protocol_card(job.protocol)
    opened = bundle.read(Path(job.bundle))
    shares = opened.shares(job.rank)
    terms = Terms.of(opened, protocol)
    dealer = Choice(**job.dealer).open(job.rank, terms, job.sequences, job.timeout)
    connection = meet(job.listener, job.port, job.timeout)
    source = greet(connection, dealer, terms.digest())
    link = Link(connection, job.rank, Network(**job.network) if job.network else None)
    with backend.use(link, Provider(source), protocol.settings), torch.no_grad():
        weights = {name: backend.shares(share) for name, share in shares.items()}
        party = Party(opened.graph, protocol, weights, link, source)
        session = party.open_weights()
        runs = [party.infer(tokens) for tokens in load_file(job.tokens)["tokens"]]
    link.close()
    if job.rank == CLIENT:
        save_file({"logits": torch.cat([logits for _, logits in runs])}, Path(job.result) / "logits.safetensors")
    counted = {"session": session, "sequences": [counts for counts, _ in runs]}
    (Path(job.result) / "counts.json").write_text(json.dumps(counted), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(child.perform(_run, Job, sys.argv[1]))
