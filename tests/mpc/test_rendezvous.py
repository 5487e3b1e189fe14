"""The rendezvous of two machines, whichever is started first and whoever else calls, and the terms they compare."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_sim.errors import RunError, UsageError
from pi_sim.mpc.transport.connection import (
    HELLO,
    MAGIC,
    PlainTransport,
    accept_peer,
    connect_to_server,
    is_loopback,
    parse_address,
    receive_exactly,
    receive_text,
    send_all,
    send_text,
)
from pi_sim.mpc.transport.handshake import check_agreement
from pi_sim.mpc.transport.tls import UNENCRYPTED_WARNING, choose_transport
from tests.helpers.rendezvous_server import PATIENCE, RendezvousServer, connected_pair

TERMS = {"version": "1", "graph": "abc", "protocol": "lean", "number of sequences": "3", "dealer": "first-party"}


def hello(magic: bytes, direction: int) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(HELLO.pack(magic, os.urandom(16), direction))


@pytest.mark.parties
def test_strangers_are_refused_and_the_client_is_accepted() -> None:
    server = RendezvousServer(PlainTransport())
    for stranger, sentence in (
        (lambda connection: None, "the other party closed the connection"),
        (lambda connection: connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), "it does not speak"),
        (hello(b"pi-sim 0", 0), "it does not speak the parties' protocol"),
        (hello(MAGIC, 1), "it does not speak the parties' protocol"),
    ):
        assert server.refuses(stranger).startswith(f"refused a caller at 127.0.0.1: {sentence}")
    client_end = connect_to_server("127.0.0.1", server.port, PlainTransport(), PATIENCE)
    server.connection().close()
    client_end.close()


@pytest.mark.parties
def test_a_silent_stranger_delays_nobody() -> None:
    server = RendezvousServer(PlainTransport())
    with socket.create_connection(("127.0.0.1", server.port)):
        client_end = connect_to_server("127.0.0.1", server.port, PlainTransport(), PATIENCE)
        server.connection().close()
    assert not server.refusals
    client_end.close()


@pytest.mark.parties
def test_the_client_may_be_started_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    results: list[Any] = []
    client = threading.Thread(target=lambda: results.append(connect_to_server(*address, PlainTransport(), PATIENCE)))
    client.start()
    time.sleep(0.2)
    server_end = accept_peer(socket.create_server(address), PlainTransport(), PATIENCE, results.append)
    client.join(PATIENCE)
    (client_end,) = results
    send_all(server_end, b"here")
    assert bytes(receive_exactly(client_end, bytearray(4))) == b"here"
    server_end.close()
    client_end.close()


@pytest.mark.parties
def test_waiting_ends_at_the_timeout() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    with pytest.raises(RunError, match=r"the client did not connect within 0\.2 seconds"):
        accept_peer(listener, PlainTransport(), 0.2, print)
    with pytest.raises(RunError, match=rf"no server was reached at 127\.0\.0\.1:{address[1]} within 0\.2 seconds"):
        connect_to_server(*address, PlainTransport(), 0.2)


@pytest.mark.parties
def test_another_kind_of_server_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(100)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(RunError, match=r"failed \(it answers in another protocol\)"):
            connect_to_server(*listener.getsockname(), PlainTransport(), PATIENCE)


@given(changed=st.sets(st.sampled_from(sorted(TERMS))))
def test_differing_terms_are_named_at_both_parties(changed: set[str]) -> None:
    other = {name: value + "!" if name in changed else value for name, value in TERMS.items()}
    messages: list[str] = []

    def agree(connection: socket.socket, terms: dict[str, str]) -> None:
        try:
            check_agreement(connection, terms)
        except RunError as error:
            messages.append(str(error))

    server_end, client_end = socket.socketpair()
    with server_end, client_end:
        thread = threading.Thread(target=agree, args=(client_end, other))
        thread.start()
        agree(server_end, TERMS)
        thread.join()
    differing = " and ".join(name for name in TERMS if name in changed)
    assert messages == ([f"the parties differ in {differing}; start both with the same."] * 2 if changed else [])


@pytest.mark.parties
def test_the_length_of_a_text_is_checked() -> None:
    with connected_pair(PlainTransport(), PlainTransport()) as (server_end, client_end):
        send_text(client_end, b"twelve bytes")
        assert receive_text(server_end, 12) == b"twelve bytes"
        send_text(client_end, b"twelve bytes")
        with pytest.raises(RunError, match="announced 12 bytes where at most 11 were due"):
            receive_text(server_end, 11)


@pytest.mark.parametrize(
    ("text", "address"),
    [("192.0.2.7:5000", ("192.0.2.7", 5000)), ("[::1]:80", ("::1", 80)), ("a.example:1", ("a.example", 1))],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", ":5000", "host:", "host:0", "host:65536", "host:-1", "host:http"])
def test_a_malformed_address_is_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address; write --rendezvous HOST:PORT"):
        parse_address(text)


def test_encryption_is_off_on_the_loopback_alone() -> None:
    warnings: list[str] = []
    for local in ("127.0.0.1", "127.8.9.10", "::1", "localhost"):
        assert is_loopback(local)
        assert isinstance(choose_transport(local, None, True, warnings.append), PlainTransport)
    assert not warnings
    for far in ("192.0.2.7", "0.0.0.0", "2001:db8::1"):
        assert not is_loopback(far)
        with pytest.raises(UsageError, match=f"a run over {far} is encrypted; give --keys"):
            choose_transport(far, None, True, warnings.append)
        assert isinstance(choose_transport(far, None, False, warnings.append), PlainTransport)
    assert warnings == [UNENCRYPTED_WARNING] * 3
    with pytest.raises(UsageError, match="contradict each other"):
        choose_transport("127.0.0.1", Path("keys"), False, warnings.append)
    with pytest.raises(UsageError, match="there is no host"):
        is_loopback("no-such-host.invalid")
