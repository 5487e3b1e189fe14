"""Single operations: stock CrypTen's kernel beside ours, and every kernel in full."""

from pi_sim.records import KernelTiming
from pi_sim.reporting.kernels.findings import Kernels
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, Unit

EACH = (Unit(0, "", 1, 1),)
TIMES = (Unit(0, "", 1, 1),)
MICROSECONDS = (Unit(0, "µs", 1e-6, 3),)

COUNTED = [
    Column("operation", "operation"),
    Column("shapes", "shapes"),
    Column("stock_rounds", "rounds, stock", COUNT),
    Column("rounds", "lean", COUNT),
    Column("stock_bytes", "bytes an element, stock", EACH),
    Column("bytes", "lean", EACH),
    Column("fewer", "times fewer", TIMES),
    Column("stock_offline", "offline bytes an element, stock", EACH),
    Column("offline", "lean", EACH),
]
TIMED = [
    Column("operation", "operation"),
    Column("stock", "dealing included, stock", MICROSECONDS),
    Column("lean", "lean", MICROSECONDS),
    Column("faster", "times faster", TIMES),
    Column("stock_online", "online alone, stock", MICROSECONDS),
    Column("lean_online", "lean", MICROSECONDS),
    Column("faster_online", "times faster", TIMES),
]
ALL = [
    Column("operation", "operation"),
    Column("kernel", "kernel"),
    Column("protocols", "chosen by"),
    Column("rounds", "rounds", COUNT),
    Column("bytes", "bytes sent", COUNT),
    Column("offline", "bytes offline", COUNT),
    Column("session", "bytes once in a session", COUNT),
    Column("seconds", "an element, dealing included", MICROSECONDS),
    Column("online", "online alone", MICROSECONDS),
    Column("error", "largest error", COUNT),
]


def counted(kernels: Kernels) -> Table:
    """What an element costs."""
    return Table(COUNTED, [_counted(*pair) for pair in kernels.pairs])


def timed(kernels: Kernels) -> Table:
    """How long an element takes, of what was run."""
    return Table(TIMED, [_timed(*pair) for pair in kernels.pairs if pair[0].seconds is not None])


def every(kernels: Kernels) -> Table:
    """All kernels that were asked for."""
    return Table(ALL, [_row(each) for each in kernels.bench.operations])


def times(stock: float | None, ours: float | None) -> float | None:
    """How many times less ours is; None where there is nothing to divide."""
    return stock / ours if stock and ours else None


def error(value: float | None) -> str | None:
    """Of any size, to two digits."""
    return None if value is None else f"{value:.2g}"


def _counted(stock: KernelTiming, ours: KernelTiming) -> list[Cell]:
    sent = _each(stock, stock.bytes), _each(ours, ours.bytes), times(stock.bytes, ours.bytes)
    offline = _each(stock, stock.offline_bytes), _each(ours, ours.offline_bytes)
    return [stock.name, stock.shapes, stock.rounds, ours.rounds, *sent, *offline]


def _timed(stock: KernelTiming, ours: KernelTiming) -> list[Cell]:
    whole = _each(stock, stock.seconds), _each(ours, ours.seconds), times(stock.seconds, ours.seconds)
    online = stock.online_seconds, ours.online_seconds
    return [stock.name, *whole, _each(stock, online[0]), _each(ours, online[1]), times(*online)]


def _row(each: KernelTiming) -> list[Cell]:
    sums = each.rounds, each.bytes, each.offline_bytes, each.session_bytes
    seconds = _each(each, each.seconds), _each(each, each.online_seconds)
    return [each.name, each.kernel, ", ".join(each.protocols), *sums, *seconds, error(each.error)]


def _each(measured: KernelTiming, amount: float | None) -> float | None:
    """For one of the elements that the kernel computes."""
    return None if amount is None else amount / measured.elements
