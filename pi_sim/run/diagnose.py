"""A diagnosis from the names that a command line gives: model, text and protocol."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.cost.census import label
from pi_sim.diagnosis.examine import Advance, examine
from pi_sim.diagnosis.ranges import Quantity
from pi_sim.errors import UsageError
from pi_sim.mpc.kernels import choose
from pi_sim.records import DiagnosisRecord
from pi_sim.training import tokenizer
from pi_sim.training.corpus import load as load_corpus
from pi_sim.training.held_out import held_out_tokens
from pi_sim.zoo.build import checkpoint_folder, load_model

RANDOM = "random"
HELD_OUT = "held-out"
LONGEST = 1024
"""Tokens in a sequence unless more are asked for: attention takes memory by their square."""


def diagnose(
    model: str, size: str, seq_len: int | None, sequences: int, corpus: str | None, protocol: str, advance: Advance
) -> DiagnosisRecord:
    """The record of a diagnosis (see `pi_sim.diagnosis.examine`); without a text, on what the training held out."""
    bounds = quantities(specs.protocol_card(protocol))
    loaded = load_model(model, size)
    ids = _tokens(loaded, model, size, corpus, (sequences, _length(loaded, seq_len)))
    table = {
        **{"model": model, "size": label(model, size), "protocol": specs.protocol_card(protocol).name},
        **{"text": corpus or HELD_OUT, "sequences": len(ids), "seq_len": ids.shape[1]},
        **examine(loaded, ids, bounds, advance),
    }
    return DiagnosisRecord.model_validate(table)


def quantities(protocol: specs.ProtocolCard) -> list[Quantity]:
    """What the protocol's kernels ask of their operands."""
    kernels = [choose(op, protocol.kernels, protocol.name) for op in protocol.kernels]
    return [
        Quantity(kernel.op, domain.quantity, domain.statistic, kernel.name, domain.low, domain.high)
        for kernel in kernels
        for domain in kernel.domains
    ]


def _length(model: PreTrainedModel, asked: int | None) -> int:
    """What was asked for, or the model's context unless that is long."""
    context: int | None = getattr(model.config, "max_position_embeddings", None)
    if context is None and (asked or 0) < 2:
        raise UsageError(f"{type(model).__name__} names no context in its config; choose a --seq-len of at least 2.")
    length = asked or min(context or LONGEST, LONGEST)
    if not 2 <= length <= (context or length):
        raise UsageError(f"the model's context is {context} tokens; choose --seq-len between 2 and {context}.")
    return length


def _tokens(model: PreTrainedModel, name: str, size: str, text: str | None, shape: tuple[int, int]) -> Tensor:
    """Token ids (N, T) that the model knows."""
    vocabulary = model.config.vocab_size
    if text == RANDOM:
        return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(0))
    folder = checkpoint_folder(name, size)
    if text is None and not (folder / "record.json").is_file():
        raise UsageError(f"{folder} does not tell its held-out text; give --corpus a path of text, or `random`.")
    ids = held_out_tokens(folder, *shape) if text is None else _encoded(folder, text, shape)
    if ids.max() >= vocabulary:
        raise UsageError(f"{folder} has a tokenizer of more than the model's {vocabulary:,} tokens; use its own.")
    return ids


def _encoded(folder: Path, text: str, shape: tuple[int, int]) -> Tensor:
    """The first chunks (N, T) of a text in the checkpoint's tokens."""
    encoder, (sequences, length) = tokenizer.load(folder), shape
    ids: list[int] = []
    for document in load_corpus(text).documents:
        ids += encoder.encode(document.text, add_special_tokens=False).ids
        if len(ids) >= sequences * length:
            return torch.tensor(ids[: sequences * length]).view(shape)
    raise UsageError(f"{text} has {len(ids):,} tokens, too few for {sequences} sequences of {length}.")
