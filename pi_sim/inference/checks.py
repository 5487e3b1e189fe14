"""Checks of a private run: counters against predictions, and logits against plain ones.

The audit compares predicted rounds and bytes with CrypTen's counters and with the bytes on the sockets.
"""

import math
from collections.abc import Sequence
from statistics import mean

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from pi_sim.cost.cost import Cost
from pi_sim.cost.estimate import cost_fields
from pi_sim.cost.pricing import OpPrice, price_op
from pi_sim.diagnosis.hooks import finite_or_none
from pi_sim.errors import RunError, UsageError
from pi_sim.graph.capture import forward_kwargs
from pi_sim.graph.ops import Graph
from pi_sim.inference.inputs import RunInputs
from pi_sim.mpc.launch import PartyCounters
from pi_sim.mpc.party import CPU, Counters
from pi_sim.network import Network
from pi_sim.records import Agreement, Measured, Perplexity, PerplexityPair, RunRecord
from pi_sim.specs import ExecutableProtocol
from pi_sim.zoo.tasks import Task, find_task, mean_weights, pool, pooling_of


def audit_run(graphs: Sequence[Graph], protocol: ExecutableProtocol, counters: PartyCounters) -> None:
    """Raise a `RunError` if a sequence did not cost what was predicted, or if two counters disagree.

    Every sequence evaluates all graphs, which are counted one by one.
    """
    prices = [[price_op(node.op, protocol) for node in graph.nodes] for graph in graphs]
    _audit_session(prices[0], *counters.session)
    for index, (server, client) in enumerate(zip(*counters.counts, strict=True)):
        number = index % len(graphs)
        _audit_counters(server, client)
        _audit_nodes(graphs[number], [price.cost for price in prices[number]], server, client)


def _audit_session(prices: list[OpPrice], server: Counters, client: Counters) -> None:
    """Check the opening of fixed weights under their masks, once in a session and all in one round."""
    _audit_counters(server, client)
    predicted = sum((price.cost for price in prices), Cost()).session
    measured = server["sent"], client["sent"]
    if (server["rounds"], measured) != (int(max(predicted) > 0), predicted):
        raise RunError(f"opening the weights took {measured} bytes, predicted were {predicted}.")


def _audit_counters(server: Counters, client: Counters) -> None:
    """Check each party's link against CrypTen's counter, of sent and received bytes together, and the other link."""
    for rank, own, peer in ((0, server, client), (1, client, server)):
        both_ways = own["sent"] + own["received"]
        if (own["crypten_rounds"], own["crypten_bytes"]) != (own["rounds"], both_ways):
            crypten = f"{own['crypten_rounds']} rounds and {own['crypten_bytes']} bytes both ways"
            raise RunError(f"party {rank}: CrypTen counted {crypten}, the link {own['rounds']} and {both_ways}.")
        if own["sent"] != peer["received"]:
            raise RunError(f"party {rank} sent {own['sent']} bytes, and {peer['received']} arrived.")


def _audit_nodes(graph: Graph, costs: list[Cost], server: Counters, client: Counters) -> None:
    """Check the counters after every node, whose first difference the error names, and the bytes from the dealer."""
    predicted = Cost()
    _audit_ahead(sum(costs, Cost()), server["ahead"], client["ahead"])
    for node, cost, *points in zip(graph.nodes, costs, server["nodes"], client["nodes"], strict=True):
        predicted += cost
        rounds, sent = {point[0] for point in points}, tuple(point[1] for point in points)
        if (rounds, sent) != ({predicted.rounds}, predicted.sent):
            raise RunError(
                f"prediction and run differ at {node.op} in {node.module}: predicted {predicted.rounds} rounds and "
                f"{predicted.sent} bytes up to there, measured {' or '.join(map(str, sorted(rounds)))} and {sent}."
            )
    for rank, counters in enumerate((server, client)):
        requested, received = counters["requested"], counters["offline"]
        if {requested, received} != {predicted.offline}:
            offline = f"{predicted.offline} offline bytes"
            raise RunError(f"predicted {offline}; party {rank} requested {requested}, received {received}.")


def _audit_ahead(predicted: Cost, server: Counters, client: Counters) -> None:
    """Check what was sent before the input was there."""
    _audit_counters(server, client)
    measured = server["sent"], client["sent"]
    if measured != predicted.ahead:
        raise RunError(f"{measured} bytes were sent ahead of the input, predicted were {predicted.ahead}.")


def summarize_counters(
    counters: PartyCounters,
    network: Network | None = None,
    rank: int = 0,
    predicted: Cost | None = None,
    predicted_computing: float | None = None,
) -> Measured:
    """Return the counters of one sequence, one party's mean seconds of a sequence, and the seconds of the set-up.

    Seconds lie on the critical path: all that is not communication is computing, of which `peer_wait_seconds` waited
    for the other party's. With an imitated network, the seconds are included that it takes for the predicted cost;
    `predicted_computing` stands beside what was measured.
    """
    (server, client), sequences = counters.counts, counters.counts[rank]
    seconds, communication, late, peer_wait = (
        sum(sequence[key] for sequence in sequences) / len(sequences)
        for key in ("seconds", "communication_seconds", "late_seconds", "peer_wait_seconds")
    )
    ahead = mean(
        max(pair[0]["ahead"]["seconds"], pair[1]["ahead"]["seconds"]) for pair in zip(server, client, strict=True)
    )
    cost = Cost(
        rounds=server[0]["rounds"],
        sent=(server[0]["sent"], client[0]["sent"]),
        offline=server[0]["offline"],
        ahead=(server[0]["ahead"]["sent"], client[0]["ahead"]["sent"]),
        session=(counters.session[0]["sent"], counters.session[1]["sent"]),
    )
    ratio: dict[str, float] = {}
    if network is not None and predicted is not None:
        expected = network.seconds(predicted.rounds, predicted.serial)
        ratio = {"predicted_communication_seconds": expected, "communication_ratio": communication / expected}
    if predicted_computing:
        computing = seconds - communication
        ratio |= {"predicted_compute_seconds": predicted_computing, "compute_ratio": computing / predicted_computing}
    return Measured.model_validate(
        {
            **cost_fields(cost),
            "seconds": seconds,
            "communication_seconds": communication,
            "late_seconds": late,
            "compute_seconds": seconds - communication,
            "peer_wait_seconds": peer_wait,
            "setup_seconds": counters.seconds - len(sequences) * (seconds + ahead),
            "ahead_seconds": ahead,
            "link": counters.link,
            **ratio,
        }
    )


def require_right_result(record: RunRecord) -> None:
    """Raise a `RunError` with every reason why a private result is wrong."""
    if record.faults:
        reasons = "; ".join(record.faults)
        raise RunError(
            f"the private result is wrong: {reasons}. Choose another --protocol (protocols/README.md names the risks "
            "of stock kernels), or accept it with --allow-inexact."
        )


CORRUPTED = 1000.0
"""Error of a logit that makes its position corrupted: approximations err by fractions, a failed truncation by 2^32."""


def plain_results(model: PreTrainedModel, inputs: RunInputs, device: str = CPU) -> Tensor:
    """Return the plain logits (n, ..., C) of inputs, or the vectors (n, d) of an encoder, on the CPU.

    Raises `UsageError` if they hold NaN or infinities, with which nothing can be compared.
    """
    model.to(device)
    batches = [
        _plain_batch(model, {name: value.to(device) for name, value in batch.items()})
        for batch in inputs.plain_batches()
    ]
    results = torch.cat(batches)[: inputs.count].cpu()
    places = inputs.token_places if results.dim() > 2 and inputs.is_padded and inputs.output_start is None else ...
    if not results[places].isfinite().all():
        raise UsageError("the model's own results for this input are NaN or infinite; check its weights before a run.")
    return results


@torch.no_grad()
def _plain_batch(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    output = model(**batch, **forward_kwargs(model))
    if find_task(model) != "vectors":
        logits: Tensor = output.logits
        return logits
    mask = batch.get("attention_mask")
    weights = None if mask is None else mean_weights(mask)
    return pool(output.last_hidden_state, pooling_of(model), weights)


def compare_results(
    expected: Tensor | None, private: Tensor, inputs: RunInputs, task: Task, predicts_text: bool = True
) -> tuple[Perplexity | None, Agreement | None]:
    """Return perplexities of texts, and the agreement of private logits (n, ..., C) or vectors (n, d) with plain ones.

    A position is corrupted if the error of a logit is larger than approximation explains; if there are any, both
    perplexities without them are returned too. Padding does not count. Without `expected` there is no agreement.
    Vectors have no top-1, and only causal logits have a perplexity, if `predicts_text`.
    """
    tokens = inputs.tokens if predicts_text and task == "causal" else None
    counted = torch.ones(private.shape[:-1], dtype=torch.bool)
    if private.dim() > 2 and task != "output":
        counted = inputs.token_places
    targets = counted if tokens is None else counted.roll(-1, 1)  # the last token predicts none
    overall = perplexity(private, tokens, targets) if tokens is not None else None
    if expected is None:
        return None if tokens is None else Perplexity(private=overall), None
    agreement = compare_logits(expected[counted], private[counted])
    if task == "vectors":
        agreement = agreement.model_copy(update={"top1": None})
    if tokens is None:
        return None, agreement
    clean = None
    if agreement.corrupted_positions:
        intact = targets & ((private - expected).abs().amax(-1) <= CORRUPTED)
        plain, rest = (perplexity(logits, tokens, intact) for logits in (expected, private))
        clean = PerplexityPair(plain=plain, private=rest)
    plain = perplexity(expected, tokens, targets)
    return Perplexity(plain=plain, private=overall, excluding_corrupted=clean), agreement


def compare_logits(expected: Tensor, private: Tensor) -> Agreement:
    """Return the agreement of private logits (n, C) with plain ones."""
    difference = (private - expected).abs()
    return Agreement(
        max_abs=finite_or_none(difference.max().item()),
        mean_abs=finite_or_none(difference.mean().item()),
        top1=(private.argmax(-1) == expected.argmax(-1)).double().mean().item(),
        corrupted_positions=int((difference.amax(-1) > CORRUPTED).sum()),
    )


def perplexity(logits: Tensor, tokens: Tensor, selection: Tensor | None = None) -> float | None:
    """Return exp of the mean negative log-likelihood of tokens (N, T) given logits (N, T, V).

    `selection` (N, T) is True at positions whose prediction of the next token counts. None if there is no such
    position, or if the perplexity is too large for a float.
    """
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), tokens[:, 1:].flatten(), reduction="none")
    if selection is not None:
        losses = losses[selection[:, :-1].flatten()]
    loss = losses.mean().item()
    return math.exp(loss) if loss < 700 else None
