"""A run as it is told on the terminal: what was predicted, what was measured, and what privacy did to the result."""

from collections.abc import Iterator

from pi_sim.records import JsonObject
from pi_sim.reporting import tables
from pi_sim.reporting.tables import Column, Table
from pi_sim.reporting.units import COUNT, SECONDS, perplexity, quantity

DEALER = (
    "CrypTen's default dealer is party 0, which could open everything: good for counting and timing, not a deployment."
)
DEALERS = {
    "first-party": DEALER,
    "third-party": (
        "The dealer was a third process, which could open everything together with a record of the messages: private "
        "where somebody runs it who colludes with neither party, and here one user ran all three."
    ),
    "file": (
        "The randomness was dealt beforehand: whoever ran `pi-sim deal`, or keeps a copy of both files, could open "
        "everything with a record of the messages, so it must have been neither party."
    ),
}
"""What each kind of dealer means for privacy."""
COUNTED = {"rounds": "rounds", "bytes": "bytes sent", "offline_bytes": "bytes offline"}


def summary(record: JsonObject) -> str:
    """The record of a run in a screenful."""
    findings = [*_seconds(record), *_quality(record)]
    lines = [f"{label:<11} {sentence}" for label, sentence in findings]
    return "\n".join([title(record), counts(record), *lines, "", dealer(record)])


def dealer(record: JsonObject) -> str:
    """What the dealer of a run means for privacy; runs knew but one kind before they recorded it."""
    return DEALERS[record.get("dealer", "first-party")]


def title(record: JsonObject) -> str:
    """What was run."""
    sequences = record["sequences"]
    tokens = f"{sequences} sequence{'s' if sequences > 1 else ''} of {record['seq_len']:,} tokens"
    return f"{record['model']} ({record['size']}), protocol {record['protocol']}, {tokens}"


def counts(record: JsonObject) -> str:
    """What one sequence was predicted to cost, and what the parties counted: integers, hence equal or wrong."""
    columns = [
        Column("counted", "one sequence"),
        Column("predicted", "predicted", COUNT),
        Column("measured", "measured", COUNT),
        Column("agreement", ""),
    ]
    predicted, measured = record["total"], record["measured"]
    rows = [[name, predicted[key], measured[key], mark(record, key)] for key, name in COUNTED.items()]
    return tables.render(Table(columns, rows), "table")


def mark(record: JsonObject, key: str) -> str:
    """Whether a count is what was predicted."""
    return "equal" if record["total"][key] == record["measured"][key] else "NOT EQUAL"


def _seconds(record: JsonObject) -> Iterator[tuple[str, str]]:
    """Where one sequence's time went, and what the network model had said of it."""
    measured = record["measured"]
    yield "time", spent(measured, "communicating")
    expected = predicted_seconds(record)
    if expected:
        ratio = measured["communication_seconds"] / expected
        found = quantity(measured["communication_seconds"], SECONDS)
        said = f"{quantity(expected, SECONDS)} predicted, {found} measured, ratio {ratio:.2f}"
        yield "network", f"{record['network']}, imitated: {said}"
        if link := measured.get("link"):
            late = quantity(measured["late_seconds"], SECONDS)
            yield "link", f"{overhead(link)} by itself; messages came {late} late in all"


def spent(measured: JsonObject, otherwise: str) -> str:
    """Where one sequence's time went, `otherwise` saying what was done that was not computing."""
    whole, computing, rest, around = (
        quantity(measured[key], SECONDS)
        for key in ("seconds", "compute_seconds", "communication_seconds", "setup_seconds")
    )
    return f"{whole} a sequence: {computing} computing, {rest} {otherwise}; set-up around all {around}"


def overhead(link: JsonObject) -> str:
    """What the connection itself takes, as `pi_sim.mpc.overhead` measured it."""
    a_round, a_megabyte = (quantity(link[key], SECONDS) for key in ("round_seconds", "megabyte_seconds"))
    return f"{a_round} a round and {a_megabyte} a MB each way"


def predicted_seconds(record: JsonObject) -> float | None:
    """The predicted seconds of the network that the run imitated, if it imitated one."""
    seconds: float | None = record["total"]["seconds"].get(record["network"])
    return seconds


def _quality(record: JsonObject) -> Iterator[tuple[str, str]]:
    """Both perplexities on the same tokens, and the distance between the logits."""
    found, agreement = record["perplexity"], record["agreement"]
    private = perplexity(found["private"])
    if agreement is None:
        yield "perplexity", f"{private} private; there is no plain model to compare with"
        return
    yield "perplexity", f"{perplexity(found['plain'])} plain, {private} private, on the same tokens"
    differences = f"largest difference {agreement['max_abs']:.3g}, mean {agreement['mean_abs']:.3g}"
    yield "logits", f"{differences}; the likeliest token is the same at {agreement['top1']:.1%} of places"
    if agreement.get("corrupted_positions"):
        rest, places = found["excluding_corrupted"], record["sequences"] * record["seq_len"]
        kept = f"{perplexity(rest['plain'])} plain, {perplexity(rest['private'])} private"
        yield (
            "destroyed",
            f"{agreement['corrupted_positions']:,} of {places:,} places, see protocols/README.md; elsewhere {kept}",
        )
