"""Training corpora, the manifest of the default corpus, which needs no download, and tokenizers.

`packages` is the Python source of the installed sympy and networkx: torch depends on both, their licences (BSD-3) are
permissive, and at pinned versions they are the same bytes everywhere. The manifest `models/corpus/packages.toml` holds
the hashes of those bytes, on which the shipped models were trained. `stdlib` is Python's own library. `hf:NAME`, or
`hf:NAME:COLUMN` for text in a column of another name, is a dataset on Hugging Face's hub, such as
codeparrot/codeparrot-clean-valid, or a folder; its full train split is read and must fit in memory. Anything else is
the path of a text file or of a folder of text files.

A tokenizer is a byte-level BPE trained on the corpus itself: a large vocabulary would hold most parameters of a narrow
model.
"""

import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoTokenizer

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.graph.bundle import VOCABULARY_FILES

INSTALLED_CORPORA = ("packages", "stdlib")
PACKAGES = ("networkx", "sympy")
HELD_OUT_SHARE = 0.05
"""Share of the files that is held out from training."""
PIECE_COUNT = 100
"""Pieces that a single file is cut into, so that some of it can be held out."""
HUB_PREFIX = "hf:"
TEXT_COLUMNS = ("content", "text")
"""Names of the text column: CodeParrot's, and that of nearly every other dataset."""
END_OF_TEXT = "<|endoftext|>"
END_TOKENS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>")
"""End-of-text tokens of the tokenizers of GPT-2, OPT, Llama and others."""
MIN_VOCABULARY = 257
"""Tokens of the smallest vocabulary: every byte, and the end of a text."""
TOKENIZER_FILE = "tokenizer.json"
ENCODING_BATCH = 1000
"""Texts per batch: an encoding takes many times the memory of its ids."""


@dataclass(frozen=True)
class Document:
    """Text of a corpus, with its path relative to the corpus."""

    path: str
    text: str

    @cached_property
    def utf8_bytes(self) -> int:
        """Length in UTF-8 bytes."""
        return len(self.text.encode())

    @property
    def is_held_out(self) -> bool:
        """True if the text is held out from training; the path alone decides, in every version of a corpus."""
        prefix = hashlib.sha256(self.path.encode()).digest()[:4]
        return int.from_bytes(prefix, "big") < HELD_OUT_SHARE * 2**32


@dataclass(frozen=True)
class Corpus:
    """Documents in the order of their paths, without duplicates."""

    name: str
    documents: tuple[Document, ...]

    @property
    def training(self) -> list[Document]:
        return [document for document in self.documents if not document.is_held_out]

    @property
    def held_out(self) -> list[Document]:
        return [document for document in self.documents if document.is_held_out]

    @cached_property
    def sha256(self) -> str:
        """Hash of the listing of all paths and contents (`hash_listing`)."""
        return hash_listing(self.documents)


def hash_listing(documents: Iterable[Document]) -> str:
    """Return the sha256 of a listing with a line "sha256 of the text, path" per document, as sha256sum prints it."""
    lines = (f"{hashlib.sha256(document.text.encode()).hexdigest()}  {document.path}\n" for document in documents)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def absolute_name(name: str) -> str:
    """Return the name with an absolute path where it means a file or folder, valid in any working directory."""
    if not name.startswith(HUB_PREFIX):
        return name if name in INSTALLED_CORPORA else str(Path(name).resolve())
    dataset, column = _split_name(name)
    absolute = str(Path(dataset).resolve()) if Path(dataset).is_dir() else dataset
    return f"{HUB_PREFIX}{absolute}:{column}" if column else f"{HUB_PREFIX}{absolute}"


def load_corpus(name: str) -> Corpus:
    """Return the corpus `packages`, `stdlib`, `hf:NAME` or at the path `name`; both of its splits hold text.

    Raises `UsageError` where it cannot be read or has too few files.
    """
    try:
        corpus = Corpus(name, tuple(_drop_duplicates(_read_documents(name))))
    except OSError as error:
        raise UsageError(f"the corpus {name} cannot be read: {error.strerror}.") from None
    if not corpus.training or not corpus.held_out:
        raise UsageError(
            f"the corpus {name} has {len(corpus.documents)} text files, too few to hold out {HELD_OUT_SHARE:.0%} of "
            "them; give one long file, or a folder of at least about 100."
        )
    return corpus


def _read_documents(name: str) -> Iterator[Document]:
    if name == "packages":
        for package in PACKAGES:
            root = package_folder(package)
            yield from _read_folder(root, root.parent, "*.py")
    elif name == "stdlib":
        root = Path(sysconfig.get_paths()["stdlib"])
        documents = _read_folder(root, root, "*.py")
        yield from (document for document in documents if not document.path.startswith("site-packages/"))
    elif name.startswith(HUB_PREFIX):
        yield from _read_dataset(name)
    elif Path(name).is_dir():
        yield from _read_folder(Path(name), Path(name), "*")
    elif Path(name).is_file():
        yield from _split_file(Path(name))
    else:
        raise UsageError(f"there is no corpus {name}; give packages, stdlib, hf:NAME, or the path of text.")


def package_folder(package: str) -> Path:
    """Return the folder of an installed package's source, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"the corpus packages needs {package}; install it with `pip install {package}`.")
    return Path(spec.submodule_search_locations[0])


def _read_folder(root: Path, relative_to: Path, pattern: str) -> Iterator[Document]:
    """Yield the text files below a folder, sorted by path; hidden files and those that are not UTF-8 are skipped."""
    files = (path for path in root.rglob(pattern) if path.is_file() and not _is_hidden(path.relative_to(root)))
    paths = {path.relative_to(relative_to).as_posix(): path for path in files}
    for name in sorted(paths):
        try:
            yield Document(name, paths[name].read_bytes().decode("utf-8"))
        except UnicodeDecodeError:
            continue
        except OSError as error:
            raise UsageError(f"{paths[name]} cannot be read: {error.strerror}.") from None


def _is_hidden(path: Path) -> bool:
    """Return True for a hidden file and for any file in a hidden folder, such as .git."""
    return any(part.startswith(".") for part in path.parts)


def _split_file(path: Path) -> Iterator[Document]:
    """Yield one long text in pieces of equally many lines."""
    try:
        lines = path.read_bytes().decode("utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    step = -(-len(lines) // PIECE_COUNT)
    for number, start in enumerate(range(0, len(lines), step or 1)):
        yield Document(f"{path.name}#{number:03}", "".join(lines[start : start + step]))


def _read_dataset(name: str) -> Iterator[Document]:
    """Yield the rows of a Hugging Face dataset, in its order; rows without text are skipped."""
    dataset, column = _split_name(name)
    rows = _load_rows(dataset)
    for number, text in enumerate(rows[_text_column(dataset, column, rows.column_names)]):
        if isinstance(text, str):
            yield Document(f"row{number:09}", text)


def _split_name(name: str) -> tuple[str, str]:
    """Return the dataset, and the column or an empty string."""
    dataset, _, column = name.removeprefix(HUB_PREFIX).partition(":")
    return dataset, column


def _load_rows(dataset: str) -> Any:
    """Return the train split, or the first split of a dataset that has none of that name."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise UsageError(
            "corpora from Hugging Face need another package; install it with `pip install 'pi-sim[corpora]'`."
        ) from None
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        splits = datasets.load_dataset(dataset)
    except Exception as error:  # of many types: an unreachable hub, an unknown name, a broken file
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise UsageError(f"the dataset {dataset} cannot be loaded: {reason}; check its name and the network.") from None
    return splits["train"] if "train" in splits else next(iter(splits.values()))


def _text_column(dataset: str, chosen: str, columns: list[str]) -> str:
    for column in (chosen,) if chosen else TEXT_COLUMNS:
        if column in columns:
            return column
    raise UsageError(
        f"the dataset {dataset} has no column {chosen or ' or '.join(TEXT_COLUMNS)}; name one of its own, "
        f"{', '.join(columns)}, such as {HUB_PREFIX}{dataset}:{columns[0]}."
    )


def _drop_duplicates(documents: Iterable[Document]) -> Iterator[Document]:
    """Yield the first of every group of equal texts, so that no held-out text is trained on under another name."""
    texts: set[str] = set()
    for document in documents:
        if document.text and document.text not in texts:
            texts.add(document.text)
            yield document


class PackageManifest(specs.TomlModel):
    version: str
    files: int  # without duplicates
    bytes: int
    sha256: str


class CorpusManifest(specs.TomlModel):
    """Contents of `models/corpus/packages.toml`."""

    name: str
    files: int
    bytes: int
    sha256: str
    packages: dict[str, PackageManifest]


def load_manifest() -> CorpusManifest:
    """Return the manifest that ships with pi-sim."""
    return specs.read_toml(CorpusManifest, specs.data_root() / "models" / "corpus" / "packages.toml")


def build_manifest(corpus: Corpus) -> CorpusManifest:
    """Return the manifest of a corpus on this machine."""
    packages = {}
    for name in PACKAGES:
        documents = [document for document in corpus.documents if document.path.startswith(f"{name}/")]
        packages[name] = PackageManifest(version=metadata.version(name), **_totals(documents))
    return CorpusManifest(name=corpus.name, **_totals(corpus.documents), packages=packages)


def _totals(documents: Sequence[Document]) -> dict[str, Any]:
    size = sum(document.utf8_bytes for document in documents)
    return {"files": len(documents), "bytes": size, "sha256": hash_listing(documents)}


def warn_if_corpus_changed(corpus: Corpus) -> None:
    """Print each difference between the corpus and its manifest on stderr."""
    for sentence in manifest_differences(corpus):
        click.echo(f"pi-sim: {sentence}", err=True)


def manifest_differences(corpus: Corpus) -> list[str]:
    """Return a sentence for each package whose bytes are not the manifest's; none for a corpus without a manifest."""
    manifest = load_manifest()
    if corpus.name != manifest.name or corpus.sha256 == manifest.sha256:
        return []
    pairs = [(name, installed, manifest.packages[name]) for name, installed in build_manifest(corpus).packages.items()]
    return [_describe_difference(*pair) for pair in pairs if pair[1] != pair[2]]


def _describe_difference(name: str, installed: PackageManifest, expected: PackageManifest) -> str:
    label = f"{name} {expected.version} of models/corpus/packages.toml"
    if installed.version != expected.version:
        return f"the corpus has {name} {installed.version}, not {label}: losses will not compare exactly."
    return f"the corpus has other bytes than {label}, a patched or partial installation."


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


def find_vocabulary(folder: Path) -> list[str]:
    """Return the names of a folder's vocabulary files; a `UsageError` without one."""
    if files := [name for name in VOCABULARY_FILES if (folder / name).is_file()]:
        return files
    raise UsageError(f"{folder} has no tokenizer ({', '.join(VOCABULARY_FILES[:3])} ...); save one beside the model.")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a checkpoint, with any truncation and padding of its file switched off.

    Raises `UsageError` where there is none or it cannot be read.
    """
    files = find_vocabulary(folder)
    try:
        if TOKENIZER_FILE in files:
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        else:  # transformers builds one of the family's own files
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except Exception as error:  # neither library raises anything more specific
        raise UsageError(f"{folder / files[0]} cannot be read: {error}.") from None
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
    for token in END_TOKENS:
        if (end := tokenizer.token_to_id(token)) is not None:
            return int(end)
    raise UsageError(
        f"the tokenizer has no token that ends a text, none of {', '.join(END_TOKENS)}; add one to its model."
    )


def split_chunks(texts: list[Tensor], length: int) -> Tensor:
    """Concatenate the texts (T,) and cut them into full chunks (N, length); an incomplete last chunk is dropped."""
    stream = torch.cat(texts)
    return stream[: len(stream) // length * length].view(-1, length)
