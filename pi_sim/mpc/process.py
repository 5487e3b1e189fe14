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
from pi_sim.mpc import child
from pi_sim.mpc.dealer.choice import Choice
from pi_sim.mpc.dealer.terms import Terms
from pi_sim.mpc.link import Link
from pi_sim.mpc.meeting import greet, meet
from pi_sim.mpc.party import Played, play
from pi_sim.network import Network

TOKENS, LOGITS, COUNTS = "tokens.safetensors", "logits.safetensors", "counts.json"
"""In a party's folder: its shares of the tokens, which it is given, and what it leaves."""


@dataclass(frozen=True)
class Job:
    """What one party is told. `listener` is the descriptor of a bound socket (party 0), `port` where to find it.

    `folder` is the party's own. `dealer` are the fields of a `pi_sim.mpc.dealer.choice.Choice`.
    """

    rank: int
    bundle: str
    folder: str
    protocol: str
    port: int
    listener: int | None
    timeout: float
    threads: int
    network: dict[str, Any] | None
    sequences: int
    device: str
    dealer: dict[str, Any] = field(default_factory=dict)


def _run(job: Job) -> None:
    torch.set_num_threads(job.threads)
    protocol = specs.protocol_card(job.protocol)
    opened = bundle.read(Path(job.bundle))
    shares, tokens = opened.party_shares(job.rank), load_file(Path(job.folder) / TOKENS)["tokens"]
    terms = Terms.of_run(opened, protocol)
    dealer = Choice(**job.dealer).open(job.rank, terms, job.sequences, job.timeout)
    connection = meet(job.listener, job.port, job.timeout)
    source = greet(connection, dealer, terms.agreement_terms(job.sequences))
    link = Link(connection, job.rank, Network(**job.network) if job.network else None)
    played = play(opened.graph, protocol, shares, link, source, tokens, _tell, job.device)
    link.close()
    _save(played, Path(job.folder))


def _tell(done: int, of: int) -> None:
    print(json.dumps({"done": done, "of": of}), flush=True)


def _save(played: Played, folder: Path) -> None:
    """What was counted, and the client's logits."""
    if played.logits is not None:
        save_file({"logits": played.logits}, folder / LOGITS)
    counted = {"link": played.link, "session": played.session, "sequences": played.sequences}
    (folder / COUNTS).write_text(json.dumps(counted), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(child.perform(_run, Job, sys.argv[1]))
