"""What a calibration times, and one party's part in it: `python -m pi_sim.run.probes PORT SHRINK PASSES`.

Both parties go through the same probes in step, over a real connection, with the threads of a run: they compute at
once and share caches and memory, as they do in a run. They go through all of them again and again, so that other work
on the machine disturbs no probe every time.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterator

import torch

from pi_sim import specs
from pi_sim.errors import RunError
from pi_sim.graph.ops import Op
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlation import Part
from pi_sim.mpc.dealer.provider import Provider
from pi_sim.mpc.dealer.stream import Stream, seed
from pi_sim.mpc.executor import apply
from pi_sim.mpc.link import Link
from pi_sim.run.partner import met

PROTOCOL, OURS = "crypten", "lean"
"""Stock kernels, and some that ask for no tuples of CrypTen's."""
BUDGET = 20.0
"""Seconds after which no further pass begins: a busy machine gets fewer of them."""
EXCHANGES = 100
ELEMENTS = 2**18
"""More than a core keeps in its own caches, as between the layers of a model."""
FEW = 8
PRODUCTS = ((128, 768, 768), (128, 128, 2048), (32, 1024, 1024))
"""m, k, n of m x k with k x n: between a tiny model's and GPT-2's."""


def kernels(shrink: int) -> list[tuple[str, list[Op]]]:
    """Operations of a protocol in which one unit dominates: calls, tuples, elements, and multiply-accumulates."""
    products = [tuple(max(1, size // shrink) for size in sizes) for sizes in PRODUCTS]
    return [
        (OURS, [_comparison(1)]),
        (PROTOCOL, [Op("softmax", ((1, FEW),), (True,))]),
        (PROTOCOL, [_comparison(many(shrink))]),
        (PROTOCOL, [Op("matmul", ((m, k), (k, n)), (True, True)) for m, k, n in products]),
    ]


def many(shrink: int) -> int:
    """Elements of the large tensors."""
    return max(1, ELEMENTS // shrink)


def _comparison(elements: int) -> Op:
    return Op("relu", ((elements,),), (True,))


def timings(connection: socket.socket, rank: int, shrink: int, passes: int) -> Iterator[list[float]]:
    """Seconds of one exchange, of drawing a large random tensor, and of `kernels`: one pass after another."""
    probes = [(specs.protocol_card(name), operations) for name, operations in kernels(shrink)]
    with (
        met(connection, rank) as (link, source),
        backend.use(link, Provider(source), specs.protocol_card(PROTOCOL).settings),
        torch.no_grad(),
    ):
        until = time.perf_counter() + BUDGET
        for done in range(passes):
            if done and not _agreed(link, rank == 0 and time.perf_counter() < until):
                break
            computing = [sum(_computing(op, card, link) for op in operations) for card, operations in probes]
            yield [_exchanging(link), _drawing(many(shrink)), *computing]


def _agreed(link: Link, mine: bool) -> bool:
    """Whether either party wants to: both learn it."""
    return bool(link.all_reduce(torch.tensor([int(mine)])).item())


def _exchanging(link: Link) -> float:
    """Seconds of one exchange of a message as small as can be."""
    word = torch.zeros(1, dtype=torch.long)
    return _timed(lambda: [link.all_reduce(word) for _ in range(EXCHANGES)]) / EXCHANGES


def _drawing(elements: int) -> float:
    stream = Stream(seed())
    return _timed(lambda: stream.draw(Part((elements,))))


def _computing(op: Op, card: specs.ProtocolCard, link: Link) -> float:
    """Seconds of one operation without those that it communicates."""
    operands = [backend.shares(torch.randint(2**20, shape)) for shape in op.shapes]
    before = float(link.comm_time)
    return _timed(lambda: apply(op, operands, card)) - (float(link.comm_time) - before)


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(port: int, shrink: int, passes: int) -> None:
    """The other party: it goes through all passes and tells nothing. It ends when the connection does."""
    try:
        for _ in timings(socket.create_connection(("127.0.0.1", port)), 1, shrink, passes):
            pass
    except RunError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
