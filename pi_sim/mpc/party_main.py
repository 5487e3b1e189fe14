"""One party of a run on one machine, as a process: `python -m pi_sim.mpc.party_main`, with a job on standard input.

Of the bundle it reads the public files and the party's own shares. It connects to the other party, checks that both
hold the same graph and protocol, evaluates the graph once per sequence, and writes its counters; the client also writes
the logits that were opened to it.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pi_sim.graph import bundle
from pi_sim.mpc import worker
from pi_sim.mpc.dealer.dealers import DealerSpec, RunIdentity
from pi_sim.mpc.party import PartyResult, open_dealer, run_party
from pi_sim.mpc.transport.handshake import connect, perform_handshake
from pi_sim.mpc.transport.link import Link
from pi_sim.network import Network
from pi_sim.specs import ExecutableProtocol

TOKENS_FILE, LOGITS_FILE, COUNTERS_FILE = "tokens.safetensors", "logits.safetensors", "counts.json"
"""In a party's folder: its shares of the tokens (input), the client's logits and the counters (output)."""


class PartyJob(worker.Job):
    """Parameters of one party. `listener` is party 0's, None at party 1; `port` is where party 0 listens."""

    rank: int
    bundle: Path
    folder: Path
    """Folder of this party alone, with its shares of the tokens and its results."""
    protocol: ExecutableProtocol
    port: int
    timeout: float
    threads: int
    network: Network | None
    sequences: int
    device: str
    dealer: DealerSpec


def run_party_job(job: PartyJob) -> None:
    """Run one party and write its results to its folder."""
    torch.set_num_threads(job.threads)
    party_bundle = bundle.read_bundle(job.bundle)
    shares, tokens = party_bundle.party_shares(job.rank), load_file(job.folder / TOKENS_FILE)["tokens"]
    identity = RunIdentity.of_run(party_bundle, job.protocol)
    dealer = open_dealer(job.dealer, job.rank, identity, job.sequences, job.timeout)
    connection = connect(job.listener, job.port, job.timeout)
    source = perform_handshake(connection, dealer, identity.agreement_terms(job.sequences))
    link = Link(connection, job.rank, job.network)
    result = run_party(party_bundle.graph, job.protocol, shares, link, source, tokens, _print_progress, job.device)
    link.close()
    _write_result(result, job.folder)


def _print_progress(done: int, total: int) -> None:
    print(json.dumps({"done": done, "total": total}), flush=True)


def _write_result(result: PartyResult, folder: Path) -> None:
    """Write the counters, and the client's logits."""
    if result.logits is not None:
        save_file({"logits": result.logits}, folder / LOGITS_FILE)
    counters = {"link": result.link, "session": result.session, "sequences": result.sequences}
    (folder / COUNTERS_FILE).write_text(json.dumps(counters), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(worker.run_job(run_party_job, PartyJob))
