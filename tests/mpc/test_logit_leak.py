"""What the client's logits tell about the head: exact products give its rows away, rounded ones do not."""

import pytest
import torch
from torch import Tensor

from pi_sim.graph.bundle import to_fixed_point
from pi_sim.mpc.kernels.local import CLIENT, open_rounded
from pi_sim.mpc.primitives.server_weight import multiply_prepared, open_server_weights, prepare_product
from pi_sim.mpc.runtime import Runtime
from tests.helpers.two_threads import run_both

WIDTH, VOCABULARY, TOKENS = 16, 64, 24
flint = pytest.importorskip("flint", reason="lattice reduction needs python-flint")


def small_head() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return to_fixed_point(torch.randn(WIDTH, VOCABULARY, generator=generator) * 0.02)


def client_view(rounded: bool) -> Tensor:
    """Return the logits (T, V) in units of their last place, as the client gets them from a head of the server."""
    weight = small_head()
    hidden = to_fixed_point(torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(6)))

    def compute(rt: Runtime, share: Tensor, _: Tensor) -> Tensor:
        (handle,) = open_server_weights(rt, [weight if rt.rank != CLIENT else torch.zeros_like(weight)])
        logits = multiply_prepared(rt, share, prepare_product(rt, (TOKENS, WIDTH), handle, "matmul"))
        if not rounded:
            (server_share,) = rt.send(CLIENT, logits)
            return server_share + logits if rt.rank == CLIENT else torch.zeros_like(logits)
        value = open_rounded(rt, logits, surplus=16)
        return torch.zeros_like(logits) if value is None else value.long()

    return run_both(compute, hidden, weight).shares[CLIENT]


def rows_by_lattice_reduction(logits: Tensor) -> set[tuple[int, ...]]:
    """Return the rows of the LLL-reduced basis of the logits, up to sign."""
    reduced = flint.fmpz_mat(logits.tolist()).lll()
    rows = [tuple(int(reduced[i, j]) for j in range(reduced.ncols())) for i in range(reduced.nrows())]
    return {row for row in rows if any(row)} | {tuple(-value for value in row) for row in rows}


@pytest.mark.parametrize(("rounded", "expected"), [(False, WIDTH), (True, 0)])
def test_lattice_reduction_finds_the_head_in_exact_logits_alone(rounded: bool, expected: int) -> None:
    found = rows_by_lattice_reduction(client_view(rounded))
    head = {tuple(row) for row in small_head().tolist()}
    assert len(head & found) == expected


def test_rounded_logits_are_within_one_unit() -> None:
    exact = client_view(rounded=False) >> 16
    assert int((client_view(rounded=True) - exact).abs().max()) <= 1
