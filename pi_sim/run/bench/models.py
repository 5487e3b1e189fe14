"""Whole models between two real processes: one block of GPT-2's size, and shipped models."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim.graph import bundle
from pi_sim.graph.bundle import Bundle
from pi_sim.graph.capture import capture_model
from pi_sim.mpc import launch
from pi_sim.mpc.dealer.dealers import DEALT_FILE, FIRST_PARTY, DealerSpec
from pi_sim.records import BenchSize, ModelTiming
from pi_sim.run import dealing
from pi_sim.run.checks import audit_run, model_logits, summarize_counters
from pi_sim.specs import ExecutableProtocol
from pi_sim.training.evaluation import held_out_tokens
from pi_sim.zoo.build import build_model
from pi_sim.zoo.source import CardModel

BLOCK_NAME = "one GPT-2 block"
BLOCK_CARD, TINY_SIZE = "gelu_ln", "tiny"
BLOCK_VOCABULARY = 256
"""Vocabulary of the block, small so that embedding and head cost little."""
EMBEDDING_STD = 0.5
"""Standard deviation of the block's embeddings, for variances in the domain of all kernels of norms."""
DEALERS = (FIRST_PARTY, DEALT_FILE)


@dataclass(frozen=True)
class BenchModel:
    """A model and its input tokens (N, T)."""

    name: str
    model: PreTrainedModel
    tokens: Tensor


def bench_models(extent: BenchSize) -> Iterator[BenchModel]:
    """Yield the block with random weights and tokens, then shipped models on held-out text."""
    yield BenchModel(BLOCK_NAME, gpt2_block(extent), torch.randint(BLOCK_VOCABULARY, (extent.sequences, extent.tokens)))
    for name in extent.models:
        source = CardModel.parse(name, TINY_SIZE)
        model = source.load()
        length = model.config.max_position_embeddings
        yield BenchModel(name, model, held_out_tokens(source.folder, extent.sequences, length))


def gpt2_block(extent: BenchSize) -> PreTrainedModel:
    """Return a layer of GPT-2 between an embedding and a head, without the norm before the head."""
    block = CardModel.parse(BLOCK_CARD, "gpt2")
    dimensions = {"layers": 1, "heads": extent.heads, "width": extent.width, "context": extent.tokens}
    size = block.size.model_copy(update={**dimensions, "vocabulary": BLOCK_VOCABULARY})
    design = block.card.architecture.model_copy(update={"final_norm": "none"})
    torch.manual_seed(0)
    model = build_model(block.card.model_copy(update={"architecture": design}), size).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight.mul_(EMBEDDING_STD / module.weight.std())
    return model


def measure_model(bench_model: BenchModel, protocols: list[ExecutableProtocol], scratch: Path) -> Iterator[ModelTiming]:
    """Run a model under every protocol with every dealer; a counter that differs from its price is a `RunError`."""
    model, tokens = bench_model.model, bench_model.tokens
    folder = scratch / bench_model.name
    origin = {"model": bench_model.name, "size": TINY_SIZE, "seq_len": tokens.shape[1]}
    bundle.write_bundle(folder, capture_model(model, tokens.shape[1]), model.state_dict(), origin, scratch)
    loaded = bundle.read_bundle(folder)
    plain = model_logits(model, tokens)
    for protocol in protocols:
        for dealer in DEALERS:
            yield _measure_run(loaded, protocol, dealer, tokens, plain)


def _measure_run(
    loaded: Bundle, protocol: ExecutableProtocol, dealer: str, tokens: Tensor, plain: Tensor
) -> ModelTiming:
    """Run all sequences once; the fastest one counts."""
    with tempfile.TemporaryDirectory(dir=loaded.folder) as scratch:
        if dealer == DEALT_FILE:
            dealing.write_dealt_files(
                loaded.folder, protocol, len(tokens), Path(scratch) / DEALT_FILE, lambda fraction: None
            )
        spec = DealerSpec(dealer, path=str(Path(scratch) / DEALT_FILE)) if dealer == DEALT_FILE else DealerSpec(dealer)
        outcome = launch.run_local(loaded, protocol, tokens.unsqueeze(1), dealer=spec)
    audit_run(loaded.graph, protocol, outcome)
    counters, fastest = summarize_counters(outcome), min(outcome.counts[0], key=lambda count: float(count["seconds"]))
    return ModelTiming(
        model=loaded.origin["model"], protocol=protocol.name, dealer=dealer,
        rounds=counters.rounds, bytes=counters.bytes, offline_bytes=counters.offline_bytes or 0,
        session_bytes=counters.session_bytes or 0,
        seconds=fastest["seconds"], communication_seconds=fastest["communication_seconds"],
        difference=float((outcome.logits - plain).abs().max()),
    )  # fmt: skip
