"""Both parties of a bench, and the other one as a process: `python -m pi_sim.run.bench.parties PORT JOB`."""

import json
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pi_sim import specs
from pi_sim.cost.prices import OpPrice
from pi_sim.errors import RunError
from pi_sim.records import BenchSize, TruncationTest
from pi_sim.run.bench.ends import BenchParty
from pi_sim.run.bench.operation import Timings, measure_kernel
from pi_sim.run.bench.truncations import measure_truncations
from pi_sim.run.bench.workloads import list_workloads
from pi_sim.run.partner import connected_party, peer_process


@dataclass(frozen=True)
class BenchJob:
    """What both parties go through: workloads by name with the protocols that compute them, then truncations."""

    extent: BenchSize
    tasks: Sequence[tuple[str, str]]

    def to_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps({"extent": self.extent.model_dump(), "tasks": list(self.tasks)})

    @classmethod
    def from_json(cls, text: str) -> "BenchJob":
        """The job that the other party has."""
        told = json.loads(text)
        return cls(BenchSize(**told["extent"]), [(name, protocol) for name, protocol in told["tasks"]])

    def measure_operations(self, end: BenchParty, charges: Sequence[OpPrice | None]) -> Iterator[Timings]:
        """Every task in turn; who knows what it costs gives the charges."""
        known = {workload.name: workload for workload in list_workloads(self.extent)}
        for (name, protocol), charge in zip(self.tasks, charges, strict=True):
            yield measure_kernel(end, known[name], specs.load_executable_protocol(protocol), charge, self.extent.repetitions)

    def measure_truncations(self, end: BenchParty) -> Iterator[TruncationTest]:
        """What follows the tasks."""
        return measure_truncations(end, self.extent)


@contextmanager
def bench_peer(job: BenchJob) -> Iterator[BenchParty]:
    """This process as party 0, the other one started and going through the same job."""
    with peer_process(__name__, job.to_json()) as connection, connected_party(connection, 0) as both:
        yield BenchParty(*both)


def run_peer(port: int, job: BenchJob) -> None:
    """The other party: it goes through the whole job and tells nothing. It ends when the connection does."""
    try:
        with connected_party(socket.create_connection(("127.0.0.1", port)), 1) as both:
            end = BenchParty(*both)
            deque(job.measure_operations(end, [None] * len(job.tasks)), maxlen=0)
            deque(job.measure_truncations(end), maxlen=0)
    except RunError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    run_peer(int(sys.argv[1]), BenchJob.from_json(sys.argv[2]))
