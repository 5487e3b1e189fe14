"""Published beside ours: each figure of a publication, the error, and the verdict."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.network import parse_network
from pi_sim.specs.protocols import CountedParties
from pi_sim.specs.published import Claim, Publication
from pi_sim.validation.pricing import ClaimPrice, price_claim

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
    sent, dealt = (_party_count(claim, counted) / claim.bytes_per_unit for counted in (claim.counted, claim.offline_counted))
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
