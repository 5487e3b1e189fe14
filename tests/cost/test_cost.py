"""Costs add up, networks turn them into seconds, and derived prices are the published ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_sim import specs
from pi_sim.cost import census, derived
from pi_sim.cost.census import capture_census
from pi_sim.cost.cost import ZERO_COST, Cost
from pi_sim.cost.estimate import Subtotal, estimate_model
from pi_sim.cost.pricing import price_census
from pi_sim.errors import UsageError
from pi_sim.graph.capture import capture_model
from pi_sim.graph.ops import Op
from pi_sim.network import PRESETS, parse_network
from pi_sim.zoo.source import ModelSource

COSTS = st.builds(Cost.from_numbers, st.lists(st.integers(0, 10**12), min_size=9, max_size=9))
CARDS = ["gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm"]


@given(a=COSTS, b=COSTS, c=COSTS, times=st.integers(0, 1000))
def test_costs_are_a_commutative_monoid(a: Cost, b: Cost, c: Cost, times: int) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + ZERO_COST == a
    assert times * (a + b) == times * a + times * b


@given(cost=COSTS, more=COSTS)
def test_seconds_grow_with_the_cost(cost: Cost, more: Cost) -> None:
    for link in PRESETS.values():
        both = cost + more
        apart = link.seconds(cost.rounds, cost.serial) + link.seconds(more.rounds, more.serial)
        assert link.seconds(both.rounds, both.serial) == pytest.approx(apart)


def test_a_link_can_be_written_down() -> None:
    link = parse_network("rtt=40ms,bw=200Mbps")
    assert (link.latency, link.bandwidth) == (0.02, 200e6)
    assert link.seconds(rounds=2, sent=25_000_000) == pytest.approx(0.04 + 1)


def published(rounds: int, both_ways: float, elements: int) -> tuple[int, float]:
    """A published row counts sent plus received bytes per element; ours is one direction."""
    return rounds, both_ways / 2 * elements


# CrypTen @775868a, two processes over gloo, the log of one party: rounds, bytes per element.
@pytest.mark.parametrize(
    ("length", "rounds", "both_ways"), [(32, 105, 1483.5), (64, 115, 1381.75), (128, 116, 1488.375)]
)
def test_softmax_costs_what_crypten_logs(length: int, rounds: int, both_ways: float) -> None:
    price = derived.derive_price(Op("softmax", ((4, length),), (True,)), specs.load_executable_protocol("crypten")).cost
    assert (price.rounds, price.bytes) == published(rounds, both_ways, 4 * length)


@pytest.mark.parametrize(
    ("op", "protocol", "rounds", "both_ways"),
    [
        (Op("relu", ((50,),), (True,)), "crypten", 9, 464),
        (Op("gelu", ((50,),), (True,), (("approximate", "none"),)), "crypten", 35, 784),
        (Op("gelu", ((50,),), (True,), (("approximate", "none"),)), "crypten_tanh", 26, 832),
        (Op("multiply", ((50,), (50,)), (True, True)), "crypten", 1, 32),
    ],
)
def test_elementwise_operations_cost_what_crypten_logs(op: Op, protocol: str, rounds: int, both_ways: float) -> None:
    price = derived.derive_price(op, specs.load_executable_protocol(protocol)).cost
    assert (price.rounds, price.bytes) == published(rounds, both_ways, 50)


def test_offline_bytes_are_those_of_a_dealer_with_seeds() -> None:
    """HawkEye (USENIX Security 2025) charges CrypTen's comparison 14 words of both parties' offline traffic."""
    price = derived.derive_price(Op("relu", ((50,),), (True,)), specs.load_executable_protocol("crypten")).cost
    assert price.offline == (14 + 1) * 8 * 50  # the comparison, and the product that follows it


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS)
def test_the_sum_of_prices_is_the_price_of_the_sum(card: str) -> None:
    """Pricing each distinct operation once and adding up equals running the whole graph."""
    protocol = specs.load_executable_protocol("crypten")
    total = sum(
        (row.cost for row in price_census(capture_census(ModelSource.parse(card, "tiny"), 16), protocol)), ZERO_COST
    )
    assert total == derived.derive_graph_cost(capture_model(ModelSource.parse(card, "tiny").meta(), 16), protocol)


@pytest.mark.slow
def test_views_share_one_total() -> None:
    priced_model = estimate_model(ModelSource.parse("relu_nonorm", "tiny"), specs.load_protocol("crypten"), 16, [])
    for view in ("op", "layer", "module", "total"):
        assert Subtotal.sum_of(priced_model.group_by(view).values()).cost == priced_model.total
    assert priced_model.frame()["bytes"].sum() == priced_model.total.bytes
    boundary = sum(
        (row.cost for row in priced_model.rows if row.module in {"transformer.wte", "lm_head", "output"}), ZERO_COST
    )
    assert boundary + priced_model.body.cost == priced_model.total


def test_gpt2_small_has_the_operations_one_counts_by_hand() -> None:
    """12 layers: 2 norms, 4 linear maps, 2 products, a softmax over 12x128x128 scores and a GELU of 128x3072."""
    counted = capture_census(ModelSource.parse("gelu_ln", "gpt2"), 128).counts
    by_name: dict[str, int] = {}
    for (_, op), count in counted.items():
        by_name[op.name] = by_name.get(op.name, 0) + count
    assert by_name == {
        "embedding": 1, "lookup": 1, "add": 1 + 24, "layernorm": 24 + 1, "linear": 48 + 1, "matmul": 24,
        "scale": 12, "softmax": 12, "gelu": 12, "reveal": 1,
    }  # fmt: skip
    shapes = {op.name: op.shapes[0] for _, op in counted if op.name in ("softmax", "gelu", "layernorm")}
    assert shapes == {"softmax": (1, 12, 128, 128), "gelu": (1, 128, 3072), "layernorm": (1, 128, 768)}


def test_a_price_is_derived_once() -> None:
    calls: list[int] = []
    for _ in range(2):
        assert census.cached_json("test", ["key"], lambda: calls.append(1) or [1, 2]) == [1, 2]
    assert calls == [1]


def test_a_damaged_memo_is_derived_anew() -> None:
    census.cached_json("damaged", "key", lambda: 1)
    for path in (census.cache_dir() / "damaged").iterdir():
        path.write_text("{")
    assert census.cached_json("damaged", "key", lambda: 2) == 2


def test_an_operation_without_a_kernel_is_named() -> None:
    card = specs.load_executable_protocol("crypten")
    without = card.model_copy(update={"kernels": {"linear": "beaver"}})
    with pytest.raises(UsageError, match="no kernel for relu"):
        derived.derive_price(Op("relu", ((3,),), (True,)), without)
    wrong = card.model_copy(update={"kernels": {"relu": "magic"}})
    with pytest.raises(UsageError, match="no kernel 'magic' for relu; known: kogge-stone"):
        derived.derive_price(Op("relu", ((3,),), (True,)), wrong)


def test_an_unknown_setting_is_named() -> None:
    card = specs.load_executable_protocol("crypten").model_copy(update={"settings": {"functions.magic": 1}})
    with pytest.raises(UsageError, match=r"functions\.magic"):
        derived.derive_price(Op("relu", ((3,),), (True,)), card)
