"""The executor: it runs a Graph with the kernels that a protocol names, for real parties and for the dry run alike.

The dry run runs kernels on shapes without data, by one phantom party, to count rounds, bytes and correlations. The
phantom is party 0 of 2. Its openings return its own shares unchanged, which is harmless because there is no data:
tensors are on the meta device. Each opening is counted, and a `RecordingSource` records each correlation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph.ops import STRUCTURAL, VOCABULARY, Graph, Node, Op, Shape
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.prg import Prg, ShapePrg
from pi_sim.mpc.dealer.sources import Demand, RecordingSource, Source
from pi_sim.mpc.kernels import kernel_for
from pi_sim.mpc.kernels.local import with_share
from pi_sim.mpc.primitives.beaver import open_weight_shares
from pi_sim.mpc.primitives.cached import CachedFactor
from pi_sim.mpc.primitives.ring import WORD_BYTES
from pi_sim.mpc.runtime import Runtime
from pi_sim.specs import ExecutableProtocol


def apply_op(rt: Runtime, op: Op, operands: list[Any], protocol: ExecutableProtocol) -> Any:
    """Return the result of one operation on shared and public operands, by the protocol's kernel."""
    if op.name in STRUCTURAL and any(isinstance(operand, CachedFactor) for operand in operands):
        return _arrange_cached(op, operands)
    kernel = kernel_for(op.name, protocol.kernels, protocol.name)
    return kernel.function(rt, *operands, **kernel.attributes(op))


def _arrange_cached(op: Op, factors: list[CachedFactor]) -> CachedFactor:
    """Return cached factors behind a structural operation, which shares, masks and openings follow alike."""
    reference = VOCABULARY[op.name].reference
    return CachedFactor.combined(factors, lambda tensors: reference(*tensors, **op.semantics))


def fixed_operand(op: Op, protocol: ExecutableProtocol) -> int | None:
    """Return the index of the operand that is opened under a mask once per session, for all calls; None without one."""
    return kernel_for(op.name, protocol.kernels, protocol.name).fixed_index(op)


def is_tied(op: Op, protocol: ExecutableProtocol) -> bool:
    """Return whether a linear map reads the transposed table of an embedding, which the server opens once for both."""
    return bool(op.attribute("tied") and kernel_for(op.name, protocol.kernels, protocol.name).fixed_by)


def open_weights(rt: Runtime, ops: list[Op], weights: list[Any], protocol: ExecutableProtocol) -> list[Any]:
    """Return the handles of weights (shared tensors) that kernels of `ops` read: 1 round for all of them.

    All kernels of a protocol open weights alike.
    """
    shares = [weight.share for weight in weights]
    scheme = kernel_for(ops[0].name, protocol.kernels, protocol.name).fixed_by if ops else None
    return (scheme.open if scheme else open_weight_shares)(rt, shares) if ops else []


def prepare_op(rt: Runtime, op: Op, handle: Any, protocol: ExecutableProtocol) -> Any:
    """Return what a kernel gets in place of its fixed weight: the handle, or all that does not depend on the input."""
    scheme = kernel_for(op.name, protocol.kernels, protocol.name).fixed_by
    return scheme.prepare(rt, op, handle) if scheme else handle


WeightKey = Any
"""A weight's name, or an operation on weights with the keys of its operands: equal in all graphs of a model."""
OpenedWeights = dict[WeightKey, Any]
"""Handles of fixed operands, which serve all graphs of a model."""


def open_graph_weights(
    rt: Runtime, graph: Graph, weights: Mapping[str, Any], protocol: ExecutableProtocol
) -> OpenedWeights:
    """Open all fixed operands, 1 round in all; return their handles.

    `weights` are this party's shares. A tied weight is opened once: its reader gets the transposed handle. Raises
    `UsageError` where a fixed operand is no weight.
    """
    readers = {name: node for node in reversed(graph.nodes) if (name := _fixed_input(node, protocol))}
    nodes = {node.name: node for node in graph.nodes}
    tied = {name for name, node in readers.items() if is_tied(node.op, protocol)}
    names = [name for name in dict.fromkeys(_fixed_input(node, protocol) for node in graph.nodes) if name]
    names = [name for name in names if name not in tied]
    shared = [_resolve_weight(rt, name, nodes, weights, protocol) for name in names]
    ops = [readers[name].op for name in names]
    keys = [_weight_key(name, nodes) for name in names]
    handles = dict(zip(keys, open_weights(rt, ops, shared, protocol), strict=True))
    return handles | {_weight_key(name, nodes): handles[nodes[name].inputs[0]].transposed() for name in tied}


def _weight_key(name: str, nodes: Mapping[str, Node]) -> WeightKey:
    node = nodes.get(name)
    return name if node is None else (node.op, *(_weight_key(operand, nodes) for operand in node.inputs))


def prepare_sequence(
    rt: Runtime, graph: Graph, protocol: ExecutableProtocol, opened_weights: OpenedWeights
) -> dict[str, Any]:
    """Return by node what replaces its fixed weight: all that can be computed and sent before a sequence is there."""
    nodes = {node.name: node for node in graph.nodes}
    fixed = {node.name: name for node in graph.nodes if (name := _fixed_input(node, protocol))}
    return {
        name: prepare_op(rt, nodes[name].op, opened_weights[_weight_key(weight, nodes)], protocol)
        for name, weight in fixed.items()
    }


Cache = dict[str, Any]
"""Keys and values of earlier tokens, by the input of the next step that reads them: factors of products, or shares."""


def append_rows(cached: Any, rows: Any) -> Any:
    """Return cached keys or values with further rows at their end."""
    if isinstance(rows, CachedFactor):
        return cached.append(rows)
    return with_share(rows, torch.cat([cached.share, rows.share], -2))


def execute(
    rt: Runtime,
    graph: Graph,
    values: dict[str, Any],
    protocol: ExecutableProtocol,
    prepared: dict[str, Any],
    cache: Cache,
    on_node: Callable[[Node], None] = lambda node: None,
) -> Any:
    """Return the last node's result.

    `values` holds this party's shares of weights and inputs, and the public constants, by name; `prepared` comes from
    `prepare_sequence` and serves one sequence. The rows of `cache` are inputs too, and new ones are appended to it.
    `on_node` is called after each node. Values are dropped after their last use.
    """
    values = {**values, **{name: cache[name] for name in graph.inputs if name in cache}}
    last = graph.last_uses()
    rows: dict[str, Any] = {}
    for index, node in enumerate(graph.nodes):
        operands = [values[name] for name in node.inputs]
        if node.name in prepared:
            operands[fixed_operand(node.op, protocol) or 0] = prepared.pop(node.name)
        values[node.name] = apply_op(rt, node.op, operands, protocol)
        if node.op.name == "cache":
            rows[node.name] = values[node.name]
        on_node(node)
        for name in set(node.inputs):
            if last[name] == index:
                del values[name]
    for name, source in graph.cache.items():
        cache[name] = append_rows(cache[name], rows[source]) if name in cache else rows[source]
    return values[graph.nodes[-1].name]


def _fixed_input(node: Node, protocol: ExecutableProtocol) -> str | None:
    index = fixed_operand(node.op, protocol)
    return None if index is None else node.inputs[index]


def _resolve_weight(
    rt: Runtime, name: str, nodes: Mapping[str, Node], weights: Mapping[str, Any], protocol: ExecutableProtocol
) -> Any:
    """Return the share of a weight, or of a weight rearranged by structural operations: local."""
    if name in weights:
        return weights[name]
    node = nodes.get(name)
    if node is None or node.op.name not in STRUCTURAL:
        raise UsageError(
            f"protocol {protocol.name} opens {name} once per session, but it is no weight; choose the kernel beaver."
        )
    operands = [_resolve_weight(rt, operand, nodes, weights, protocol) for operand in node.inputs]
    return apply_op(rt, node.op, operands, protocol)


class CountingCommunicator(backend.Communicator):  # type: ignore[misc]
    """Communicator of one party that sends nothing, and counts rounds and the bytes that both parties would send.

    `serial_bytes` are those of the busier direction of every round: a link that sends both ways at once takes as long.
    """

    def __init__(self, rank: int = 0) -> None:
        self.rank = rank
        self.reset()

    def reset(self) -> None:
        """Set all counters to zero."""
        self.rounds = self.serial_bytes = 0
        self.sent = [0, 0]

    def get_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return 2

    def all_reduce(self, shares: Any, op: Any = None, batched: bool = False) -> Any:
        """Count an opening to both parties, one message of all tensors; return the shares unchanged."""
        self.count_message(shares if batched else [shares], senders=(0, 1))
        return shares

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Count an exchange; return the tensor in place of both parties'."""
        self.count_message([tensor], senders=(0, 1))
        return [tensor, tensor]

    def reduce(self, share: Tensor, dst: int, op: Any = None) -> Tensor | None:
        """Count an opening to one party."""
        self.count_message([share], senders=(1 - dst,))
        return share if self.rank == dst else None

    def gather(self, tensors: list[Tensor], dst: int, batched: bool = True) -> list[Tensor] | None:
        """Count a message to one party; return the tensors there."""
        self.count_message(tensors, senders=(1 - dst,))
        return tensors if self.rank == dst else None

    def count_message(self, tensors: list[Tensor], senders: tuple[int, ...]) -> None:
        size = WORD_BYTES * sum(tensor.numel() for tensor in tensors)
        self.rounds += 1
        self.serial_bytes += size
        for sender in senders:
            self.sent[sender] += size


@contextmanager
def dry_runtime(protocol: ExecutableProtocol, source: Source, zeros: Prg) -> Iterator[Runtime]:
    """Context of a dry run of the source's party, with CrypTen's sharings of zero from `zeros`."""
    backend.set_zero_prgs(zeros, zeros, zeros)
    with Runtime.running(CountingCommunicator(source.rank), source, protocol) as rt:
        yield rt


def secret_tensor(shape: Shape, precision: int | None = None) -> Any:
    """Return a shared tensor without data; `precision` as in `backend.fixed_point_tensor`."""
    return backend.fixed_point_tensor(torch.empty(shape, dtype=torch.long, device="meta"), precision)


def run_setup(rt: Runtime, graph: Graph, protocol: ExecutableProtocol) -> OpenedWeights:
    """Open all fixed operands, as a party does once per session."""
    return open_graph_weights(rt, graph, _secret_weights(graph), protocol)


def run_sequence(
    rt: Runtime, graph: Graph, protocol: ExecutableProtocol, prepared: dict[str, Any], cache: Cache
) -> None:
    """Run a graph from end to end, as a party does for each sequence, after tokens whose keys and values are cached."""
    integers = graph.one_hot_inputs()
    values: dict[str, Any] = {name: value.to("meta") for name, value in graph.constants.items()}
    for name, shape in graph.input_shapes.items():
        values[name] = secret_tensor(shape, 0 if name in integers else None)
    execute(rt, graph, _secret_weights(graph) | values, protocol, prepared, cache)


def earlier_rows(rt: Runtime, graph: Graph) -> Cache:
    """Return cached keys and values without data for a decoding step that is run alone; empty for other graphs."""
    nodes = {node.name: node for node in graph.nodes}
    return {
        name: CachedFactor.without_data(rt, graph.inputs[name], fresh=0)
        if nodes[source].op.attribute("masked")
        else secret_tensor(graph.inputs[name])
        for name, source in graph.cache.items()
        if name in graph.inputs
    }


def record_demand(graphs: Sequence[Graph], protocol: ExecutableProtocol, rank: int = 0) -> Demand:
    """Return all correlations that a party requests, once per session and per sequence, from public knowledge alone.

    A sequence evaluates all graphs, a prompt's and those of the decoding steps behind it.
    """
    source = RecordingSource(ShapePrg(), rank)
    with dry_runtime(protocol, source, ShapePrg()) as rt:
        opened_weights = run_setup(rt, graphs[0], protocol)
        session = source.take_items()
        prepared = [prepare_sequence(rt, graph, protocol, opened_weights) for graph in graphs]
        cache = earlier_rows(rt, graphs[0])
        for graph, handles in zip(graphs, prepared, strict=True):
            run_sequence(rt, graph, protocol, handles, cache)
        return Demand(session, source.take_items())


def _secret_weights(graph: Graph) -> dict[str, Any]:
    return {name: secret_tensor(shape) for name, shape in graph.weights.items()}
