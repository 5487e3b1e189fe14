"""Dealers: cryptographic PRGs, correlations that hold under every dealer, and recorded demands."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.errors import RunError, UsageError
from pi_sim.graph.capture import capture_model
from pi_sim.graph.ops import Graph
from pi_sim.mpc import backend, executor
from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec, and_triple, beaver_triple, random_bit, square_pair
from pi_sim.mpc.dealer.dealers import DEALT_FILE, Dealer, DealerSpec, ExternalDealer, FirstPartyDealer
from pi_sim.mpc.dealer.prg import AesCtrPrg
from pi_sim.mpc.dealer.sources import (
    CorrelationItem,
    DealerSource,
    Demand,
    MaskItem,
    RecordingSource,
    SeedSource,
    Source,
    StreamedSource,
    raw_bytes,
)
from pi_sim.mpc.party import PartyJob
from pi_sim.mpc.primitives.beaver import fixed_operand_triple
from pi_sim.mpc.runtime import Runtime
from pi_sim.mpc.transport.handshake import perform_handshake
from pi_sim.network import PRESETS
from pi_sim.zoo.source import ModelSource

EXECUTABLE = [
    name for name in specs.list_names("protocols") if isinstance(specs.load_protocol(name), specs.ExecutableProtocol)
]
CORRELATIONS: list[Correlation] = [
    beaver_triple("multiply", (3, 4), (4,)),
    beaver_triple("matmul", (2, 3, 4), (4, 5)),
    square_pair((7,)),
    and_triple((2, 3), (3,)),
    random_bit((5,)),
]
PARTS = st.builds(TensorSpec, st.lists(st.integers(0, 5), max_size=3).map(tuple), st.sampled_from([None, 64, 1, 20]))
BYTES = st.builds(
    TensorSpec, st.lists(st.integers(0, 9), max_size=2).map(tuple), st.integers(1, 8), st.just(torch.uint8)
)
KEYSTREAM = "66e94bd4ef8a2c3b884cfa59ca342b2e"
"""AES-128 of a zero block under the zero key (FIPS 197): the first block of the PRG with a zero seed."""


def prg(number: int) -> AesCtrPrg:
    return AesCtrPrg(bytes([number] * 16))


class MemoryStream:
    """A `ShareStream` of bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def take(self, length: int) -> Tensor:
        head, self.content = self.content[:length], self.content[length:]
        return torch.tensor(list(head), dtype=torch.uint8)


def test_the_prg_is_aes_in_counter_mode() -> None:
    (words,) = AesCtrPrg(bytes(16)).draw(TensorSpec((2,)))
    assert bytes(raw_bytes(words)).hex() == KEYSTREAM


@given(st.lists(PARTS | BYTES, max_size=6), st.integers(0, 6))
def test_both_ends_expand_the_same_stream_however_it_is_drawn(parts: list[TensorSpec], cut: int) -> None:
    """Together, in two draws, and as plain blocks of the cipher, of which each part takes whole ones."""
    together = prg(1).draw(*parts)
    two_draws, plain = prg(1), prg(1)
    split = two_draws.draw(*parts[:cut]) + two_draws.draw(*parts[cut:])
    for part, value, value_of_two in zip(parts, together, split, strict=True):
        (blocks,) = plain.draw(TensorSpec((-(-part.bytes // 16) * 16,), None, torch.uint8))
        expected = blocks[: part.bytes].view(part.dtype).view(part.shape)
        assert torch.equal(value, expected if part.mask is None else expected & part.mask)
        assert torch.equal(value, value_of_two)


def test_random_words_of_crypten_are_the_prgs() -> None:
    """All 64 bits of them: CrypTen's own never had the ring's largest value."""
    backend.set_zero_prgs(prg(1), prg(2), prg(3))
    ((previous,), (following,)) = (prg(number).draw(TensorSpec((3, 5))) for number in (1, 2))
    (low_bits,) = prg(3).draw(TensorSpec((9,), 3))
    zero = backend.ArithmeticSharedTensor.PRZS(torch.Size([3, 5]), device="cpu")
    assert torch.equal(zero.share, previous - following)
    assert torch.equal(backend.BinarySharedTensor.rand(torch.Size([9]), bits=3).share, low_bits)


class NoOtherRandomness(TorchDispatchMode):
    """Context in which torch's generators, which are not cryptographic, must not be used."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert torch.Tag.nondeterministic_seeded not in function.tags, function
        return function(*args, **(kwargs or {}))


def test_torchs_own_randomness_would_be_noticed() -> None:
    with pytest.raises(AssertionError), NoOtherRandomness():
        torch.randint(9, (2,), device="meta")


@pytest.fixture(scope="module")
def graph(size: str) -> Graph:
    return capture_model(ModelSource.parse("gelu_ln", size).meta(), 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXECUTABLE)
def test_the_demand_of_a_graph_has_its_offline_bytes_and_its_correlations_hold(name: str, graph: Graph) -> None:
    card = specs.load_executable_protocol(name)
    with NoOtherRandomness():
        demand = executor.record_demand([graph], card)
    assert demand.offline_bytes(0) == 0
    assert demand.offline_bytes(3) == 3 * derived.derive_graph_cost(graph, card).offline
    correlations = [item.correlation for item in independent_items(demand)]
    for correlation in {kind(correlation): correlation for correlation in correlations}.values():
        assert_correlation_holds(correlation)


def kind(correlation: Correlation) -> str:
    """Return the name of the function that describes a correlation."""
    return correlation.derive.__qualname__.partition(".")[0]


def independent_items(demand: Demand) -> list[CorrelationItem]:
    """Return the correlations that do not follow from persistent masks."""
    return [item for item in demand.sequence if isinstance(item, CorrelationItem) and not item.mask_indices]


@pytest.mark.parametrize("correlation", CORRELATIONS, ids=kind)
def test_a_correlation_of_crypten_holds_under_every_dealer(correlation: Correlation) -> None:
    assert_correlation_holds(correlation)


def assert_correlation_holds(correlation: Correlation) -> None:
    """Check both sources of party 0: it deals itself, or receives a dealer's shares."""
    demand = Demand((), (CorrelationItem(correlation, ()),))
    sent = b"".join(
        bytes(raw_bytes(share)) for shares in demand.replay(DealerSource(prg(1), prg(2)), 2) for share in shares
    )
    assert len(sent) == demand.offline_bytes(2)
    share_stream = MemoryStream(sent)
    for party in (DealerSource(prg(1), prg(2)), StreamedSource(prg(1), share_stream)):
        peer = SeedSource(prg(2))
        for _ in range(2):
            check(correlation, party.deal(correlation), peer.deal(correlation))
        assert party.offline_bytes == peer.offline_bytes == demand.offline_bytes(2)
    assert not share_stream.content


def check(
    correlation: Correlation, shares: tuple[Tensor, ...], peer_shares: tuple[Tensor, ...], *masks: Tensor
) -> None:
    """Check that the dependent parts follow from the random ones and from persistent masks."""
    parts = (*correlation.random_parts, *correlation.dependent_parts)
    values = [part.join(*pair) for part, *pair in zip(parts, shares, peer_shares, strict=True)]
    random_values = values[: len(correlation.random_parts)]
    dependent_values = correlation.derive(*random_values, *masks)
    for part, value, expected in zip(parts, values, (*random_values, *dependent_values), strict=True):
        assert torch.equal(value, expected)
        assert tuple(value.shape) == part.shape


@settings(max_examples=20)
@given(session=st.integers(0, 3), sequence=st.integers(0, 3), sequences=st.integers(1, 3), data=st.data())
def test_a_demand_refers_to_the_masks_of_its_own_sequence(
    session: int, sequence: int, sequences: int, data: st.DataObject
) -> None:
    """Some masks persist for the session, others for a sequence, where their numbers differ from the recorded ones."""
    if not session + sequence:
        return
    index = data.draw(st.integers(0, session + sequence - 1))
    triple, item = fixed_operand_triple((2, 3), 4), MaskItem(TensorSpec((3, 4)))
    demand = Demand((item,) * session, (*(item,) * sequence, CorrelationItem(triple, (index,))))
    dealt = list(demand.replay(DealerSource(prg(1), prg(2)), sequences))
    own_prg, peer = prg(1), SeedSource(prg(2))
    session_masks = [own_prg.draw(item.part)[0] + peer.persistent_mask(item.part)[1] for _ in range(session)]
    for number in range(sequences):
        sequence_masks = [own_prg.draw(item.part)[0] + peer.persistent_mask(item.part)[1] for _ in range(sequence)]
        (derived,) = dealt[session + (number + 1) * (sequence + 1) - 1]
        shares = (*own_prg.draw(*triple.random_parts), derived)
        check(triple, shares, peer.deal(triple), (session_masks + sequence_masks)[index])


def test_a_recording_source_records_the_demand() -> None:
    source, triple = RecordingSource(prg(1)), fixed_operand_triple((2, 3), 4)
    rt = Runtime(None, source)
    mask_id, _ = rt.source.persistent_mask(TensorSpec((3, 4)))
    rt.correlated(triple, mask_id)
    assert rt.requested_bytes == source.offline_bytes == 8 * 2 * 4
    assert source.take_items() == (MaskItem(TensorSpec((3, 4))), CorrelationItem(triple, (0,)))
    assert source.take_items() == ()


def handshake_both(*dealers: Dealer) -> list[Any]:
    """Return the sources, or the failures, of two parties after their handshake."""
    ends, results = socket.socketpair(), list[Any]([None, None])

    def run(rank: int) -> None:
        try:
            results[rank] = perform_handshake(ends[rank], dealers[rank], {"graph": "the same"})
        except RunError as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for end in ends:
        end.close()
    return results


def test_the_first_party_gets_the_peers_seed_and_deals() -> None:
    server, client = handshake_both(FirstPartyDealer(0), FirstPartyDealer(1))
    check(square_pair((4,)), server.deal(square_pair((4,))), client.deal(square_pair((4,))))


def dealt(rank: int, number: int, used: list[int]) -> ExternalDealer:
    return ExternalDealer(
        DEALT_FILE, rank, bytes([number] * 16), bytes([rank] * 16), MemoryStream(b""), lambda: used.append(rank)
    )


def test_files_of_different_dealings_are_refused_by_both_and_stay_unused() -> None:
    used: list[int] = []
    for failure in handshake_both(dealt(0, 7, used), dealt(1, 8, used)):
        assert isinstance(failure, RunError)
        assert "of different dealings" in str(failure)
    assert not used
    assert all(isinstance(source, Source) for source in handshake_both(dealt(0, 7, used), dealt(1, 7, used)))
    assert sorted(used) == [0, 1]


def test_parties_with_different_kinds_of_dealers_do_not_start() -> None:
    assert all(isinstance(failure, RunError) for failure in handshake_both(FirstPartyDealer(0), dealt(1, 0, [])))


@pytest.mark.parametrize("name", EXECUTABLE)
def test_a_job_carries_protocol_network_and_dealer_unchanged(name: str) -> None:
    """Parties hash the protocol that they receive, and compare the digests with those of a dealing."""
    protocol, network = specs.load_executable_protocol(name), PRESETS["wan"]
    job = PartyJob(
        rank=0, bundle=Path("bundle"), folder=Path("party0"), protocol=protocol, port=1, timeout=0.1, threads=1,
        network=network, sequences=1, device="cpu", dealer=DealerSpec.parse("dealt"),
    )  # fmt: skip
    copy = PartyJob.model_validate_json(job.model_dump_json())
    assert (copy.network, copy.dealer, copy.bundle) == (network, job.dealer, job.bundle)
    assert copy.protocol.model_dump_json() == protocol.model_dump_json()


def test_an_unknown_kind_of_dealer_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown kind of dealer 'dealt-file'; use first-party, third-party or file"):
        DealerSpec("dealt-file")
