"""The text that models are trained on: by default files that are already on the machine, so that nothing is downloaded.

`packages` is the Python source of the installed sympy and networkx: torch depends on both, their licences
(BSD-3) are permissive, and at pinned versions they are the same bytes everywhere. `stdlib` is Python's own
library. `hf:NAME` is a Hugging Face dataset. Anything else is the path of a text file or of a folder of them.
"""

# MERGED: The manifest of the default corpus: which bytes the shipped models saw, and whether these are they.

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

INSTALLED_CORPORA = ("packages", "stdlib")  # anything else is a path
PACKAGES = ("networkx", "sympy")
HELD_OUT_SHARE = 0.05  # of the files
PIECE_COUNT = 100  # that a single file is cut into, so that it can be split at all


@dataclass(frozen=True)
class Document:
    """One text, and its path relative to the corpus."""

    path: str
    text: str

    @cached_property
    def utf8_bytes(self) -> int:
        """Bytes of UTF-8."""
        return len(self.text.encode())

    @property
    def is_held_out(self) -> bool:
        """Whether the text is kept from training: the path alone decides, so other versions agree."""
        first = hashlib.sha256(self.path.encode()).digest()[:4]
        return int.from_bytes(first, "big") < HELD_OUT_SHARE * 2**32


@dataclass(frozen=True)
class Corpus:
    """Documents in the order of their paths, none twice."""

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
        """Of the listing of all paths and contents."""
        return hash_listing(self.documents)


def hash_listing(documents: Iterable[Document]) -> str:
    """The sha256 of one line "sha256 of the text, path" for each document, as sha256sum prints them."""
    lines = (f"{hashlib.sha256(each.text.encode()).hexdigest()}  {each.path}\n" for each in documents)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def absolute_name(name: str) -> str:
    """The name as every working folder understands it."""
    if name.startswith(hub.PREFIX):
        return hub.absolute_name(name)
    return name if name in INSTALLED_CORPORA else str(Path(name).resolve())


def load_corpus(name: str) -> Corpus:
    """The corpus `packages`, `stdlib`, `hf:NAME` or at the path `name`; both of its splits hold text."""
    try:
        corpus = Corpus(name, tuple(_drop_duplicates(_read_documents(name))))
    except OSError as error:
        raise UsageError(f"the corpus {name} cannot be read: {error.strerror}.") from None
    if not corpus.training or not corpus.held_out:
        raise UsageError(
            f"the corpus {name} has {len(corpus.documents)} text files, too few to keep {HELD_OUT_SHARE:.0%} of them "
            "from training; give one long file, or a folder of at least about 100."
        )
    return corpus


def _read_documents(name: str) -> Iterator[Document]:
    if name == "packages":
        for package in PACKAGES:
            root = package_folder(package)
            yield from _read_folder(root, root.parent, "*.py")
    elif name == "stdlib":
        root = Path(sysconfig.get_paths()["stdlib"])
        yield from (each for each in _read_folder(root, root, "*.py") if not each.path.startswith("site-packages/"))
    elif name.startswith(hub.PREFIX):
        yield from starmap(Document, hub.read_texts(name))
    elif Path(name).is_dir():
        yield from _read_folder(Path(name), Path(name), "*")
    elif Path(name).is_file():
        yield from _split_file(Path(name))
    else:
        raise UsageError(f"there is no corpus {name}; give packages, stdlib, hf:NAME, or the path of text.")


def package_folder(package: str) -> Path:
    """Where an installed package's source lies; it is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"the corpus packages needs {package}; install it with `pip install {package}`.")
    return Path(spec.submodule_search_locations[0])


def _read_folder(root: Path, relative_to: Path, pattern: str) -> Iterator[Document]:
    """The text files below a folder, sorted by their path; what is hidden or not UTF-8 is not text."""
    found = (path for path in root.rglob(pattern) if path.is_file() and not _is_hidden(path.relative_to(root)))
    named = {path.relative_to(relative_to).as_posix(): path for path in found}
    for name in sorted(named):
        try:
            yield Document(name, named[name].read_bytes().decode("utf-8"))
        except UnicodeDecodeError:
            continue
        except OSError as error:
            raise UsageError(f"{named[name]} cannot be read: {error.strerror}.") from None


def _is_hidden(path: Path) -> bool:
    """Whether the path lies in a folder such as .git, or is a file of that kind."""
    return any(part.startswith(".") for part in path.parts)


def _split_file(path: Path) -> Iterator[Document]:
    """One long text as pieces of as many whole lines each."""
    try:
        lines = path.read_bytes().decode("utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    step = -(-len(lines) // PIECE_COUNT)
    for number, start in enumerate(range(0, len(lines), step or 1)):
        yield Document(f"{path.name}#{number:03}", "".join(lines[start : start + step]))


def _drop_duplicates(documents: Iterable[Document]) -> Iterator[Document]:
    """The first of every group of equal texts, so that no held-out text was trained on under another name."""
    seen: set[str] = set()
    for document in documents:
        if document.text and document.text not in seen:
            seen.add(document.text)
            yield document


class PackageManifest(specs.TomlModel):
    """One package's files, after duplicates are dropped."""

    version: str
    files: int
    bytes: int
    sha256: str


class CorpusManifest(specs.TomlModel):
    """`models/corpus/packages.toml`."""

    name: str
    files: int
    bytes: int
    sha256: str
    packages: dict[str, PackageManifest]


def load_manifest() -> CorpusManifest:
    """The manifest that pi-sim ships."""
    return specs.read_toml(CorpusManifest, specs.data_root() / "models" / "corpus" / "packages.toml")


def build_manifest(corpus: Corpus) -> CorpusManifest:
    """The manifest of the corpus on this machine."""
    return CorpusManifest(
        name=corpus.name,
        files=len(corpus.documents),
        bytes=sum(document.utf8_bytes for document in corpus.documents),
        sha256=corpus.sha256,
        packages={name: _build_package_manifest(name, corpus) for name in PACKAGES},
    )


def _build_package_manifest(name: str, corpus: Corpus) -> PackageManifest:
    own: list[Document] = [each for each in corpus.documents if each.path.startswith(f"{name}/")]
    size = sum(document.utf8_bytes for document in own)
    return PackageManifest(version=metadata.version(name), files=len(own), bytes=size, sha256=hash_listing(own))


def warn_if_corpus_changed(corpus: Corpus) -> None:
    """Say on stderr what is not as committed."""
    for sentence in manifest_differences(corpus):
        click.echo(f"pi-sim: {sentence}", err=True)


def manifest_differences(corpus: Corpus) -> list[str]:
    """A sentence for each package whose bytes are not the manifest's; none for a corpus without a manifest."""
    known = load_manifest()
    if corpus.name != known.name or corpus.sha256 == known.sha256:
        return []
    here = build_manifest(corpus).packages
    return [
        _describe_difference(name, here[name], known.packages[name])
        for name in PACKAGES
        if here[name] != known.packages[name]
    ]


def _describe_difference(name: str, here: PackageManifest, known: PackageManifest) -> str:
    known_as = f"{name} {known.version} of models/corpus/packages.toml"
    if here.version != known.version:
        return f"the corpus has {name} {here.version}, not {known_as}: losses will not compare exactly."
    return f"the corpus has other bytes than {known_as}, a patched or partial installation."
