"""Counted against counted: the predicted rounds and bytes, CrypTen's counter, and what passed the sockets."""

from typing import Any

from pi_sim.cost.cost import Cost
from pi_sim.cost.estimate import numbers
from pi_sim.cost.prices import price
from pi_sim.errors import RunError
from pi_sim.graph.ops import Graph
from pi_sim.mpc.pair import Outcome
from pi_sim.specs import ProtocolCard


def check(graph: Graph, protocol: ProtocolCard, outcome: Outcome) -> None:
    """Every sequence's rounds and bytes must be the predicted ones, and every counter must agree with every other."""
    steps = [price(node.op, protocol) for node in graph.nodes]
    server, client = outcome.counts
    for mine, theirs in zip(server["sequences"], client["sequences"], strict=True):
        if mine["sent"] != theirs["received"] or theirs["sent"] != mine["received"]:
            raise RunError("bytes were lost between the parties: one received less than the other had sent.")
        reached = Cost()
        for node, step, (rounds, sent) in zip(graph.nodes, steps, mine["nodes"], strict=True):
            reached += step
            if (rounds, sent) != (reached.rounds, reached.bytes):
                raise RunError(
                    f"prediction and run part at {node.op} in {node.module}: predicted {reached.rounds} rounds and "
                    f"{reached.bytes} bytes up to there, measured {rounds} and {sent}."
                )
    for rank, counts in enumerate(outcome.counts):
        passed = sum(sequence["sent"] + sequence["received"] for sequence in counts["sequences"])
        if counts["crypten"]["bytes"] != passed:
            raise RunError(f"party {rank}: CrypTen counted {counts['crypten']['bytes']} bytes, the link {passed}.")


def measured(outcome: Outcome) -> dict[str, Any]:
    """What the parties counted for one sequence, with the mean seconds of one and the set-up around all."""
    server, client = (counts["sequences"] for counts in outcome.counts)
    inference = [sequence["seconds"] for sequence in server]
    communication = sum(sequence["communication_seconds"] for sequence in server) / len(server)
    seconds = sum(inference) / len(server)
    cost = Cost(server[0]["rounds"], max(server[0]["sent"], client[0]["sent"]), server[0]["offline"])
    return {
        **numbers(cost),
        "seconds": seconds,
        "communication_seconds": communication,
        "compute_seconds": seconds - communication,
        "setup_seconds": outcome.seconds - sum(inference),
    }
