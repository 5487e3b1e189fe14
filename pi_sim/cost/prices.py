"""The price of one operation under a protocol, from the memo or from the phantom."""

from pi_sim.cost.cost import Cost
from pi_sim.cost.memo import remember
from pi_sim.graph.ops import Op
from pi_sim.specs import ProtocolCard


def price(op: Op, protocol: ProtocolCard) -> Cost:
    """What `op` costs; a `UsageError` names an operation for which the protocol has no kernel."""

    def derive() -> list[int]:
        from pi_sim.cost import phantom

        cost = phantom.price(op, protocol)
        return [cost.rounds, cost.bytes, cost.offline]

    return Cost(*remember("prices", [protocol.kernels, protocol.settings, op.to_json()], derive))
