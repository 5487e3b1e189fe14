"""Trainings of a second: a corpus, a size and the command for them."""

import random
from pathlib import Path

import safetensors.torch
import torch
from click.testing import Result

from pi_sim.training import plan
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


def make_plan(size: str, texts: Path, *settings: str, seed: int = 0) -> plan.Plan:
    return plan.make("relu_nonorm", size, str(texts), seed, None, settings)


def train(size: str, texts: Path, out: Path, *more: str) -> Result:
    return invoke("train", "--model", "relu_nonorm", "--size", size, "--corpus", texts, "--out", out, *more)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")
