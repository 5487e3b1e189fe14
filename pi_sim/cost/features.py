"""What a declared price may be proportional to, read off an operation's shapes."""

import math

from pi_sim.graph.ops import Op, Shape

PRODUCT_OPS = ("linear", "matmul", "embedding")
"""Operations with two factors of which a source may charge for either, or for the product."""


def op_features(op: Op) -> dict[str, float]:
    """Every feature of `pi_sim.specs.FEATURES` that the operation has; products alone have those of their factors."""
    shape = result_shape(op)
    elements, cols = math.prod(shape), shape[-1] if shape else 1
    found = {"each": 1, "elements": elements, "rows": elements // cols, "cols": cols, "visible": _unmasked_count(op, elements)}
    found["log2_cols"] = (cols - 1).bit_length()
    found["operands"] = sum(math.prod(each) for each, secret in zip(op.shapes, op.secret, strict=True) if secret)
    return found | (_product_features(op, shape) if op.name in PRODUCT_OPS else {})


def result_shape(op: Op) -> Shape:
    """The shape of what the operation computes."""
    if op.name in ("linear", "matmul"):
        first, second = factor_shapes(op)
        batch = first[:-2] if math.prod(first[:-2]) >= math.prod(second[:-2]) else second[:-2]
        return (*batch, first[-2], second[-1]) if len(first) > 1 else (second[-1],)
    if op.name in ("embedding", "lookup"):
        table, indices = op.shapes[:2]
        return (*(indices[:-1] if op.name == "embedding" else indices), table[-1])
    rank = max(len(shape) for shape in op.shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in op.shapes]
    return tuple(map(max, *padded)) if len(padded) > 1 else padded[0]


def factor_shapes(op: Op) -> tuple[Shape, Shape]:
    """Both factors; a look-up multiplies one-hot tokens (..., V) with a table (V, d)."""
    first, second = op.shapes[:2]
    return (second, first) if op.name == "embedding" else (first, second)


def _product_features(op: Op, shape: Shape) -> dict[str, float]:
    first, second = factor_shapes(op)
    mn, batch = math.prod(shape), math.prod(shape[:-2]) if len(second) > 2 else 1
    return {"mk": math.prod(first), "kn": math.prod(second), "mn": mn, "mkn": mn * first[-1], "batch": batch}


def _unmasked_count(op: Op, elements: int) -> int:
    """The places of scores (..., m, n) that a causal mask leaves: n - m + 1 in the first row, one more in each next."""
    if not dict(op.attributes).get("causal"):
        return elements
    m, n = op.shapes[0][-2:]
    return elements // (m * n) * sum(n - m + row + 1 for row in range(m))
