"""Products of two secrets by Beaver triples."""

# MERGED: Products with public numbers: local, but for what is done about the fraction's new bits.

from torch import Tensor

from pi_sim.mpc import backend
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import kernel
from pi_sim.mpc.primitives import beaver
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.primitives.truncation import truncate
from pi_sim.mpc.runtime import Runtime


@kernel("matmul", "beaver")
def matmul(rt: Runtime, a: Shared, b: Shared) -> Shared:
    """a (..., m, k) @ b (..., k, n), stock CrypTen.

    1. Take shares of a random A, B and of A @ B from the dealer.
    2. Open a - A and b - B, both in one round.
    3. a @ b = (a - A) @ (b - B) + (a - A) @ B + A @ (b - B) + A @ B, then truncate, each party its own share.

    1 round, 8 (|a| + |b|) bytes, 8 |a @ b| offline.
    Source: CrypTen (arXiv 2109.00984), section 4.1; Beaver (CRYPTO 1991).
    """
    return a.matmul(b)


@kernel("linear", "beaver")
def linear(rt: Runtime, x: Shared, weight: Shared, bias: Shared = None, *, client_only: bool = False) -> Shared:
    """x (..., k) @ weight (k, n) + bias (n), stock CrypTen: `matmul`, then a local sum.

    1 round, 8 (|x| + k n) bytes: the masked weight is opened anew at every call.
    """
    product = x.matmul(weight)
    return product if bias is None else product + bias


@kernel("multiply", "beaver")
def multiply(rt: Runtime, a: Shared, b: Shared) -> Shared:
    """a * b elementwise, stock CrypTen: 1 round, 8 (|a| + |b|) bytes, 8 |a * b| offline.

    An operand is opened as it is, before it is broadcast: a learned scalar adds 8 bytes.
    """
    return a * b


@kernel("square", "pair")
def square(rt: Runtime, x: Shared) -> Shared:
    """x * x elementwise, stock CrypTen.

    1. Take shares of a random R and of R * R from the dealer.
    2. Open x - R: half of what a product sends.
    3. x * x = (x - R) (x - R) + 2 (x - R) R + R * R, then truncate, each party its own share.

    1 round, 8 |x| bytes, 8 |x| offline.
    """
    return x.square()


@kernel("matmul", "faithful")
def faithful_matmul(rt: Runtime, a: Shared, b: Shared) -> Shared:
    """a (..., m, k) @ b (..., k, n) by a Beaver triple, then faithful truncation.

    2 rounds, 8 (|a| + |b| + |a @ b|) bytes, 24 |a @ b| offline.
    """
    return map_share(a, lambda share: truncate(rt, beaver.multiply(rt, share, b.share, "matmul"), FRACTION_BITS))


@kernel("linear", "fixed-weight", fixed_operand=1)
def fixed_weight_linear(
    rt: Runtime, x: Shared, weight: beaver.OpenedWeight, bias: Shared = None, *, client_only: bool = False
) -> Shared:
    """x (..., k) @ weight (k, n) + bias (n), the weight opened under its mask once in a session; faithful truncation.

    2 rounds, 8 (|x| + |x @ weight|) bytes, 24 |x @ weight| offline; in a session 8 k n bytes once.
    A result that goes to the client alone keeps its 32 bits of fraction, which the client decodes: 1 round, 8 |x|
    bytes, 8 |x @ weight| offline. It tells the client its own logits more finely, and nothing else.
    """
    product = beaver.multiply_by_weight(rt, x.share, weight)
    mapped = product if bias is None else product + (bias.share << FRACTION_BITS)
    if client_only:
        return backend.fixed_point_tensor(mapped, precision=2 * FRACTION_BITS)
    return map_share(x, lambda _: truncate(rt, mapped, FRACTION_BITS))


@kernel("multiply", "faithful")
def faithful_multiply(rt: Runtime, a: Shared, b: Shared) -> Shared:
    """a * b, broadcast, by a Beaver triple, then faithful truncation.

    2 rounds, 8 (|a| + |b| + |a * b|) bytes, 24 |a * b| offline.
    """
    return map_share(a, lambda share: truncate(rt, beaver.multiply(rt, share, b.share), FRACTION_BITS))


@kernel("square", "faithful")
def faithful_square(rt: Runtime, x: Shared) -> Shared:
    """x * x by a pair, then faithful truncation: 2 rounds, 16 bytes and 24 offline per element."""
    return map_share(x, lambda share: truncate(rt, beaver.square(rt, share), FRACTION_BITS))


@kernel("scale", "local")
def local_scale(rt: Runtime, x: Shared, *, factor: float) -> Shared:
    """A public multiple; each party truncates its own share, see `protocols/README.md` for what that risks."""
    return x * factor


@kernel("scale_by", "local")
def local_scale_by(rt: Runtime, x: Shared, factors: Tensor) -> Shared:
    """The product with a public tensor, truncated as in `local_scale`."""
    return x * factors


@kernel("scale", "faithful")
def faithful_scale(rt: Runtime, x: Shared, *, factor: float) -> Shared:
    """A public multiple, truncated faithfully: 1 round, 8 bytes and 16 offline per element; none for a whole factor.

    The factor has 16 bits of fraction, as in CrypTen: 0.001 is taken for 66 / 65536, 0.7% more.
    """
    if factor.is_integer():
        return map_share(x, lambda share: share * int(factor))
    return map_share(x, lambda share: truncate(rt, share * round(factor * 2**FRACTION_BITS), FRACTION_BITS))


@kernel("scale_by", "faithful")
def faithful_scale_by(rt: Runtime, x: Shared, factors: Tensor) -> Shared:
    """The product with a public tensor, truncated faithfully: 1 round, 8 bytes and 16 offline per element."""
    return map_share(
        x, lambda share: truncate(rt, share * (factors.double() * 2**FRACTION_BITS).round().long(), FRACTION_BITS)
    )
