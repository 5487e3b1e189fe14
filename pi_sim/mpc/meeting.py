"""How two parties meet, and what they make sure of before any share moves."""

import socket
import struct
from collections.abc import Mapping

from pi_sim.errors import RunError
from pi_sim.mpc import backend, wire
from pi_sim.mpc.agreement import check_agreement
from pi_sim.mpc.dealer.kinds import DEALING_NUMBER_BYTES, Dealer
from pi_sim.mpc.dealer.source import Source
from pi_sim.mpc.dealer.stream import SEED_BYTES, AesCtrPrg, new_seed

HANDSHAKE = struct.Struct(f"<{DEALING_NUMBER_BYTES}s{SEED_BYTES}s{SEED_BYTES}s")


def connect(listener: int | None, port: int, timeout: float) -> socket.socket:
    """Party 0 waits for the other on its listening socket, party 1 calls it; both wait `timeout` seconds at most.

    `listener` is the descriptor of party 0's socket, None at party 1.
    """
    try:
        if listener is None:
            return socket.create_connection(("127.0.0.1", port), timeout=timeout)
        with socket.socket(fileno=listener) as waiting:
            waiting.settimeout(timeout)
            connection = waiting.accept()[0]
            connection.settimeout(timeout)
            return connection
    except OSError:
        raise RunError(f"the other party could not be reached within {timeout:g} seconds.") from None


def handshake(connection: wire.Connection, dealer: Dealer, terms: Mapping[str, str]) -> Source:
    """Agree on the terms and the dealer, then exchange seeds: of CrypTen's sharings of zero, and of a first party.

    Both parties must have the same dealing; an unused file is marked as used when all this is sure.
    """
    check_agreement(connection, {**terms, "dealer": dealer.kind})
    zeros = new_seed()
    wire.send_all(connection, HANDSHAKE.pack(dealer.number, zeros, dealer.seed_offer()))
    number, previous, offered = HANDSHAKE.unpack(wire.receive_exactly(connection, bytearray(HANDSHAKE.size)))
    if number != dealer.number:
        raise RunError("the parties' files are of different dealings; give both what one `pi-sim deal` wrote.")
    backend.set_zero_prgs(previous_prg=AesCtrPrg(previous), next_prg=AesCtrPrg(zeros), local_prg=AesCtrPrg(new_seed()))
    return dealer.open_source(offered)
