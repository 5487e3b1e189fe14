"""What a published row is about, with our prices."""

from collections import Counter
from dataclasses import dataclass

from pi_sim import specs
from pi_sim.cost.census import Census, census
from pi_sim.cost.cost import ZERO, Cost
from pi_sim.cost.pricing import priced
from pi_sim.cost.rows import LAYER
from pi_sim.errors import UsageError
from pi_sim.graph.ops import VOCABULARY, Op
from pi_sim.specs.published import Claim, Inference, Operation

MODULE = "ops"
"""Where operations stand that belong to no model: the row's key."""


@dataclass(frozen=True)
class Priced:
    """What one party sends, and where those prices come from."""

    cost: Cost
    provenance: str


def price(claim: Claim) -> Priced:
    """Our price of what a row is about, without computing.

    Raises `UsageError` for an operation that does not exist or that the protocol has no price for.
    """
    rows = priced(_counted(claim), specs.protocol(claim.protocol))
    found = {row.provenance for row in rows if row.cost != ZERO}
    return Priced(sum((row.cost for row in rows), ZERO), ", ".join(sorted(found)))


def _counted(claim: Claim) -> Census:
    """The model's operations and those that the row lists."""
    model = _of(claim.model) if claim.model else Census({}, frozenset())
    counts = Counter(model.counts)
    for each in claim.ops:
        counts[MODULE, _op(each)] += each.times
    return Census(dict(counts), model.embedding_and_head)


def _op(each: Operation) -> Op:
    if each.op not in VOCABULARY:
        raise UsageError(f"there is no operation {each.op!r}; known: {', '.join(VOCABULARY)}.")
    return Op(each.op, each.shapes, (True,) * len(each.shapes), tuple(each.attributes.items()))


def _of(inference: Inference) -> Census:
    """A model's operations, as far as the row is about them."""
    whole = census(inference.model, inference.size, inference.seq_len)
    counts = {
        (module, op): count
        for (module, op), count in whole.counts.items()
        if _within(inference, module, whole.embedding_and_head) and (not inference.only or op.name in inference.only)
    }
    return Census(counts, whole.embedding_and_head)


def _within(inference: Inference, module: str, boundary: frozenset[str]) -> bool:
    """Whether a module belongs to the part that the row is about."""
    if inference.part == "blocks":
        return bool(LAYER.match(module))
    return inference.part == "whole" or module not in boundary
