"""A publication's figures and ours, and how many of them agree."""

from dataclasses import dataclass

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.specs.published import Publication
from pi_sim.validation.comparison import Comparison, Verdict, compare_publication


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
