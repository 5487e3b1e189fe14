"""Dealers: streams that are cryptographic, correlations that hold whoever deals them, and tapes of what is needed."""

import socket
import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.errors import RunError
from pi_sim.graph.capture import capture_model
from pi_sim.graph.ops import Graph
from pi_sim.mpc import backend, dry_run
from pi_sim.mpc.dealer.correlations import AndTriple, Correlation, RandomBit, SquarePair, TensorSpec, Triple
from pi_sim.mpc.dealer.dealers import DEALT_FILE, Dealer, ExternalDealer, FirstPartyDealer
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
from pi_sim.mpc.primitives.beaver import FixedOperandTriple
from pi_sim.mpc.runtime import Runtime
from pi_sim.mpc.transport.handshake import perform_handshake
from pi_sim.zoo.source import ModelSource

EXECUTABLE = [
    name for name in specs.list_names("protocols") if isinstance(specs.load_protocol(name), specs.ExecutableProtocol)
]
CORRELATIONS: list[Correlation] = [
    Triple("multiply", (3, 4), (4,)),
    Triple("matmul", (2, 3, 4), (4, 5)),
    SquarePair((7,)),
    AndTriple((2, 3), (3,)),
    RandomBit((5,)),
]
PARTS = st.builds(TensorSpec, st.lists(st.integers(0, 5), max_size=3).map(tuple), st.sampled_from([None, 64, 1, 20]))
BYTES = st.builds(
    TensorSpec, st.lists(st.integers(0, 9), max_size=2).map(tuple), st.integers(1, 8), st.just(torch.uint8)
)
KEYSTREAM = "66e94bd4ef8a2c3b884cfa59ca342b2e"
"""AES-128 of a zero block under the zero key, as FIPS 197 defines it: the first block of a zero seed's stream."""


def stream(number: int) -> AesCtrPrg:
    return AesCtrPrg(bytes([number] * 16))


class Kept:
    """What a dealer sent, in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def take(self, length: int) -> Tensor:
        found, self.content = self.content[:length], self.content[length:]
        return torch.tensor(list(found), dtype=torch.uint8)


def test_a_stream_is_aes_in_counter_mode() -> None:
    (words,) = AesCtrPrg(bytes(16)).draw(TensorSpec((2,)))
    assert bytes(raw_bytes(words)).hex() == KEYSTREAM


@given(st.lists(PARTS | BYTES, max_size=6), st.integers(0, 6))
def test_two_ends_expand_the_same_stream_however_it_is_drawn(parts: list[TensorSpec], cut: int) -> None:
    """Together, in two draws, and as plain blocks of the cipher, of which each part takes whole ones."""
    together = stream(1).draw(*parts)
    other, plain = stream(1), stream(1)
    for part, one, again in zip(parts, together, other.draw(*parts[:cut]) + other.draw(*parts[cut:]), strict=True):
        (blocks,) = plain.draw(TensorSpec((-(-part.bytes // 16) * 16,), None, torch.uint8))
        expected = blocks[: part.bytes].view(part.dtype).view(part.shape)
        assert torch.equal(one, expected if part.mask is None else expected & part.mask)
        assert torch.equal(one, again)


def test_random_words_of_crypten_are_the_streams() -> None:
    """All 64 bits of them: CrypTen's own never had the ring's largest value."""
    backend.set_zero_prgs(stream(1), stream(2), stream(3))
    ((one,), (other,)), (few,) = (
        (stream(number).draw(TensorSpec((3, 5))) for number in (1, 2)),
        stream(3).draw(TensorSpec((9,), 3)),
    )
    zero = backend.ArithmeticSharedTensor.PRZS(torch.Size([3, 5]), device="cpu")
    assert torch.equal(zero.share, one - other)
    assert torch.equal(backend.BinarySharedTensor.rand(torch.Size([9]), bits=3).share, few)


class NoOtherRandomness(TorchDispatchMode):
    """Torch's generators, which are not cryptographic, must not be asked."""

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
def test_a_tape_is_what_a_graph_asks_for_and_all_of_it_is_dealt(name: str, graph: Graph) -> None:
    card = specs.load_executable_protocol(name)
    with NoOtherRandomness():
        tape = dry_run.record_demand(graph, card)
    assert tape.offline_bytes(0) == 0
    assert tape.offline_bytes(3) == 3 * derived.derive_graph_cost(graph, card).offline
    for correlation in {type(each.correlation): each.correlation for each in dealt_afresh(tape)}.values():
        hold(correlation)


def dealt_afresh(tape: Demand) -> list[CorrelationItem]:
    """What follows from nothing that was kept."""
    return [entry for entry in tape.sequence if isinstance(entry, CorrelationItem) and not entry.mask_indices]


@pytest.mark.parametrize("correlation", CORRELATIONS, ids=lambda each: type(each).__name__)
def test_a_correlation_of_crypten_holds_whoever_deals_it(correlation: Correlation) -> None:
    hold(correlation)


def hold(correlation: Correlation) -> None:
    """Party 0 may deal it, or be sent what a dealer found."""
    tape = Demand((), (CorrelationItem(correlation, ()),))
    sent = b"".join(
        bytes(raw_bytes(share)) for shares in tape.replay(DealerSource(stream(1), stream(2)), 2) for share in shares
    )
    assert len(sent) == tape.offline_bytes(2)
    supply = Kept(sent)
    for party in (DealerSource(stream(1), stream(2)), StreamedSource(stream(1), supply)):
        other = SeedSource(stream(2))
        for _ in range(2):
            check(correlation, party.deal(correlation), other.deal(correlation))
        assert party.offline_bytes == other.offline_bytes == tape.offline_bytes(2)
    assert not supply.content


def check(correlation: Correlation, mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...], *kept: Tensor) -> None:
    """The derived parts follow from the drawn ones."""
    parts = (*correlation.random_parts, *correlation.dependent_parts)
    values = [part.join(*pair) for part, *pair in zip(parts, mine, theirs, strict=True)]
    found = correlation.derive(*values[: len(correlation.random_parts)], *kept)
    for part, value, expected in zip(parts, values, (*values[: len(correlation.random_parts)], *found), strict=True):
        assert torch.equal(value, expected)
        assert tuple(value.shape) == part.shape


@settings(max_examples=20)
@given(session=st.integers(0, 3), sequence=st.integers(0, 3), sequences=st.integers(1, 3), data=st.data())
def test_a_tape_follows_what_was_kept_in_its_own_sequence(
    session: int, sequence: int, sequences: int, data: st.DataObject
) -> None:
    """Masks are kept in a session, and others in each sequence, whose numbers differ from those on the tape."""
    if not session + sequence:
        return
    place = data.draw(st.integers(0, session + sequence - 1))
    image, keep = FixedOperandTriple((2, 3), 4), MaskItem(TensorSpec((3, 4)))
    tape = Demand((keep,) * session, (*(keep,) * sequence, CorrelationItem(image, (place,))))
    dealt = list(tape.replay(DealerSource(stream(1), stream(2)), sequences))
    mine, theirs = stream(1), SeedSource(stream(2))
    once = [mine.draw(keep.part)[0] + theirs.persistent_mask(keep.part)[1] for _ in range(session)]
    for number in range(sequences):
        known = once + [mine.draw(keep.part)[0] + theirs.persistent_mask(keep.part)[1] for _ in range(sequence)]
        (derived,) = dealt[session + (number + 1) * (sequence + 1) - 1]
        other = theirs.deal(image)
        check(image, (*mine.draw(*image.random_parts), derived), other, known[place])


def test_what_a_recording_source_hears_is_the_tape() -> None:
    source, image = RecordingSource(stream(1)), FixedOperandTriple((2, 3), 4)
    rt = Runtime(None, source)
    number, _ = rt.persistent_mask(TensorSpec((3, 4)))
    rt.correlated(image, number)
    assert rt.requested_bytes == source.offline_bytes == 8 * 2 * 4
    assert source.take_items() == (MaskItem(TensorSpec((3, 4))), CorrelationItem(image, (0,)))
    assert source.take_items() == ()


def met(*dealers: Dealer) -> list[Any]:
    """The sources, or the failures, of two parties that greet each other."""
    ends, found = socket.socketpair(), [None, None]

    def play(rank: int) -> None:
        try:
            found[rank] = perform_handshake(ends[rank], dealers[rank], {"graph": "the same"})
        except RunError as error:
            found[rank] = error

    threads = [threading.Thread(target=play, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for end in ends:
        end.close()
    return found


def test_the_first_party_learns_the_other_ones_seed_and_deals() -> None:
    server, client = met(FirstPartyDealer(0), FirstPartyDealer(1))
    check(SquarePair((4,)), server.deal(SquarePair((4,))), client.deal(SquarePair((4,))))


def dealt(rank: int, number: int, used: list[int]) -> ExternalDealer:
    return ExternalDealer(
        DEALT_FILE, rank, bytes([number] * 16), bytes([rank] * 16), Kept(b""), lambda: used.append(rank)
    )


def test_files_of_different_dealings_are_refused_by_both_and_stay_unused() -> None:
    used: list[int] = []
    for failure in met(dealt(0, 7, used), dealt(1, 8, used)):
        assert isinstance(failure, RunError)
        assert "of different dealings" in str(failure)
    assert not used
    assert all(isinstance(source, Source) for source in met(dealt(0, 7, used), dealt(1, 7, used)))
    assert sorted(used) == [0, 1]


def test_parties_with_different_kinds_of_dealers_do_not_start() -> None:
    assert all(isinstance(failure, RunError) for failure in met(FirstPartyDealer(0), dealt(1, 0, [])))
