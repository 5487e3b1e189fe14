"""TLS 1.3 between the parties: each identifies the other by its certificate alone, without a certificate authority.

A party's folder holds key.pem, its private key; certificate.pem, its own certificate; peer.pem, the other party's.
"""

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
from pi_sim.mpc.transport.connection import TO_CLIENT, TO_SERVER, Connection, PlainTransport, Transport, is_loopback

KEY_FILE, CERTIFICATE_FILE, PEER_FILE = "key.pem", "certificate.pem", "peer.pem"


class DuplexTls:
    """Two encrypted connections, one for each direction, that are used like one socket.

    OpenSSL's objects are not made for two threads: a read and a write at the same time change the same state, and the
    link sends in a thread while it receives. So each direction has a connection of its own. After the handshake it
    carries nothing but the data of its direction: the server sends no session tickets, and OpenSSL does not renew keys
    on its own.
    """

    def __init__(self, outgoing: socket.socket, incoming: socket.socket) -> None:
        self.outgoing, self.incoming = outgoing, incoming
        self.send, self.recv_into, self.gettimeout = outgoing.send, incoming.recv_into, incoming.gettimeout

    def settimeout(self, value: float | None) -> None:
        for connection in (self.outgoing, self.incoming):
            connection.settimeout(value)

    def setsockopt(self, level: int, name: int, value: int) -> None:
        for connection in (self.outgoing, self.incoming):
            connection.setsockopt(level, name, value)

    def shutdown(self, how: int) -> None:
        """Shut both down below TLS: `SSLSocket.shutdown` would continue unencrypted, and race with the other thread."""
        for connection in (self.outgoing, self.incoming):
            socket.socket.shutdown(connection, how)

    def close(self) -> None:
        for connection in (self.outgoing, self.incoming):
            connection.close()


class TlsTransport:
    """A transport for the holder of the private key to the certificate in peer.pem."""

    streams = (TO_SERVER, TO_CLIENT)

    def __init__(self, folder: Path) -> None:
        _, self.peer_certificate = (_read_certificate(folder / name) for name in (CERTIFICATE_FILE, PEER_FILE))
        self.contexts = {server: _ssl_context(folder, server) for server in (False, True)}

    def wrap(self, connection: socket.socket, server: bool) -> socket.socket:
        """Return the encrypted connection; raise `RunError` if the handshake fails or the certificate differs."""
        try:
            encrypted = self.contexts[server].wrap_socket(connection, server_side=server)
        except OSError as error:
            raise RunError(_handshake_failure(error)) from None
        if encrypted.getpeercert(binary_form=True) != self.peer_certificate:
            raise RunError(f"its certificate is not the one in {PEER_FILE}.")
        return encrypted

    def combine(self, streams: dict[int, socket.socket], server: bool) -> Connection:
        to_client, to_server = streams[TO_CLIENT], streams[TO_SERVER]
        return DuplexTls(to_client, to_server) if server else DuplexTls(to_server, to_client)


def _ssl_context(folder: Path, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate itself is compared, whatever the host's name
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
    """Return the certificate in a file in DER; raise `UsageError` unless it is valid today."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise UsageError(
            f"{path} is not a certificate; give --keys one of the two folders that `pi-sim keys` made, each party "
            "its own."
        ) from None
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        period = f"from {certificate.not_valid_before_utc} to {certificate.not_valid_after_utc}"
        raise UsageError(f"{path} is valid {period} only; make new ones with `pi-sim keys`.")
    return certificate.public_bytes(Encoding.DER)


def _handshake_failure(error: OSError) -> str:
    """Return the reason why a handshake failed, as a sentence about the other end."""
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
        return "it presents no certificate."
    return "it does not speak TLS 1.3."


UNENCRYPTED_WARNING = "nothing is encrypted: anybody who reads the network between the machines can open everything."


def choose_transport(host: str, keys: Path | None, encrypted: bool, warn: Callable[[str], None]) -> Transport:
    """Return TLS if there are keys, and a plain transport on the loopback.

    Elsewhere a plain transport needs `encrypted=False`, and warns; without it, missing keys are a `UsageError`.
    """
    if keys and not encrypted:
        raise UsageError("--keys and --no-tls contradict each other; leave one of them out.")
    if keys:
        return TlsTransport(keys)
    if not is_loopback(host):
        if encrypted:
            raise UsageError(f"a run over {host} is encrypted; give --keys a folder of `pi-sim keys`, or --no-tls.")
        warn(UNENCRYPTED_WARNING)
    return PlainTransport()


PARTY_NAMES = ("server", "client")
VALIDITY = timedelta(days=30)
CLOCK_SKEW = timedelta(days=1)
"""Time by which two machines' clocks may differ."""


def make_test_certificates(out: Path, valid: timedelta = VALIDITY) -> None:
    """Write a trial pair of certificates, a folder for each party, or nothing; `out` must be new or empty."""
    with new_folder(out) as inside:
        for party in PARTY_NAMES:
            folder = inside / party
            folder.mkdir(mode=0o700)
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _self_signed_certificate(f"pi-sim {party}", key, valid)
            (folder / KEY_FILE).touch(mode=0o600)
            (folder / KEY_FILE).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            (folder / CERTIFICATE_FILE).write_bytes(certificate.public_bytes(Encoding.PEM))
        for party, peer in (PARTY_NAMES, reversed(PARTY_NAMES)):
            shutil.copyfile(inside / peer / CERTIFICATE_FILE, inside / party / PEER_FILE)


def _self_signed_certificate(name: str, key: ec.EllipticCurvePrivateKey, valid: timedelta) -> x509.Certificate:
    """Return a self-signed certificate: its holder is identified by this certificate alone."""
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
