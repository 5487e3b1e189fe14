"""Two real parties, each a process, that compute single operations on request: the third side of the equation."""

import multiprocessing as mp
import socket
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from pi_sim import specs
from pi_sim.graph.bundle import share_tensor, to_fixed_point
from pi_sim.graph.ops import Op
from pi_sim.mpc import backend
from pi_sim.mpc.kernels import kernel_for


@dataclass(frozen=True)
class Evaluation:
    """Rounds and bytes of one evaluation, by three counters, and the value of the bits that were asked for."""

    rounds: int
    sent: tuple[int, int]
    ahead: tuple[int, int]
    received: tuple[int, int]
    crypten: tuple[dict[str, Any], dict[str, Any]]
    offline: int
    value: Tensor


class TwoParties:
    """Two processes that compute together; each gets its shares of the operands."""

    def __init__(self) -> None:
        context = mp.get_context("spawn")
        listener = socket.create_server(("127.0.0.1", 0))
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in (0, 1):
            parent_end, child_end = context.Pipe()
            process = context.Process(target=serve, args=(rank, listener.getsockname()[1], child_end), daemon=True)
            process.start()
            self.pipes.append(parent_end)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.send(listener if pipe is self.pipes[0] else None)
        listener.close()

    def compute(self, op: Op, operands: list[Tensor], protocol: str) -> Evaluation:
        """Evaluate `op` on plain operands, of which the secret ones are shared first."""
        shares: tuple[list[Tensor], list[Tensor]] = ([], [])
        card = specs.load_executable_protocol(protocol)
        owned = kernel_for(op.name, card.kernels, card.name).server_operand(op)
        for index, (operand, secret) in enumerate(zip(operands, op.secret, strict=True)):
            ring = to_fixed_point(operand) if operand.is_floating_point() else operand.long()
            pair = share_tensor(ring) if secret else (operand, operand)
            if index == owned:
                pair = ring, torch.zeros_like(ring)
            for operands_of_rank, share in zip(shares, pair, strict=True):
                operands_of_rank.append(share)
        for pipe, operands_of_rank in zip(self.pipes, shares, strict=True):
            pipe.send((op, operands_of_rank, [operand.is_floating_point() for operand in operands], protocol))
        first, second = (pipe.recv() for pipe in self.pipes)
        ring = second["share"] if op.name == "reveal" else first["share"] + second["share"]
        shift = 64 - int(op.attribute("bits", 64))
        value = ring if op.name == "reveal" else ((ring << shift) >> shift).double() / first["scale"]
        assert first["rounds"] == second["rounds"]
        return Evaluation(
            first["rounds"],
            (first["sent"], second["sent"]),
            (first["ahead"], second["ahead"]),
            (first["received"], second["received"]),
            (first["crypten"], second["crypten"]),
            first["offline"],
            value,
        )

    def close(self) -> None:
        """End both processes."""
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None)
            process.join(10)


def serve(rank: int, port: int, pipe: Connection) -> None:
    """Run one party: connect to the other over TCP, then evaluate one request after the other."""
    from pi_sim.mpc.dealer.prg import AesCtrPrg
    from pi_sim.mpc.dealer.sources import DealerSource, SeedSource
    from pi_sim.mpc.executor import apply_op, fixed_operand, open_weights, prepare_op
    from pi_sim.mpc.runtime import Runtime
    from pi_sim.mpc.transport.link import Link

    torch.set_num_threads(1)
    listener = pipe.recv()
    connection = listener.accept()[0] if rank == 0 else socket.create_connection(("127.0.0.1", port))
    backend.set_zero_prgs(*(AesCtrPrg(bytes([number] * 16)) for number in (2 + rank, 3 - rank, 10 + rank)))
    connection.settimeout(60)
    link = Link(connection, rank)
    own_stream = AesCtrPrg(bytes([rank] * 16))
    source = DealerSource(own_stream, AesCtrPrg(bytes([1] * 16))) if rank == 0 else SeedSource(own_stream)
    while request := pipe.recv():
        op, shares, fixed_point, name = request
        source.offline_bytes = 0
        protocol = specs.load_executable_protocol(name)
        with Runtime.running(link, source, protocol) as rt:
            operands = [
                backend.fixed_point_tensor(share, None if fixed else 0) if secret else share
                for share, secret, fixed in zip(shares, op.secret, fixed_point, strict=True)
            ]
            place = fixed_operand(op, protocol)
            ahead = 0
            if place is not None:
                (handle,) = open_weights(rt, [op], [operands[place]], protocol)
                link.rounds = link.sent = link.received = 0
                operands[place] = prepare_op(rt, op, handle, protocol)
                ahead = link.sent
            link.rounds = link.sent = link.received = 0
            link.reset_communication_stats()
            result = apply_op(rt, op, operands, protocol)
            assert rt.requested_bytes == source.offline_bytes
        pipe.send(
            {
                "rounds": link.rounds,
                "sent": link.sent,
                "ahead": ahead,
                "received": link.received,
                "crypten": link.get_communication_stats(),
                "offline": source.offline_bytes,
                "share": result if op.name == "reveal" else result.share,
                "scale": None if op.name == "reveal" else result.encoder.scale,
            }
        )
    link.close()
