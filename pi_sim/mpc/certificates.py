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
from pi_sim.mpc.tls import CERTIFICATE, KEY, PEER

PARTIES = ("server", "client")
VALID = timedelta(days=30)
SKEW = timedelta(days=1)
"""By which two machines' clocks may differ."""


def make(out: Path, valid: timedelta = VALID) -> None:
    """Write a folder for each party, whole or not at all; `out` must not exist yet or be empty."""
    with new_folder(out) as inside:
        _write(inside, valid)


def _write(out: Path, valid: timedelta) -> None:
    for party in PARTIES:
        folder = out / party
        folder.mkdir(mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / KEY).touch(mode=0o600)
        (folder / KEY).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / CERTIFICATE).write_bytes(_certificate(f"pi-sim {party}", key, valid).public_bytes(Encoding.PEM))
    for party, other in (PARTIES, reversed(PARTIES)):
        shutil.copyfile(out / other / CERTIFICATE, out / party / PEER)


def _certificate(name: str, key: ec.EllipticCurvePrivateKey, valid: timedelta) -> x509.Certificate:
    """Signed by itself: who holds it is known by this certificate alone."""
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    unsigned = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + valid)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return unsigned.sign(key, hashes.SHA256())
