"""The corpus, its split and its manifest, and the tokenizer that is trained on it."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pi_sim.errors import UsageError
from pi_sim.training import corpus
from pi_sim.training.corpus import Corpus, Document
from tests.helpers.small_training import make_plan


def test_the_split_depends_on_the_path_alone_and_is_complete(texts: Path) -> None:
    text = corpus.load_corpus(str(texts))
    training, held_out = ({document.path for document in part} for part in (text.training, text.held_out))
    assert not training & held_out
    assert len(training | held_out) == 120
    assert text.sha256 == corpus.load_corpus(str(texts)).sha256
    assert Document("a.py", "one").is_held_out == Document("a.py", "two").is_held_out


def test_duplicate_texts_count_once(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}.txt").write_text(str(number // 2))
    assert len(corpus.load_corpus(str(tmp_path)).documents) == 100


def test_one_long_file_can_be_split(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("\n".join(map(str, range(1000))))
    text = corpus.load_corpus(str(tmp_path / "long.txt"))
    assert text.held_out
    assert "".join(document.text for document in text.documents) == (tmp_path / "long.txt").read_text()


def test_hidden_files_are_skipped(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts, tmp_path / ".git")
    shutil.copytree(texts, tmp_path / ".corpus")
    assert len(corpus.load_corpus(str(tmp_path / ".corpus")).documents) == 120
    with pytest.raises(UsageError, match="has 0 text files"):
        corpus.load_corpus(str(tmp_path))


def test_a_relative_corpus_becomes_absolute(size: str, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(texts.parent)
    assert make_plan(size, Path(texts.name)).corpus == str(texts)


@pytest.mark.parametrize("name", ["/no/such/corpus", "empty", "x" * 300])
def test_a_corpus_without_text_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"corpus"):
        corpus.load_corpus(name)


def test_the_default_corpus_is_the_committed_one() -> None:
    assert corpus.manifest_differences(corpus.load_corpus("packages")) == []


@pytest.mark.parametrize(("version", "complaint"), [("0.1", "not sympy 0.1"), (None, "other bytes than sympy")])
def test_a_different_corpus_is_reported_by_package(
    version: str | None, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = corpus.load_manifest()
    sympy = manifest.packages["sympy"]
    changed = sympy.model_copy(update={"sha256": "0", "version": version or sympy.version})
    altered = manifest.model_copy(update={"sha256": "0", "packages": {**manifest.packages, "sympy": changed}})
    monkeypatch.setattr(corpus, "load_manifest", lambda: altered)
    monkeypatch.setattr(corpus, "build_manifest", lambda corpus: manifest)
    (sentence,) = corpus.manifest_differences(Corpus("packages", ()))
    assert complaint in sentence


# Hugging Face datasets


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset in a folder: 200 rows with text in two columns, and one row without text."""
    pytest.importorskip("datasets", reason="needs `pip install 'pi-sim[corpora]'`")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"repo": f"owner/{number}", "content": f"def f():\n    return {number}\n"} for number in range(200)]
    rows.append({"repo": "owner/none", "content": None})
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_dataset_is_a_corpus(dataset: Path) -> None:
    text = corpus.load_corpus(f"hf:{dataset}")
    assert len(text.documents) == 200
    assert text.documents[7] == Document("row000000007", "def f():\n    return 7\n")
    assert corpus.load_corpus(f"hf:{dataset}:repo").documents[7].text == "owner/7"
    assert text.sha256 == corpus.load_corpus(f"hf:{dataset}").sha256 != corpus.load_corpus(f"hf:{dataset}:repo").sha256


def test_a_dataset_s_other_column_must_be_named(dataset: Path) -> None:
    with pytest.raises(UsageError, match="has no column body; name one of its own, repo, content"):
        corpus.load_corpus(f"hf:{dataset}:body")


def test_a_dataset_that_cannot_be_loaded_is_one_sentence(dataset: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere cannot be loaded: .*; check its name and the network\.$"):
        corpus.load_corpus(f"hf:{dataset / 'nowhere'}")


def test_a_dataset_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'pi-sim\[corpora\]'"):
        corpus.load_corpus("hf:codeparrot/codeparrot-clean-valid")


@pytest.mark.parametrize("splits", [["test", "train"], ["validation", "test"]])
def test_the_split_for_training_is_read(splits: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses a stand-in for the package, which may not be installed."""

    class Rows(dict[str, list[str]]):
        column_names = ("text",)

    dataset = {split: Rows(text=[f"{split} {number}" for number in range(100)]) for split in splits}
    log = SimpleNamespace(set_verbosity_error=lambda: None)
    package = SimpleNamespace(load_dataset=lambda name: dataset, disable_progress_bars=lambda: None, logging=log)
    monkeypatch.setitem(sys.modules, "datasets", package)
    chosen = "train" if "train" in splits else splits[0]
    assert corpus.load_corpus("hf:some/name").documents[3] == Document("row000000003", f"{chosen} 3")


def test_a_relative_dataset_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert corpus.absolute_name("hf:mine:body") == f"hf:{tmp_path / 'mine'}:body"
    assert corpus.absolute_name("hf:codeparrot/mine") == "hf:codeparrot/mine"


# The tokenizer


def test_the_tokenizer_restores_every_byte(texts: Path) -> None:
    documents = corpus.load_corpus(str(texts)).training
    encoder = corpus.train_tokenizer(documents, 300)
    hard = Document("hard", "tab\t é 😀 <|endoftext|> \r\n")
    (ids,) = corpus.encode_documents(encoder, [hard])
    assert encoder.decode(ids[:-1].tolist()) == hard.text
    assert (ids == 0).nonzero().tolist() == [[len(ids) - 1]]


def test_a_tokenizer_of_other_files_than_tokenizer_json_is_built(tmp_path: Path) -> None:
    """The vocabulary of BERT as its checkpoints have it: one word a line."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lazy", "dog", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    assert corpus.load_tokenizer(tmp_path).encode("lazy dogs", add_special_tokens=False).ids == [5, 6, 7]


def test_texts_are_encoded_in_batches(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = corpus.load_corpus(str(texts)).training[:7]
    encoder = corpus.train_tokenizer(documents, 300)
    expected = corpus.encode_documents(encoder, documents)
    monkeypatch.setattr(corpus, "ENCODING_BATCH", 3)
    encoded = corpus.encode_documents(encoder, documents)
    assert [ids.tolist() for ids in encoded] == [ids.tolist() for ids in expected]


def test_chunks_are_full_and_in_order() -> None:
    chunks = corpus.split_chunks([torch.arange(5), torch.arange(5, 11)], 4)
    assert chunks.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
