"""The price of one operation under a protocol, and its work: its sheet's or plugin's, the memo's, or the phantom's."""

from dataclasses import astuple
from typing import Any, NamedTuple

from pi_sim.cost import plugins, sheet
from pi_sim.cost.cost import Cost
from pi_sim.cost.memo import cached_json
from pi_sim.cost.protocols import PricedProtocol
from pi_sim.cost.work import Work
from pi_sim.errors import PiSimError, UsageError
from pi_sim.graph.ops import Op
from pi_sim.specs import DeclaredProtocol, ExecutableProtocol


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
    return OpPrice(sheet.declared_cost(op, protocol) if isinstance(protocol, DeclaredProtocol) else plugins.plugin_cost(op, protocol))


def op_cost(op: Op, protocol: PricedProtocol) -> Cost:
    """What `op` costs."""
    return price_op(op, protocol).cost


def op_work(op: Op, protocol: PricedProtocol) -> Work | None:
    """What party 0 computes for `op` when it plays the dealer too, stored with its price."""
    return price_op(op, protocol).compute_work()


def _derived_numbers(op: Op, protocol: ExecutableProtocol) -> list[Any]:
    """The numbers of the cost, of the work and of the dealer's, and the session's bytes."""

    def derive() -> list[Any]:
        from pi_sim.cost import phantom
        from pi_sim.mpc import kernels

        kernels.check_kernel_table(protocol.kernels, protocol.name)
        try:
            found = phantom.derive_price(op, protocol)
        except PiSimError:
            raise
        except Exception as error:  # settings that CrypTen accepts and its functions do not
            raise UsageError(f"protocol {protocol.name} cannot compute {op}: {error}.") from None
        return [astuple(found.cost), astuple(found.work), astuple(found.dealer_work), found.session_bytes]

    stored: list[Any] = cached_json("prices", [protocol.kernels, protocol.settings, op.to_json()], derive)
    return stored
