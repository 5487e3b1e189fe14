"""One party of a run across two machines, as it is told on that machine's terminal."""

from collections.abc import Iterator

from pi_sim.records import JsonObject
from pi_sim.reporting import runs
from pi_sim.reporting.runs import counts, overhead, spent, title
from pi_sim.reporting.units import perplexity

NAMES = ("server", "client")
LEARNT = [
    "Both know the graph. The client learns the logits and nothing else of the weights, the server how much text there",
    "was and nothing else of it: if both follow the protocol (semi-honest), and if the dealer sides with neither.",
]
DEALERS = {
    **runs.DEALERS,
    "first-party": "Here the server was the dealer, and could open everything: good for measuring, not a deployment.",
}
"""What a dealer means between two machines, by its kind."""
UNENCRYPTED = "Nothing was encrypted: whoever read the network between the machines could open everything."


def summary(record: JsonObject) -> str:
    """The record of a party in a screenful, and who learnt what."""
    lines = [f"{label:<11} {sentence}" for label, sentence in _findings(record)]
    notes = [*LEARNT, DEALERS[record["dealer"]], *([] if record["encrypted"] else [UNENCRYPTED])]
    return "\n".join([f"{NAMES[record['rank']]} of {title(record)}", counts(record), *lines, "", *notes])


def _findings(record: JsonObject) -> Iterator[tuple[str, str]]:
    measured = record["measured"]
    yield "time", spent(measured, "in the link")
    yield "link", f"{overhead(measured['link'])}, measured beforehand; the rest is waiting for the other party"
    if record["perplexity"]:
        yield "perplexity", f"{perplexity(record['perplexity']['private'])} private; nobody computed a plain one"
