"""Encryption between two machines: only the right party is accepted, and nothing is readable on the way."""

import os
import re
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from pi_sim.cli import main
from pi_sim.errors import RunError, UsageError
from pi_sim.mpc.transport import tls
from pi_sim.mpc.transport.connection import HELLO, MAGIC, PlainTransport, connect_to_server, receive_exactly, send_all
from pi_sim.mpc.transport.link import Link
from pi_sim.mpc.transport.tls import TlsTransport
from tests.helpers.rendezvous_server import PATIENCE, RendezvousServer, connected_pair
from tests.helpers.two_threads import at_both_ends


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a trial pair of certificates."""
    out = tmp_path_factory.mktemp("keys") / "pair"
    tls.make_test_certificates(out)
    return out


@pytest.fixture(scope="module")
def other_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write another pair, with the same names in its certificates."""
    out = tmp_path_factory.mktemp("keys") / "others"
    tls.make_test_certificates(out)
    return out


# The keys.


def test_keys_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["keys", "--out", str(tmp_path / "new" / "keys")])
    assert result.exit_code == 0, result.stderr
    for party in ("server", "client"):
        folder = tmp_path / "new" / "keys" / party
        assert {path.name for path in folder.iterdir()} == {"key.pem", "certificate.pem", "peer.pem"}
        assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o077 == 0


def test_keys_that_exist_are_not_overwritten(keys: Path) -> None:
    before = (keys / "server" / "key.pem").read_bytes()
    result = CliRunner().invoke(main, ["keys", "--out", str(keys)])
    assert (result.exit_code, "is not empty; choose another --out" in result.stderr) == (2, True)
    assert (keys / "server" / "key.pem").read_bytes() == before


@pytest.mark.parametrize("path", ["README.md/keys", "/proc/pair"])
def test_keys_that_cannot_be_written_are_one_sentence(path: str) -> None:
    result = CliRunner().invoke(main, ["keys", "--out", path])
    assert (result.exit_code, "cannot be written" in result.stderr) == (2, True)


def test_an_interrupt_leaves_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tls.shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tls.make_test_certificates(tmp_path / "keys")
    assert not list(tmp_path.iterdir())


def test_invalid_keys_are_one_sentence(keys: Path, other_keys: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a certificate; give --keys one of the two folders"):
        TlsTransport(keys)
    for name in ("certificate.pem", "peer.pem"):
        (tmp_path / name).write_bytes((keys / "server" / name).read_bytes())
    with pytest.raises(UsageError, match=r"does not hold a key\.pem that fits its certificate\.pem"):
        TlsTransport(tmp_path)
    (tmp_path / "key.pem").write_bytes((other_keys / "server" / "key.pem").read_bytes())
    with pytest.raises(UsageError, match=r"does not hold a key\.pem that fits its certificate\.pem"):
        TlsTransport(tmp_path)


def test_expired_keys_are_one_sentence(tmp_path: Path) -> None:
    tls.make_test_certificates(tmp_path / "keys", valid=timedelta(hours=-1))
    with pytest.raises(UsageError, match=r"certificate\.pem is valid from .* to .* only"):
        TlsTransport(tmp_path / "keys" / "client")


# The connection.


@pytest.mark.parties
def test_both_directions_at_once(keys: Path) -> None:
    """Large messages, sent by a thread while this one receives: an OpenSSL object would not survive both."""
    generator = torch.Generator().manual_seed(0)
    shares = [torch.randint(-(2**63), 2**63 - 1, (300_000,), generator=generator) for _ in (0, 1)]
    with connected_pair(TlsTransport(keys / "server"), TlsTransport(keys / "client")) as ends:
        links = [Link(end, rank) for rank, end in enumerate(ends)]
        values = at_both_ends(links, lambda link: [link.all_reduce(shares[link.rank]) for _ in range(5)])
        for link in links:
            link.finish()
    assert all(torch.equal(value, shares[0] + shares[1]) for results in values for value in results)


@pytest.mark.parties
def test_each_direction_has_a_tls_1_3_connection(keys: Path) -> None:
    with connected_pair(TlsTransport(keys / "server"), TlsTransport(keys / "client")) as ends:
        sockets = [stream for end in ends for stream in (end.outgoing, end.incoming)]
        assert [stream.version() for stream in sockets] == ["TLSv1.3"] * 4
        assert (
            len({stream.getsockname() for stream in sockets[:2]} | {stream.getpeername() for stream in sockets[:2]})
            == 3
        )
        assert not any(stream.session.has_ticket for stream in sockets)


class Relay:
    """An eavesdropper between the parties, that records all bytes and may change one of them."""

    def __init__(self, port: int, change: int | None = None) -> None:
        self.port, self.change = port, change
        self.record = bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client = self.listener.accept()[0]
            server = socket.create_connection(("127.0.0.1", self.port))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # one of the two has hung up
            while data := bytearray(source.recv(2**16)):
                if self.change is not None and len(self.record) <= self.change < len(self.record) + len(data):
                    data[self.change - len(self.record)] ^= 1
                self.record += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


SECRET = b"the client's text" * 1000


@pytest.mark.parties
@pytest.mark.parametrize("encrypted", [True, False])
def test_traffic_is_readable_only_without_encryption(encrypted: bool, keys: Path) -> None:
    transports = [TlsTransport(keys / party) if encrypted else PlainTransport() for party in ("server", "client")]
    server = RendezvousServer(transports[0])
    relay = Relay(server.port)
    client_end = connect_to_server("127.0.0.1", relay.listener.getsockname()[1], transports[1], PATIENCE)
    send_all(client_end, SECRET)
    server_end = server.connection()
    assert bytes(receive_exactly(server_end, bytearray(len(SECRET)))) == SECRET
    assert len(relay.record) > len(SECRET)
    assert (SECRET[:17] in relay.record) is not encrypted
    server_end.close()
    client_end.close()


@pytest.mark.parties
def test_a_changed_byte_is_an_error(keys: Path) -> None:
    server = RendezvousServer(TlsTransport(keys / "server"))
    relay = Relay(server.port)
    client_end = connect_to_server(
        "127.0.0.1", relay.listener.getsockname()[1], TlsTransport(keys / "client"), PATIENCE
    )
    server_end = server.connection()
    relay.change = len(relay.record) + 1000
    send_all(client_end, SECRET)
    with pytest.raises(RunError, match=r"connection to the other party broke \(.*MAC\)"):
        receive_exactly(server_end, bytearray(len(SECRET)))
    server_end.close()
    client_end.close()


@pytest.mark.parties
def test_an_encrypted_party_that_stalls_or_hangs_up_is_an_error(keys: Path) -> None:
    with connected_pair(TlsTransport(keys / "server"), TlsTransport(keys / "client")) as (server_end, client_end):
        server_end.settimeout(0.2)
        with pytest.raises(RunError, match=r"sent nothing for 0\.2 seconds"):
            receive_exactly(server_end, bytearray(1))
        client_end.close()
        with pytest.raises(RunError, match="closed the connection"):
            receive_exactly(server_end, bytearray(1))


# Strangers.


def silent(connection: socket.socket) -> None:
    """Call and hang up, as a port scanner does."""


def unencrypted(connection: socket.socket) -> None:
    connection.sendall(HELLO.pack(MAGIC, os.urandom(16), 0))


def garbage(connection: socket.socket) -> None:
    connection.sendall(bytes(range(256)))


def over_tls(folder: Path | None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Callable[[socket.socket], None]:
    """Return a caller that accepts any server, with the certificate in a folder or none."""

    def stranger(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, newest
        if folder:
            context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
        with suppress(OSError), context.wrap_socket(connection) as encrypted:
            encrypted.sendall(HELLO.pack(MAGIC, os.urandom(16), 1))
            encrypted.recv(8)

    return stranger


@pytest.mark.parties
def test_strangers_are_refused_and_the_right_party_is_accepted(keys: Path, other_keys: Path, tmp_path: Path) -> None:
    tls.make_test_certificates(tmp_path / "old", valid=timedelta(hours=-1))
    strangers = [
        (silent, "it closed the connection during the handshake"),
        (unencrypted, r"it does not speak TLS 1\.3"),
        (garbage, r"it does not speak TLS 1\.3"),
        (over_tls(None), "it presents no certificate"),
        (over_tls(other_keys / "client"), r"its certificate is not the one in peer\.pem, or not valid today"),
        (over_tls(tmp_path / "old" / "client"), r"its certificate is not the one in peer\.pem, or not valid today"),
        (over_tls(keys / "server"), r"its certificate is not the one in peer\.pem, or not valid today"),
        (over_tls(keys / "client", newest=ssl.TLSVersion.TLSv1_2), r"it does not speak TLS 1\.3"),
    ]
    server = RendezvousServer(TlsTransport(keys / "server"))
    for stranger, sentence in strangers:
        assert re.fullmatch(rf"refused a caller at 127\.0\.0\.1: {sentence}\.", server.refuses(stranger))
    client_end = connect_to_server("127.0.0.1", server.port, TlsTransport(keys / "client"), PATIENCE)
    server.connection().close()
    client_end.close()


NO_RENDEZVOUS = r"failed \({}\); both parties must encrypt, with the keys of one pair, or neither\.$"


@pytest.mark.parties
def test_a_client_refuses_other_servers(keys: Path, other_keys: Path) -> None:
    """Neither one with another certificate, nor one that does not encrypt."""
    server = RendezvousServer(TlsTransport(other_keys / "server"))
    with pytest.raises(RunError, match=NO_RENDEZVOUS.format("its certificate is not the one in .*")):
        connect_to_server("127.0.0.1", server.port, TlsTransport(keys / "client"), PATIENCE)
    connect_to_server("127.0.0.1", server.port, TlsTransport(other_keys / "client"), PATIENCE).close()
    server.connection().close()
    assert server.refusals == ["refused a caller at 127.0.0.1: it does not accept this party's certificate."]
    server = RendezvousServer(PlainTransport())
    with pytest.raises(RunError, match=NO_RENDEZVOUS.format("it closed the connection during the handshake")):
        connect_to_server("127.0.0.1", server.port, TlsTransport(keys / "client"), PATIENCE)
    connect_to_server("127.0.0.1", server.port, PlainTransport(), PATIENCE).close()
    server.connection().close()
    assert set(server.refusals) == {"refused a caller at 127.0.0.1: it does not speak the parties' protocol."}


@pytest.mark.parties
def test_a_client_with_another_certificate_is_refused(keys: Path, other_keys: Path, tmp_path: Path) -> None:
    """The server's certificate is the right one, its own is not."""
    for name, pair in (("key.pem", other_keys), ("certificate.pem", other_keys), ("peer.pem", keys)):
        (tmp_path / name).write_bytes((pair / "client" / name).read_bytes())
    server = RendezvousServer(TlsTransport(keys / "server"), timeout=1.0)
    with pytest.raises(RunError, match=NO_RENDEZVOUS.format(".*")):
        connect_to_server("127.0.0.1", server.port, TlsTransport(tmp_path), PATIENCE)
    with pytest.raises(RunError, match="the client did not connect within 1 seconds"):
        server.connection()
    assert server.refusals[0].endswith("its certificate is not the one in peer.pem, or not valid today.")


@pytest.mark.parties
def test_a_client_without_keys_does_not_reach_an_encrypted_server(keys: Path) -> None:
    server = RendezvousServer(TlsTransport(keys / "server"), timeout=1.0)
    with pytest.raises(RunError, match=NO_RENDEZVOUS.format(".*")):
        connect_to_server("127.0.0.1", server.port, PlainTransport(), PATIENCE)
    with pytest.raises(RunError, match="the client did not connect"):
        server.connection()
