"""The equation for one operation: priced, computed by two real parties, and compared with its plaintext reference."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.cost.cost import Cost
from pi_sim.graph.ops import Op
from pi_sim.graph.vocabulary import VOCABULARY
from pi_sim.mpc.kernels import kernel_for
from pi_sim.mpc.kernels.costs import Dimensions
from tests.helpers.two_processes import TwoParties

EXAMPLES = settings(max_examples=8)
FEW = settings(max_examples=4)
"""Of kernels of hundreds of steps, most of which other tests take too."""
SMALL = st.integers(1, 6)
SHAPES = st.lists(SMALL, min_size=1, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**31)
SECRET = (torch.float64, torch.uint8)
"""The types of secret operands: reals and one-hot vectors; public ones are bool, long or float32."""


def exact(values: Tensor) -> Tensor:
    """Round to the nearest reals that fixed point represents, so that only the kernel's own error is left."""
    return (values.double() * 2**16).round() / 2**16


def normal(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Return reals from a normal distribution."""
    return exact(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale)


PLANE_PADDING = 16
"""Offline bytes of a round that fill up planes of bits, at most."""


def protocol_with(base: str = "crypten", settings: Mapping[str, object] = MappingProxyType({}), **kernels: str) -> str:
    """Write a protocol file like `base` with some other kernels and settings of functions; return its path."""
    card = specs.load_executable_protocol(base)
    changes = {f"functions.{name}": value for name, value in settings.items()}
    stem = "-".join([base, *kernels.values(), *(f"{name}{value}" for name, value in settings.items())])
    path = Path(os.environ["XDG_CACHE_HOME"], "protocols", f"{stem}.toml")
    path.parent.mkdir(exist_ok=True)
    head = {key: getattr(card, key) for key in ("name", "title", "threat_model", "source")}
    tables = {"kernels": {**card.kernels, **kernels}, "settings": card.settings | changes}
    text = _toml(head) + "".join(f"[{name}]\n{_toml(table)}" for name, table in tables.items())
    path.write_text(text, encoding="utf-8")
    return str(path)


def _toml(table: dict[str, object]) -> str:
    return "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in table.items())


def plain_operand(operand: Tensor) -> Tensor:
    """Return the operand of the plaintext reference: for one-hot vectors the token ids."""
    return operand.argmax(-1) if operand.dtype == torch.uint8 else operand


def assert_declared_cost(op: Op, protocol: str, *, padded: bool = True) -> Cost:
    """Return the price of an operation; check that its kernel declares it, but for the padding of two openings a round.

    Less than 8 bytes are padded per opening.
    """
    card = specs.load_executable_protocol(protocol)
    kernel, price = kernel_for(op.name, card.kernels, card.name), derived.derive_price(op, card)
    index = kernel.fixed_index(op)
    session = 8 * math.prod(op.shapes[index]) if index is not None else 0
    assert price.cost.session == (session, 0 if kernel.fixed_by else session)
    if kernel.cost:
        declared = kernel.cost(Dimensions(op, card.settings))
        assert price.cost.rounds == declared.rounds
        assert 0 <= price.cost.offline - declared.offline <= (PLANE_PADDING * declared.rounds if padded else 0)
        assert (
            0 <= price.cost.serial - declared.bytes <= (16 * declared.rounds - 2 if padded and declared.rounds else 0)
        )
    return price.cost


def assert_equation(
    two_parties: TwoParties,
    name: str,
    operands: list[Tensor],
    /,
    *,
    atol: float,
    rtol: float = 0.0,
    protocol: str = "crypten",
    reference: Callable[..., Tensor] | None = None,
    **attributes: object,
) -> Tensor:
    """Check cost and value of one operation: declared cost == price == counters, value near the reference's."""
    secret = tuple(operand.dtype in SECRET for operand in operands)
    op = Op(name, tuple(tuple(operand.shape) for operand in operands), secret, tuple(sorted(attributes.items())))
    price = assert_declared_cost(op, protocol)
    evaluation = two_parties.compute(op, operands, protocol)
    assert evaluation.rounds == price.rounds
    assert evaluation.sent == price.sent
    assert evaluation.ahead == price.ahead
    assert evaluation.received == evaluation.sent[::-1]
    assert evaluation.offline == price.offline
    for rank in (0, 1):
        assert evaluation.crypten[rank]["rounds"] == price.rounds
        assert evaluation.crypten[rank]["bytes"] == evaluation.sent[rank] + evaluation.received[rank]
    expected = (reference or VOCABULARY[name].reference)(*map(plain_operand, operands), **op.semantics)
    torch.testing.assert_close(evaluation.value.double(), expected, atol=atol, rtol=rtol)
    return evaluation.value
