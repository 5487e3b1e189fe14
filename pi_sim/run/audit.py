"""Counted against counted: the predicted rounds and bytes, CrypTen's counter, and what passed the sockets."""

from pi_sim.cost.cost import Cost
from pi_sim.cost.estimate import cost_fields
from pi_sim.cost.pricing import OpPrice, price_op
from pi_sim.errors import RunError
from pi_sim.graph.ops import Graph
from pi_sim.mpc.launch import PartyCounters
from pi_sim.mpc.party import Counters
from pi_sim.network import Network
from pi_sim.records import Measured
from pi_sim.specs import ExecutableProtocol


def audit_run(graph: Graph, protocol: ExecutableProtocol, counted: PartyCounters) -> None:
    """Every sequence must have cost what was predicted, and every counter must agree with every other."""
    charges = [price_op(node.op, protocol) for node in graph.nodes]
    _audit_session(charges, *counted.session)
    steps = [each.cost for each in charges]
    for server, client in zip(*counted.counts, strict=True):
        _audit_counters(0, server, client)
        _audit_counters(1, client, server)
        _audit_nodes(graph, steps, server, client)


def _audit_session(charges: list[OpPrice], server: Counters, client: Counters) -> None:
    """What opening the weights that stay put took, once and all in one round."""
    _audit_counters(0, server, client)
    _audit_counters(1, client, server)
    opened = sum(each.session_bytes for each in charges)
    predicted, found = Cost(int(opened > 0), opened), Cost(server["rounds"], max(server["sent"], client["sent"]))
    if found != predicted:
        raise RunError(f"opening the weights took {found.bytes} bytes, predicted were {predicted.bytes}.")


def _audit_counters(rank: int, mine: Counters, theirs: Counters) -> None:
    """One party's link against CrypTen's counter, which adds what was sent to what was received, and the other link."""
    if mine["crypten_rounds"] != mine["rounds"] or mine["crypten_bytes"] != mine["sent"] + mine["received"]:
        counted = f"{mine['crypten_rounds']} rounds and {mine['crypten_bytes']} bytes both ways"
        passed = f"{mine['rounds']} and {mine['sent'] + mine['received']}"
        raise RunError(f"party {rank}: CrypTen counted {counted}, the link {passed}.")
    if mine["sent"] != theirs["received"]:
        raise RunError(f"party {rank} sent {mine['sent']} bytes, and {theirs['received']} arrived.")


def _audit_nodes(graph: Graph, steps: list[Cost], server: Counters, client: Counters) -> None:
    """The first node up to which either party counted something else than was predicted."""
    reached = Cost()
    for node, step, one, other in zip(graph.nodes, steps, server["nodes"], client["nodes"], strict=True):
        reached += step
        rounds, sent = {one[0], other[0]}, max(one[1], other[1])
        if (rounds, sent) != ({reached.rounds}, reached.bytes):
            raise RunError(
                f"prediction and run part at {node.op} in {node.module}: predicted {reached.rounds} rounds and "
                f"{reached.bytes} bytes up to there, measured {' or '.join(map(str, sorted(rounds)))} and {sent}."
            )
    _audit_offline_bytes(reached.offline, server, client)


def _audit_offline_bytes(predicted: int, server: Counters, client: Counters) -> None:
    """What either party asked the dealer for, and what came: out of the file or the socket, with a dealer apart."""
    for rank, each in enumerate((server, client)):
        if {each["requested"], each["offline"]} != {predicted}:
            raise RunError(
                f"predicted {predicted} offline bytes; party {rank} requested {each['requested']}, received "
                f"{each['offline']}."
            )


def summarize_counters(counted: PartyCounters, network: Network | None = None, rank: int = 0) -> Measured:
    """Return the counters of one sequence, with one party's mean seconds of one and the set-up around all.

    Seconds lie on the critical path: what is not communication is computing, of which `peer_wait_seconds` waited for
    the other party's. Those of an imitated network stand beside the predicted ones.
    """
    (server, client), mine = counted.counts, counted.counts[rank]
    seconds, communication, late, peer_wait = (
        sum(sequence[key] for sequence in mine) / len(mine)
        for key in ("seconds", "communication_seconds", "late_seconds", "peer_wait_seconds")
    )
    cost = Cost(server[0]["rounds"], max(server[0]["sent"], client[0]["sent"]), server[0]["offline"])
    return Measured.model_validate(
        {
            **cost_fields(cost),
            "seconds": seconds,
            "communication_seconds": communication,
            "late_seconds": late,
            "compute_seconds": seconds - communication,
            "peer_wait_seconds": peer_wait,
            "setup_seconds": counted.seconds - len(mine) * seconds,
            "session_bytes": max(each["sent"] for each in counted.session),
            "link": counted.link,
            **(_network_ratio(network, cost, communication) if network else {}),
        }
    )


def _network_ratio(network: Network, cost: Cost, communication: float) -> dict[str, float]:
    """What the network was predicted to take, and how many times that it took."""
    predicted = network.seconds(cost.rounds, cost.bytes)
    return {"predicted_communication_seconds": predicted, "communication_ratio": communication / predicted}
