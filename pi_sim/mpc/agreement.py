"""What two parties make sure of before any share moves: that they are about to compute the same thing."""

import hashlib
from collections.abc import Mapping

from pi_sim.errors import RunError
from pi_sim.mpc import wire

DIGEST = hashlib.sha256().digest_size


def agree(connection: wire.Connection, terms: Mapping[str, str]) -> None:
    """Compare digests of the terms, which both parties name in the same order; a `RunError` names those that differ."""
    mine = [hashlib.sha256(value.encode()).digest() for value in terms.values()]
    wire.send(connection, b"".join(mine))
    theirs = bytes(wire.receive(connection, bytearray(DIGEST * len(mine))))
    pieces = [theirs[start : start + DIGEST] for start in range(0, len(theirs), DIGEST)]
    differing = [name for name, one, other in zip(terms, mine, pieces, strict=True) if one != other]
    if differing:
        raise RunError(f"the parties differ in {' and '.join(differing)}; start both with the same.")
