"""How long the sequences are that a model reads, and how many of them fit into memory at a time."""

# MERGED: Held-out text: the same chunks for whoever asks, and how well a model predicts them.

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
from pi_sim.training import corpus, tokenizer
from pi_sim.training.corpus import Corpus

POSITION_LIMIT = 4096
"""At a time: their logits, of 50,000 words, fill 0.8 GB."""


def batch_limit(length: int) -> int:
    """Sequences of that length at a time, at least one."""
    return max(1, POSITION_LIMIT // length)


def resolve_length(config: Any, asked: int | None, option: str) -> int:
    """The length that was asked for, or the model's context; `option` is how it is asked for."""
    context: int | None = getattr(config, "max_position_embeddings", None)
    length, most = asked or context, context or asked
    if length is None or most is None:
        raise UsageError(f"the model's config.json does not tell its context; give {option}.")
    if not 2 <= length <= most:
        raise UsageError(f"the model's context is {most} tokens; choose {option} between 2 and {most}.")
    return length


SAMPLE_CHUNKS = 32  # chunks whose loss is recorded by itself, as a quick check of a checkpoint


def check_recorded_corpus(folder: Path) -> None:
    """Refuse a checkpoint that does not tell its tokenizer or corpus: cheap, so that it can be asked first."""
    tokenizer.load_tokenizer(folder)
    _recorded_corpus(folder)


def held_out_tokens(folder: Path, sequences: int, length: int) -> Tensor:
    """The first held-out chunks (sequences, length) of the corpus the checkpoint was trained on, int64."""
    encoder, texts, total = tokenizer.load_tokenizer(folder), [], 0
    for document in load_recorded_corpus(folder).held_out:
        texts += tokenizer.encode_documents(encoder, [document])
        total += len(texts[-1])
        if total >= sequences * length:
            return tokenizer.split_chunks(texts, length)[:sequences]
    raise UsageError(
        f"the held-out text has {total:,} tokens, too few for {sequences} sequences of {length}; "
        f"ask for at most {total // length}."
    )


def load_recorded_corpus(folder: Path) -> Corpus:
    """The corpus that the checkpoint's record names; a line on stderr where it has changed since."""
    name, sha256 = _recorded_corpus(folder)
    text = corpus.load_corpus(name)
    if text.sha256 != sha256:
        click.echo(f"pi-sim: the corpus {text.name} is not the one that {folder} was trained on.", err=True)
        corpus.warn_if_corpus_changed(text)
    return text


def _recorded_corpus(folder: Path) -> tuple[str, str]:
    """The name and the hash of the corpus that the checkpoint's record names."""
    path = folder / "record.json"
    if not path.is_file():
        raise UsageError(f"{folder} has no record.json that names its corpus; use a checkpoint that pi-sim trained.")
    record = records.load(path)
    if not isinstance(record, (TrainingRecord, ConversionRecord)):
        raise UsageError(f"{path} is the record of no training, so no text is known to be held out.")
    return record.corpus.name, record.corpus.sha256


def held_out_chunks(encoder: Tokenizer, text: Corpus, length: int) -> Tensor:
    """All of the held-out text, as full chunks (N, length), at least one."""
    ids = tokenizer.split_chunks(tokenizer.encode_documents(encoder, text.held_out), length)
    if not len(ids):
        raise UsageError(f"the held-out text of {text.name} is shorter than one context of {length} tokens.")
    return ids


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, ids: Tensor) -> float:
    """The mean negative log-likelihood in nats of ids[:, 1:], each chunk (N, T) by itself."""
    total = 0.0
    for batch in torch.split(ids, batch_limit(ids.shape[1])):
        logits = model(batch.to(model.device), use_cache=False).logits[:, :-1].flatten(0, 1).float()
        total += F.cross_entropy(logits, batch[:, 1:].flatten().to(model.device), reduction="sum").item()
    return total / ids[:, 1:].numel()


def measure_quality(model: PreTrainedModel, encoder: Tokenizer, text: Corpus, length: int) -> dict[str, Any]:
    """Held-out loss (nats per token), perplexity, bits per byte; the first chunks' loss is the `sample`."""
    ids = held_out_chunks(encoder, text, length)
    mean = mean_loss(model, ids)
    bytes_per_token = sum(document.utf8_bytes for document in text.held_out) / ids.numel()
    return {
        "loss": mean,
        "perplexity": torch.tensor(mean, dtype=torch.float64).exp().item(),
        "bits_per_byte": mean / math.log(2) / bytes_per_token,
        "tokens": ids[:, 1:].numel(),
        "sample": {"sequences": min(SAMPLE_CHUNKS, len(ids)), "loss": mean_loss(model, ids[:SAMPLE_CHUNKS])},
    }
