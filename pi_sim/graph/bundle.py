"""Bundle: the export of a model as a graph and a file of weight shares for each party.

graph.json             nodes and shapes, what they were made from and for, bounds of values: public; those of a prompt
                       alone, if the graphs of decoding steps stand behind it
export.json            a number that tells this export's shares from those of another: public
constants.safetensors  masks and positions: public
tokenizer.json         and its other files, an image processor's, and record.json, which names the corpus: public
party0.safetensors     the server's weights, or its shares of them
party1.safetensors     the client's shares, where weights are shared: alone, either file is uniformly random

Weights are fixed-point numbers with 16 fractional bits, in the ring of integers modulo 2^64. The server has them in the
clear, or a model's owner shares them additively between both parties: the protocol of the export decides.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from pi_sim.errors import UsageError
from pi_sim.files import new_folder
from pi_sim.graph.ops import Graph, Node, Op
from pi_sim.graph.ranges import ValueRange

BUNDLE_FORMAT = 6
PRECISION = 16
"""Fractional bits of a weight: CrypTen's default."""
LARGEST_WEIGHT = 2.0**46
"""A larger weight does not fit a signed 64-bit word with its fraction."""


@dataclass(frozen=True)
class Deployment:
    """Purpose of an export: whether weights are shared or the server's, and the digest of what rewrote the graph."""

    weights: str = "shared"
    rewriting: str = ""


@dataclass(frozen=True)
class Bundle:
    """Bundle read from disk: the graph, its origin (model, size, seq_len), and bounds of the values it computes.

    `steps` are the graphs of decoding steps behind it, on the same weights.
    """

    folder: Path
    graph: Graph
    origin: dict[str, Any]
    precision: int
    deployment: Deployment
    ranges: list[ValueRange]
    steps: tuple[Graph, ...] = ()

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """All graphs of one sequence, in order."""
        return self.graph, *self.steps

    def party_shares(self, rank: int) -> dict[str, Tensor]:
        """Return one party's shares of the weights, int64, by name: all of it, and zeros, if the server owns them."""
        if self.deployment.weights == "server" and rank == 1:
            return {name: torch.zeros((), dtype=torch.long).expand(shape) for name, shape in self.graph.weights.items()}
        path = self.folder / f"party{rank}.safetensors"
        shares = _load_tensors(path)
        if {name: tuple(share.shape) for name, share in shares.items()} != self.graph.weights:
            raise UsageError(f"{path} does not belong to the graph beside it; export the bundle again.")
        return shares

    def export_number(self) -> str:
        """Return the number of this export, or "" before it was stored. Shares of two exports do not fit together."""
        path = self.folder / "export.json"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def digest(self) -> bytes:
        """Return 32 bytes over the graph and its public constants, equal for all exports of one computation."""
        public = hashlib.sha256()
        for name in ("graph.json", "constants.safetensors"):
            public.update((self.folder / name).read_bytes())
        return public.digest()


SHARED = Deployment()
VOCABULARY_FILES = (
    *("tokenizer.json", "vocab.json", "vocab.txt"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
"""Files of which a tokenizer has one at least."""
TOKENIZER_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json", "merges.txt", "added_tokens.json")
IMAGE_PROCESSOR_FILE = "preprocessor_config.json"
PUBLIC_FILES = ("record.json", *VOCABULARY_FILES, *TOKENIZER_CONFIGS, IMAGE_PROCESSOR_FILE)
"""Files of a checkpoint that a bundle has too: its record, and its tokenizer or image processor."""


def write_bundle(
    folder: Path,
    graph: Graph,
    weights: Mapping[str, Tensor],
    origin: Mapping[str, Any],
    checkpoint: Path,
    deployment: Deployment = SHARED,
    ranges: Sequence[ValueRange] = (),
    steps: Sequence[Graph] = (),
) -> None:
    """Write the bundle, complete or not at all; the folder must not exist or be empty.

    `weights` are shared, unless the deployment leaves them to the server. `checkpoint` is the folder that they were
    loaded from: its tokenizer and record are public and copied.
    """
    with new_folder(folder) as staged:
        _write_public(staged, (graph, *steps), origin, deployment, ranges)
        _write_shares(staged, graph, weights, deployment)
        for name in PUBLIC_FILES:
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, staged / name)


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle. Raises `UsageError` if a file is missing, damaged or of another version."""
    try:
        public = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
        if public["format"] != BUNDLE_FORMAT:
            raise UsageError(f"{folder} was exported by another version of pi-sim; export it again.")
        constants = _load_tensors(folder / "constants.safetensors")
        graphs = [_read_graph(table, index, constants) for index, table in enumerate(public["graphs"])]
        if not graphs[0].nodes or not {"model", "size", "seq_len"} <= set(public["origin"]):
            raise ValueError("its graph.json is incomplete")
        ranges = [ValueRange(**entry) for entry in public["ranges"]]
        deployment = Deployment(**public["deployment"])
        precision, steps = public["precision"], tuple(graphs[1:])
        return Bundle(folder, graphs[0], public["origin"], precision, deployment, ranges, steps)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(f"{folder} is not a bundle of pi-sim export ({error}); export it again.") from None


def _constant_key(graph: int, name: str) -> str:
    return f"{graph}/{name}"


def _graph_table(graph: Graph) -> dict[str, Any]:
    """Return all of a graph but its constants as JSON values."""
    return {
        "input": graph.input,
        "vocabulary": graph.vocabulary,
        "inputs": graph.inputs,
        "cache": graph.cache,
        "weights": graph.weights,
        "nodes": [[node.name, node.op.to_json(), node.inputs, node.module] for node in graph.nodes],
    }


def _read_graph(table: Mapping[str, Any], index: int, constants: Mapping[str, Tensor]) -> Graph:
    """Return the graph of `_graph_table`, the bundle's `index`th, with its constants."""
    nodes = [Node(name, Op.from_json(op), tuple(inputs), module) for name, op, inputs, module in table["nodes"]]
    weights, inputs = ({name: tuple(shape) for name, shape in table[key].items()} for key in ("weights", "inputs"))
    prefix = _constant_key(index, "")
    own = {key.removeprefix(prefix): value for key, value in constants.items() if key.startswith(prefix)}
    return Graph(tuple(table["input"]), table["vocabulary"], weights, own, nodes, inputs, dict(table["cache"]))


def _write_public(
    folder: Path,
    graphs: Sequence[Graph],
    origin: Mapping[str, Any],
    deployment: Deployment,
    ranges: Sequence[ValueRange],
) -> None:
    public = {
        "format": BUNDLE_FORMAT,
        "origin": dict(origin),
        "precision": PRECISION,
        "deployment": asdict(deployment),
        "ranges": [asdict(entry.published()) for entry in ranges],
        "graphs": [_graph_table(graph) for graph in graphs],
    }
    (folder / "graph.json").write_text(json.dumps(public), encoding="utf-8")
    (folder / "export.json").write_text(json.dumps({"number": secrets.token_hex(16)}), encoding="utf-8")
    constants = {
        _constant_key(index, name): value.contiguous()
        for index, graph in enumerate(graphs)
        for name, value in graph.constants.items()
    }
    save_file(constants, folder / "constants.safetensors")


def _write_shares(folder: Path, graph: Graph, weights: Mapping[str, Tensor], deployment: Deployment) -> None:
    for name in graph.weights:
        if not (weights[name].abs() < LARGEST_WEIGHT).all():  # false for NaN too
            raise UsageError(
                f"{name} holds numbers that do not fit fixed-point words (2^46 or more, or NaN); check the checkpoint."
            )
    encoded = {name: to_fixed_point(weights[name]) for name in graph.weights}
    if deployment.weights == "server":
        save_file(encoded, folder / "party0.safetensors")
        return
    pairs = {name: share_tensor(value) for name, value in encoded.items()}
    for rank in (0, 1):
        save_file({name: pair[rank] for name, pair in pairs.items()}, folder / f"party{rank}.safetensors")


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} is missing or damaged ({error}); export the bundle again.") from None


def to_fixed_point(values: Tensor) -> Tensor:
    """Return reals as ring elements, rounded to the nearest multiple of 2^-16."""
    return values.double().mul(2**PRECISION).round().long()


def share_tensor(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return two additive shares of `values`, the first from the system's cryptographic generator."""
    first = torch.frombuffer(bytearray(os.urandom(8 * values.numel())), dtype=torch.long).reshape(values.shape)
    return first, values - first


def one_hot(tokens: Tensor, vocabulary: int) -> Tensor:
    """Return token ids (...) as one-hot vectors (..., V) of ring integers, without a fraction."""
    return functional.one_hot(tokens, vocabulary)
