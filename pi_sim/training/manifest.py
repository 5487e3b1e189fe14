"""The manifest of the default corpus: which bytes the shipped models saw, and whether these are they."""

from importlib import metadata

import click

from pi_sim import specs
from pi_sim.training.corpus import PACKAGES, Corpus, Document, listing_hash


class Package(specs.Spec):
    """One package's files, after duplicates are dropped."""

    version: str
    files: int
    bytes: int
    sha256: str


class Manifest(specs.Spec):
    """`models/corpus/packages.toml`."""

    name: str
    files: int
    bytes: int
    sha256: str
    packages: dict[str, Package]


def committed() -> Manifest:
    """The manifest that pi-sim ships."""
    return specs.read(Manifest, specs.facts() / "models" / "corpus" / "packages.toml")


def describe(corpus: Corpus) -> Manifest:
    """The manifest of the corpus on this machine."""
    return Manifest(
        name=corpus.name,
        files=len(corpus.documents),
        bytes=sum(document.utf8_bytes for document in corpus.documents),
        sha256=corpus.sha256,
        packages={name: _package(name, corpus) for name in PACKAGES},
    )


def _package(name: str, corpus: Corpus) -> Package:
    own: list[Document] = [each for each in corpus.documents if each.path.startswith(f"{name}/")]
    size = sum(document.utf8_bytes for document in own)
    return Package(version=metadata.version(name), files=len(own), bytes=size, sha256=listing_hash(own))


def tell_differences(corpus: Corpus) -> None:
    """Say on stderr what is not as committed."""
    for sentence in differences(corpus):
        click.echo(f"pi-sim: {sentence}", err=True)


def differences(corpus: Corpus) -> list[str]:
    """A sentence for each package whose bytes are not the manifest's; none for a corpus without a manifest."""
    known = committed()
    if corpus.name != known.name or corpus.sha256 == known.sha256:
        return []
    here = describe(corpus).packages
    return [
        _difference(name, here[name], known.packages[name]) for name in PACKAGES if here[name] != known.packages[name]
    ]


def _difference(name: str, here: Package, known: Package) -> str:
    known_as = f"{name} {known.version} of models/corpus/packages.toml"
    if here.version != known.version:
        return f"the corpus has {name} {here.version}, not {known_as}: losses will not compare exactly."
    return f"the corpus has other bytes than {known_as}, a patched or partial installation."
