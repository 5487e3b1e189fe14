"""How the models were trained."""

from pi_sim.reporting.findings import Findings
from pi_sim.reporting.recorded import Training

PARTS = ("dimensions", "recipe", "corpus")


def subject(findings: Findings) -> str:
    """The dimensions, the corpus and the recipe, and whether all models share them."""
    trainings = references(findings)
    if not trainings:
        return ""
    known = trainings[0].record["dimensions"]
    layers = f"GPT-2 with {known['layers']} layers, {known['heads']} heads, width {known['width']}"
    tokens = f"context {known['context']:,} and a vocabulary of {known['vocabulary']:,}: {parameters(trainings)}"
    return f"{layers}, {tokens}, trained on {_seen(trainings)}. {_shared(trainings)}".rstrip()


def references(findings: Findings) -> list[Training]:
    """The training that stands for each model, as far as there are any."""
    return [found for model in findings.models if (found := findings.reference(model))]


def parameters(trainings: list[Training]) -> str:
    """How many were trained, and how many there are once folding has untied the head, where both are known."""
    folded = _millions([training.record["parameters"] for training in trainings])
    if not all(training.record["trained_parameters"] for training in trainings):
        return f"{folded} parameters"
    trained = _millions([training.record["trained_parameters"] for training in trainings])
    after = f" ({folded} after folding unties the head)" if folded != trained else ""
    return f"{trained} trained parameters{after}"


def _millions(counts: list[int]) -> str:
    """A number, or its span."""
    ends = [f"{count / 1e6:.2f}" for count in (min(counts), max(counts))]
    return f"{' to '.join(dict.fromkeys(ends))} M"


def _seen(trainings: list[Training]) -> str:
    corpus = trainings[0].record["corpus"]
    return f"{corpus['tokens_seen']:,} tokens of the corpus `{corpus['name']}`"


def _shared(trainings: list[Training]) -> str:
    """Whether one thing alone was varied: the design."""
    differing = [part for part in PARTS if any(each.plan[part] != trainings[0].plan[part] for each in trainings)]
    if differing:
        return f"The models differ in their {' and '.join(differing)} too, so compare with care."
    return "Dimensions, text and recipe are the same for every model." if len(trainings) > 1 else ""
