"""Where two machines meet, and whether what passes between them is encrypted."""

import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path

from pi_sim.errors import UsageError
from pi_sim.mpc.rendezvous import PlainTransport, Transport
from pi_sim.mpc.tls import TlsTransport

UNENCRYPTED_WARNING = "nothing is encrypted: whoever reads the network between the machines can open everything."


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT taken apart; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"{text!r} is no address; write --rendezvous HOST:PORT, such as 192.0.2.7:5000.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def choose_transport(host: str, keys: Path | None, encrypted: bool, warn: Callable[[str], None]) -> Transport:
    """With keys an encrypted one; without them a plain one on the loopback, elsewhere only if that is wanted."""
    if keys and not encrypted:
        raise UsageError("--keys and --no-tls contradict each other; leave one of them out.")
    if keys:
        return TlsTransport(keys)
    local = is_loopback(host)
    if encrypted and not local:
        raise UsageError(f"a run over {host} is encrypted; give --keys a folder of `pi-sim keys`, or --no-tls.")
    if not local:
        warn(UNENCRYPTED_WARNING)
    return PlainTransport()


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    return all(ipaddress.ip_address(each.partition("%")[0]).is_loopback for _, each in _resolve(host))


def listen_at(host: str, port: int) -> socket.socket:
    """The server's socket; a `UsageError` where this machine does not have the address, or the port is in use."""
    family, found = _resolve(host)[0]
    try:
        return socket.create_server((found, port), family=family)
    except OSError as error:
        raise UsageError(
            f"{host}:{port} cannot be listened at ({os.strerror(error.errno or 0)}); --rendezvous is an address of "
            "party 0's machine, with a port that is free."
        ) from None


def _resolve(host: str) -> list[tuple[int, str]]:
    """The address family and the number of each address that a host has."""
    try:
        return [(each[0], str(each[4][0])) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):  # a name may also be none that the domain system could know
        raise UsageError(f"there is no host {host!r}; --rendezvous is where the server can be reached.") from None
