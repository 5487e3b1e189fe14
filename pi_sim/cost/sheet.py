"""Declared prices: what a source says that an operation costs, from a protocol's sheet."""

from pi_sim.cost.cost import ZERO_COST, Cost
from pi_sim.cost.features import op_features
from pi_sim.errors import UnpricedError, UsageError
from pi_sim.graph.ops import STRUCTURAL, VOCABULARY, Op
from pi_sim.specs import DeclaredProtocol, Price, location
from pi_sim.specs.protocols import BYTES_PER_UNIT, CountedParties, Terms

OP_FORMS = {"gelu": "tanh", "layernorm": "affine", "rmsnorm": "affine"}
"""Operations of which a source may price two forms: `gelu` and `gelu-tanh`, a norm without gamma and with it."""

PRICEABLE_NAMES = {*VOCABULARY, *(f"{op}-{form}" for op, form in OP_FORMS.items())}
"""What a sheet may price."""


def declared_cost(op: Op, sheet: DeclaredProtocol) -> Cost:
    """What the sheet says of an operation; an `UnpricedError` refuses one that it says nothing of."""
    if is_local(op.name, sheet):
        return ZERO_COST
    entry = price_entry(op, sheet)
    if entry is None:
        raise UnpricedError(
            f"protocol {sheet.name} has no price for {op.name}; add [price.{op.name}] with its source to its sheet."
        )
    known, unit = op_features(op), BYTES_PER_UNIT[entry.unit]
    online, offline = (party_fraction(sheet, counted) * unit for counted in (sheet.counted, sheet.offline_counted))
    sums = [_weighted_sum(entry, terms, known, op) for terms in (entry.rounds, entry.bytes, entry.offline)]
    if min(sums) < 0:
        raise UnpricedError(
            f"protocol {sheet.name} has a negative price for {op}; mend [price.{op.name}] of its sheet."
        )
    return Cost(round(sums[0]), round(sums[1] * online), round(sums[2] * offline))


def price_entry(op: Op, sheet: DeclaredProtocol) -> Price | None:
    """The price of the operation's own form where the sheet has one, else that of all its forms."""
    return sheet.price.get(f"{op.name}-{_op_form(op)}", sheet.price.get(op.name))


def is_local(name: str, sheet: DeclaredProtocol) -> bool:
    """Whether an operation needs no communication."""
    return name in sheet.local or name in STRUCTURAL


def party_fraction(sheet: DeclaredProtocol, counted: CountedParties | None) -> float:
    """The part of the source's bytes that one party sends, where all send alike."""
    parts = {"one party": 1.0, "both parties": 1 / 2, "all parties": 1 / sheet.parties}
    return parts[counted or sheet.counted]


def check_sheet(sheet: DeclaredProtocol, origin: str, text: str) -> DeclaredProtocol:
    """The sheet; a `UsageError` for a price of what is no operation, or of what is local too."""
    for table, names in (("price", sheet.price), ("local", sheet.local)):
        for name in names:
            fault = _name_error(table, name, sheet)
            if fault:
                raise UsageError(f"{location(origin, text, (table, name))}, {fault}.")
    return sheet


def _name_error(table: str, name: str, sheet: DeclaredProtocol) -> str | None:
    """What is wrong with a name in a table, if anything is."""
    if name not in (PRICEABLE_NAMES if table == "price" else VOCABULARY):
        return f"key {table!r}: there is no operation {name!r}; see `pi-sim protocols`"
    if table == "price" and name.partition("-")[0] in sheet.local:
        return f"key 'price.{name}': the sheet calls {name} local; leave one of them out"
    return None


def _op_form(op: Op) -> str:
    """`tanh` for that GELU, `affine` for a norm with a learned factor; nothing else has forms."""
    if op.name == "gelu":
        return str(dict(op.attributes).get("approximate", "none"))
    return OP_FORMS.get(op.name, "") if len(op.shapes) > 1 else ""


def _weighted_sum(entry: Price, terms: Terms, known: dict[str, float], op: Op) -> float:
    """Coefficients times features; a figure that was measured at one size is divided by that size first."""
    missing = sorted(set(terms) - set(known))
    if missing:
        raise UsageError(f"the price of {op.name} is per {missing[0]}, which only products have; mend the sheet.")
    return sum(value * known[name] / entry.at.get(name, 1.0) for name, value in terms.items())
