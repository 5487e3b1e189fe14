"""Prices held against the published record: the same operations and models, the same counting, row by row."""

# MERGED: What a published row is about, with our prices.
# MERGED: Published beside ours: each figure of a publication, the error, and the verdict.
# MERGED: A publication's figures and ours, and how many of them agree.

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from pi_sim import specs
from pi_sim.cost.census import Census, capture_census
from pi_sim.cost.cost import ZERO_COST, Cost
from pi_sim.cost.pricing import price_census
from pi_sim.cost.rows import LAYER_PATTERN
from pi_sim.errors import UsageError
from pi_sim.graph.ops import VOCABULARY, Op
from pi_sim.network import parse_network
from pi_sim.specs.protocols import CountedParties
from pi_sim.specs.published import Claim, Inference, Operation, Publication

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
        if _is_in_part(inference, module, whole.embedding_and_head)
        and (not inference.only or op.name in inference.only)
    }
    return Census(counts, whole.embedding_and_head)


def _is_in_part(inference: Inference, module: str, boundary: frozenset[str]) -> bool:
    """Whether a module belongs to the part that the row is about."""
    if inference.part == "blocks":
        return bool(LAYER_PATTERN.match(module))
    return inference.part == "whole" or module not in boundary


Quantity = Literal["rounds", "bytes", "offline", "seconds"]
Verdict = Literal["exact", "within tolerance", "missed"]


@dataclass(frozen=True)
class Comparison:
    """One published figure and ours, in the publication's unit and way of counting."""

    claim: Claim
    quantity: Quantity
    published: float
    predicted: float
    provenance: str
    compute_seconds: float | None = None
    """For seconds: those of them that are computing, fitted and not predicted."""

    @property
    def error(self) -> float:
        """Relative to the published figure."""
        return self.predicted / self.published - 1

    @property
    def decimals(self) -> int:
        """How many the publication prints."""
        exponent = Decimal(repr(self.published)).normalize().as_tuple().exponent
        return max(0, -int(exponent))

    @property
    def tolerance(self) -> float:
        """How large the error may be."""
        return float(getattr(self.claim.tolerance, self.quantity))

    @property
    def verdict(self) -> Verdict:
        """Exact is ours rounded as the publication rounds; the other verdicts are the row's tolerance's."""
        if round(self.predicted, self.decimals) == self.published:
            return "exact"
        return "within tolerance" if abs(self.error) <= self.tolerance else "missed"


def compare_publication(publication: Publication) -> list[Comparison]:
    """Every figure of a publication, row by row."""
    ours = {claim.name: _price_row(claim) for claim in publication.row}
    computing = dict(_fitted_compute_seconds(publication, ours))
    return [each for claim in publication.row for each in _compare_figures(claim, ours[claim.name], computing)]


def _price_row(claim: Claim) -> ClaimPrice:
    try:
        return price_claim(claim)
    except UsageError as error:
        raise UsageError(f"row {claim.name!r}: {error}") from None


def _compare_figures(claim: Claim, ours: ClaimPrice, computing: dict[str, float]) -> Iterator[Comparison]:
    """A comparison for every quantity that the row has."""
    sent, dealt = (
        _party_count(claim, counted) / claim.bytes_per_unit for counted in (claim.counted, claim.offline_counted)
    )
    found = ours.provenance
    if claim.rounds is not None:
        yield Comparison(claim, "rounds", claim.rounds, ours.cost.rounds, found)
    if claim.bytes is not None:
        yield Comparison(claim, "bytes", claim.bytes, ours.cost.bytes * sent, found)
    if claim.offline is not None:
        yield Comparison(claim, "offline", claim.offline, ours.cost.offline * dealt, found)
    if claim.seconds is not None:
        seconds = computing.get(_setup_key(claim))
        if seconds is None:
            raise UsageError(f"row {claim.name!r}: no row of the same model and protocol has role fit and seconds.")
        yield Comparison(claim, "seconds", claim.seconds, _network_seconds(claim, ours) + seconds, found, seconds)


def _party_count(claim: Claim, counted: CountedParties | None) -> int:
    """How many parties' bytes the publication adds up."""
    parties = {"one party": 1, "both parties": 2, "all parties": specs.load_protocol(claim.protocol).parties}
    return parties[counted or claim.counted]


def _fitted_compute_seconds(publication: Publication, ours: dict[str, ClaimPrice]) -> Iterator[tuple[str, float]]:
    """What rows with role fit leave for computing once the network's seconds are taken off."""
    for claim in publication.row:
        if claim.seconds is not None and claim.role == "fit":
            yield _setup_key(claim), claim.seconds - _network_seconds(claim, ours[claim.name])


def _network_seconds(claim: Claim, ours: ClaimPrice) -> float:
    assert claim.network is not None
    return parse_network(claim.network).seconds(ours.cost.rounds, ours.cost.bytes)


def _setup_key(claim: Claim) -> str:
    """What is computed, whatever the network."""
    return claim.model_dump_json(include={"protocol", "ops", "model"})


@dataclass(frozen=True)
class Validation:
    """A publication by the name of its file, and every figure of it beside ours."""

    name: str
    publication: Publication
    comparisons: list[Comparison]

    @property
    def checks(self) -> list[Comparison]:
        """The figures that no price was made from."""
        return [each for each in self.comparisons if each.claim.role == "check"]

    def count_verdicts(self, verdict: Verdict) -> int:
        """How many of the checks have a verdict."""
        return sum(each.verdict == verdict for each in self.checks)

    @property
    def largest_error(self) -> float | None:
        """The largest error among the checks that are met; None where there are none."""
        met = [abs(each.error) for each in self.checks if each.verdict != "missed"]
        return max(met, default=None)


def validate_publication(name: str) -> Validation:
    """Hold the prices against `protocols/published/<name>.toml`, or against the file at that path.

    Costs of operations come from their prices at once; a model is captured the first time, in seconds. Raises
    `UsageError` for a mistake in the file, which it names with the key or the row, and where a protocol has no price.
    """
    path = specs.find_file("protocols/published", name)
    publication = specs.read_toml(Publication, path)
    try:
        return Validation(path.stem, publication, compare_publication(publication))
    except UsageError as error:
        raise UsageError(f"{path}, {error}") from None
