"""Training corpora and the manifest of the default corpus, which needs no download.

`packages` is the Python source of the installed sympy and networkx: torch depends on both, their licences (BSD-3) are
permissive, and at pinned versions they are the same bytes everywhere. The manifest `models/corpus/packages.toml` holds
the hashes of those bytes, on which the shipped models were trained. `stdlib` is Python's own library. `hf:NAME` is a
Hugging Face dataset. Anything else is the path of a text file or of a folder of text files.
"""

import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from itertools import starmap
from pathlib import Path

import click

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.training import hub

INSTALLED_CORPORA = ("packages", "stdlib")
PACKAGES = ("networkx", "sympy")
HELD_OUT_SHARE = 0.05
"""Share of the files that is held out from training."""
PIECE_COUNT = 100
"""Pieces that a single file is cut into, so that some of it can be held out."""


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
    if name.startswith(hub.PREFIX):
        return hub.absolute_name(name)
    return name if name in INSTALLED_CORPORA else str(Path(name).resolve())


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
    elif name.startswith(hub.PREFIX):
        yield from starmap(Document, hub.read_texts(name))
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


def _drop_duplicates(documents: Iterable[Document]) -> Iterator[Document]:
    """Yield the first of every group of equal texts, so that no held-out text is trained on under another name."""
    texts: set[str] = set()
    for document in documents:
        if document.text and document.text not in texts:
            texts.add(document.text)
            yield document


class PackageManifest(specs.TomlModel):
    """Files of one package, without duplicates."""

    version: str
    files: int
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
    return CorpusManifest(
        name=corpus.name,
        files=len(corpus.documents),
        bytes=sum(document.utf8_bytes for document in corpus.documents),
        sha256=corpus.sha256,
        packages={name: _build_package_manifest(name, corpus) for name in PACKAGES},
    )


def _build_package_manifest(name: str, corpus: Corpus) -> PackageManifest:
    documents: list[Document] = [document for document in corpus.documents if document.path.startswith(f"{name}/")]
    return PackageManifest(
        version=metadata.version(name),
        files=len(documents),
        bytes=sum(document.utf8_bytes for document in documents),
        sha256=hash_listing(documents),
    )


def warn_if_corpus_changed(corpus: Corpus) -> None:
    """Print each difference between the corpus and its manifest on stderr."""
    for sentence in manifest_differences(corpus):
        click.echo(f"pi-sim: {sentence}", err=True)


def manifest_differences(corpus: Corpus) -> list[str]:
    """Return a sentence for each package whose bytes are not the manifest's; none for a corpus without a manifest."""
    manifest = load_manifest()
    if corpus.name != manifest.name or corpus.sha256 == manifest.sha256:
        return []
    installed = build_manifest(corpus).packages
    return [
        _describe_difference(name, installed[name], manifest.packages[name])
        for name in PACKAGES
        if installed[name] != manifest.packages[name]
    ]


def _describe_difference(name: str, installed: PackageManifest, expected: PackageManifest) -> str:
    label = f"{name} {expected.version} of models/corpus/packages.toml"
    if installed.version != expected.version:
        return f"the corpus has {name} {installed.version}, not {label}: losses will not compare exactly."
    return f"the corpus has other bytes than {label}, a patched or partial installation."
