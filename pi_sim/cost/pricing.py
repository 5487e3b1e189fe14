"""A census with prices: a row for each of its entries, or the sentence that says what has no price."""

from functools import cache

from pi_sim.cost.census import Census
from pi_sim.cost.prices import price_op
from pi_sim.cost.protocols import PricedProtocol, price_provenance
from pi_sim.cost.rows import Row
from pi_sim.errors import UnpricedError
from pi_sim.graph.ops import Op


def price_census(counted: Census, protocol: PricedProtocol, origin: str = "", includes_dealer: bool = True) -> list[Row]:
    """A row for every entry of a census; without `dealer` nobody who computes plays the dealer.

    An `UnpricedError` names an operation that has no price, its module, and `origin`, the protocol's file.
    """
    once = cache(lambda op: _price_row(op, protocol, includes_dealer))
    rows: list[Row] = []
    refused: dict[tuple[str, str], UnpricedError] = {}
    for (module, op), count in counted.counts.items():
        try:
            rows.append(once(op).repeated(count, module))
        except UnpricedError as error:
            refused[module, op.name] = error
    if refused:
        raise _unpriced_error(refused, counted.embedding_and_head, origin)
    return rows


def _price_row(op: Op, protocol: PricedProtocol, dealer: bool) -> Row:
    """One occurrence anywhere."""
    shapes = str(op).removeprefix(op.name)
    found = price_op(op, protocol)
    work = found.compute_work(dealer)
    return Row("", op.name, shapes, 1, found.cost, work, price_provenance(op, protocol), found.session_bytes)


def _unpriced_error(refused: dict[tuple[str, str], UnpricedError], boundary: frozenset[str], origin: str) -> UnpricedError:
    """The first refusal with its module and file, and what else is to be done."""
    (module, op), error = next(iter(refused.items()))
    file = f" ({origin})" if origin else ""
    more = ", ".join(dict.fromkeys(name for _, name in refused if name != op))
    lacking = f"; nor has it one for {more}" if more else ""
    inner = (
        "; or leave embedding and head out with --inner" if boundary.issuperset(place for place, _ in refused) else ""
    )
    return UnpricedError(f"{module}: {str(error).rstrip('.')}{file}{lacking}{inner}.")
