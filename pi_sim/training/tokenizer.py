"""Byte-level BPE trained on the corpus itself: a large vocabulary would hold most parameters of a narrow model."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.training.corpus import Document

END_OF_TEXT = "<|endoftext|>"
END_TOKENS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>")
"""End-of-text tokens of the tokenizers of GPT-2, OPT, Llama and others."""
MIN_VOCABULARY = 257
"""Tokens of the smallest vocabulary: every byte, and the end of a text."""
TOKENIZER_FILE = "tokenizer.json"
ENCODING_BATCH = 1000
"""Texts per batch: an encoding takes many times the memory of its ids."""


def train_tokenizer(documents: Iterable[Document], vocabulary: int) -> Tokenizer:
    """Return a byte-level BPE of at most `vocabulary` tokens; token 0 ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a checkpoint, with any truncation and padding of its file switched off.

    Raises `UsageError` where there is none or it cannot be read.
    """
    if not (folder / TOKENIZER_FILE).is_file():
        raise UsageError(f"{folder} has no {TOKENIZER_FILE}; use a checkpoint that pi-sim trained.")
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception as error:  # tokenizers raises nothing more specific
        raise UsageError(f"{folder / TOKENIZER_FILE} cannot be read: {error}.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode_documents(tokenizer: Tokenizer, documents: list[Document]) -> list[Tensor]:
    """Return the int64 token ids (T,) of each document, the end-of-text token last."""
    tokenizer.encode_special_tokens = True  # encode "<|endoftext|>" inside a text as plain bytes
    end = _end_token(tokenizer)
    texts = [document.text for document in documents]
    starts = range(0, len(texts), ENCODING_BATCH)
    batches = (tokenizer.encode_batch_fast(texts[i : i + ENCODING_BATCH], add_special_tokens=False) for i in starts)
    return [torch.tensor([*encoding.ids, end]) for batch in batches for encoding in batch]


def _end_token(tokenizer: Tokenizer) -> int:
    """Return the id of the end-of-text token."""
    candidates = (tokenizer.token_to_id(token) for token in END_TOKENS)
    end = next((token_id for token_id in candidates if token_id is not None), None)
    if end is None:
        raise UsageError(
            f"the tokenizer has no token that ends a text, none of {', '.join(END_TOKENS)}; add one to its model."
        )
    return end


def split_chunks(texts: list[Tensor], length: int) -> Tensor:
    """Concatenate the texts (T,) and cut them into full chunks (N, length); an incomplete last chunk is dropped."""
    stream = torch.cat(texts)
    count = len(stream) // length
    return stream[: count * length].view(count, length)
