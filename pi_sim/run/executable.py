"""Protocols that can be run, not only priced."""

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.graph.sharing import PRECISION
from pi_sim.mpc import kernels


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
