"""A census with prices: a row for each of its entries, or the sentence that says what has no price."""

# MERGED: Any protocol by name: a TOML file's, executable or declared, or an installed plugin's.
# MERGED: The price of one operation under a protocol, and its work: its sheet's or plugin's, the memo's, or the phantom's.  # noqa: E501

from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pi_sim import specs
from pi_sim.cost import plugins, sheet
from pi_sim.cost.cache import cached_json
from pi_sim.cost.census import Census
from pi_sim.cost.cost import Cost, Work
from pi_sim.cost.plugins import Plugin
from pi_sim.cost.rows import Row
from pi_sim.errors import PiSimError, UnpricedError, UsageError
from pi_sim.graph.ops import VOCABULARY, Op
from pi_sim.specs import DeclaredProtocol, ExecutableProtocol

PricedProtocol = ExecutableProtocol | DeclaredProtocol | Plugin


def resolve_protocol(name: str) -> PricedProtocol:
    """The protocol called `name`, or at that path; a TOML file goes before a plugin of the same name."""
    if _is_plugin(name):
        return plugins.load_plugin(name)
    protocol = specs.load_protocol(name)
    if isinstance(protocol, DeclaredProtocol):
        sheet.check_sheet(protocol, protocol.origin, Path(protocol.origin).read_text(encoding="utf-8"))
    return protocol


def protocol_origin(protocol: PricedProtocol) -> str:
    """Return the file to edit, or the name of the plugin; empty for a protocol made in Python."""
    if isinstance(protocol, ExecutableProtocol | DeclaredProtocol):
        return protocol.origin
    return f"the plugin {protocol.name}"


def protocol_names() -> list[str]:
    """All of them, in alphabetical order."""
    return sorted({*specs.list_names("protocols"), *plugins.plugin_names()})


def protocol_provenance(protocol: PricedProtocol) -> str:
    """Derived from kernels, declared by a sheet, or computed by a plugin."""
    return protocol.provenance if isinstance(protocol, ExecutableProtocol | DeclaredProtocol) else "plugin"


def price_provenance(op: Op, protocol: PricedProtocol) -> str:
    """Where one price comes from: what a sheet says of it, "local" for what is free there, or the protocol's own."""
    if not isinstance(protocol, DeclaredProtocol):
        return protocol_provenance(protocol)
    entry = sheet.price_entry(op, protocol)
    return entry.provenance if entry else "local"


def op_coverage(name: str, protocol: PricedProtocol) -> str:
    """How a protocol prices an operation: derived, declared, scaled, fitted, plugin, local, or none at all."""
    if isinstance(protocol, ExecutableProtocol):
        return _kernel_coverage(name, protocol)
    if not isinstance(protocol, DeclaredProtocol):
        return "plugin"
    if sheet.is_local(name, protocol):
        return "local"
    return next((price.provenance for key, price in protocol.price.items() if key.partition("-")[0] == name), "none")


def _kernel_coverage(name: str, protocol: ExecutableProtocol) -> str:
    """Return local, derived or none; kernels are imported only for an operation that the protocol does not name."""
    if VOCABULARY[name].kind != "interactive":
        return "local"
    if name == "reveal" or name in protocol.kernels:
        return "derived"
    from pi_sim.mpc.kernels import kernel_names

    return "derived" if len(kernel_names(name)) == 1 else "none"


def is_offline_known(protocol: PricedProtocol) -> bool:
    """Whether a zero of offline bytes is one, and not what a declared protocol's sources do not tell."""
    return not isinstance(protocol, DeclaredProtocol) or protocol.has_offline_figures


def _is_plugin(name: str) -> bool:
    return name not in specs.list_names("protocols") and name in plugins.plugin_names()


class OpPrice(NamedTuple):
    """What an operation costs; what a party computes for it, None where nothing but prices is known.

    `dealing` is the work of whoever plays the dealer, which party 0 does besides its own with the first-party dealer;
    `session` is the bytes that one party sends once in a session, because the kernel keeps a weight opened.
    """

    cost: Cost
    work: Work | None = None
    dealer_work: Work | None = None
    session_bytes: int = 0

    def compute_work(self, includes_dealer: bool = True) -> Work | None:
        """What party 0 computes, with the dealer's work or without it."""
        return self.work + self.dealer_work if includes_dealer and self.work and self.dealer_work else self.work


def price_op(op: Op, protocol: PricedProtocol) -> OpPrice:
    """All that is known of `op`; a `UsageError` names one for which the protocol has neither kernel nor price."""
    if isinstance(protocol, ExecutableProtocol):
        cost, work, dealing, session = _derived_numbers(op, protocol)
        return OpPrice(Cost(*cost), Work(*work), Work(*dealing), session)
    return OpPrice(
        sheet.declared_cost(op, protocol)
        if isinstance(protocol, DeclaredProtocol)
        else plugins.plugin_cost(op, protocol)
    )


def op_cost(op: Op, protocol: PricedProtocol) -> Cost:
    """What `op` costs."""
    return price_op(op, protocol).cost


def op_work(op: Op, protocol: PricedProtocol) -> Work | None:
    """What party 0 computes for `op` when it plays the dealer too, stored with its price."""
    return price_op(op, protocol).compute_work()


def _derived_numbers(op: Op, protocol: ExecutableProtocol) -> list[Any]:
    """The numbers of the cost, of the work and of the dealer's, and the session's bytes."""

    def derive() -> list[Any]:
        from pi_sim.cost import derived
        from pi_sim.mpc import kernels

        kernels.check_kernel_table(protocol.kernels, protocol.name)
        try:
            found = derived.derive_price(op, protocol)
        except PiSimError:
            raise
        except Exception as error:  # settings that CrypTen accepts and its functions do not
            raise UsageError(f"protocol {protocol.name} cannot compute {op}: {error}.") from None
        return [astuple(found.cost), astuple(found.work), astuple(found.dealer_work), found.session_bytes]

    stored: list[Any] = cached_json("prices", [protocol.kernels, protocol.settings, op.to_json()], derive)
    return stored


def price_census(census: Census, protocol: PricedProtocol, includes_dealer: bool = True) -> list[Row]:
    """Return a row for every entry of a census; with `includes_dealer` party 0 also does the dealer's work.

    An `UnpricedError` names an operation that has no price, its module and the protocol's file.
    """
    once = cache(lambda op: _price_row(op, protocol, includes_dealer))
    rows: list[Row] = []
    refused: dict[tuple[str, str], UnpricedError] = {}
    for (module, op), count in census.counts.items():
        try:
            rows.append(once(op).repeated(count, module))
        except UnpricedError as error:
            refused[module, op.name] = error
    if refused:
        raise _unpriced_error(refused, census.embedding_and_head, protocol_origin(protocol))
    return rows


def _price_row(op: Op, protocol: PricedProtocol, dealer: bool) -> Row:
    """One occurrence anywhere."""
    shapes = str(op).removeprefix(op.name)
    found = price_op(op, protocol)
    work = found.compute_work(dealer)
    return Row("", op.name, shapes, 1, found.cost, work, price_provenance(op, protocol), found.session_bytes)


def _unpriced_error(
    refused: dict[tuple[str, str], UnpricedError], boundary: frozenset[str], origin: str
) -> UnpricedError:
    """The first refusal with its module and file, and what else is to be done."""
    (module, op), error = next(iter(refused.items()))
    file = f" ({origin})" if origin else ""
    more = ", ".join(dict.fromkeys(name for _, name in refused if name != op))
    lacking = f"; nor has it one for {more}" if more else ""
    inner = (
        "; or leave embedding and head out with --inner" if boundary.issuperset(place for place, _ in refused) else ""
    )
    return UnpricedError(f"{module}: {str(error).rstrip('.')}{file}{lacking}{inner}.")
