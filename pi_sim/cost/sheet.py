"""Declared prices: the cost of an operation by a protocol's sheet.

A price is a sum of coefficients times features of the operation's shapes, see `pi_sim.specs.FEATURES`.
"""

import math

from pi_sim.cost.cost import ZERO_COST, Cost, Machine, Work
from pi_sim.errors import UnpricedError, UsageError
from pi_sim.graph.ops import STRUCTURAL, VOCABULARY, Op, Shape
from pi_sim.records import SecondsEach
from pi_sim.specs import DeclaredProtocol, Price, location
from pi_sim.specs.protocols import BYTES_PER_UNIT, CountedParties, Terms

OP_FORMS = {"gelu": "tanh", "layernorm": "affine", "rmsnorm": "affine"}
"""Operations with two forms that a source may price: `gelu` and `gelu-tanh`, a norm without and with gamma."""
PRICEABLE_NAMES = {*VOCABULARY, *(f"{op}-{form}" for op, form in OP_FORMS.items())}
"""Names that a sheet may price."""


def declared_cost(op: Op, sheet: DeclaredProtocol) -> Cost:
    """Return the sheet's cost of an operation; an `UnpricedError` if it has no price or a negative one."""
    if is_local(op.name, sheet):
        return ZERO_COST
    entry = price_entry(op, sheet)
    if entry is None:
        raise UnpricedError(
            f"protocol {sheet.name} has no price for {op.name}; add [price.{op.name}] with its source to its sheet."
        )
    features, unit = op_features(op), BYTES_PER_UNIT[entry.unit]
    online, offline = (
        1 / counted_parties(counted or sheet.counted, sheet.parties) * unit
        for counted in (sheet.counted, sheet.offline_counted)
    )
    sums = [_weighted_sum(entry, terms, features, op) for terms in (entry.rounds, entry.bytes, entry.offline)]
    if min(sums) < 0:
        raise UnpricedError(
            f"protocol {sheet.name} has a negative price for {op}; mend [price.{op.name}] of its sheet."
        )
    return Cost.symmetric(round(sums[0]), round(sums[1] * online), round(sums[2] * offline))


def declared_work(op: Op, sheet: DeclaredProtocol) -> Work | None:
    """Return the work whose seconds the sheet's sources state; None where they state none."""
    if is_local(op.name, sheet):
        return Work()
    entry = price_entry(op, sheet)
    if entry is None or not entry.seconds:
        return None
    return Work(nanoseconds=round(1e9 * _weighted_sum(entry, entry.seconds, op_features(op), op)))


def source_machine(sheet: DeclaredProtocol) -> Machine | None:
    """Return the profile of the sources' hardware, None where they state no seconds."""
    if not sheet.hardware:
        return None
    name = f"{sheet.hardware}, as the sources of {sheet.name} state it"
    seconds_each = SecondsEach(**dict.fromkeys(SecondsEach.model_fields, 0.0))
    return Machine(name=name, source=sheet.source, seconds_each=seconds_each)


def price_entry(op: Op, sheet: DeclaredProtocol) -> Price | None:
    """Return the price of the operation's form if the sheet has one, else that of all forms."""
    return sheet.price.get(f"{op.name}-{_op_form(op)}", sheet.price.get(op.name))


def is_local(name: str, sheet: DeclaredProtocol) -> bool:
    """Return True if an operation needs no communication."""
    return name in sheet.local or name in STRUCTURAL


def counted_parties(counted: CountedParties, parties: int) -> int:
    """Return the number of parties whose bytes a source adds up, each of which sends the same amount."""
    return {"one party": 1, "both parties": 2, "all parties": parties}[counted]


def check_sheet(sheet: DeclaredProtocol, origin: str, text: str) -> None:
    """Raise a `UsageError` for a price of an operation that does not exist, or that is local too."""
    for table, names in (("price", sheet.price), ("local", sheet.local)):
        for name in names:
            fault = _name_error(table, name, sheet)
            if fault:
                raise UsageError(f"{location(origin, text, (table, name))}, {fault}.")


def _name_error(table: str, name: str, sheet: DeclaredProtocol) -> str | None:
    """Return the fault of a name in a table, or None."""
    if name not in (PRICEABLE_NAMES if table == "price" else VOCABULARY):
        return f"key {table!r}: there is no operation {name!r}; see `pi-sim protocols`"
    if table == "price" and name.partition("-")[0] in sheet.local:
        return f"key 'price.{name}': the sheet calls {name} local; leave one of them out"
    return None


def _op_form(op: Op) -> str:
    """Return `tanh` for that GELU, `affine` for a norm with a learned factor, and an empty string otherwise."""
    if op.name == "gelu":
        return str(op.attribute("approximate", "none"))
    return OP_FORMS.get(op.name, "") if len(op.shapes) > 1 else ""


def _weighted_sum(entry: Price, terms: Terms, features: dict[str, float], op: Op) -> float:
    """Return the sum of coefficients times features; a figure measured at one size is divided by that size."""
    missing = sorted(set(terms) - set(features))
    if missing:
        raise UsageError(f"the price of {op.name} is per {missing[0]}, which only products have; mend the sheet.")
    return sum(value * features[name] / entry.at.get(name, 1.0) for name, value in terms.items())


PRODUCT_OPS = ("linear", "matmul", "embedding")
"""Products, whose price may depend on either factor or on the result."""


def op_features(op: Op) -> dict[str, float]:
    """Return the operation's features, see `pi_sim.specs.FEATURES`; only products have mk, kn, mn, mkn and batch."""
    shape = op.result_shape
    elements, cols = math.prod(shape), shape[-1] if shape else 1
    operands = sum(math.prod(size) for size, secret in zip(op.shapes, op.secret, strict=True) if secret)
    return {
        "each": 1, "elements": elements, "rows": elements // cols, "cols": cols, "log2_cols": (cols - 1).bit_length(),
        "visible": _unmasked_count(op, elements), "operands": operands,
        **(_product_features(op) if op.name in PRODUCT_OPS else {}),
    }  # fmt: skip


def factor_shapes(op: Op) -> tuple[Shape, Shape]:
    """Return the shapes of both factors; an embedding multiplies one-hot tokens (..., V) with a table (V, d)."""
    first, second = op.shapes[:2]
    return (second, first) if op.name == "embedding" else (first, second)


def _product_features(op: Op) -> dict[str, float]:
    shape, (first, second) = op.result_shape, factor_shapes(op)
    mn, batch = math.prod(shape), math.prod(shape[:-2]) if len(second) > 2 else 1
    return {"mk": math.prod(first), "kn": math.prod(second), "mn": mn, "mkn": mn * first[-1], "batch": batch}


def _unmasked_count(op: Op, elements: int) -> int:
    """Count the scores (..., m, n) that a causal mask leaves: n - m + 1 in the first row, one more in each next row."""
    if not op.attribute("causal"):
        return elements
    m, n = op.shapes[0][-2:]
    return elements // (m * n) * sum(n - m + row + 1 for row in range(m))
