"""Pricing: the price of an operation under any protocol, and of every entry of a census.

The price is that of the declared protocol's sheet or of the plugin; for an executable protocol it is derived from the
kernels by a dry run, once, and cached.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pi_sim import specs
from pi_sim.cost import plugins, sheet
from pi_sim.cost.census import Census, cached_json
from pi_sim.cost.cost import Cost, Machine, Work
from pi_sim.cost.plugins import Plugin
from pi_sim.cost.rows import Row
from pi_sim.errors import PiSimError, UnpricedError, UsageError
from pi_sim.graph.ops import VOCABULARY, Op
from pi_sim.specs import DeclaredProtocol, ExecutableProtocol

PricedProtocol = ExecutableProtocol | DeclaredProtocol | Plugin


def resolve_protocol(name: str) -> PricedProtocol:
    """Return the protocol called `name`, or at that path; a TOML file goes before a plugin of the same name."""
    if name not in specs.list_names("protocols") and name in plugins.plugin_names():
        return plugins.load_plugin(name)
    if not name.endswith(".toml") and name not in specs.list_names("protocols"):
        raise specs.unknown_name("protocols", name, plugins.plugin_names())
    protocol = specs.load_protocol(name)
    if isinstance(protocol, DeclaredProtocol):
        sheet.check_sheet(protocol, protocol.origin, Path(protocol.origin).read_text(encoding="utf-8"))
    return protocol


def executable_or_none(protocol: PricedProtocol) -> ExecutableProtocol | None:
    """Return a protocol that runs here, None for any other: only such a protocol rewrites graphs."""
    return protocol if isinstance(protocol, ExecutableProtocol) else None


def protocol_origin(protocol: PricedProtocol) -> str:
    """Return the file to edit, or the name of the plugin; empty for a protocol made in Python."""
    if isinstance(protocol, ExecutableProtocol | DeclaredProtocol):
        return protocol.origin
    return f"the plugin {protocol.name}"


def protocol_names() -> list[str]:
    """Return the names of all protocols, sorted."""
    return sorted({*specs.list_names("protocols"), *plugins.plugin_names()})


def protocol_provenance(protocol: PricedProtocol) -> str:
    """Return derived (from kernels), declared (by a sheet) or plugin."""
    return protocol.provenance if isinstance(protocol, ExecutableProtocol | DeclaredProtocol) else "plugin"


def price_provenance(op: Op, protocol: PricedProtocol) -> str:
    """Return the provenance of one price: that of the sheet's entry, local if it is free, or the protocol's."""
    if not isinstance(protocol, DeclaredProtocol):
        return protocol_provenance(protocol)
    entry = sheet.price_entry(op, protocol)
    return entry.provenance if entry else "local"


def op_coverage(name: str, protocol: PricedProtocol) -> str:
    """Return the provenance of an operation's price: derived, declared, scaled, fitted, plugin, local or none."""
    if isinstance(protocol, ExecutableProtocol):
        return _kernel_coverage(name, protocol)
    if not isinstance(protocol, DeclaredProtocol):
        return "plugin"
    if sheet.is_local(name, protocol):
        return "local"
    return next((price.provenance for key, price in protocol.price.items() if key.partition("-")[0] == name), "none")


def _kernel_coverage(name: str, protocol: ExecutableProtocol) -> str:
    """Return local, derived or none; kernels are imported only for an operation that another protocol alone names."""
    if VOCABULARY[name].kind != "interactive":
        return "local"
    if name in protocol.kernels or name not in _operations_with_a_choice():
        return "derived"
    from pi_sim.mpc.kernels import kernel_names

    return "derived" if len(kernel_names(name)) == 1 else "none"


@cache
def _operations_with_a_choice() -> frozenset[str]:
    """Return the operations for which a protocol that ships names a kernel; each of the others has a single one."""
    protocols = map(specs.load_protocol, specs.list_names("protocols"))
    return frozenset(
        op for protocol in protocols if isinstance(protocol, ExecutableProtocol) for op in protocol.kernels
    )


def machine_of(protocol: PricedProtocol, machine: Machine | None) -> Machine | None:
    """Return the machine whose seconds of computing a protocol's estimate has: its sources', or else `machine`."""
    return (sheet.source_machine(protocol) if isinstance(protocol, DeclaredProtocol) else None) or machine


def is_offline_known(protocol: PricedProtocol) -> bool:
    """Return False if a declared protocol's sources do not state offline bytes."""
    return not isinstance(protocol, DeclaredProtocol) or protocol.has_offline_figures


class OpPrice(NamedTuple):
    """Price of an operation."""

    cost: Cost
    work: Work | None = None
    """Work of party 0 once the input is there; None if only the cost is known."""
    dealer_work: Work | None = None
    """Work of the dealer, which is party 0's too with the first-party dealer."""
    expansion_work: Work | None = None
    """Work of party 1 that takes its place on the critical path with another dealer."""
    ahead_work: Work | None = None
    """Work of party 1 before the input is there."""
    ahead_dealer_work: Work | None = None
    """Work of the dealer for what is requested before the input is there."""

    def compute_work(self, includes_dealer: bool = True) -> Work | None:
        """Return the work on the critical path, with or without that of the dealer."""
        beside = self.dealer_work if includes_dealer else self.expansion_work
        return self.work + beside if self.work and beside else self.work


def price_op(op: Op, protocol: PricedProtocol) -> OpPrice:
    """Return the price of `op`; a `UsageError` if the protocol has neither kernel nor price for it."""
    if isinstance(protocol, ExecutableProtocol):
        cost, *works = _derived_numbers(op, protocol)
        return OpPrice(Cost.from_numbers(cost), *(Work(*work) for work in works))
    if isinstance(protocol, DeclaredProtocol):
        work = sheet.declared_work(op, protocol)
        return OpPrice(sheet.declared_cost(op, protocol), work, ahead_work=None if work is None else Work())
    return OpPrice(plugins.plugin_cost(op, protocol))


def op_work(op: Op, protocol: PricedProtocol) -> Work | None:
    """Return the work of party 0 for `op` with the first-party dealer; None if only the cost is known."""
    return price_op(op, protocol).compute_work()


def _derived_numbers(op: Op, protocol: ExecutableProtocol) -> list[Any]:
    """Return the fields of the cost, then those of the works, cached."""

    def derive() -> list[Any]:
        from pi_sim.cost import derived
        from pi_sim.mpc import kernels

        kernels.check_kernel_table(protocol.kernels, protocol.name)
        try:
            price = derived.derive_price(op, protocol)
        except PiSimError:
            raise
        except Exception as error:  # settings that CrypTen accepts and its functions do not
            raise UsageError(f"protocol {protocol.name} cannot compute {op}: {error}.") from None
        return [price.cost.numbers, *map(astuple, price[1:])]

    stored: list[Any] = cached_json("prices", [protocol.kernels, protocol.settings, op.to_json()], derive)
    return stored


def price_census(census: Census, protocol: PricedProtocol, includes_dealer: bool = True) -> list[Row]:
    """Return a row for every entry of a census; with `includes_dealer` party 0 also does the dealer's work.

    An `UnpricedError` names an operation that has no price, its module and the protocol's file.
    """
    price_row = cache(lambda op: _price_row(op, protocol, includes_dealer))
    rows: list[Row] = []
    refused: dict[tuple[str, str], UnpricedError] = {}
    for (module, op), count in census.counts.items():
        try:
            rows.append(price_row(op).repeated(count, module))
        except UnpricedError as error:
            refused[module, op.name] = error
    if refused:
        raise _unpriced_error(refused, census.embedding_and_head, protocol_origin(protocol))
    return rows


def price_sequence(censuses: Sequence[Census], protocol: PricedProtocol, includes_dealer: bool = True) -> Iterator[Row]:
    """Yield the rows of the graphs of one sequence; its session opens the weights once, for all of them."""
    for index, census in enumerate(censuses):
        for row in price_census(census, protocol, includes_dealer):
            yield replace(row, cost=replace(row.cost, session=(0, 0))) if index else row


def _price_row(op: Op, protocol: PricedProtocol, includes_dealer: bool) -> Row:
    """Return the row of one occurrence, without its module."""
    price = price_op(op, protocol)
    return Row(
        module="",
        op=op.name,
        shapes=str(op).removeprefix(op.name),
        count=1,
        cost=price.cost,
        work=price.compute_work(includes_dealer),
        ahead_work=price.ahead_work,
        provenance=price_provenance(op, protocol),
    )


def _unpriced_error(
    refused: dict[tuple[str, str], UnpricedError], embedding_and_head: frozenset[str], origin: str
) -> UnpricedError:
    """Return the first error with its module and file, the further operations without a price, and the remedy."""
    (module, op), error = next(iter(refused.items()))
    file = f" ({origin})" if origin else ""
    more = ", ".join(dict.fromkeys(name for _, name in refused if name != op))
    lacking = f"; nor has it one for {more}" if more else ""
    inner = (
        "; or leave embedding and head out with --inner"
        if embedding_and_head.issuperset(name for name, _ in refused)
        else ""
    )
    return UnpricedError(f"{module}: {str(error).rstrip('.')}{file}{lacking}{inner}.")
