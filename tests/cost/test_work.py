"""Work: counted by hand, counted on real tensors, and kept with its price."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_sim import specs
from pi_sim.cost import census, derived, pricing
from pi_sim.cost.cost import Work
from pi_sim.cost.derived import WorkCounter
from pi_sim.graph.ops import Op
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.prg import AesCtrPrg, new_seed
from pi_sim.mpc.dealer.sources import DealerSource
from pi_sim.mpc.executor import apply_op, dry_runtime, fixed_operand, open_weights, prepare_op
from pi_sim.mpc.primitives import ring

CARD, LEAN = (specs.load_executable_protocol(name) for name in ("crypten_tanh", "lean"))
WORKS = st.builds(Work, *(st.integers(0, 10**12),) * 5)
SIZES = st.integers(1, 12)
FEW = settings(max_examples=5)


def op(name: str, *shapes: tuple[int, ...], **attributes: Any) -> Op:
    return Op(name, shapes, (True,) * len(shapes), tuple(sorted(attributes.items())))


@given(a=WORKS, b=WORKS, c=WORKS, times=st.integers(0, 1000))
def test_works_are_a_commutative_monoid(a: Work, b: Work, c: Work, times: int) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Work() == a
    assert times * (a + b) == times * a + times * b


@FEW
@given(m=SIZES, k=SIZES, n=SIZES)
def test_a_linear_map_is_three_products_online_and_one_of_the_dealers(m: int, k: int, n: int) -> None:
    """Party 0 draws its shares of A and B; a dealer draws party 1's, and that of A @ B."""
    cost, work, dealing, *_ = derived.derive_price(op("linear", (m, k), (k, n), (n,)), CARD)
    assert (work.macs, dealing.macs) == (3 * m * k * n, m * k * n)
    assert work.random == 8 * (m * k + k * n)
    assert dealing.random == 8 * (m * k + k * n + m * n)
    assert cost.bytes == 8 * (m * k + k * n)


@FEW
@given(elements=st.integers(1, 50), more=st.integers(0, 50))
def test_work_grows_with_the_shape(elements: int, more: int) -> None:
    small, large = (derived.derive_price(op("relu", (size,)), CARD)[1] for size in (elements, elements + more))
    assert large.elements >= small.elements
    assert large.random >= small.random
    assert large.calls == small.calls
    assert large.macs == small.macs == 0


OPERATIONS = [
    op("linear", (2, 3, 4), (4, 5), (5,)),
    op("matmul", (1, 2, 3, 4), (1, 2, 4, 3)),
    op("softmax", (2, 4)),
    op("layernorm", (3, 8), (8,), (8,), eps=1e-5),
    op("gelu", (2, 8), approximate="none"),
    op("multiply", (2, 8), (2, 8)),
    op("view", (2, 8), shape=(4, 4)),
]


@pytest.mark.slow
@pytest.mark.parametrize("card", [CARD, LEAN], ids=lambda card: card.name)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_work_on_tensors_with_data_is_what_was_counted_without(
    operation: Op, card: specs.ExecutableProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Party 0's and the dealer's together, as party 0 does both in a run with the first-party dealer."""
    monkeypatch.setattr(ring, "integer_slowness", lambda: 1.0)  # by limbs, a product is other operations
    own_prg, peer_prg, zeros = (AesCtrPrg(new_seed()) for _ in range(3))
    with dry_runtime(card, DealerSource(own_prg, peer_prg), zeros) as rt:
        counted = WorkCounter(own_prg, peer_prg, zeros, rt=rt)
        operands = [backend.fixed_point_tensor(torch.randint(2**16, shape)) for shape in operation.shapes]
        if (place := fixed_operand(operation, card)) is not None:
            (operands[place],) = open_weights(rt, [operation], [operands[place]], card)
        ahead = WorkCounter(own_prg, peer_prg, zeros, rt=rt)
        for counters in ((nullcontext(), nullcontext()), (ahead, counted)):  # constants are made when first needed
            prepared = list(operands)
            with counters[0]:
                if place is not None:
                    prepared[place] = prepare_op(rt, operation, operands[place], card)
            with counters[1]:
                apply_op(rt, operation, prepared, card)
    measured = derived.derive_price(operation, card)
    assert counted.work == measured.work + measured.dealer_work
    assert ahead.work.macs == measured.ahead_dealer_work.macs


def test_constants_are_no_work_at_any_width() -> None:
    """An inverse root's table depends on it."""
    for width in (77, 78):
        operation = op("layernorm", (3, width), (width,), (width,), eps=1e-5)
        assert derived.derive_price(operation, LEAN) == derived.derive_price(operation, LEAN)


def test_a_view_is_no_work() -> None:
    assert derived.derive_price(op("view", (2, 8), shape=(4, 4)), CARD)[1].elements == 0


def test_price_and_work_are_derived_together(monkeypatch: pytest.MonkeyPatch) -> None:
    operation = op("square", (17, 19))
    expected = derived.derive_price(operation, CARD)
    entries_before = set(entries())
    assert pricing.price_op(operation, CARD).cost == expected[0]
    monkeypatch.setattr(derived, "derive_price", None)
    assert pricing.op_work(operation, CARD) == expected.work + expected.dealer_work
    assert (
        pricing.price_op(operation, CARD).compute_work(includes_dealer=False) == expected.work + expected.expansion_work
    )
    assert len(set(entries()) - entries_before) == 1


def entries() -> list[Path]:
    return list((census.cache_dir() / "prices").glob("*"))


def test_a_sheet_tells_no_work() -> None:
    declared = next(
        card
        for card in map(specs.load_protocol, specs.list_names("protocols"))
        if isinstance(card, specs.DeclaredProtocol)
    )
    assert pricing.op_work(op("relu", (4,)), declared) is None
