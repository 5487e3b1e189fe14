"""Corpus, size and command for trainings that take a second."""

import random
from pathlib import Path

import safetensors.torch
import torch
from click.testing import Result

from pi_sim import specs
from pi_sim.training.plan import FromScratch, plan_from_scratch
from tests.helpers.cli import invoke

SIZE = """
name = "small"
title = "for tests"
layers = 1
heads = 2
width = 16
context = 16
vocabulary = 300

[training]
tokens = 1280
batch_size = 8
learning_rate = 1e-3
warmup_ratio = 0.05
weight_decay = 0.1
max_grad_norm = 1.0
init_std = 0.05
embedding_scale = 4.0
logit_scale = 4.0
bf16 = false
"""
STEPS = 10
WORDS = ["alpha", "beta", "gamma", "delta", "\n"]


def write_texts(folder: Path) -> Path:
    """Write 120 short files into the folder."""
    draw = random.Random(0)
    for number in range(120):
        (folder / f"{number}.txt").write_text(f"{number} " + " ".join(draw.choices(WORDS, k=120)))
    return folder


def make_plan(
    size: str, texts: Path, *settings: str, seed: int = 0, card: str = "relu_nonorm", recipe: str | None = None
) -> FromScratch:
    """Return the plan of a training from scratch, with a card and a size by name or path."""
    dimensions = specs.load_size(size)
    return plan_from_scratch(specs.load_model_card(card), dimensions, str(texts), seed, None, settings, recipe)


def train(size: str, texts: Path, out: Path, *more: str) -> Result:
    return invoke("train", "--model", "relu_nonorm", "--size", size, "--corpus", texts, "--out", out, *more)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")
