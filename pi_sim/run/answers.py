"""Answers of a private run: what its logits say, in words, beside what the plain model says."""

from typing import Any, Literal

from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.records import Answer

Task = Literal["causal", "masked", "labels", "token labels"]
"""What the logits of a model are: of the next token, of the token itself, of labels of a text or of each token."""
TASKS: dict[str, Task] = {
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForSequenceClassification": "labels",
    "ForImageClassification": "labels",
    "ForTokenClassification": "token labels",
}
"""Tasks by the ends of transformers' class names."""
TOP = 5


def task_of(model: Any) -> Task:
    """Return the task of a model; a `UsageError` for one without logits."""
    name = type(model).__name__
    for ending, task in TASKS.items():
        if name.endswith(ending):
            return task
    raise UsageError(
        f"{name} has no logits to open; run and export take causal and masked language models and classifiers."
    )


def label_names(model: Any) -> list[str]:
    """Return the names of a classifier's labels in order, none for other models."""
    labels = model.config.id2label or {}
    return [str(labels[number]) for number in sorted(labels)] if "labels" in task_of(model) else []


def top_answers(private: Tensor, plain: Tensor | None, names: Any) -> list[Answer]:
    """Return the most probable classes of logits (C), with both probabilities; `names` maps a class to its text."""
    probabilities = private.double().softmax(-1)
    expected = None if plain is None else plain.double().softmax(-1)
    return [
        Answer(
            text=names(number),
            private=probabilities[number].item(),
            plain=None if expected is None else expected[number].item(),
        )
        for number in probabilities.topk(min(TOP, len(probabilities))).indices.tolist()
    ]
