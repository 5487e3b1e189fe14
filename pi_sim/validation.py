"""Validation: published figures beside pi-sim's prices of the same operations and models, counted the same way."""

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
from pi_sim.cost.sheet import counted_parties
from pi_sim.errors import UsageError
from pi_sim.graph.ops import VOCABULARY, Op
from pi_sim.network import parse_network
from pi_sim.specs.protocols import BYTES_PER_UNIT, Claim, Inference, Operation, Publication
from pi_sim.zoo.source import ModelSource

OPS_MODULE = "ops"
"""Module of the operations of a row that belong to no model."""


@dataclass(frozen=True)
class ClaimPrice:
    """Cost of a published row by pi-sim's prices, per party, and the provenance of those prices."""

    cost: Cost
    provenance: str


def price_claim(claim: Claim) -> ClaimPrice:
    """Price the operations of a row, without seconds of computing.

    Raises `UsageError` for an operation that does not exist or that the protocol has no price for.
    """
    rows = price_census(_claim_census(claim), specs.load_protocol(claim.protocol))
    provenances = {row.provenance for row in rows if row.cost != ZERO_COST}
    return ClaimPrice(sum((row.cost for row in rows), ZERO_COST), ", ".join(sorted(provenances)))


def _claim_census(claim: Claim) -> Census:
    """Return the operations of the row's model and those that the row lists."""
    model = _inference_census(claim.model) if claim.model else Census({}, frozenset())
    counts = Counter(model.counts)
    for operation in claim.ops:
        counts[OPS_MODULE, _claim_op(operation)] += operation.times
    return Census(dict(counts), model.embedding_and_head)


def _claim_op(operation: Operation) -> Op:
    if operation.op not in VOCABULARY:
        raise UsageError(f"there is no operation {operation.op!r}; known: {', '.join(VOCABULARY)}.")
    secret = (True,) * len(operation.shapes)
    return Op(operation.op, operation.shapes, secret, tuple(operation.attributes.items()))


def _inference_census(inference: Inference) -> Census:
    """Return the operations of the row's model, restricted to the part and the operations that the row is about."""
    census = capture_census(ModelSource.parse(inference.model, inference.size), inference.seq_len)
    counts = {
        (module, op): count
        for (module, op), count in census.counts.items()
        if _is_in_part(inference, module, census.embedding_and_head)
        and (not inference.only or op.name in inference.only)
    }
    return Census(counts, census.embedding_and_head)


def _is_in_part(inference: Inference, module: str, embedding_and_head: frozenset[str]) -> bool:
    """Return True if a module belongs to the part of the model that the row is about."""
    if inference.part == "blocks":
        return bool(LAYER_PATTERN.match(module))
    return inference.part == "whole" or module not in embedding_and_head


Quantity = Literal["rounds", "bytes", "offline", "seconds"]
Verdict = Literal["exact", "within tolerance", "missed"]


@dataclass(frozen=True)
class Comparison:
    """A published figure and the predicted one, in the publication's unit and way of counting."""

    claim: Claim
    quantity: Quantity
    published: float
    predicted: float
    provenance: str
    compute_seconds: float | None = None
    """Fitted seconds of computing, a part of predicted seconds; None for other quantities."""

    @property
    def error(self) -> float:
        """Error relative to the published figure."""
        return self.predicted / self.published - 1

    @property
    def decimals(self) -> int:
        """Number of decimals that the publication prints."""
        exponent = Decimal(repr(self.published)).normalize().as_tuple().exponent
        return max(0, -int(exponent))

    @property
    def tolerance(self) -> float:
        """Largest error that the row allows."""
        return float(getattr(self.claim.tolerance, self.quantity))

    @property
    def verdict(self) -> Verdict:
        """Exact if the prediction, rounded as the publication rounds, is equal; otherwise by the row's tolerance."""
        if round(self.predicted, self.decimals) == self.published:
            return "exact"
        return "within tolerance" if abs(self.error) <= self.tolerance else "missed"


def compare_publication(publication: Publication) -> list[Comparison]:
    """Compare every figure of a publication, row by row."""
    prices = {claim.name: _price_row(claim) for claim in publication.row}
    computing = dict(_fitted_compute_seconds(publication, prices))
    return [
        comparison for claim in publication.row for comparison in _compare_figures(claim, prices[claim.name], computing)
    ]


def _price_row(claim: Claim) -> ClaimPrice:
    try:
        return price_claim(claim)
    except UsageError as error:
        raise UsageError(f"row {claim.name!r}: {error}") from None


def _compare_figures(claim: Claim, price: ClaimPrice, computing: dict[str, float]) -> Iterator[Comparison]:
    """Yield a comparison for every quantity that the row has."""
    parties = specs.load_protocol(claim.protocol).parties
    online, offline = (
        counted_parties(counted or claim.counted, parties) / BYTES_PER_UNIT[claim.unit]
        for counted in (claim.counted, claim.offline_counted)
    )
    cost, provenance = price.cost, price.provenance
    figures: dict[Quantity, float] = {
        "rounds": cost.rounds, "bytes": cost.bytes * online, "offline": cost.offline * offline
    }  # fmt: skip
    for quantity, predicted in figures.items():
        if (published := getattr(claim, quantity)) is not None:
            yield Comparison(claim, quantity, published, predicted, provenance)
    if claim.seconds is not None:
        seconds = computing.get(_setup_key(claim))
        if seconds is None:
            raise UsageError(f"row {claim.name!r}: no row of the same model and protocol has role fit and seconds.")
        total = _network_seconds(claim, price) + seconds
        yield Comparison(claim, "seconds", claim.seconds, total, provenance, seconds)


def _fitted_compute_seconds(publication: Publication, prices: dict[str, ClaimPrice]) -> Iterator[tuple[str, float]]:
    """Yield the seconds of computing by rows with role fit: published seconds less those of the network."""
    for claim in publication.row:
        if claim.seconds is not None and claim.role == "fit":
            yield _setup_key(claim), claim.seconds - _network_seconds(claim, prices[claim.name])


def _network_seconds(claim: Claim, price: ClaimPrice) -> float:
    assert claim.network is not None
    return parse_network(claim.network).seconds(price.cost.rounds, price.cost.bytes)


def _setup_key(claim: Claim) -> str:
    """Return a key of the computation, independent of the network."""
    return claim.model_dump_json(include={"protocol", "ops", "model"})


@dataclass(frozen=True)
class Validation:
    """A publication, the name of its file, and the comparison of every figure."""

    name: str
    publication: Publication
    comparisons: list[Comparison]

    @property
    def checks(self) -> list[Comparison]:
        """Comparisons with figures that no price was fitted to."""
        return [comparison for comparison in self.comparisons if comparison.claim.role == "check"]

    def count_verdicts(self, verdict: Verdict) -> int:
        """Return the number of checks with a verdict."""
        return sum(check.verdict == verdict for check in self.checks)

    @property
    def largest_error(self) -> float | None:
        """Largest error among the checks that are not missed; None if there are none."""
        errors = [abs(check.error) for check in self.checks if check.verdict != "missed"]
        return max(errors, default=None)


def validate_publication(name: str) -> Validation:
    """Compare the prices with `protocols/published/<name>.toml`, or with the file at that path.

    Rows of operations are priced at once; a model is captured the first time, which takes seconds. Raises `UsageError`
    for a mistake in the file, with its key or row, and for an operation that a protocol has no price for.
    """
    path = specs.find_file("protocols/published", name)
    publication = specs.read_toml(Publication, path)
    try:
        return Validation(path.stem, publication, compare_publication(publication))
    except UsageError as error:
        raise UsageError(f"{path}, {error}") from None
