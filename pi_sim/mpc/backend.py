"""CrypTen, mended: the only module that imports it.

Four mendings. Its ONNX converter uses a part of torch that is gone, so an empty module takes the converter's place.
Its communicator is replaced by ours: `use` puts a Link or a phantom where CrypTen's primitives look for one. And its
random numbers, from a Mersenne Twister that never yields the ring's largest value, are replaced by our streams'. On a
GPU it wraps every share in an object that computes its products; ours are tensors there too, see `primitives.ring`.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import MissingDependencyError, UsageError
from pi_sim.mpc.dealer.correlations import TensorSpec
from pi_sim.mpc.dealer.prg import Prg


def patch_crypten() -> None:
    """Make CrypTen importable, give it our random numbers, and leave tensors on a GPU unwrapped; called once."""
    _stub_module("crypten.nn.onnx_converter")
    from crypten.common import rng, tensor_types, util
    from crypten.mpc import mpc
    from crypten.mpc.primitives import arithmetic, binary

    for module in (rng, arithmetic, binary):
        module.generate_random_ring_element = _random_ring_elements
        module.generate_kbit_random_tensor = _random_bits
    for module in (arithmetic, binary, mpc, tensor_types, util):
        module.CUDALongTensor = _PlainTensor


def _stub_module(name: str) -> None:
    """Install a module that no longer imports as an empty one; every name in it is None."""
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: None  # type: ignore[method-assign]
    sys.modules.setdefault(name, module)


def _random_ring_elements(
    size: Any, ring_size: int = 2**64, generator: Prg | None = None, device: Any = None
) -> Tensor:
    """In the place of CrypTen's random ring elements: uniform over all words of 64 bits."""
    return _random_bits(size, None, generator, device)


def _random_bits(size: Any, bitlength: int | None = None, generator: Prg | None = None, device: Any = None) -> Tensor:
    """In the place of CrypTen's random numbers of a few bits."""
    stream = crypten.generators["local"][device] if generator is None else generator
    (drawn,) = stream.draw(TensorSpec(tuple(size), bitlength), device=device)
    return drawn


class _PlainTensor:
    """In the place of CrypTen's wrapper of what lies on a GPU: the tensor itself."""

    cat, stack = staticmethod(torch.cat), staticmethod(torch.stack)

    def __new__(cls, tensor: Tensor) -> Tensor:  # type: ignore[misc]
        return tensor


try:
    patch_crypten()
    import crypten
    from crypten.common import util
    from crypten.communicator.communicator import Communicator, _logging
    from crypten.communicator.in_process_communicator import InProcessCommunicator
    from crypten.config import cfg
    from crypten.mpc import MPCTensor
    from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor
    from crypten.mpc.primitives import circuit as circuit_module
    from crypten.mpc.provider.provider import TupleProvider
except ImportError as error:
    raise MissingDependencyError(
        f"CrypTen cannot be imported ({error}); install it without its broken dependencies: "
        "pip install omegaconf pyyaml && pip install --no-deps crypten==0.4.1."
    ) from None

__all__ = [
    "CONSTANT_FUNCTIONS",
    "Communicator",
    "MPCTensor",
    "Shared",
    "TupleProvider",
    "arithmetic_tensor",
    "binary_tensor",
    "crypten_context",
    "fixed_point_tensor",
    "log_communication",
    "override_settings",
    "set_zero_prgs",
]

CONSTANT_FUNCTIONS = vars(circuit_module)["__SPK_circuit_constants"], util.chebyshev_series
"""CrypTen's functions that compute constants, and keep them."""
log_communication = _logging
"""CrypTen's decorator for a communicator's methods: it counts rounds and bytes, sent plus received."""


Shared = Any
"""A secret-shared tensor of CrypTen's, usually an `MPCTensor`; CrypTen has no type annotations."""


@contextmanager
def crypten_context(communicator: Any, provider: Any, settings: Mapping[str, Any]) -> Iterator[None]:
    """Run CrypTen over `communicator` with tuples from `provider` and the settings of a protocol's TOML."""
    providers = vars(crypten.mpc)["__SUPPORTED_PROVIDERS"]
    providers[provider.NAME] = provider
    InProcessCommunicator.tls.instance = communicator
    crypten.comm._init(use_threads=True)
    try:
        with override_settings({**settings, "communicator.verbose": True, "mpc.provider": provider.NAME}):
            yield
    finally:
        del InProcessCommunicator.tls.instance, providers[provider.NAME]


def override_settings(settings: Mapping[str, Any]) -> Any:
    """A context in which CrypTen's configuration has other values; an unknown key is a `UsageError`."""
    for key, value in settings.items():
        try:
            known = cfg[key]
        except Exception:  # omegaconf's own, and AttributeError
            raise UsageError(f"CrypTen has no setting {key!r}; see its configs/default.yaml.") from None
        if known is not None and type(value) is not type(known):
            raise UsageError(f"CrypTen's setting {key!r} is a value like {known!r}, not {value!r}.")
    return cfg.temp_override(dict(settings))


def set_zero_prgs(previous_prg: Prg, next_prg: Prg, local_prg: Prg) -> None:
    """From now on CrypTen expands sharings of zero from the two streams that it has in common with the other party.

    Party 0's `following` is party 1's `previous`, and the other way round; `local` is this party's own.
    """
    for name, stream in (("prev", previous_prg), ("next", next_prg), ("local", local_prg)):
        crypten.generators[name] = _for_any_device(stream)


def _for_any_device(stream: Prg) -> Mapping[Any, Prg]:
    """CrypTen looks for a generator by device; ours draws for all of them."""
    return defaultdict(lambda: stream)


def arithmetic_tensor(share: Tensor) -> Any:
    """CrypTen's tensor of plain integers shared as a sum, int64 of any shape."""
    return ArithmeticSharedTensor.from_shares(share, precision=0)


def binary_tensor(share: Tensor) -> Any:
    """CrypTen's tensor of words shared by exclusive or, int64 of any shape."""
    return BinarySharedTensor.from_shares(share, precision=0)


def fixed_point_tensor(share: Tensor, precision: int | None = None) -> Any:
    """An MPCTensor from this party's share, an int64 tensor of any shape; `precision` 0 holds plain integers."""
    return MPCTensor.from_shares(share, precision=precision)
