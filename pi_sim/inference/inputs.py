"""Inputs of a private run: held-out text, or a user's texts, prompt or image, as tensors by the graph's input names."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerFast

from pi_sim.errors import UsageError
from pi_sim.graph.bundle import IMAGE_PROCESSOR_FILE
from pi_sim.graph.ops import Graph
from pi_sim.records import RECORD_FILE
from pi_sim.training.corpus import TOKENIZER_FILE, find_vocabulary, load_tokenizer
from pi_sim.training.evaluation import check_recorded_corpus, held_out_tokens
from pi_sim.zoo.build import quiet_transformers
from pi_sim.zoo.tasks import Task, mean_weights

TOKENS, MASK, WEIGHTS, PIXELS = "tokens", "inputs.attention_mask", "inputs.pooling_weights", "inputs.pixel_values"
OUTPUT = "inputs.decoder_input_ids"
"""Names of a graph's inputs, see `pi_sim.graph.capture`."""
HIDDEN_SCORE = -200.0
"""Added to the scores of padding: its weight is zero in fixed point, and scores stay in the domain of all kernels."""


@dataclass(frozen=True)
class InputShape:
    """Shape in which a model or a bundle reads inputs, and the folder with its tokenizer or image processor."""

    folder: Path
    task: Task
    vocabulary: int
    context: int
    batch: int = 1
    length: int | None = None
    """Tokens of every input, None for that of the longest."""
    is_bundle: bool = False
    padded: bool = True
    """Whether inputs may be shorter than `length`; a causal model reads them so in any case."""


@dataclass(frozen=True)
class RunInputs:
    """Inputs as the client has them: `count` of them, in N batches of B; a last batch repeats its last one.

    `values` are token ids (N, B, T) or pixels (N, B, channels, height, width) by name, `lengths` (N, B) the tokens of
    each text without its padding, None for images. `names` is what a person calls each input, empty for cut text.
    """

    values: dict[str, Tensor]
    count: int
    lengths: Tensor | None = None
    names: tuple[str, ...] = ()
    output_start: int | None = None
    """Token from which an encoder-decoder model puts out its first one; None for all others."""

    @classmethod
    def of_tokens(cls, ids: Tensor, batch: int = 1) -> "RunInputs":
        """Return texts of one length, token ids (n, T), in batches."""
        return cls.of_texts(list(ids), ids.shape[1], batch)

    @classmethod
    def of_texts(
        cls, texts: list[Tensor], length: int, batch: int = 1, padding: int = 0, names: tuple[str, ...] = ()
    ) -> "RunInputs":
        """Return texts, token ids (t) each, padded on the right to a length, in batches."""
        filled = texts + [texts[-1]] * (-len(texts) % batch)
        ids = torch.stack([functional.pad(text, (0, length - len(text)), value=padding) for text in filled])
        lengths = torch.tensor([len(text) for text in filled]).view(-1, batch)
        return cls({TOKENS: ids.view(-1, batch, length)}, len(texts), lengths, names)

    @property
    def batches(self) -> int:
        """Number of evaluations of the graph."""
        return len(next(iter(self.values.values())))

    @property
    def tokens(self) -> Tensor:
        """Token ids (n, T) of all texts, with their padding."""
        return self.values[TOKENS].flatten(0, 1)[: self.count]

    @property
    def is_token(self) -> Tensor:
        """Places (N, B, T) of tokens, as against padding."""
        if self.lengths is None:
            raise UsageError("an image has no tokens.")
        return torch.arange(self.values[TOKENS].shape[-1]) < self.lengths.unsqueeze(-1)

    @property
    def is_padded(self) -> bool:
        """Whether some text is shorter than the others, or than the length that hides it."""
        return self.lengths is not None and not bool(self.is_token.all())

    @property
    def token_places(self) -> Tensor:
        """Places (n, T) of the tokens of all texts."""
        return self.is_token.flatten(0, 1)[: self.count]

    def shared_values(self, graph: Graph) -> dict[str, Tensor]:
        """Return every input of a graph by name, (N, B, ...); a `UsageError` where a shape does not fit."""
        values = dict(self.values)
        if MASK in graph.inputs:
            values[MASK] = torch.where(self.is_token, 0.0, HIDDEN_SCORE)[:, :, None, None]
        if WEIGHTS in graph.inputs:
            values[WEIGHTS] = mean_weights(self.is_token)
        if self.output_start is not None:
            values[OUTPUT] = torch.full((*values[TOKENS].shape[:2], 1), self.output_start)
        one_hot = graph.one_hot_inputs()
        expected = {name: shape[:-1] if name in one_hot else shape for name, shape in graph.inputs.items()}
        expected |= {TOKENS: graph.input} if graph.input else {}
        for name, shape in expected.items():
            if name not in values or tuple(values[name].shape[1:]) != shape:
                raise UsageError(
                    f"the model reads {name.removeprefix('inputs.')} of the shape {shape}; give such input."
                )
        return {name: values[name] for name in expected}

    def plain_batches(self) -> Iterator[dict[str, Tensor]]:
        """Yield the arguments of transformers' `forward` for every batch."""
        for index in range(self.batches):
            if PIXELS in self.values:
                yield {"pixel_values": self.values[PIXELS][index]}
                continue
            masks = {"attention_mask": self.is_token[index].long()} if self.is_padded else {}
            ids = self.values[TOKENS][index]
            if self.output_start is not None:
                masks["decoder_input_ids"] = torch.full((len(ids), 1), self.output_start)
            yield {"input_ids": ids, **masks}


@dataclass(frozen=True)
class InputChoice:
    """Input that a user chose; without any, held-out text of the model's own corpus.

    A text file is cut into sequences of `length` tokens, or, without a length, has an input in every line. `lines` are
    inputs as such a file has them.
    """

    text: Path | None = None
    prompt: str | None = None
    image: Path | None = None
    length: int | None = None
    hidden_length: int | None = None
    """Tokens to which every input is padded, so that the server learns no more of its length."""
    batch: int = 1
    sequences: int | None = None
    """Inputs to read: of lines all by default, of other text one."""
    lines: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        given = [self.text, self.prompt, self.image, self.lines]
        if sum(value is not None for value in given) > 1:
            raise UsageError("--text, --prompt and --image are different inputs; give one of them.")
        if self.length is not None and self.hidden_length is not None:
            raise UsageError("--seq-len cuts texts, --hide-length pads them; give one of them.")

    @property
    def is_held_out(self) -> bool:
        """Whether the input is held-out text."""
        return self.text is None and self.prompt is None and self.image is None and self.lines is None

    def check(self, folder: Path) -> None:
        """Raise `UsageError` where there is no tokenizer, file or corpus: a quick check before long work."""
        for option, path in (("--text", self.text), ("--image", self.image)):
            if path and not path.is_file():
                raise UsageError(f"there is no file {path}; give {option} another one.")
        if self.image:
            load_image_processor(folder)
        elif not self.is_held_out:
            load_text_tokenizer(folder)
        elif not (folder / RECORD_FILE).is_file():
            raise UsageError(f"{folder} names no held-out text; give --text FILE, --prompt TEXT or --image FILE.")
        else:
            check_recorded_corpus(folder)

    def read(self, shape: InputShape) -> RunInputs:
        """Return the inputs in the shape that a model or a bundle reads."""
        if self.image:
            return RunInputs({PIXELS: _read_image(self.image, shape.folder)[None]}, 1, names=(self.image.name,))
        if self.is_held_out or (self.text and self._is_cut(shape)):
            ids = self._cut_text(shape, shape.length or self.length or shape.context, self.sequences or 1)
            return RunInputs.of_tokens(ids, shape.batch)
        return self._read_lines(shape)

    def _is_cut(self, shape: InputShape) -> bool:
        return self.length is not None or (shape.is_bundle and not shape.padded)

    def _cut_text(self, shape: InputShape, length: int, sequences: int) -> Tensor:
        """Return the first sequences (n, T) of the file, or of held-out text."""
        if length < 2:
            raise UsageError("a perplexity needs sequences of at least 2 tokens; choose a longer --seq-len.")
        if self.text is None:
            return held_out_tokens(shape.folder, sequences, length)
        ids = _encode(load_text_tokenizer(shape.folder), _read_text(self.text), shape, special=False)
        if len(ids) < sequences * length:
            raise UsageError(
                f"{self.text} has {len(ids):,} tokens, too few for {sequences} sequences of {length}; "
                "choose a shorter --seq-len or fewer --sequences."
            )
        return ids[: sequences * length].view(sequences, length)

    def _read_lines(self, shape: InputShape) -> RunInputs:
        """Return the prompt, or every line that is not empty, padded to one length."""
        source = self.text or "the list of texts"
        lines = self._list_lines()[: self.sequences]
        if not lines:
            raise UsageError(f"{source} has no line of text.")
        tokenizer = load_text_tokenizer(shape.folder)
        ids = [_encode(tokenizer, line, shape, special=True) for line in lines]
        longest, shortest = max(map(len, ids)), min(map(len, ids))
        limit = shape.length or self.hidden_length or shape.context
        subject = "the prompt" if self.prompt is not None else f"the longest line of {source}"
        if self.length not in (None, longest):
            raise UsageError(f"{subject} has {longest} tokens, not {self.length}; leave --seq-len out.")
        if not 1 <= shortest <= longest <= min(limit, shape.context):
            raise UsageError(f"{subject} has {longest:,} tokens; give 1 to {min(limit, shape.context):,}.")
        length = shape.length or self.hidden_length or longest
        if shape.task == "output" and shortest < length:
            raise UsageError("an encoder-decoder model reads texts of one length; give one --prompt, or equal lines.")
        if shortest < length and not shape.padded and shape.task != "causal":
            raise UsageError(
                f"{shape.folder} was exported for {length} tokens, {subject} has {longest}; export it with --padded."
            )
        padding = tokenizer.pad_token_id or 0
        return RunInputs.of_texts(ids, length, shape.batch, padding, tuple(lines))

    def _list_lines(self) -> list[str]:
        """Return the prompt, or the lines that are not empty."""
        if self.prompt is not None:
            return [self.prompt]
        lines = _read_text(self.text).splitlines() if self.text else self.lines or ()
        return [line for line in lines if line.strip()]


def load_text_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a checkpoint or a bundle; a `UsageError` where there is none that can be read."""
    if (folder / TOKENIZER_FILE).is_file() and not (folder / "tokenizer_config.json").is_file():
        return PreTrainedTokenizerFast(tokenizer_object=load_tokenizer(folder))
    find_vocabulary(folder)  # without one, transformers would make up an empty tokenizer
    return _load_processor(AutoTokenizer, folder, "a tokenizer")


def load_image_processor(folder: Path) -> Any:
    """Return the image processor of a checkpoint or a bundle; a `UsageError` where there is none that can be read."""
    if not (folder / IMAGE_PROCESSOR_FILE).is_file():
        raise UsageError(f"{folder} has no {IMAGE_PROCESSOR_FILE}, which tells how images are scaled; save one there.")
    return _load_processor(AutoImageProcessor, folder, "an image processor")


def _load_processor(kind: Any, folder: Path, name: str) -> Any:
    try:
        with quiet_transformers():
            return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers has no common exception for files that it cannot read
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{folder} has {name} that cannot be read ({reason}); save it again.") from None


def _encode(tokenizer: Any, text: str, shape: InputShape, special: bool) -> Tensor:
    """Return the ids (t) of a text; a `UsageError` for one beyond the model's vocabulary."""
    with quiet_transformers():
        ids = torch.tensor(tokenizer(text, add_special_tokens=special)["input_ids"], dtype=torch.long)
    if len(ids) and int(ids.max()) >= shape.vocabulary:
        raise UsageError(
            f"{shape.folder} has a tokenizer of more than the model's {shape.vocabulary:,} tokens; use its own."
        )
    return ids


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text in UTF-8 ({error}).") from None


def _read_image(path: Path, folder: Path) -> Tensor:
    """Return an image (1, channels, height, width) as the folder's processor prepares it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pixels: Tensor = load_image_processor(folder)(image.convert("RGB"), return_tensors="pt")["pixel_values"]
            return pixels
    except (OSError, UnidentifiedImageError) as error:
        raise UsageError(f"{path} cannot be read as an image ({error}).") from None
