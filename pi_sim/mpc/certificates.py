"""A trial pair of certificates: each party gets a key, its own certificate, and the other party's."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pi_sim.folders import new_folder
from pi_sim.mpc.tls import CERTIFICATE_FILE, KEY_FILE, PEER_FILE

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
        (folder / CERTIFICATE_FILE).write_bytes(_self_signed_certificate(f"pi-sim {party}", key, valid).public_bytes(Encoding.PEM))
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
