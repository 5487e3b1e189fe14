"""Meaning of JSON keys, shown by the help of a command: keys may be added, never renamed."""

Keys = dict[str, str]

TOTALS: Keys = {
    "rounds": "sequential exchanges",
    "bytes": "payload that the busier party sends once the input is there",
    "bytes_by_party": "the same of the server and of the client",
    "ahead_bytes": "payload that the busier party can send before the input is there",
    "session_bytes": "payload that it sends once in a session, in one round, to open the weights",
    "offline_bytes": "correlated randomness that must reach a party; null where the protocol's sources do not state it",
    "seconds": "by network; they include those of computing if compute_seconds is a number",
    "compute_seconds": "by the machine's profile; null without one, or where a protocol does not run here",
    "ahead_compute_seconds": "the client's before the input is there, likewise; in no other sum but the next",
    "first_query_seconds": "by network, with all that a session and a query do before the input is there",
}

ROW: Keys = {
    "module": "where in the model",
    "op": "the operation, as in pi_sim/graph/vocabulary.py",
    "shapes": "of its operands, with its attributes",
    "count": "how often it occurs there",
    "provenance": "of its price: derived, declared, scaled or fitted; local where a declared protocol has it for free",
    "rounds": "of all occurrences",
    "bytes": "of all occurrences, as in total; so are the next three",
    "bytes_by_party": "of all occurrences",
    "ahead_bytes": "of all occurrences",
    "session_bytes": "of all occurrences",
    "offline_bytes": "of all occurrences",
}

ESTIMATE: Keys = {
    "model": "a card's name, or a path",
    "size": 'a size\'s name; "own" for a model that has its own',
    "protocol": "the protocol's name",
    "seq_len": "tokens of each sequence that are read at once",
    "batch": "sequences",
    "past": "tokens of each sequence in a KV cache; null for a prefill",
    "generate": "tokens behind a prompt of seq_len, which all numbers include; null without them",
    "only_inner": "true if rows and total lack embedding and head",
    "total": "sums of all rows",
    "without_embedding_and_head": "sums of what lies between",
    "session_bytes": "that of the total",
    "rows": "one for each operation and shape in each module",
    "conventions": "definitions of the quantities",
}

ENVELOPE: Keys = {
    "kind": "estimate, for an estimate",
    "version": "of the schema",
    "argv": "the command line; null where Python made the record",
    "code": "fingerprint of the code and libraries that prices depend on",
    "commit": "of a git checkout; null for an installed package",
    "versions": "of Python, pi-sim and libraries",
    "machine": "system, CPU and cores",
}

COUNTS: Keys = {
    **{key: ESTIMATE[key] for key in ("model", "size", "seq_len", "batch", "past", "generate")},
    "operations": "each with op, count, shape and multiplications (null where there is no product)",
}

COMPARISON: Keys = {
    "estimates": "one for each subject, with the keys of an estimate",
    "by": "rows of the table: op, layer, module or total",
    "rows": "for each subject X rounds_X, bytes_X ... and, against the first, rounds_ratio_X, bytes_ratio_X ...",
    "totals": "the same keys for the sums",
}

SWEEP: Keys = {
    **{key: ESTIMATE[key] for key in ("model", "size", "seq_len", "batch")},
    "past": "tokens of each sequence in a KV cache; empty for a prefill",
    "only_inner": "True if embedding and head are left out",
    "protocol": ESTIMATE["protocol"],
    "machine": "whose profile gives the seconds of computing; empty without one",
    "network": "a preset's name, or a link as it was given",
    "rounds": TOTALS["rounds"],
    "bytes": TOTALS["bytes"],
    "server_bytes": "that the server sends, and client_bytes the client, once the input is there",
    "client_bytes": "that the client sends",
    "ahead_bytes": "that the busier party can send before the input is there",
    "session_bytes": "that the busier party sends once per session",
    "offline_bytes": "correlated randomness that must reach a party; empty where the sources do not state it",
    "network_seconds": "on the network, without computing",
    "first_query_network_seconds": "of the first query of a session: with what a steady state has sent before",
    "compute_seconds": "by the machine's profile; empty without one, or where a protocol's sources state none",
    "seconds": "network_seconds + compute_seconds; empty where that is",
    "first_query_seconds": "the same of the first query of a session",
    "perplexity": "of held-out text, the mean of the seeds of a training's record; empty without one",
    "reason": "why there is no price; empty if there is one",
}


def describe_keys(*sections: tuple[str, Keys]) -> str:
    """Return keys and their meaning as the epilog of a command's help."""
    lines = [line for title, keys in sections for line in (f"{title}:", *(f"  {key}: {keys[key]}" for key in keys))]
    return "\n".join(["\b", *lines])
