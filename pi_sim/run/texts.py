"""Texts of a private run: held-out text of the model's own corpus, or a user's file or prompt, as token ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pi_sim.errors import UsageError
from pi_sim.graph.bundle import VOCABULARY_FILES
from pi_sim.training.corpus import TOKENIZER_FILE, load_tokenizer
from pi_sim.training.evaluation import check_recorded_corpus, held_out_tokens
from pi_sim.zoo.build import quiet_transformers


@dataclass(frozen=True)
class TextChoice:
    """Text that a run reads: a file, a prompt, or, without either, held-out text of the model's own corpus."""

    file: Path | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        if self.file and self.prompt is not None:
            raise UsageError("--text and --prompt are two inputs; give one of them.")

    def check(self, folder: Path) -> None:
        """Raise `UsageError` where there is no tokenizer, file or corpus: a quick check before long work."""
        if self.file is None and self.prompt is None:
            check_recorded_corpus(folder)
            return
        load_text_tokenizer(folder)
        if self.file and not self.file.is_file():
            raise UsageError(f"there is no file {self.file}; give --text a file of text in UTF-8.")

    def token_ids(self, folder: Path, vocabulary: int, length: int | None, context: int, sequences: int) -> Tensor:
        """Return token ids (N, T): of a prompt all, in its own length; of a text the first sequences of a length.

        `folder` has the tokenizer; the length is the model's context by default.
        """
        if self.prompt is not None:
            return self._prompt_ids(folder, vocabulary, length, context)
        if self.file is None:
            return held_out_tokens(folder, sequences, length or context)
        ids = _encode(load_text_tokenizer(folder), _read_text(self.file), vocabulary, folder, special=False)
        size = sequences * (length or context)
        if len(ids) < size:
            raise UsageError(
                f"{self.file} has {len(ids):,} tokens, too few for {sequences} sequences of {length or context}; "
                "choose a shorter --seq-len or fewer --sequences."
            )
        return ids[:size].view(sequences, -1)

    def _prompt_ids(self, folder: Path, vocabulary: int, length: int | None, context: int) -> Tensor:
        ids = _encode(load_text_tokenizer(folder), self.prompt or "", vocabulary, folder, special=True)
        if length not in (None, len(ids)):
            raise UsageError(f"the prompt has {len(ids)} tokens, not {length}; leave --seq-len out.")
        if not 1 <= len(ids) <= context:
            raise UsageError(f"the prompt has {len(ids):,} tokens; give 1 to {context:,}, the model's context.")
        return ids.view(1, -1)


def load_text_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a checkpoint or a bundle; a `UsageError` where there is none that can be read."""
    if (folder / TOKENIZER_FILE).is_file() and not (folder / "tokenizer_config.json").is_file():
        return PreTrainedTokenizerFast(tokenizer_object=load_tokenizer(folder))
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):  # transformers would make up an empty one
        raise UsageError(
            f"{folder} has no tokenizer ({', '.join(VOCABULARY_FILES[:3])} ...); save one beside the model."
        )
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers has no common exception for a tokenizer that it cannot read
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{folder} has a tokenizer that cannot be read ({reason}); save it again.") from None


def _encode(tokenizer: Any, text: str, vocabulary: int, folder: Path, special: bool) -> Tensor:
    """Return the ids (n) of a text; a `UsageError` for one beyond the model's vocabulary."""
    with quiet_transformers():
        ids = torch.tensor(tokenizer(text, add_special_tokens=special)["input_ids"], dtype=torch.long)
    if len(ids) and int(ids.max()) >= vocabulary:
        raise UsageError(f"{folder} has a tokenizer of more than the model's {vocabulary:,} tokens; use its own.")
    return ids


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text in UTF-8 ({error}).") from None
