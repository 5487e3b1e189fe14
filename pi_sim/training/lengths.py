"""How long the sequences are that a model reads, and how many of them fit into memory at a time."""

from typing import Any

from pi_sim.errors import UsageError

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
