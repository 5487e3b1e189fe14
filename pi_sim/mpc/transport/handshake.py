"""Before any share moves: two parties connect, check that they agree, and exchange seeds."""

import hashlib
import socket
import struct
from collections.abc import Mapping

from pi_sim.errors import RunError
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.dealers import DEALING_NUMBER_BYTES, Dealer
from pi_sim.mpc.dealer.prg import SEED_BYTES, AesCtrPrg, new_seed
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.transport.connection import Connection, receive_exactly, send_all

DIGEST_BYTES = hashlib.sha256().digest_size


def check_agreement(connection: Connection, terms: Mapping[str, str]) -> None:
    """Compare digests of the terms, which both parties list in the same order; a `RunError` names those that differ."""
    digests = [hashlib.sha256(value.encode()).digest() for value in terms.values()]
    send_all(connection, b"".join(digests))
    reply = bytes(receive_exactly(connection, bytearray(DIGEST_BYTES * len(digests))))
    peer_digests = [reply[start : start + DIGEST_BYTES] for start in range(0, len(reply), DIGEST_BYTES)]
    differing = [name for name, own, peer in zip(terms, digests, peer_digests, strict=True) if own != peer]
    if differing:
        raise RunError(f"the parties differ in {' and '.join(differing)}; start both with the same.")


HANDSHAKE = struct.Struct(f"<{DEALING_NUMBER_BYTES}s{SEED_BYTES}s{SEED_BYTES}s")
"""Number of the dealing, seed of a sharing of zero, and the dealer's seed offer."""


def connect(listener: int | None, port: int, timeout: float) -> socket.socket:
    """Connect two parties of one machine: party 0 accepts, party 1 connects; both wait `timeout` seconds at most.

    `listener` is the descriptor of party 0's listening socket, None at party 1.
    """
    try:
        if listener is None:
            return socket.create_connection(("127.0.0.1", port), timeout=timeout)
        with socket.socket(fileno=listener) as listening:
            listening.settimeout(timeout)
            connection = listening.accept()[0]
            connection.settimeout(timeout)
            return connection
    except OSError:
        raise RunError(f"the other party could not be reached within {timeout:g} seconds.") from None


def perform_handshake(connection: Connection, dealer: Dealer, terms: Mapping[str, str]) -> Source:
    """Agree on the terms and the kind of dealer, exchange seeds, and return this party's source of randomness.

    The seeds are those of CrypTen's sharings of zero, and, if party 0 is the dealer, of party 1's shares. Both parties
    must have the same dealing; an unused file is marked as used only once all of this holds.
    """
    check_agreement(connection, {**terms, "dealer": dealer.kind})
    zero_seed = new_seed()
    send_all(connection, HANDSHAKE.pack(dealer.number, zero_seed, dealer.seed_offer()))
    number, peer_zero_seed, peer_offer = HANDSHAKE.unpack(receive_exactly(connection, bytearray(HANDSHAKE.size)))
    if number != dealer.number:
        raise RunError("the parties' files are of different dealings; give both what one `pi-sim deal` wrote.")
    backend.set_zero_prgs(
        previous_prg=AesCtrPrg(peer_zero_seed), next_prg=AesCtrPrg(zero_seed), local_prg=AesCtrPrg(new_seed())
    )
    return dealer.open_source(peer_offer)
