"""The vocabulary of graphs: one definition per operation, for capture, reference, pricing, benchmark and tests.

Importing this module does not import torch: references use the methods of their operands, or import it when called.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Attribute = bool | int | float | str | tuple[int, ...]


class Sizes(Protocol):
    """Sizes of a transformer block for which a definition gives example operands."""

    @property
    def tokens(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...


@dataclass(frozen=True)
class Operand:
    """Example operand: its shape, the values it takes, and whether it is secret.

    Real values are normal with standard deviation `std`; `positive` is 1 + |x| of such an x. `one-hot` is a vector for
    each token, `positions` are 0 to T - 1, `causal` is the mask (T, T) that hides later tokens.
    """

    shape: Shape
    values: Literal["normal", "positive", "one-hot", "positions", "causal"] = "normal"
    std: float = 1.0
    secret: bool = True


@dataclass(frozen=True)
class Example:
    """Operands and attributes of one evaluation of an operation."""

    operands: tuple[Operand, ...]
    attributes: dict[str, Attribute]


def example(*operands: Operand | Shape, **attributes: Attribute) -> Example:
    """Return an example; a bare shape is a secret operand of normal values."""
    typed = (operand if isinstance(operand, Operand) else Operand(operand) for operand in operands)
    return Example(tuple(typed), attributes)


def broadcast(*shapes: Shape, **attributes: Attribute) -> Shape:
    """Return the shape of an elementwise result: the operands' shapes, broadcast."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(sizes) for sizes in zip(*padded, strict=True))


def hidden_layer(sizes: Sizes) -> Example:
    """Return the example of most elementwise operations: activations (1, T, d) of a block."""
    return example((1, sizes.tokens, sizes.width))


@dataclass(frozen=True)
class Operation:
    """Definition of an operation."""

    name: str
    doc: str
    """Operands, attributes and result."""
    reference: Callable[..., "Tensor"]
    """Plaintext evaluation: takes the operands and, as keywords, the attributes."""
    example: Callable[[Sizes], Example]
    result: Callable[..., Shape] = broadcast
    """Shape of the result: takes the shapes of the operands and, as keywords, the attributes."""
    aten: str | None = None
    """ATen operation of one operand without attributes that this one translates; others need a translator."""
    kind: Literal["interactive", "local", "structural"] = "interactive"
    """Local: no protocol communicates for it. Structural: it only rearranges elements, and is not counted either."""


VOCABULARY: dict[str, Operation] = {}
"""All operations by name, in the order of tables."""


def define(name: str, doc: str, **definition: Any) -> None:
    """Add an operation; `definition` has the other fields of `Operation`."""
    VOCABULARY[name] = Operation(name, doc, **definition)


# Below: B batch, T tokens, V vocabulary, d width; m, k, n rows, inner dimension and columns of a product.

define(
    "embedding",
    "table (V, d), one-hot tokens (B, T, V) -> (B, T, d): secret rows of a secret table",
    reference=lambda table, indices: table[indices],
    example=lambda s: example((s.vocabulary, s.width), Operand((1, s.tokens, s.vocabulary), "one-hot")),
    result=lambda table, onehot: (*onehot[:-1], table[-1]),
)
define(
    "lookup",
    "table (V, d), public indices (...) -> (..., d): public rows of a secret table, local",
    reference=lambda table, indices: table[indices],
    example=lambda s: example((s.tokens, s.width), Operand((s.tokens,), "positions", secret=False)),
    result=lambda table, indices: (*indices, table[-1]),
    kind="local",
)


def _linear(x: "Tensor", weight: "Tensor", bias: "Tensor | None" = None) -> "Tensor":
    return x @ weight if bias is None else x @ weight + bias


define(
    "linear",
    "x (..., k), weight (k, n)[, bias (n)] -> (..., n)",
    reference=_linear,
    example=lambda s: example(
        (1, s.tokens, s.width), Operand((s.width, 3 * s.width), std=s.width**-0.5), (3 * s.width,)
    ),
    result=lambda x, weight, *bias: (*x[:-1], weight[-1]),
)
define(
    "matmul",
    "a (..., m, k), b (..., k, n) -> (..., m, n), both secret activations",
    reference=lambda a, b: a @ b,
    example=lambda s: example(
        (1, s.heads, s.tokens, s.width // s.heads),
        Operand((1, s.heads, s.width // s.heads, s.tokens), std=(s.width // s.heads) ** -0.5),
    ),
    result=lambda a, b: (*broadcast(a[:-2], b[:-2]), *a[-2:-1], b[-1]),
)
define(
    "multiply",
    "a * b, both secret, broadcast",
    reference=lambda a, b: a * b,
    example=lambda s: example((1, s.tokens, s.width), (1, s.tokens, s.width)),
)
define("square", "x * x", reference=lambda x: x.square(), example=hidden_layer, aten="square")
define(
    "reciprocal",
    "1 / x, x positive",
    reference=lambda x: x.reciprocal(),
    example=lambda s: example(Operand((1, s.tokens, s.width), "positive")),
    aten="reciprocal",
)


def _layernorm(x: "Tensor", gamma: "Tensor | None" = None, beta: "Tensor | None" = None, *, eps: float) -> "Tensor":
    from torch.nn import functional

    return functional.layer_norm(x, x.shape[-1:], gamma, beta, eps)


def _rmsnorm(x: "Tensor", gamma: "Tensor | None" = None, *, eps: float) -> "Tensor":
    from torch.nn import functional

    return functional.rms_norm(x, x.shape[-1:], gamma, eps)


def _softmax(scores: "Tensor", allowed: "Tensor | None" = None, *, causal: bool = False) -> "Tensor":
    return (scores if allowed is None else scores.masked_fill(~allowed, -math.inf)).softmax(-1)


define(
    "layernorm",
    "x (..., d)[, gamma (d)[, beta (d)]] -> (..., d); attribute eps",
    reference=_layernorm,
    example=lambda s: example((1, s.tokens, s.width), (s.width,), (s.width,), eps=1e-5),
)
define(
    "rmsnorm",
    "x (..., d)[, gamma (d)] -> (..., d): x / sqrt(mean x^2 + eps) * gamma; attribute eps",
    reference=_rmsnorm,
    example=lambda s: example((1, s.tokens, s.width), (s.width,), eps=1e-5),
)
define(
    "softmax",
    "scores (..., n)[, public mask of allowed positions] -> (..., n), exact zeros where not allowed; "
    "attribute causal: the mask is the one that hides later tokens",
    reference=_softmax,
    example=lambda s: example(
        (1, s.heads, s.tokens, s.tokens), Operand((s.tokens, s.tokens), "causal", secret=False), causal=True
    ),
)


def _gelu(x: "Tensor", *, approximate: str) -> "Tensor":
    from torch.nn import functional

    return functional.gelu(x, approximate=approximate)


def _silu(x: "Tensor") -> "Tensor":
    from torch.nn import functional

    return functional.silu(x)


define(
    "gelu",
    "elementwise; attribute approximate: none | tanh",
    reference=_gelu,
    example=lambda s: example((1, s.tokens, 4 * s.width), approximate="tanh"),
)
define(
    "relu",
    "elementwise",
    reference=lambda x: x.relu(),
    example=lambda s: example((1, s.tokens, 4 * s.width)),
    aten="relu",
)
define(
    "silu",
    "elementwise: x / (1 + exp(-x))",
    reference=_silu,
    example=lambda s: example((1, s.tokens, 4 * s.width)),
    aten="silu",
)
define("tanh", "elementwise", reference=lambda x: x.tanh(), example=hidden_layer, aten="tanh")
define("erf", "elementwise", reference=lambda x: x.erf(), example=hidden_layer, aten="erf")
define(
    "clamp",
    "elementwise: low where x < low, high where x > high; attributes low, high",
    reference=lambda x, low, high: x.clamp(low, high),
    example=lambda s: example((1, s.tokens, s.width), low=-1.0, high=1.0),
)
define(
    "add",
    "a + b, the second may be public, broadcast; local",
    reference=lambda a, b: a + b,
    example=lambda s: example((1, s.tokens, s.width), (s.width,)),
    kind="local",
)
define("neg", "-x; local", reference=lambda x: x.neg(), example=hidden_layer, aten="neg", kind="local")
define(
    "sum",
    "over dimension dim (attribute), which remains with one element; local",
    reference=lambda x, dim: x.sum(dim, keepdim=True),
    example=lambda s: example((1, s.tokens, s.width), dim=1),
    result=lambda x, dim: (*x[:dim], 1, *x[dim + 1 :]),
    kind="local",
)
define(
    "mask",
    "x, public mask -> x where it is true, exact zeros elsewhere, broadcast; local",
    reference=lambda x, allowed: x.where(allowed, 0.0),
    example=lambda s: example((1, s.heads, s.tokens, s.tokens), Operand((s.tokens, s.tokens), "causal", secret=False)),
    kind="local",
)
define(
    "scale",
    "x * factor, a public number (attribute); local but for its truncation",
    reference=lambda x, factor: x * factor,
    example=lambda s: example((1, s.tokens, s.width), factor=0.125),
)
define(
    "scale_by",
    "x * factors, a public tensor, broadcast; local but for its truncation",
    reference=lambda x, factors: x * factors,
    example=lambda s: example((1, s.tokens, s.width), Operand((1, s.tokens, s.width), secret=False)),
)
define(
    "view",
    "attribute shape; local",
    reference=lambda x, shape: x.reshape(shape),
    example=lambda s: example((1, s.tokens, s.width), shape=(s.tokens * s.width,)),
    result=lambda x, shape: shape,
    kind="structural",
)
define(
    "expand",
    "repeated along dimensions of one element; attribute shape; local",
    reference=lambda x, shape: x.expand(shape),
    example=lambda s: example((1, s.tokens, s.width), shape=(2, s.tokens, s.width)),
    result=lambda x, shape: shape,
    kind="structural",
)


def _swap_dimensions(shape: Shape, *, dim0: int, dim1: int) -> Shape:
    sizes = list(shape)
    sizes[dim0], sizes[dim1] = sizes[dim1], sizes[dim0]
    return tuple(sizes)


define(
    "transpose",
    "attributes dim0, dim1; local",
    reference=lambda x, dim0, dim1: x.transpose(dim0, dim1),
    example=lambda s: example((1, s.tokens, s.width), dim0=1, dim1=2),
    result=_swap_dimensions,
    kind="structural",
)
define(
    "slice",
    "attributes dim, start, stop; local",
    reference=lambda x, dim, start, stop: x.narrow(dim, start, stop - start),
    example=lambda s: example((1, s.tokens, s.width), dim=1, start=1, stop=s.tokens),
    result=lambda x, dim, start, stop: (*x[:dim], stop - start, *x[dim + 1 :]),
    kind="structural",
)


def _concat(*parts: "Tensor", dim: int) -> "Tensor":
    import torch

    return torch.cat(parts, dim)


define(
    "concat",
    "one or more, along dimension dim (attribute); local",
    reference=_concat,
    example=lambda s: example((1, s.tokens, s.width), (1, 1, s.width), dim=1),
    result=lambda *parts, dim: (*parts[0][:dim], sum(part[dim] for part in parts), *parts[0][dim + 1 :]),
    kind="structural",
)
define(
    "cache",
    "keys or values (B, H, m, d), of which later steps read every row; local",
    reference=lambda x: x,
    example=lambda s: example((1, s.heads, s.tokens, s.width // s.heads)),
    kind="structural",
)
define(
    "reveal",
    "logits -> plain logits, to the client alone",
    reference=lambda x: x,
    example=lambda s: example((1, s.tokens, s.vocabulary)),
)
