"""TLS 1.3 between the parties: each knows the other by its certificate, and by nothing else.

Of a party's folder: key.pem, its private key; certificate.pem, its own certificate; peer.pem, the other party's.
"""

import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pi_sim.errors import RunError, UsageError
from pi_sim.mpc import wire
from pi_sim.mpc.rendezvous import TO_CLIENT, TO_SERVER

KEY_FILE, CERTIFICATE_FILE, PEER_FILE = "key.pem", "certificate.pem", "peer.pem"


class DuplexTls:
    """Two encrypted connections that are used like one socket: this one sends, that one receives.

    OpenSSL's objects are not made for two threads: a read and a write at the same time change the same state, and the
    link sends in a thread while it receives. So each way has a connection of its own. After the handshake nothing but
    the data of its way passes it: the server sends no session tickets, and OpenSSL renews no keys unasked.
    """

    def __init__(self, outgoing: socket.socket, incoming: socket.socket) -> None:
        self.outgoing, self.incoming = outgoing, incoming
        self.send, self.recv_into, self.gettimeout = outgoing.send, incoming.recv_into, incoming.gettimeout

    def settimeout(self, value: float | None) -> None:
        for each in (self.outgoing, self.incoming):
            each.settimeout(value)

    def setsockopt(self, level: int, name: int, value: int) -> None:
        for each in (self.outgoing, self.incoming):
            each.setsockopt(level, name, value)

    def shutdown(self, how: int) -> None:
        """End both below TLS: `SSLSocket.shutdown` would go on in the clear, and under the other thread's feet."""
        for each in (self.outgoing, self.incoming):
            socket.socket.shutdown(each, how)

    def close(self) -> None:
        for each in (self.outgoing, self.incoming):
            each.close()


class TlsTransport:
    """A door for whoever holds the key to the certificate in peer.pem."""

    streams = (TO_SERVER, TO_CLIENT)

    def __init__(self, folder: Path) -> None:
        _, self.peer_certificate = (_read_certificate(folder / name) for name in (CERTIFICATE_FILE, PEER_FILE))
        self.contexts = {server: _ssl_context(folder, server) for server in (False, True)}

    def wrap(self, connection: socket.socket, server: bool) -> socket.socket:
        """The encrypted connection, after the handshake."""
        try:
            opened = self.contexts[server].wrap_socket(connection, server_side=server)
        except OSError as error:
            raise RunError(_handshake_failure(error)) from None
        if opened.getpeercert(binary_form=True) != self.peer_certificate:
            raise RunError(f"its certificate is not the one in {PEER_FILE}.")
        return opened

    def combine(self, ways: dict[int, socket.socket], server: bool) -> wire.Connection:
        to_client, to_server = ways[TO_CLIENT], ways[TO_SERVER]
        return DuplexTls(to_client, to_server) if server else DuplexTls(to_server, to_client)


def _ssl_context(folder: Path, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate itself is known, whatever the machine is called
    context.verify_mode = ssl.CERT_REQUIRED
    if server:
        context.num_tickets = 0
    try:
        context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
        context.load_verify_locations(folder / PEER_FILE)
    except OSError as error:
        raise UsageError(f"{folder} does not hold a {KEY_FILE} that fits its {CERTIFICATE_FILE} ({error.strerror}).") from None
    return context


def _read_certificate(path: Path) -> bytes:
    """The one certificate in a file, which must be valid today."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise UsageError(
            f"{path} is not a certificate; give --keys one of the two folders that `pi-sim keys` made, its own to each "
            "party."
        ) from None
    if not found.not_valid_before_utc <= datetime.now(UTC) <= found.not_valid_after_utc:
        raise UsageError(f"{path} is valid from {found.not_valid_before_utc} to {found.not_valid_after_utc} only.")
    return found.public_bytes(Encoding.DER)


def _handshake_failure(error: OSError) -> str:
    """Why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not the one in {PEER_FILE}, or not valid today."
    if isinstance(error, TimeoutError):
        return "it was silent during the handshake."
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError):
        return "it closed the connection during the handshake."
    reason = str(error.reason)
    if "ALERT" in reason:
        return "it does not accept this party's certificate."
    if "CERTIFICATE" in reason:
        return "it shows no certificate."
    return "it does not speak TLS 1.3."
