"""Private generation: a prompt, then a decoding step for every further token, which the client alone chooses.

Keys and values stay shared between the steps, or masked: a step opens its own rows. The number of tokens is public; the
server learns neither the prompt nor what follows.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim.cost.cost import Cost
from pi_sim.cost.estimate import cost_fields
from pi_sim.errors import UsageError
from pi_sim.errors import warn as default_warn
from pi_sim.graph import reference
from pi_sim.graph.bundle import Bundle, read_bundle, write_bundle
from pi_sim.graph.capture import capture_generation, forward_kwargs
from pi_sim.graph.folding import Rewriting, fold_weights
from pi_sim.graph.ops import Graph
from pi_sim.inference import dealing
from pi_sim.inference.checks import audit_run, compare_logits
from pi_sim.inference.domains import Evaluation, NodeRanges, find_halvings, join_ranges, measure_ranges, warn_of_domains
from pi_sim.inference.inputs import TOKENS, InputChoice, InputShape, RunInputs, load_text_tokenizer
from pi_sim.inference.two_party import (
    TwoPartyRequest,
    estimate_bundle,
    measure_outcome,
    read_bundle_inputs,
    sample_inputs,
    save_results,
)
from pi_sim.mpc import launch
from pi_sim.mpc.launch import PartyCounters
from pi_sim.mpc.party import Counters, require_device
from pi_sim.mpc.rewriting import NormHalvings, rewrite_graph
from pi_sim.mpc.runtime import SERVER
from pi_sim.mpc.sampling import Sampler, Sampling
from pi_sim.records import Decoded, Generation, RunRecord
from pi_sim.specs import ExecutableProtocol
from pi_sim.zoo.source import ModelSource
from pi_sim.zoo.tasks import task_of

HELD_OUT_PROMPT = 32
"""Tokens of held-out text that stand in for a prompt."""


@dataclass(frozen=True)
class GenerationChoice:
    """Number of tokens to generate, and how the client chooses each."""

    tokens: int
    sampling: Sampling = field(default_factory=Sampling)


OnText = Callable[[str], None]
"""Called with the text of every further token."""


def run_generation(
    request: TwoPartyRequest,
    choice: GenerationChoice,
    warn: Callable[[str], None],
    progress: Callable[[float], None],
    on_text: OnText = lambda text: None,
) -> RunRecord:
    """Continue a prompt between two local processes; return the prediction, the measurement and the quality.

    A bundle tells the lengths of the prompt and of what follows. Raises `RunError` if measured rounds or bytes of the
    prompt or of a step differ from the predicted ones.
    """
    require_device(request.device)
    dealing.check_executable(request.protocol)
    with _prepare_run(request, choice, warn) as (bundle, inputs, plain):
        estimate = estimate_bundle(bundle, request.protocol, request.networks, request.dealer)
        dealing.check_dealt_files(request.dealer, bundle, request.protocol, 1, estimate.total.offline)
        stream = TokenStream(load_text_tokenizer(bundle.folder), on_text)
        outcome = launch.run_local(
            bundle,
            request.protocol,
            inputs.shared_values(bundle.graph),
            port=request.port,
            timeout=request.timeout,
            network=request.network,
            dealer=request.dealer,
            device=request.device,
            progress=progress,
            sampling=choice.sampling,
            on_token=stream.write,
        )
    audit_run(bundle.graphs, request.protocol, outcome)
    logits, prompt = outcome.logits[:, -1], inputs.values[TOKENS][0]
    generation = describe_generation(stream, prompt, outcome, logits, choice.sampling, plain.tokens if plain else None)
    if request.out:
        save_results(request.out, logits)
    return RunRecord(
        **estimate.to_json(),
        sequences=1,
        network=request.network.name if request.network else "none",
        dealer=request.dealer.kind,
        device=request.device,
        measured=measure_outcome(request, join_counters(outcome), estimate, warn),
        agreement=compare_logits(reread(plain.model, prompt, generation), logits) if plain else None,
        generation=generation,
    )


@dataclass(frozen=True)
class PlainContinuation:
    """Model in the clear, and the tokens with which it continues the prompt."""

    model: PreTrainedModel
    tokens: list[int]


@contextmanager
def _prepare_run(
    request: TwoPartyRequest, choice: GenerationChoice, warn: Callable[[str], None]
) -> Iterator[tuple[Bundle, RunInputs, PlainContinuation | None]]:
    """Yield the bundle of a request, or one captured for this run alone, the prompt, and the model's continuation."""
    if request.bundle:
        bundle = read_bundle(request.bundle)
        check_steps(bundle, choice.tokens)
        dealing.check_deployment(bundle, request.protocol)
        warn_of_domains(bundle.ranges, request.protocol, warn)
        request.input.check(bundle.folder)
        inputs = read_bundle_inputs(request.input, bundle)
        check_prompt(bundle, inputs)
        yield bundle, inputs, None
        return
    if request.model is None:
        raise UsageError("nothing to run: give --model or --bundle.")
    request.input.check(request.model.folder)
    model = request.model.load()
    inputs = _read_prompt(request.input, request.model, model, choice.tokens)
    prompt = inputs.values[TOKENS][0]
    plain = PlainContinuation(model, continue_plainly(model, prompt, choice))
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch:
        folder = Path(scratch) / "bundle"
        yield write_generation(folder, request.model, plain, prompt, request.protocol, warn), inputs, plain


def check_steps(bundle: Bundle, tokens: int) -> None:
    """Raise `UsageError` if a bundle was not exported for the generation of so many tokens."""
    if not bundle.steps:
        raise UsageError(f"{bundle.folder} generates nothing; export it with --generate, or leave --generate out.")
    if len(bundle.graphs) != tokens:
        raise UsageError(f"{bundle.folder} was exported for {len(bundle.graphs)} tokens; give --generate as many.")


def check_prompt(bundle: Bundle, inputs: RunInputs) -> None:
    """Raise `UsageError` unless a bundle that generates gets one prompt of its length."""
    if inputs.count != 1:
        raise UsageError(f"{bundle.folder} continues one prompt, not {inputs.count}; give --prompt TEXT alone.")
    if inputs.is_padded:
        length = int(inputs.token_places.sum())
        raise UsageError(
            f"{bundle.folder} continues prompts of {bundle.origin['seq_len']} tokens, this one has {length}; export it "
            f"again with --seq-len {length}."
        )


def export_generation(
    source: ModelSource,
    length: int,
    tokens: int,
    out: Path,
    protocol: ExecutableProtocol,
    warn: Callable[[str], None] = default_warn,
) -> Bundle:
    """Capture a trained model and write its bundle for prompts of a length and a number of tokens behind them.

    Its bounds are those of values on held-out text, see `export_bundle`.
    """
    dealing.check_executable(protocol)
    model = source.load()
    prompt = sample_inputs(source, model, length, 1, False, warn).values[TOKENS][0]
    plain = PlainContinuation(model, continue_plainly(model, prompt, GenerationChoice(tokens)))
    return write_generation(out, source, plain, prompt, protocol, warn)


def describe_generation(
    stream: "TokenStream",
    prompt: Tensor,
    counters: PartyCounters,
    logits: Tensor,
    sampling: Sampling,
    plain_tokens: list[int] | None = None,
    rank: int = SERVER,
) -> Generation:
    """Return the record of a continuation: the tokens that the client chose by logits (N, V), and every step's cost."""
    tokens = list(map(Sampler(sampling).choose, logits))
    stream.write(tokens[-1])  # no step reads it
    return Generation(
        prompt=stream.decode(prompt[0].tolist()),
        prompt_tokens=prompt.shape[1],
        text=stream.decode(tokens),
        plain_text=None if plain_tokens is None else stream.decode(plain_tokens),
        agreement=None if plain_tokens is None else _common_prefix(tokens, plain_tokens),
        **sampling.model_dump(),
        **describe_steps(counters, tokens, prompt.shape[1], rank),
    )


class TokenStream:
    """Text of a continuation as its tokens come: a character of several tokens waits for the last of them."""

    def __init__(self, tokenizer: Any, on_text: OnText = lambda text: None) -> None:
        self.tokenizer, self.on_text = tokenizer, on_text
        self.tokens: list[int] = []
        self.written = ""

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens, without special ones."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def write(self, token: int) -> None:
        """Pass on the text that a further token completes."""
        self.tokens.append(token)
        text = self.decode(self.tokens)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self.on_text(text.removeprefix(self.written))
            self.written = text


def _read_prompt(choice: InputChoice, source: ModelSource, model: PreTrainedModel, tokens: int) -> RunInputs:
    """Return the prompt, or the start of held-out text; a `UsageError` if what follows does not fit the context."""
    task = task_of(model)
    if task != "causal":
        raise UsageError(f"{source.name} predicts no next token; leave --generate out.")
    if choice.batch != 1 or choice.hidden_length or choice.text or choice.image or (choice.sequences or 1) > 1:
        raise UsageError("--generate continues one prompt; give --prompt TEXT alone, or --seq-len for held-out text.")
    room = source.context - tokens + 1
    if room < 1:
        raise UsageError(f"the model's context is {source.context:,} tokens; choose a smaller --generate.")
    if choice.is_held_out:
        choice = replace(choice, length=choice.length or min(HELD_OUT_PROMPT, max(2, room)))
    inputs = choice.read(InputShape(source.folder, task, model.config.vocab_size, source.context))
    if (length := inputs.values[TOKENS].shape[-1]) > room:
        raise UsageError(
            f"a prompt of {length:,} tokens and {tokens:,} more exceed the model's context of {source.context:,}; "
            "choose a smaller --generate or a shorter prompt."
        )
    return inputs


@torch.no_grad()
def continue_plainly(model: PreTrainedModel, prompt: Tensor, choice: GenerationChoice) -> list[int]:
    """Return the tokens that the plain model gives after a prompt (1, T), chosen as the client does."""
    sampler, ids, cache = Sampler(choice.sampling), prompt, None
    tokens: list[int] = []
    for _ in range(choice.tokens):
        output = model(ids, past_key_values=cache, use_cache=True, return_dict=True)
        cache = output.past_key_values
        tokens.append(sampler.choose(output.logits[0, -1]))
        ids = torch.tensor([tokens[-1:]])
    return tokens


@torch.no_grad()
def reread(model: PreTrainedModel, prompt: Tensor, generation: Generation) -> Tensor:
    """Return the plain logits (N, V) by which each token would be chosen, all read at once without a cache."""
    tokens = [step.token for step in (generation.prefill, *generation.steps)]
    ids = torch.cat([prompt, torch.tensor([tokens[:-1]], dtype=torch.long)], 1)
    logits: Tensor = model(ids, **forward_kwargs(model)).logits[0, prompt.shape[1] - 1 :]
    return logits


def _common_prefix(tokens: list[int], others: list[int]) -> int:
    """Return how many first tokens two continuations have in common."""
    pairs = zip(tokens, others, strict=True)
    return next((index for index, (token, other) in enumerate(pairs) if token != other), len(tokens))


def write_generation(
    folder: Path,
    source: ModelSource,
    plain: PlainContinuation,
    prompt: Tensor,
    protocol: ExecutableProtocol,
    warn: Callable[[str], None],
) -> Bundle:
    """Write the bundle of a prompt and of the steps behind it, with the ranges of values on the plain continuation."""
    model, length = plain.model, prompt.shape[1]
    captured = capture_generation(model, length, len(plain.tokens))
    rewritten = rewrite_generation(captured, protocol)
    graphs, weights = [item.graph for item in rewritten], fold_weights(rewritten[0].folds, model.state_dict())
    ids = [prompt, *(torch.tensor([[token]]) for token in plain.tokens[:-1])]
    ranges = _measure_graphs(graphs, weights, ids)
    if halvings := find_halvings(graphs, ranges, protocol):
        graphs = [item.graph for item in rewrite_generation(captured, protocol, halvings)]
        ranges = _measure_graphs(graphs, weights, ids)
    joined = join_ranges(*ranges)
    warn_of_domains(joined, protocol, warn)
    origin = {"model": source.name, "size": source.label, "seq_len": length, "batch": 1, "padded": False}
    origin |= {"task": "causal", "labels": [], "output_start": None}
    deployment = dealing.deployment_of(protocol)
    write_bundle(folder, graphs[0], weights, origin, source.folder, deployment, joined, graphs[1:])
    return read_bundle(folder)


def rewrite_generation(
    graphs: Sequence[Graph], protocol: ExecutableProtocol, halvings: NormHalvings = MappingProxyType({})
) -> list[Rewriting]:
    """Return all graphs as a protocol runs them; a `UsageError` if they do not follow from the same weights."""
    rewritten = [rewrite_graph(graph, protocol, halvings) for graph in graphs]
    if any(_weight_origins(rewriting) != _weight_origins(rewritten[0]) for rewriting in rewritten):
        raise UsageError(
            "the model reads weights or its cache otherwise in a step than in its prompt; it cannot generate."
        )
    return rewritten


def _weight_origins(rewriting: Rewriting) -> tuple[Any, ...]:
    """Return what all graphs of a model share: weights, how each follows from the model's own, and masked rows."""
    graph, nodes = rewriting.graph, {node.name: node for node in rewriting.graph.nodes}
    folds = {fold.name: (fold.sources, getattr(fold.function, "__qualname__", "")) for fold in rewriting.folds}
    masked = {name: nodes[source].op.attribute("masked") for name, source in graph.cache.items()}
    return graph.weights, folds, masked


def _measure_graphs(graphs: Sequence[Graph], weights: Mapping[str, Tensor], ids: Sequence[Tensor]) -> list[NodeRanges]:
    """Return the ranges of every graph, of the prompt and of the steps, given the token ids (1, T) that each reads."""
    cache: dict[str, Tensor] = {}
    return [measure_ranges(_evaluate_step(graph, weights, ids, cache)) for graph, ids in zip(graphs, ids, strict=True)]


def _evaluate_step(
    graph: Graph, weights: Mapping[str, Tensor], ids: Tensor, cache: dict[str, Tensor]
) -> Iterator[Evaluation]:
    """Yield the evaluations of one graph, which reads cached keys and values and appends its own."""
    rows: dict[str, Tensor] = {}
    cached = {name: cache[name] for name in graph.inputs}
    for node, operands, value in reference.evaluate(graph, weights, ids, cached):
        if node.op.name == "cache":
            rows[node.name] = value
        yield node, operands, value
    for name, source in graph.cache.items():
        cache[name] = torch.cat([cache[name], rows[source]], -2) if name in cache else rows[source]


CountersT = TypeVar("CountersT", bound=PartyCounters)
SECONDS = ("seconds", "communication_seconds", "late_seconds", "peer_wait_seconds")
SUMS = ("rounds", "sent", "received", "offline", "requested", "crypten_rounds", "crypten_bytes")


def join_counters(counters: CountersT) -> CountersT:
    """Return the counters with all graphs of a generation added up to one sequence."""
    return replace(counters, counts=[[_sum_counters(sequences)] for sequences in counters.counts])


def _sum_counters(sequences: Sequence[Counters]) -> Counters:
    totals = {name: sum(entry[name] for entry in sequences) for name in (*SUMS, *SECONDS) if name in sequences[0]}
    ahead = {name: sum(entry["ahead"][name] for entry in sequences) for name in (*SUMS, "seconds")}
    return {**totals, "ahead": ahead}


def describe_steps(counters: PartyCounters, tokens: list[int], prompt_tokens: int, rank: int) -> dict[str, Any]:
    """Return the record's fields of the prompt and of every step, with the seconds of one party."""
    decoded = [
        _describe_graph(pair, token, prompt_tokens + index - 1 if index else 0, rank)
        for index, (*pair, token) in enumerate(zip(*counters.counts, tokens, strict=True))
    ]
    seconds = math.fsum(step.seconds for step in decoded[1:])
    rate = (len(decoded) - 1) / seconds if seconds else None
    return {"prefill": decoded[0], "steps": tuple(decoded[1:]), "tokens_per_second": rate}


def _describe_graph(pair: Sequence[Counters], token: int, past: int, rank: int) -> Decoded:
    server, client = pair
    cost = Cost(
        rounds=server["rounds"],
        sent=(server["sent"], client["sent"]),
        offline=server["offline"],
        ahead=(server["ahead"]["sent"], client["ahead"]["sent"]),
    )
    return Decoded(
        **{name: value for name, value in cost_fields(cost).items() if name in Decoded.model_fields},
        token=token,
        past=past,
        seconds=pair[rank]["seconds"],
        communication_seconds=pair[rank]["communication_seconds"],
        ahead_seconds=max(counters["ahead"]["seconds"] for counters in pair),
    )
