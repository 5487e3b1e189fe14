"""Products with a cache: rows are opened once, in any arrangement, at both parties and by every dealer alike."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pi_sim.errors import RunError
from pi_sim.mpc.openings import packed_length
from pi_sim.mpc.primitives.cached import CachedFactor, CachedRows, Visibility, multiply_cached
from pi_sim.mpc.runtime import Runtime
from tests.helpers.two_threads import run_both

BITS = 48
SMALL, SEEDS = st.integers(1, 4), st.integers(0, 2**31)


def random_words(seed: int, *shape: int) -> Tensor:
    return torch.randint(-(2**20), 2**20, shape, generator=torch.Generator().manual_seed(seed))


def multiply_steps(rt: Runtime, operands: Sequence[Tensor], group: int, causal: bool) -> Tensor:
    """Return the products of each step's queries with all keys so far, whose heads serve a group of queries each.

    `operands` are the queries of all steps, then their keys.
    """
    steps = len(operands) // 2
    factor, products = None, []
    for step, (query, rows) in enumerate(zip(operands[:steps], operands[steps:], strict=True)):
        new = CachedFactor.of_rows([CachedRows(rows)])
        factor = new if factor is None else factor.append(new)
        arranged = CachedFactor.combined([factor], lambda tensors: tensors[0].repeat_interleave(group, 0).mT)
        visible = Visibility(scores=causal and step == 0)
        products.append(multiply_cached(rt, query, arranged, BITS, visible).flatten())
    return torch.cat(products)


@settings(deadline=None, max_examples=25)
@given(heads=SMALL, group=st.integers(1, 3), width=SMALL, prompt=SMALL, steps=SMALL, causal=st.booleans(), seed=SEEDS)
def test_products_with_all_rows_so_far(
    heads: int, group: int, width: int, prompt: int, steps: int, causal: bool, seed: int
) -> None:
    lengths = [prompt, *[1] * steps]
    queries = [random_words(seed + i, heads * group, length, width) for i, length in enumerate(lengths)]
    keys = [random_words(seed - 1 - i, heads, length, width) for i, length in enumerate(lengths)]
    outcome = run_both(lambda rt, *shares: multiply_steps(rt, shares, group, causal), *queries, *keys)
    rows = [torch.cat(keys[: step + 1], 1).repeat_interleave(group, 0) for step in range(len(lengths))]
    expected = [query @ row.mT for query, row in zip(queries, rows, strict=True)]
    visible = [torch.ones_like(value, dtype=torch.bool) for value in expected]
    if causal:
        visible[0] = visible[0].tril()
    shown = torch.cat([mask.flatten() for mask in visible])
    difference = outcome.value - torch.cat([value.flatten() for value in expected])
    assert not (difference[shown] & (2**BITS - 1)).any()
    assert outcome.rounds == len(lengths)
    assert outcome.bytes == 8 * sum(packed_length(words.numel(), BITS) for words in (*queries, *keys))
    assert outcome.offline == 8 * int(shown.sum())


def test_a_product_of_more_bits_than_the_rows_have_is_refused() -> None:
    def multiply_twice(rt: Runtime, rows: Tensor) -> Tensor:
        factor, query = CachedFactor.of_rows([CachedRows(rows)]), torch.ones(1, 1, 2, dtype=torch.long)
        product = multiply_cached(rt, query, factor, BITS, Visibility())
        with pytest.raises(RunError, match="64 bits of cached rows that were opened with fewer"):
            multiply_cached(rt, query, factor, 64, Visibility())
        return product

    run_both(multiply_twice, torch.ones(1, 2, 3, dtype=torch.long))


def test_weights_of_causal_attention_are_opened_where_they_are_visible() -> None:
    weights, values = random_words(1, 2, 5, 5).tril(), random_words(2, 2, 5, 3)

    def multiply(rt: Runtime, share: Tensor, rows: Tensor) -> Tensor:
        return multiply_cached(rt, share, CachedFactor.of_rows([CachedRows(rows)]), BITS, Visibility(weights=True))

    outcome = run_both(multiply, weights, values)
    assert not ((outcome.value - weights @ values) & (2**BITS - 1)).any()
    assert outcome.bytes == 8 * (packed_length(2 * 15, BITS) + packed_length(2 * 15, BITS))
