"""What a published row is about, with our prices."""

from collections import Counter
from dataclasses import dataclass

from pi_sim import specs
from pi_sim.cost.census import Census, capture_census
from pi_sim.cost.cost import ZERO_COST, Cost
from pi_sim.cost.pricing import price_census
from pi_sim.cost.rows import LAYER_PATTERN
from pi_sim.errors import UsageError
from pi_sim.graph.ops import VOCABULARY, Op
from pi_sim.specs.published import Claim, Inference, Operation

OPS_MODULE = "ops"
"""Where operations stand that belong to no model: the row's key."""


@dataclass(frozen=True)
class ClaimPrice:
    """What one party sends, and where those prices come from."""

    cost: Cost
    provenance: str


def price_claim(claim: Claim) -> ClaimPrice:
    """Our price of what a row is about, without computing.

    Raises `UsageError` for an operation that does not exist or that the protocol has no price for.
    """
    rows = price_census(_claim_census(claim), specs.load_protocol(claim.protocol))
    found = {row.provenance for row in rows if row.cost != ZERO_COST}
    return ClaimPrice(sum((row.cost for row in rows), ZERO_COST), ", ".join(sorted(found)))


def _claim_census(claim: Claim) -> Census:
    """The model's operations and those that the row lists."""
    model = _inference_census(claim.model) if claim.model else Census({}, frozenset())
    counts = Counter(model.counts)
    for each in claim.ops:
        counts[OPS_MODULE, _claim_op(each)] += each.times
    return Census(dict(counts), model.embedding_and_head)


def _claim_op(each: Operation) -> Op:
    if each.op not in VOCABULARY:
        raise UsageError(f"there is no operation {each.op!r}; known: {', '.join(VOCABULARY)}.")
    return Op(each.op, each.shapes, (True,) * len(each.shapes), tuple(each.attributes.items()))


def _inference_census(inference: Inference) -> Census:
    """A model's operations, as far as the row is about them."""
    whole = capture_census(inference.model, inference.size, inference.seq_len)
    counts = {
        (module, op): count
        for (module, op), count in whole.counts.items()
        if _is_in_part(inference, module, whole.embedding_and_head) and (not inference.only or op.name in inference.only)
    }
    return Census(counts, whole.embedding_and_head)


def _is_in_part(inference: Inference, module: str, boundary: frozenset[str]) -> bool:
    """Whether a module belongs to the part that the row is about."""
    if inference.part == "blocks":
        return bool(LAYER_PATTERN.match(module))
    return inference.part == "whole" or module not in boundary
