"""The manifest of the default corpus: which bytes the shipped models saw, and whether these are they."""

from importlib import metadata

import click

from pi_sim import specs
from pi_sim.training.corpus import PACKAGES, Corpus, Document, hash_listing


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
        _describe_difference(name, here[name], known.packages[name]) for name in PACKAGES if here[name] != known.packages[name]
    ]


def _describe_difference(name: str, here: PackageManifest, known: PackageManifest) -> str:
    known_as = f"{name} {known.version} of models/corpus/packages.toml"
    if here.version != known.version:
        return f"the corpus has {name} {here.version}, not {known_as}: losses will not compare exactly."
    return f"the corpus has other bytes than {known_as}, a patched or partial installation."
