"""Models without norms in their blocks, trained with and without the last LayerNorm before the vocabulary head."""

from pi_sim.reporting import tables
from pi_sim.reporting.findings import Findings
from pi_sim.reporting.recorded import Training
from pi_sim.reporting.seeds import Seeds
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, change, perplexity

LEAD = "Models without norms in their blocks, trained alike but for the last LayerNorm before the vocabulary head:"
CHOICES = {"none": "none", "layernorm": "kept"}


def final_norm(findings: Findings) -> str:
    """A table of the models that were trained both ways; nothing where there are none."""
    rows = [row for model in findings.models for row in _rows(findings, model)]
    columns = [
        Column("model", "model"),
        Column("final_norm", "final LayerNorm"),
        Column("seeds", "seeds", COUNT),
        Column("perplexity", "held-out perplexity, mean", COUNT),
        Column("range", "least to largest", COUNT),
        Column("change", "change", COUNT),
    ]
    return f"{LEAD}\n\n{tables.render(Table(columns, rows), 'markdown')}" if rows else ""


def _rows(findings: Findings, model: str) -> list[list[Cell]]:
    """A row without and a row with, over all seeds."""
    reference = findings.reference(model)
    if reference is None or reference.record["architecture"]["norm"] != "none":
        return []
    found = {choice: _trained(findings, reference, choice) for choice in CHOICES}
    if not all(found.values()):
        return []
    seeds = {choice: Seeds.of(values) for choice, values in found.items()}
    return [
        [
            model,
            CHOICES[choice],
            len(each.values),
            perplexity(each.mean),
            each.range,
            "" if choice == "none" else change(each.mean, seeds["none"].mean),
        ]
        for choice, each in seeds.items()
    ]


def _trained(findings: Findings, reference: Training, choice: str) -> list[float]:
    """The perplexities, over the seeds, of the reference's design with a choice of its final norm."""
    design = {**reference.record["architecture"], "final_norm": choice}
    alike = [each for each in findings.trainings if each.same(reference, "seed", "architecture")]
    return [each.perplexity for each in alike if each.record["architecture"] == design]
