"""Correlated randomness dealt ahead of time: the files of `pi-sim deal`, and checks that they serve a run."""

from collections.abc import Callable
from pathlib import Path

from pi_sim.errors import UsageError
from pi_sim.graph.bundle import PRECISION, Bundle, Deployment, read_bundle
from pi_sim.mpc import executor, kernels
from pi_sim.mpc.dealer import dealt_file
from pi_sim.mpc.dealer.dealers import DEALT_FILE, DealerSpec, RunIdentity
from pi_sim.mpc.dealer.dealt_file import Header
from pi_sim.specs import ExecutableProtocol


def check_executable(protocol: ExecutableProtocol) -> None:
    """Raise a `UsageError` if a kernel does not exist, or if weights or precision are not what kernels expect."""
    kernels.check_kernel_table(protocol.kernels, protocol.name)
    owned = [op for op, name in protocol.kernels.items() if kernels.KERNELS[op, name].fixed_by]
    if owned and protocol.weights != "server":
        raise UsageError(
            f"protocol {protocol.name} shares the weights, but its kernel for {owned[0]} is for a server that has them "
            'in the clear; add weights = "server", or choose another kernel.'
        )
    fixed = [key for key in protocol.kernels.items() if kernels.KERNELS[key].fixed_operand is not None]
    schemes = [kernels.KERNELS[key].fixed_by for key in fixed]
    if len({scheme and scheme.open for scheme in schemes}) > 1:
        names = " and ".join(f'{op} = "{name}"' for op, name in fixed)
        raise UsageError(
            f"protocol {protocol.name} opens weights in two ways ({names}); choose kernels of one family, see "
            "protocols/README.md."
        )
    if owned and protocol.kernels.get("reveal") != "rounded":
        raise UsageError(
            f"protocol {protocol.name} computes logits of 32 bits with weights of the server; add reveal = "
            '"rounded" to its [kernels].'
        )
    if protocol.settings.get("encoder.precision_bits", PRECISION) != PRECISION:
        raise UsageError(
            f"protocol {protocol.name} sets encoder.precision_bits; bundles share weights with {PRECISION} bits, so "
            f"remove the setting or set it to {PRECISION}."
        )


def deployment_of(protocol: ExecutableProtocol) -> Deployment:
    """Return the purpose of an export for a protocol."""
    return Deployment(protocol.weights, protocol.rewriting_digest)


def check_deployment(bundle: Bundle, protocol: ExecutableProtocol) -> None:
    """Raise a `UsageError` if a bundle was exported for a protocol that shares or rewrites otherwise."""
    if bundle.deployment != deployment_of(protocol):
        raise UsageError(
            f"{bundle.folder} was exported for another kind of protocol; export it again with --protocol "
            f"{protocol.origin or protocol.name}."
        )


def write_dealt_files(
    folder: Path, protocol: ExecutableProtocol, sequences: int, out: Path, progress: Callable[[float], None]
) -> list[int]:
    """Write the randomness of a bundle's graph for a number of sequences, a file for each party; return their bytes."""
    check_executable(protocol)
    bundle = read_bundle(folder)
    check_deployment(bundle, protocol)
    demand, identity = executor.record_demand(bundle.graphs, protocol), RunIdentity.of_run(bundle, protocol)
    return dealt_file.write_dealing(out, demand, identity, sequences, progress)


def deal_ahead(folder: Path, protocol: ExecutableProtocol, kind: str, sequences: int, out: Path) -> DealerSpec:
    """Return a dealer of a kind for a run of a bundle's graph; dealt files are written to `out` first."""
    if kind != DEALT_FILE:
        return DealerSpec(kind)
    write_dealt_files(folder, protocol, sequences, out, lambda fraction: None)
    return DealerSpec(kind, path=str(out))


def check_dealt_files(
    dealer: DealerSpec, bundle: Bundle, protocol: ExecutableProtocol, sequences: int, offline: int
) -> None:
    """Raise a `UsageError` if dealt files do not serve a run, which needs `offline` bytes for each sequence."""
    if dealer.kind != DEALT_FILE:
        return
    folder = Path(dealer.path)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; give first-party, third-party, or what `pi-sim deal` wrote.")
    identity = RunIdentity.of_run(bundle, protocol)
    server, client = (dealt_file.read_usable_header(folder, rank, identity, sequences) for rank in (0, 1))
    if server.number != client.number:
        raise UsageError(f"the files in {folder} are of different dealings; give both that one `pi-sim deal` wrote.")
    _check_kernels(folder, server, offline)


def check_own_dealt_file(dealer: DealerSpec, rank: int, identity: RunIdentity, sequences: int, offline: int) -> None:
    """Raise a `UsageError` if the dealt file of one party does not serve a run."""
    if dealer.kind == DEALT_FILE:
        header = dealt_file.read_usable_header(Path(dealer.path), rank, identity, sequences)
        if rank == 0:
            _check_kernels(Path(dealer.path), header, offline)


def _check_kernels(path: Path, server: Header, offline: int) -> None:
    if server.payload != server.sequences * offline:
        raise UsageError(f"{path} was dealt for other kernels than this pi-sim has; deal again.")
