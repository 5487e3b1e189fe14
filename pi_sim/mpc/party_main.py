"""One party of a run, as a process of its own: `python -m pi_sim.mpc.party_main JOB.json`.

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
from pi_sim.mpc import worker
from pi_sim.mpc.dealer.dealer_spec import DealerSpec
from pi_sim.mpc.dealer.dealers import RunIdentity
from pi_sim.mpc.party import PartyResult, run_party
from pi_sim.mpc.transport.handshake import connect, handshake
from pi_sim.mpc.transport.link import Link
from pi_sim.network import Network

TOKENS_FILE, LOGITS_FILE, COUNTERS_FILE = "tokens.safetensors", "logits.safetensors", "counts.json"
"""In a party's folder: its shares of the tokens, which it is given, and what it leaves."""


@dataclass(frozen=True)
class PartyJob:
    """What one party is told. `listener` is the descriptor of a bound socket (party 0), `port` where to find it.

    `folder` is the party's own. `dealer` are the fields of a `pi_sim.mpc.dealer.dealer_spec.Choice`.
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


def _run_party_job(job: PartyJob) -> None:
    torch.set_num_threads(job.threads)
    protocol = specs.load_executable_protocol(job.protocol)
    opened = bundle.read_bundle(Path(job.bundle))
    shares, tokens = opened.party_shares(job.rank), load_file(Path(job.folder) / TOKENS_FILE)["tokens"]
    terms = RunIdentity.of_run(opened, protocol)
    dealer = DealerSpec(**job.dealer).open(job.rank, terms, job.sequences, job.timeout)
    connection = connect(job.listener, job.port, job.timeout)
    source = handshake(connection, dealer, terms.agreement_terms(job.sequences))
    link = Link(connection, job.rank, Network(**job.network) if job.network else None)
    played = run_party(opened.graph, protocol, shares, link, source, tokens, _print_progress, job.device)
    link.close()
    _write_result(played, Path(job.folder))


def _print_progress(done: int, of: int) -> None:
    print(json.dumps({"done": done, "of": of}), flush=True)


def _write_result(played: PartyResult, folder: Path) -> None:
    """What was counted, and the client's logits."""
    if played.logits is not None:
        save_file({"logits": played.logits}, folder / LOGITS_FILE)
    counted = {"link": played.link, "session": played.session, "sequences": played.sequences}
    (folder / COUNTERS_FILE).write_text(json.dumps(counted), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(worker.run_job(_run_party_job, PartyJob, sys.argv[1]))
