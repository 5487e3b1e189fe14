"""The price of one operation under a protocol, and its work: its sheet's or plugin's, the memo's, or the phantom's."""

from dataclasses import astuple

from pi_sim.cost import plugins, sheet
from pi_sim.cost.cost import Cost
from pi_sim.cost.memo import remember
from pi_sim.cost.protocols import Protocol
from pi_sim.cost.work import Work
from pi_sim.errors import PiSimError, UsageError
from pi_sim.graph.ops import Op
from pi_sim.specs import ProtocolCard, Sheet


def price(op: Op, protocol: Protocol) -> Cost:
    """What `op` costs; a `UsageError` names an operation for which the protocol has neither kernel nor price."""
    if isinstance(protocol, ProtocolCard):
        return Cost(*_derived(op, protocol)[:3])
    return sheet.price(op, protocol) if isinstance(protocol, Sheet) else plugins.price(op, protocol)


def work(op: Op, protocol: Protocol) -> Work | None:
    """What a party computes for `op`, stored with its price; None where nothing but prices is known."""
    return Work(*_derived(op, protocol)[3:-1]) if isinstance(protocol, ProtocolCard) else None


def session(op: Op, protocol: Protocol) -> int:
    """Bytes that one party sends once in a session, because the kernel keeps a weight opened under its mask."""
    return _derived(op, protocol)[-1] if isinstance(protocol, ProtocolCard) else 0


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
