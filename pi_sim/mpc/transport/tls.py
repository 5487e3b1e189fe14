"""TLS 1.3 between the parties: each knows the other by its certificate, and by nothing else.

Of a party's folder: key.pem, its private key; certificate.pem, its own certificate; peer.pem, the other party's.
"""

# MERGED: Where two machines meet, and whether what passes between them is encrypted.
# MERGED: A trial pair of certificates: each party gets a key, its own certificate, and the other party's.

import shutil
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pi_sim.errors import RunError, UsageError
from pi_sim.files import new_folder
from pi_sim.mpc.transport import wire
from pi_sim.mpc.transport.rendezvous import TO_CLIENT, TO_SERVER, PlainTransport, Transport, is_loopback

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
        raise UsageError(
            f"{folder} does not hold a {KEY_FILE} that fits its {CERTIFICATE_FILE} ({error.strerror})."
        ) from None
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


UNENCRYPTED_WARNING = "nothing is encrypted: whoever reads the network between the machines can open everything."


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


PARTY_NAMES = ("server", "client")
VALIDITY = timedelta(days=30)
CLOCK_SKEW = timedelta(days=1)
"""By which two machines' clocks may differ."""


def make_test_certificates(out: Path, valid: timedelta = VALIDITY) -> None:
    """Write a folder for each party, whole or not at all; `out` must not exist yet or be empty."""
    with new_folder(out) as inside:
        _write_key_folders(inside, valid)


def _write_key_folders(out: Path, valid: timedelta) -> None:
    for party in PARTY_NAMES:
        folder = out / party
        folder.mkdir(mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / KEY_FILE).touch(mode=0o600)
        (folder / KEY_FILE).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / CERTIFICATE_FILE).write_bytes(
            _self_signed_certificate(f"pi-sim {party}", key, valid).public_bytes(Encoding.PEM)
        )
    for party, other in (PARTY_NAMES, reversed(PARTY_NAMES)):
        shutil.copyfile(out / other / CERTIFICATE_FILE, out / party / PEER_FILE)


def _self_signed_certificate(name: str, key: ec.EllipticCurvePrivateKey, valid: timedelta) -> x509.Certificate:
    """Signed by itself: who holds it is known by this certificate alone."""
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    unsigned = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + valid)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return unsigned.sign(key, hashes.SHA256())
