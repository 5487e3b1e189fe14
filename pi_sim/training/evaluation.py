"""Quality of a model on held-out text, always on the same chunks.

The length of the chunks (N, T) is the model's context or shorter; as many are evaluated together as fit into memory.
"""

import math
from pathlib import Path
from typing import Any

import click
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import PreTrainedModel

from pi_sim import records
from pi_sim.errors import UsageError
from pi_sim.records import ConversionRecord, TrainingRecord
from pi_sim.training.corpus import (
    Corpus,
    encode_documents,
    load_corpus,
    load_tokenizer,
    split_chunks,
    warn_if_corpus_changed,
)

POSITION_LIMIT = 4096
"""Positions that are evaluated together: their logits, for a vocabulary of 50,000, fill 0.8 GB."""
SAMPLE_CHUNKS = 32
"""Chunks whose loss is recorded separately, as a quick check of a checkpoint."""


def batch_limit(length: int) -> int:
    """Return the number of sequences of that length that are evaluated together, at least one."""
    return max(1, POSITION_LIMIT // length)


def resolve_length(config: Any, length: int | None, option: str) -> int:
    """Return the length, by default the model's context; `option` is the command-line option for it.

    Raises `UsageError` for a length outside 2 to the context, and where neither is known.
    """
    context: int | None = getattr(config, "max_position_embeddings", None)
    resolved, limit = length or context, context or length
    if resolved is None or limit is None:
        raise UsageError(f"the model's config.json does not state its context; give {option}.")
    if not 2 <= resolved <= limit:
        raise UsageError(f"the model's context is {limit} tokens; choose {option} between 2 and {limit}.")
    return resolved


def check_recorded_corpus(folder: Path) -> None:
    """Raise `UsageError` for a checkpoint without tokenizer or record of its corpus; cheap, for an early check."""
    load_tokenizer(folder)
    _recorded_corpus(folder)


def held_out_tokens(folder: Path, sequences: int, length: int) -> Tensor:
    """Return the first held-out chunks (sequences, length), int64, of the corpus that the checkpoint was trained on.

    Raises `UsageError` where the held-out text has too few tokens.
    """
    tokenizer, texts, total = load_tokenizer(folder), [], 0
    for document in load_recorded_corpus(folder).held_out:
        texts += encode_documents(tokenizer, [document])
        total += len(texts[-1])
        if total >= sequences * length:
            return split_chunks(texts, length)[:sequences]
    raise UsageError(
        f"the held-out text has {total:,} tokens, too few for {sequences} sequences of {length}; "
        f"ask for at most {total // length}."
    )


def load_model_record(folder: Path) -> TrainingRecord | ConversionRecord | None:
    """Return the record of a checkpoint; None for one that pi-sim did not write."""
    path = folder / records.RECORD_FILE
    record = records.load(path) if path.is_file() else None
    return record if isinstance(record, (TrainingRecord, ConversionRecord)) else None


def load_recorded_corpus(folder: Path) -> Corpus:
    """Return the corpus that the checkpoint's record names; print a line on stderr if it has changed since."""
    name, sha256 = _recorded_corpus(folder)
    corpus = load_corpus(name)
    if corpus.sha256 != sha256:
        click.echo(f"pi-sim: the corpus {corpus.name} is not the one that {folder} was trained on.", err=True)
        warn_if_corpus_changed(corpus)
    return corpus


def _recorded_corpus(folder: Path) -> tuple[str, str]:
    """Return the name and the hash of the corpus in the checkpoint's record."""
    path = folder / records.RECORD_FILE
    if not path.is_file():
        raise UsageError(
            f"{folder} has no {records.RECORD_FILE} that names its corpus; use a checkpoint that pi-sim trained."
        )
    record = records.load(path)
    if not isinstance(record, (TrainingRecord, ConversionRecord)):
        raise UsageError(
            f"{path} is a {record.kind} record, which names no held-out text; use a checkpoint that pi-sim trained."
        )
    return record.corpus.name, record.corpus.sha256


def held_out_chunks(tokenizer: Tokenizer, corpus: Corpus, length: int) -> Tensor:
    """Return the held-out text as full chunks (N, length); raise `UsageError` where it fills none."""
    ids = split_chunks(encode_documents(tokenizer, corpus.held_out), length)
    if not len(ids):
        raise UsageError(f"the held-out text of {corpus.name} is shorter than one context of {length} tokens.")
    return ids


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, ids: Tensor) -> float:
    """Return the mean negative log-likelihood in nats of ids[:, 1:], each chunk (N, T) a sequence of its own."""
    total = 0.0
    for batch in torch.split(ids, batch_limit(ids.shape[1])):
        logits = model(batch.to(model.device), use_cache=False).logits[:, :-1].flatten(0, 1).float()
        total += F.cross_entropy(logits, batch[:, 1:].flatten().to(model.device), reduction="sum").item()
    return total / ids[:, 1:].numel()


def measure_quality(model: PreTrainedModel, tokenizer: Tokenizer, corpus: Corpus, length: int) -> dict[str, Any]:
    """Return held-out loss (nats per token), perplexity and bits per byte; `sample` is the first chunks' loss."""
    ids = held_out_chunks(tokenizer, corpus, length)
    loss = mean_loss(model, ids)
    bytes_per_token = sum(document.utf8_bytes for document in corpus.held_out) / ids.numel()
    return {
        "loss": loss,
        "perplexity": torch.tensor(loss, dtype=torch.float64).exp().item(),
        "bits_per_byte": loss / math.log(2) / bytes_per_token,
        "tokens": ids[:, 1:].numel(),
        "sample": {"sequences": min(SAMPLE_CHUNKS, len(ids)), "loss": mean_loss(model, ids[:SAMPLE_CHUNKS])},
    }
