"""One party of a run, as a process of its own: `python -m pi_sim.mpc.process JOB.json`.

Of the bundle it opens the public files and the party's own shares. It meets the other party, checks that both hold the
same graph and protocol, evaluates the graph once per sequence, and writes what it counted; the client also writes the
logits that were opened to it. It ends when its standard input closes, so it cannot outlive whoever started it.
"""

import json
import os
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pi_sim import specs
from pi_sim.errors import PiSimError
from pi_sim.graph import bundle
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.provider import FirstParty
from pi_sim.mpc.kernels.reveal import CLIENT
from pi_sim.mpc.link import Link
from pi_sim.mpc.meeting import greet, meet
from pi_sim.mpc.party import Party
from pi_sim.network import Network


@dataclass(frozen=True)
class Job:
    """What one party is told. `listener` is the descriptor of a bound socket (party 0), `port` where to find it."""

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

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def main(path: str) -> int:
    """Run the job; a failure is one sentence on standard error and the exit status."""
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _run(job)
    except PiSimError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _run(job: Job) -> None:
    torch.set_num_threads(job.threads)
    protocol = specs.protocol_card(job.protocol)
    opened = bundle.read(Path(job.bundle))
    shares = opened.shares(job.rank)
    connection = meet(job.listener, job.port, job.timeout)
    source = greet(connection, job.rank, opened.digest() + protocol.model_dump_json().encode())
    link = Link(connection, job.rank, Network(**job.network) if job.network else None)
    dealer = FirstParty(source)
    with backend.use(link, dealer, protocol.settings), torch.no_grad():
        weights = {name: backend.shares(share) for name, share in shares.items()}
        party = Party(opened.graph, protocol, weights, link, dealer)
        session = party.open_weights()
        runs = [party.infer(tokens) for tokens in load_file(job.tokens)["tokens"]]
    link.close()
    if job.rank == CLIENT:
        save_file({"logits": torch.cat([logits for _, logits in runs])}, Path(job.result) / "logits.safetensors")
    counted = {"session": session, "sequences": [counts for counts, _ in runs]}
    (Path(job.result) / "counts.json").write_text(json.dumps(counted), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
