"""Fine-tuning: training goes on from a checkpoint that pi-sim trained or converted, or that is anybody's.

The weights, the dimensions and the tokenizer are the checkpoint's; the recipe is that of a size. Its two scales are
folded already and stay so.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from pi_sim import records, specs
from pi_sim.errors import UsageError
from pi_sim.training import corpus, tokenizer
from pi_sim.training.checkpoints import RECORD
from pi_sim.training.corpus import Corpus
from pi_sim.training.plan import Plan, choose, listed, override
from pi_sim.zoo import build

GIVEN = ("init_std", "embedding_scale", "logit_scale", "embedding_dropout")  # with the checkpoint
SETTABLE = tuple(key for key in specs.Recipe.model_fields if key not in GIVEN)
DIMENSIONS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "width": "hidden_size",
    "context": "max_position_embeddings",
    "vocabulary": "vocab_size",
}
"""What transformers calls them, in every family."""
HISTORY = ("kind", "surgery", "before", "after", "held_out", "from")
"""What the checkpoint's record tells of what became of the model before."""


@dataclass(frozen=True)
class Source:
    """A checkpoint's folder."""

    folder: Path

    @cached_property
    def config(self) -> Any:
        return build.read_config(self.folder)

    @cached_property
    def record(self) -> records.Record:
        """What pi-sim recorded beside it; empty beside a checkpoint from elsewhere."""
        path = self.folder / RECORD
        return records.load(path) if path.is_file() else {}

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def dimensions(self) -> dict[str, Any]:
        return {ours: getattr(self.config, theirs, None) for ours, theirs in DIMENSIONS.items()}

    @property
    def history(self) -> dict[str, Any]:
        return {"model": self.name, **{key: self.record[key] for key in HISTORY if key in self.record}}


@dataclass(frozen=True)
class FineTuning(Plan):
    """A checkpoint's model, with its tokenizer."""

    source: Source

    @property
    def name(self) -> str:
        return f"{self.source.name}-finetuned"

    def model(self) -> PreTrainedModel:
        return build.load(self.source.folder)

    def tokenizer(self, text: Corpus) -> Tokenizer:
        known, most = tokenizer.load(self.source.folder), self.size.vocabulary
        if known.get_vocab_size() > most:
            raise UsageError(
                f"the tokenizer in {self.source.folder} has {known.get_vocab_size():,} tokens, and its model knows "
                f"{most:,}; put the tokenizer that the model was trained with there."
            )
        return known

    def record(self) -> dict[str, Any]:
        known, surgery = self.source.record, getattr(self.source.config, "pi_sim", {})
        design = {"card": known.get("card", self.source.name), "architecture": known.get("architecture", surgery)}
        return {**design, **super().record(), "from": self.source.history}


def make(
    folder: Path, size: str | None, corpus_name: str | None, seed: int, tokens: int | None, settings: tuple[str, ...]
) -> FineTuning:
    """The plan of `pi-sim train --from`: what is not named is as the checkpoint's record tells."""
    source, chosen = Source(folder), choose(settings, tokens, SETTABLE)
    text = corpus_name or source.record.get("corpus", {}).get("name")
    if not text:
        raise UsageError(f"{folder} does not tell what it was trained on; name a corpus, such as --corpus packages.")
    known = specs.size(size or _size_of(source))
    dropout = getattr(source.config, "embd_pdrop", 0.0)
    folded = {"embedding_scale": None, "logit_scale": None, "embedding_dropout": dropout}
    recipe = override(known.training, {**folded, **chosen}).model_dump()
    whole = {"name": known.name, "title": known.title, **source.dimensions, "training": recipe}
    return FineTuning(
        source=source,
        size=specs.check(specs.Size, whole, f"{folder}/config.json"),
        corpus=corpus.absolute(text),
        seed=seed,
        overrides=listed(chosen),
    )


def _size_of(source: Source) -> str:
    """The size that the checkpoint's record names, whose recipe is then meant."""
    name = source.record.get("size")
    if name not in specs.names("models/sizes"):
        told = f"names the size {name}, which is not known here" if name else "does not tell its size"
        raise UsageError(f"{source.folder} {told}; name one whose recipe to use, such as --size tiny.")
    return str(name)
