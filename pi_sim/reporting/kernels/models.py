"""Whole models: counts and seconds of one sequence, and how many times less they are than stock CrypTen's."""

from pi_sim.records import ModelTiming
from pi_sim.reporting.kernels.findings import Kernels
from pi_sim.reporting.kernels.operations import TIMES, error, times
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import BYTES, COUNT, SECONDS

COLUMNS = [
    Column("model", "model"),
    Column("dealer", "dealer"),
    Column("protocol", "protocol"),
    Column("rounds", "rounds", COUNT),
    Column("bytes", "sent", BYTES),
    Column("fewer", "times fewer", TIMES),
    Column("offline", "offline", BYTES),
    Column("session", "once in a session", BYTES),
    Column("seconds", "a sequence", SECONDS),
    Column("communication", "of it communicating", SECONDS),
    Column("faster", "times faster", TIMES),
    Column("difference", "largest logit difference", COUNT),
]


def table(kernels: Kernels) -> Table:
    """A row for every run."""
    return Table(COLUMNS, [_row(each, kernels.stock(each)) for each in kernels.bench.models])


def _row(ran: ModelTiming, stock: ModelTiming | None) -> list[Cell]:
    beside = None if stock == ran else stock
    fewer = times(beside.bytes, ran.bytes) if beside else None
    faster = times(beside.seconds, ran.seconds) if beside else None
    return [
        ran.model, ran.dealer, ran.protocol, ran.rounds, ran.bytes, fewer, ran.offline_bytes, ran.session_bytes,
        ran.seconds, ran.communication_seconds, faster, error(ran.difference),
    ]  # fmt: skip
