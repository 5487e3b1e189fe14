"""A party: its shares, its end of the link, its dealer and its device, evaluating a graph sequence by sequence.

`python -m pi_sim.mpc.party`, with a job on standard input, is one party of a run on one machine. Of the bundle it reads
the public files and the party's own shares. It connects to the other party, checks that both hold the same graph and
protocol, evaluates the graph once per sequence, and writes its counters; the client also writes the logits that were
opened to it.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph import bundle
from pi_sim.graph.ops import Graph, Node
from pi_sim.mpc import backend, worker
from pi_sim.mpc.dealer import dealt_file, server
from pi_sim.mpc.dealer.dealers import DEALT_FILE, THIRD_PARTY, Dealer, DealerSpec, FirstPartyDealer, RunIdentity
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.executor import Cache, OpenedWeights, execute, open_graph_weights, prepare_sequence
from pi_sim.mpc.primitives.ring import LimbMatmulMode
from pi_sim.mpc.runtime import CLIENT, Runtime
from pi_sim.mpc.sampling import Sampler, Sampling
from pi_sim.mpc.transport.handshake import connect, perform_handshake
from pi_sim.mpc.transport.link import Link, benchmark_link
from pi_sim.network import Network
from pi_sim.specs import ExecutableProtocol

CPU = "cpu"


def require_device(name: str) -> None:
    """Raise `UsageError` if this machine has no such device."""
    if not isinstance(name, str) or name.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"there is no device {name!r}; use cpu or cuda.")
    if torch.device(name).type == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA GPU on this machine; use --device cpu.")


def device_context(name: str) -> AbstractContextManager[object]:
    """Return a context in which kernels, CrypTen's too, compute on a device: a GPU multiplies integers by limbs."""
    return nullcontext() if name == CPU else LimbMatmulMode(torch.device(name))


def open_dealer(spec: DealerSpec, rank: int, identity: RunIdentity, sequences: int, timeout: float) -> Dealer:
    """Return the dealer as a party sees it; raise `UsageError` or `RunError` if it does not serve this run."""
    if spec.kind == DEALT_FILE:
        return dealt_file.open_dealt_file(Path(spec.path), rank, identity, sequences)
    if spec.kind == THIRD_PARTY:
        return server.request_seed(spec.port, bytes.fromhex(spec.token), rank, identity, sequences, timeout)
    return FirstPartyDealer(rank)


Counters = dict[str, Any]
"""Counters of one stretch of a run, see `Party.read_counters`.

A sequence also has them up to each of its nodes: rounds and bytes (`nodes`), and seconds of computing (`node_seconds`).
"""
ProgressCallback = Callable[[int, int], None]
"""Called after every node with the number of evaluated nodes and of all nodes."""


def sequence_progress(sequences: int, progress: Callable[[float], None]) -> ProgressCallback:
    """Return a callback that turns nodes of consecutive sequences into a fraction of all sequences."""
    finished = 0

    def on_node(done: int, total: int) -> None:
        nonlocal finished
        fraction = (finished + done / total) / sequences
        finished += done == total
        progress(fraction)

    return on_node


@dataclass(frozen=True)
class PartyResult:
    """Counters of one party, of its `session` (opening fixed weights) and of each sequence, and the speed of its link.

    Each graph of a generation counts as a sequence. `logits` (N, T, V) are the client's, None at the server.
    `payload_bytes` are all bytes of payload, sent and received, including those of the link's benchmark.
    """

    link: dict[str, float]
    session: Counters
    sequences: list[Counters]
    logits: Tensor | None
    payload_bytes: tuple[int, int]


NextInputs = Callable[[Graph, Tensor | None], dict[str, Tensor]]
"""A party's shares of the inputs of a decoding step, given the logits of the token before, None at the server."""


def run_party(
    graphs: Sequence[Graph],
    protocol: ExecutableProtocol,
    shares: dict[str, Tensor],
    link: Link,
    source: Source,
    inputs: Iterable[dict[str, Tensor]],
    on_node: ProgressCallback,
    device: str = CPU,
    next_inputs: NextInputs | None = None,
) -> PartyResult:
    """Run a party on its shares of the inputs, by name, sequence by sequence.

    The graphs behind the first are decoding steps, whose inputs are `next_inputs`.
    """
    source.device = torch.device(device)
    with Runtime.running(link, source, protocol) as rt, device_context(device):
        weights = {name: backend.fixed_point_tensor(share.to(device)) for name, share in shares.items()}
        party = Party(rt, graphs, protocol, weights)
        link_speed = benchmark_link(link)
        session = party.open_weights()
        results = [result for shares in inputs for result in party.infer(shares, on_node, next_inputs)]
    logits = [values for _, values in results if values is not None]
    sequences, all_logits = [counters for counters, _ in results], torch.cat(logits) if logits else None
    return PartyResult(link_speed, session, sequences, all_logits, (link.sent, link.received))


Evaluation = tuple[Counters, Tensor | None]
"""Counters of one graph on one sequence, in total and up to each node, and its logits (None at the server)."""


class Party:
    """A party that holds its shares of the weights and evaluates the graphs of each sequence."""

    def __init__(
        self, rt: Runtime, graphs: Sequence[Graph], protocol: ExecutableProtocol, weights: dict[str, Any]
    ) -> None:
        self.rt, self.graphs, self.protocol, self.weights = rt, graphs, protocol, weights
        self.opened_weights: OpenedWeights = {}

    def open_weights(self) -> Counters:
        """Open the fixed weights under their masks, once for all sequences; return the counters of that."""
        before = self.read_counters()
        self.opened_weights = open_graph_weights(self.rt, self.graphs[0], self.weights, self.protocol)
        return self._counters_since(before)

    def infer(
        self, input_shares: dict[str, Tensor], on_node: ProgressCallback, next_inputs: NextInputs | None = None
    ) -> Iterator[Evaluation]:
        """Yield the evaluation of every graph on one sequence; `next_inputs` has the shares for those of steps."""
        preparations = [self._prepare(graph) for graph in self.graphs]
        if any(prepared for prepared, _ in preparations):
            # The sequence begins when both are ready; this exchange is in no count.
            self.rt.communicator.all_reduce(torch.zeros(1, dtype=torch.long))
        cache: Cache = {}
        logits: Tensor | None = None
        for index, (graph, (prepared, ahead)) in enumerate(zip(self.graphs, preparations, strict=True)):
            if index and next_inputs:
                input_shares = next_inputs(graph, logits)
            counters, logits = self._evaluate(graph, input_shares, prepared, cache, on_node)
            for dealt in ("offline", "requested"):
                counters[dealt] += ahead[dealt]
            yield {**counters, "ahead": ahead}, logits

    def _prepare(self, graph: Graph) -> tuple[dict[str, Any], Counters]:
        """Return what takes the place of fixed weights in a graph, and the counters of its preparation."""
        start = self.read_counters()
        prepared = prepare_sequence(self.rt, graph, self.protocol, self.opened_weights)
        return prepared, self._counters_since(start)

    def _evaluate(
        self,
        graph: Graph,
        input_shares: dict[str, Tensor],
        prepared: dict[str, Any],
        cache: Cache,
        on_node: ProgressCallback,
    ) -> Evaluation:
        before, nodes, node_seconds = self.read_counters(), [], []

        def count_node(node: Node) -> None:
            now = self._counters_since(before)
            nodes.append((now["rounds"], now["sent"]))
            node_seconds.append(now["seconds"] - now["communication_seconds"])
            on_node(len(nodes), len(graph.nodes))

        device = self.rt.source.device
        constants = {name: value.to(device) for name, value in graph.constants.items()}
        values = {**self.weights, **constants, **self._shared_inputs(graph, input_shares)}
        logits = execute(self.rt, graph, values, self.protocol, prepared, cache, count_node)
        return {**self._counters_since(before), "nodes": nodes, "node_seconds": node_seconds}, logits

    def _shared_inputs(self, graph: Graph, input_shares: dict[str, Tensor]) -> dict[str, Any]:
        """Return the inputs as shared tensors: one-hot vectors are integers, all others have a fraction."""
        integers = graph.one_hot_inputs()
        return {
            name: backend.fixed_point_tensor(share.to(self.rt.source.device), 0 if name in integers else None)
            for name, share in input_shares.items()
        }

    def _counters_since(self, before: Counters) -> Counters:
        return {name: count - before[name] for name, count in self.read_counters().items()}

    def read_counters(self) -> Counters:
        """Return every counter's present value: the link's, CrypTen's, the dealer's, and the clock.

        `offline` counts the bytes that came from the dealer, `requested` those that kernels asked it for. Seconds of
        communication and waiting are those on the critical path, see `pi_sim.mpc.transport.link`.
        """
        link = self.rt.communicator
        return {
            "rounds": link.rounds,
            "sent": link.sent,
            "received": link.received,
            "crypten_rounds": link.comm_rounds,
            "crypten_bytes": link.comm_bytes,
            "offline": self.rt.source.offline_bytes,
            "requested": self.rt.requested_bytes,
            "communication_seconds": link.critical_path.network + link.critical_path.delay,
            "late_seconds": link.critical_path.delay,
            "peer_wait_seconds": link.critical_path.peer_compute,
            "seconds": time.perf_counter(),
        }


INPUTS_FILE, LOGITS_FILE, COUNTERS_FILE = "inputs.safetensors", "logits.safetensors", "counts.json"
"""In a party's folder: the client's inputs, the client's logits and the counters (output)."""


def client_shares(graph: Graph, inputs: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the client's shares of its inputs (N, B, ...) by name, sequence by sequence.

    They are the inputs themselves: the server's shares are zeros, which tell it nothing. Token ids become one-hot
    vectors, real numbers fixed-point words.
    """
    integers = graph.one_hot_inputs()
    for index in range(len(next(iter(inputs.values())))):
        yield {
            name: bundle.one_hot(value[index], graph.input_shapes[name][-1])
            if name in integers
            else bundle.to_fixed_point(value[index])
            for name, value in inputs.items()
        }


def step_inputs(sampling: Sampling | None, on_token: Callable[[int], None] = lambda token: None) -> NextInputs:
    """Return the inputs of decoding steps: the client's choice by the logits, zeros at the server, without sampling."""
    sampler = Sampler(sampling) if sampling else None

    def next_inputs(graph: Graph, logits: Tensor | None) -> dict[str, Tensor]:
        if logits is None or sampler is None:
            return next(server_shares(graph, 1))
        token = sampler.choose(logits[0, -1])
        on_token(token)
        return next(client_shares(graph, {"tokens": torch.full((1, *graph.input), token)}))

    return next_inputs


def server_shares(graph: Graph, sequences: int) -> Iterator[dict[str, Tensor]]:
    """Yield the server's shares of the client's inputs, zeros, sequence by sequence."""
    for _ in range(sequences):
        shapes = {name: shape for name, shape in graph.input_shapes.items() if name not in graph.cache}
        yield {name: torch.zeros(shape, dtype=torch.long) for name, shape in shapes.items()}


class PartyJob(worker.Job):
    """Parameters of one party. `listener` is party 0's, None at party 1; `port` is where party 0 listens."""

    rank: int
    bundle: Path
    folder: Path
    """Folder of this party alone, with its results, and the client's with its inputs."""
    protocol: ExecutableProtocol
    port: int
    timeout: float
    threads: int
    network: Network | None
    sequences: int
    device: str
    dealer: DealerSpec
    sampling: Sampling | None = None
    """How the client chooses tokens, None for a run of one graph alone."""


def run_party_job(job: PartyJob) -> None:
    """Run one party; write its counters to its folder, and the client's logits."""
    torch.set_num_threads(job.threads)
    party_bundle = bundle.read_bundle(job.bundle)
    graph, shares = party_bundle.graph, party_bundle.party_shares(job.rank)
    if job.rank == CLIENT:
        inputs = client_shares(graph, load_file(job.folder / INPUTS_FILE))
    else:
        inputs = server_shares(graph, job.sequences)
    identity = RunIdentity.of_run(party_bundle, job.protocol)
    dealer = open_dealer(job.dealer, job.rank, identity, job.sequences, job.timeout)
    connection = connect(job.listener, job.port, job.timeout)
    source = perform_handshake(connection, dealer, identity.agreement_terms(job.sequences))
    link = Link(connection, job.rank, job.network)
    steps = step_inputs(job.sampling, _print_token)
    graphs = party_bundle.graphs
    result = run_party(graphs, job.protocol, shares, link, source, inputs, _print_progress, job.device, steps)
    link.close()
    if result.logits is not None:
        save_file({"logits": result.logits}, job.folder / LOGITS_FILE)
    counters = {
        "link": result.link,
        "session": result.session,
        "sequences": result.sequences,
        "memory_bytes": peak_memory_bytes(),
    }
    (job.folder / COUNTERS_FILE).write_text(json.dumps(counters), encoding="utf-8")


def peak_memory_bytes() -> int:
    """Return the peak of this program's memory.

    On Linux, `getrusage` includes what the process held before it became this program.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _print_token(token: int) -> None:
    print(json.dumps({"token": token}), flush=True)


def _print_progress(done: int, total: int) -> None:
    print(json.dumps({"done": done, "total": total}), flush=True)


if __name__ == "__main__":
    sys.exit(worker.run_job(run_party_job, PartyJob))
