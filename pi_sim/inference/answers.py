"""Answers of a private run: what its results say, in words or as vectors, beside what the plain model says."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional

from pi_sim.graph.bundle import Bundle
from pi_sim.inference.inputs import RunInputs, load_text_tokenizer
from pi_sim.records import Answer, VectorResult

TOP = 5


def answer_inputs(bundle: Bundle, inputs: RunInputs, private: Tensor, plain: Tensor | None) -> list[Answer]:
    """Return what logits (n, ..., C) say of a user's inputs.

    Of one input, the most probable labels, next tokens, or tokens at its mask; of several, the label of each. Of one
    text whose tokens are labelled, the label of each token. Causal and masked models answer one input only.
    """
    task, labels = bundle.origin["task"], bundle.origin["labels"]
    if not inputs.names or task == "vectors":
        return []

    def answers_at(*place: int, names: Callable[[int], Any] = labels.__getitem__) -> list[Answer]:
        return top_answers(private[place], None if plain is None else plain[place], names)

    if task == "labels":
        if inputs.count == 1:
            return answers_at(0)
        return [_name_input(answers_at(row)[0], name) for row, name in enumerate(inputs.names)]
    if inputs.count > 1 or inputs.lengths is None:
        return []
    tokenizer, length = load_text_tokenizer(bundle.folder), int(inputs.lengths[0, 0])
    ids = inputs.tokens[0, :length].tolist()
    if task == "token labels":
        tokens = tokenizer.convert_ids_to_tokens(ids)
        return [_name_input(answers_at(0, place)[0], token) for place, token in enumerate(tokens)]
    place = 0 if task == "output" else length - 1
    if task == "masked":
        if tokenizer.mask_token_id not in ids:
            return []
        place = ids.index(tokenizer.mask_token_id)
    return answers_at(0, place, names=lambda number: tokenizer.decode([number]))


def _name_input(answer: Answer, name: str) -> Answer:
    return answer.model_copy(update={"input": name})


def top_answers(private: Tensor, plain: Tensor | None, names: Callable[[int], Any]) -> list[Answer]:
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


def compare_vectors(inputs: RunInputs, private: Tensor, plain: Tensor | None) -> list[VectorResult]:
    """Return the norms of private and plain vectors (n, d) of inputs, and their cosines."""
    norms = private.norm(dim=1).tolist()
    if plain is None:
        return [VectorResult(input=name, norm=norm) for name, norm in zip(inputs.names, norms, strict=True)]
    cosines = functional.cosine_similarity(private.double(), plain.double()).tolist()
    rows = zip(inputs.names, norms, plain.norm(dim=1).tolist(), cosines, strict=True)
    return [VectorResult(input=name, norm=norm, plain_norm=plain, cosine=cosine) for name, norm, plain, cosine in rows]
