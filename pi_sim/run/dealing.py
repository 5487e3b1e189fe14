"""Protocols that can be run, not only priced."""

# MERGED: Correlated randomness ahead of time: what `pi-sim deal` writes, and whether it serves a run.

from collections.abc import Callable
from pathlib import Path

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.graph import bundle
from pi_sim.graph.bundle import PRECISION, Bundle
from pi_sim.mpc import dry_run, kernels
from pi_sim.mpc.dealer import dealt_file
from pi_sim.mpc.dealer.dealers import DEALT_FILE, DealerSpec, RunIdentity
from pi_sim.mpc.dealer.dealt_file import Header


def require_executable_protocol(name: str) -> specs.ExecutableProtocol:
    """A protocol that runs on shares as bundles hold them, by kernels that there are."""
    protocol = specs.load_executable_protocol(name)
    kernels.check_kernel_table(protocol.kernels, protocol.name)
    if protocol.settings.get("encoder.precision_bits", PRECISION) != PRECISION:
        raise UsageError(
            f"protocol {protocol.name} sets encoder.precision_bits; bundles share weights with {PRECISION} bits, so "
            f"remove the setting or set it to {PRECISION}."
        )
    return protocol


def write_dealt_files(
    folder: Path, protocol: str, sequences: int, out: Path, progress: Callable[[float], None]
) -> list[int]:
    """Write what a bundle's graph needs for so many sequences, a file for each party; how many bytes each has."""
    opened, card = bundle.read_bundle(folder), require_executable_protocol(protocol)
    return dealt_file.write_dealing(
        out, dry_run.record_demand(opened.graph, card), RunIdentity.of_run(opened, card), sequences, progress
    )


def check_dealt_files(
    choice: DealerSpec, opened: Bundle, protocol: specs.ExecutableProtocol, sequences: int, offline: int
) -> None:
    """A `UsageError` where files were dealt that do not serve a run, which needs `offline` bytes for a sequence."""
    if choice.kind != DEALT_FILE:
        return
    folder = Path(choice.path)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; give first-party, third-party, or what `pi-sim deal` wrote.")
    server, client = (
        dealt_file.read_usable_header(folder, rank, RunIdentity.of_run(opened, protocol), sequences) for rank in (0, 1)
    )
    if server.number != client.number:
        raise UsageError(f"the files in {folder} are of different dealings; give both that one `pi-sim deal` wrote.")
    _check_kernels(folder, server, offline)


def check_own_dealt_file(choice: DealerSpec, rank: int, terms: RunIdentity, sequences: int, offline: int) -> None:
    """The same of one party's file alone."""
    if choice.kind == DEALT_FILE:
        found = dealt_file.read_usable_header(Path(choice.path), rank, terms, sequences)
        if rank == 0:
            _check_kernels(Path(choice.path), found, offline)


def _check_kernels(path: Path, server: Header, offline: int) -> None:
    if server.payload != server.sequences * offline:
        raise UsageError(f"{path} was dealt for other kernels than this pi-sim has; deal anew.")
