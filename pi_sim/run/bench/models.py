"""Whole models between two real processes: one block of GPT-2's size, and models that ship."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.graph import bundle
from pi_sim.graph.bundle import Bundle
from pi_sim.graph.capture import capture
from pi_sim.mpc import pair
from pi_sim.mpc.dealer.kinds import FILE, FIRST
from pi_sim.records import BenchSize, ModelTiming
from pi_sim.run import deal
from pi_sim.run.audit import check, measured
from pi_sim.run.quality import plain_logits
from pi_sim.training.held_out import held_out_tokens
from pi_sim.zoo.build import build, checkpoint_folder, load_model

BLOCK = "one GPT-2 block"
CARD, SIZE = "gelu_ln", "tiny"
VOCABULARY = 256
"""Of the block alone, so that embedding and head weigh little."""
EMBEDDED = 0.5
"""Standard deviation of the block's embeddings: its norms see variances that all kernels are right for."""
DEALERS = (FIRST, FILE)


@dataclass(frozen=True)
class Subject:
    """A model and the tokens (N, T) that it is asked about."""

    name: str
    model: PreTrainedModel
    tokens: Tensor


def subjects(extent: BenchSize) -> Iterator[Subject]:
    """The block with random weights and tokens, then shipped models on held-out text."""
    yield Subject(BLOCK, block(extent), torch.randint(VOCABULARY, (extent.sequences, extent.tokens)))
    for name in extent.models:
        model, folder = load_model(name, SIZE), checkpoint_folder(name, SIZE)
        length = model.config.max_position_embeddings
        yield Subject(name, model, held_out_tokens(folder, extent.sequences, length))


def block(extent: BenchSize) -> PreTrainedModel:
    """A layer of GPT-2 between an embedding and a head, without the norm before the head."""
    card, size = specs.model_card(CARD), specs.size("gpt2")
    dimensions = {"layers": 1, "heads": extent.heads, "width": extent.width, "context": extent.tokens}
    size = size.model_copy(update={**dimensions, "vocabulary": VOCABULARY})
    design = card.architecture.model_copy(update={"final_norm": "none"})
    torch.manual_seed(0)
    model = build(card.model_copy(update={"architecture": design}), size).eval()
    with torch.no_grad():
        for each in model.modules():
            if isinstance(each, torch.nn.Embedding):
                each.weight.mul_(EMBEDDED / each.weight.std())
    return model


def measure(subject: Subject, protocols: list[str], scratch: Path) -> Iterator[ModelTiming]:
    """A run under every protocol with every dealer, each audited; a `RunError` where one costs what it should not."""
    model, tokens = subject.model, subject.tokens
    folder = scratch / subject.name
    origin = {"model": subject.name, "size": SIZE, "seq_len": tokens.shape[1]}
    bundle.write(folder, capture(model, tokens.shape[1]), model.state_dict(), origin, scratch)
    opened = bundle.read(folder)
    plain = plain_logits(model, tokens)
    for protocol in protocols:
        for dealer in DEALERS:
            yield _run(opened, protocol, dealer, tokens, plain)


def _run(opened: Bundle, protocol: str, dealer: str, tokens: Tensor, plain: Tensor) -> ModelTiming:
    """One run; of its sequences the quickest counts."""
    card, path = specs.protocol_card(protocol), specs.find("protocols", protocol)
    with tempfile.TemporaryDirectory(dir=opened.folder) as scratch:
        if dealer == FILE:
            deal.deal(opened.folder, protocol, len(tokens), Path(scratch) / FILE, lambda fraction: None)
        place = str(Path(scratch) / FILE) if dealer == FILE else dealer
        outcome = pair.run(opened.folder, path, tokens.unsqueeze(1), opened.graph.vocabulary, dealer=place)
    check(opened.graph, card, outcome)
    counted, quickest = measured(outcome), min(outcome.counts[0], key=lambda each: float(each["seconds"]))
    return ModelTiming(
        model=opened.origin["model"], protocol=card.name, dealer=dealer,
        rounds=counted.rounds, bytes=counted.bytes, offline_bytes=counted.offline_bytes or 0,
        session_bytes=counted.session_bytes or 0,
        seconds=quickest["seconds"], communication_seconds=quickest["communication_seconds"],
        difference=float((outcome.logits - plain).abs().max()),
    )  # fmt: skip
