"""The price of one operation under a protocol, and its work: its sheet's or plugin's, the memo's, or the phantom's."""

from dataclasses import astuple
from typing import NamedTuple

from pi_sim.cost import plugins, sheet
from pi_sim.cost.cost import Cost
from pi_sim.cost.memo import remember
from pi_sim.cost.protocols import Protocol
from pi_sim.cost.work import Work
from pi_sim.errors import PiSimError, UsageError
from pi_sim.graph.ops import Op
from pi_sim.specs import ProtocolCard, Sheet


class Charge(NamedTuple):
    """What an operation costs; what a party computes for it, None where nothing but prices is known.

    `session` is the bytes that one party sends once in a session, because the kernel keeps a weight opened.
    """

    cost: Cost
    work: Work | None = None
    session: int = 0


def charge(op: Op, protocol: Protocol) -> Charge:
    """All that is known of `op`; a `UsageError` names one for which the protocol has neither kernel nor price."""
    if isinstance(protocol, ProtocolCard):
        rounds, sent, offline, *work, session = _derived(op, protocol)
        return Charge(Cost(rounds, sent, offline), Work(*work), session)
    return Charge(sheet.price(op, protocol) if isinstance(protocol, Sheet) else plugins.price(op, protocol))


def price(op: Op, protocol: Protocol) -> Cost:
    """What `op` costs."""
    return charge(op, protocol).cost


def work(op: Op, protocol: Protocol) -> Work | None:
    """What a party computes for `op`, stored with its price."""
    return charge(op, protocol).work


def _derived(op: Op, protocol: ProtocolCard) -> list[int]:
    """Rounds, bytes, offline bytes, the four numbers of the work, and the session's bytes."""

    def derive() -> list[int]:
        from pi_sim.cost import phantom
        from pi_sim.mpc import kernels

        kernels.check(protocol.kernels, protocol.name)
        try:
            found = phantom.measure(op, protocol)
        except PiSimError:
            raise
        except Exception as error:  # settings that CrypTen accepts and its functions do not
            raise UsageError(f"protocol {protocol.name} cannot compute {op}: {error}.") from None
        return [*astuple(found.cost), *astuple(found.work), found.session]

    stored: list[int] = remember("prices", [protocol.kernels, protocol.settings, op.to_json()], derive)
    return stored
