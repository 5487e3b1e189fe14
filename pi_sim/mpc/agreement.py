"""What two parties make sure of before any share moves: that they are about to compute the same thing."""

import hashlib
from collections.abc import Mapping

from pi_sim.errors import RunError
from pi_sim.mpc import wire

DIGEST_BYTES = hashlib.sha256().digest_size


def check_agreement(connection: wire.Connection, terms: Mapping[str, str]) -> None:
    """Compare digests of the terms, which both parties name in the same order; a `RunError` names those that differ."""
    mine = [hashlib.sha256(value.encode()).digest() for value in terms.values()]
    wire.send_all(connection, b"".join(mine))
    theirs = bytes(wire.receive_exactly(connection, bytearray(DIGEST_BYTES * len(mine))))
    pieces = [theirs[start : start + DIGEST_BYTES] for start in range(0, len(theirs), DIGEST_BYTES)]
    differing = [name for name, one, other in zip(terms, mine, pieces, strict=True) if one != other]
    if differing:
        raise RunError(f"the parties differ in {' and '.join(differing)}; start both with the same.")
