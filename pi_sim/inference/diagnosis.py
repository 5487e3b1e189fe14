"""Diagnosis of a trained model on a text, for the kernels of a protocol."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim.diagnosis.diagnose import Advance, diagnose
from pi_sim.diagnosis.ranges import Quantity
from pi_sim.errors import UsageError
from pi_sim.mpc.kernels import kernel_for
from pi_sim.records import RECORD_FILE, DiagnosisRecord
from pi_sim.specs import ExecutableProtocol
from pi_sim.training.corpus import load_corpus, load_tokenizer
from pi_sim.training.evaluation import held_out_tokens
from pi_sim.zoo.source import ModelSource

RANDOM_TEXT = "random"
HELD_OUT_TEXT = "held-out"
DEFAULT_MAX_LENGTH = 1024
"""Tokens in a sequence unless --seq-len says more: the memory of attention grows with their square."""


def run_diagnosis(
    source: ModelSource,
    seq_len: int | None,
    sequences: int,
    corpus: str | None,
    protocol: ExecutableProtocol,
    advance: Advance,
) -> DiagnosisRecord:
    """Return the record of a diagnosis (see `pi_sim.diagnosis.diagnose`), by default on the held-out text."""
    quantities, model = kernel_quantities(protocol), source.load()
    ids = _load_token_ids(model, source.folder, corpus, (sequences, _sequence_length(model, seq_len)))
    table = {
        **{"model": source.name, "size": source.label, "protocol": protocol.name},
        **{"text": corpus or HELD_OUT_TEXT, "sequences": len(ids), "seq_len": ids.shape[1]},
        **diagnose(model, ids, quantities, advance),
    }
    return DiagnosisRecord.model_validate(table)


def kernel_quantities(protocol: ExecutableProtocol) -> list[Quantity]:
    """Return the quantities that the protocol's kernels bound, with their domains."""
    kernels = [kernel_for(op, protocol.kernels, protocol.name) for op in protocol.kernels]
    return [
        Quantity(kernel.op, domain.quantity, domain.statistic, kernel.name, domain.low, domain.high)
        for kernel in kernels
        for domain in kernel.domains
    ]


def _sequence_length(model: PreTrainedModel, seq_len: int | None) -> int:
    """Return --seq-len, or the model's context up to a limit; a `UsageError` for a length outside the context."""
    context: int | None = getattr(model.config, "max_position_embeddings", None)
    if context is None and (seq_len or 0) < 2:
        raise UsageError(f"{type(model).__name__} names no context in its config; choose a --seq-len of at least 2.")
    length = seq_len or min(context or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)
    if not 2 <= length <= (context or length):
        raise UsageError(f"the model's context is {context} tokens; choose --seq-len between 2 and {context}.")
    return length


def _load_token_ids(model: PreTrainedModel, folder: Path, text: str | None, shape: tuple[int, int]) -> Tensor:
    """Return token ids (N, T) below the model's vocabulary: random, of a text, or of the held-out text."""
    vocabulary = model.config.vocab_size
    if text == RANDOM_TEXT:
        return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(0))
    if text is None and not (folder / RECORD_FILE).is_file():
        raise UsageError(f"{folder} does not tell its held-out text; give --corpus a path of text, or `random`.")
    ids = held_out_tokens(folder, *shape) if text is None else _encode_text(folder, text, shape)
    if ids.max() >= vocabulary:
        raise UsageError(f"{folder} has a tokenizer of more than the model's {vocabulary:,} tokens; use its own.")
    return ids


def _encode_text(folder: Path, text: str, shape: tuple[int, int]) -> Tensor:
    """Return the first chunks (N, T) of a text, encoded by the checkpoint's tokenizer."""
    encoder, (sequences, length) = load_tokenizer(folder), shape
    ids: list[int] = []
    for document in load_corpus(text).documents:
        ids += encoder.encode(document.text, add_special_tokens=False).ids
        if len(ids) >= sequences * length:
            return torch.tensor(ids[: sequences * length]).view(shape)
    raise UsageError(f"{text} has {len(ids):,} tokens, too few for {sequences} sequences of {length}.")
