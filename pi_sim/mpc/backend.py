"""CrypTen, patched, and its provider of tuples: the only module that imports CrypTen.

`patch_crypten` changes three things. The ONNX converter uses a part of torch that is gone, so an empty module replaces
it. Random numbers, from a Mersenne Twister that never yields the ring's largest value, come from our PRGs. On a GPU,
CrypTen wraps every share in an object that computes its products; ours stay tensors, see `primitives.ring`.

The communicator is replaced while a context lasts: `crypten_context` installs a `Link`, or the dry run's, where
CrypTen's primitives look for one.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pi_sim.errors import MissingDependencyError, UsageError
from pi_sim.mpc.dealer.correlations import TensorSpec, and_triple, beaver_triple, random_bit, square_pair
from pi_sim.mpc.dealer.prg import Prg
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.primitives.ring import WORD_BYTES


def patch_crypten() -> None:
    """Make CrypTen importable, and replace its random numbers and its wrapper of GPU tensors; called once at import."""
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
    """Install an empty module in place of one that no longer imports; every name in it is None."""
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: None  # type: ignore[method-assign]
    sys.modules.setdefault(name, module)


def _random_ring_elements(
    size: Any, ring_size: int = 2**64, generator: Prg | None = None, device: Any = None
) -> Tensor:
    """Return uniformly random 64-bit words; replaces CrypTen's function of that name."""
    return _random_bits(size, None, generator, device)


def _random_bits(size: Any, bitlength: int | None = None, generator: Prg | None = None, device: Any = None) -> Tensor:
    """Return uniformly random words of `bitlength` bits, 64 without it; replaces CrypTen's function of that name."""
    prg = crypten.generators["local"][device] if generator is None else generator
    (words,) = prg.draw(TensorSpec(tuple(size), bitlength), device=device)
    return words


class _PlainTensor:
    """Return the tensor itself; replaces CrypTen's wrapper of tensors on a GPU."""

    cat, stack = staticmethod(torch.cat), staticmethod(torch.stack)

    def __new__(cls, tensor: Tensor) -> Tensor:  # type: ignore[misc]
        return tensor


try:
    patch_crypten()
    import crypten
    from crypten.common import util
    from crypten.communicator import communicator as communicator_module
    from crypten.communicator.in_process_communicator import InProcessCommunicator
    from crypten.config import cfg
    from crypten.mpc import MPCTensor
    from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor
    from crypten.mpc.primitives import circuit as circuit_module
    from crypten.mpc.provider.provider import TupleProvider
except ImportError as error:
    raise MissingDependencyError(
        f"CrypTen cannot be imported ({error}); install it without its broken dependencies: "
        "pip install 'pi-sim[crypten]' && pip install --no-deps crypten==0.4.1."
    ) from None

CONSTANT_FUNCTIONS = vars(circuit_module)["__SPK_circuit_constants"], util.chebyshev_series
"""CrypTen's cached functions that compute constants."""
Communicator, log_communication = communicator_module.Communicator, communicator_module._logging
"""CrypTen's communicator, and the decorator of its methods that counts rounds and bytes, sent plus received."""
Shared = Any
"""A secret-shared tensor, an `MPCTensor`; CrypTen has no type annotations."""


@contextmanager
def crypten_context(communicator: Any, provider: TupleProvider, settings: Mapping[str, Any]) -> Iterator[None]:
    """Context in which CrypTen runs over `communicator`, with tuples from `provider` and a protocol's settings."""
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
    """Context in which CrypTen's configuration has other values; raises `UsageError` for an unknown key or type."""
    for key, value in settings.items():
        try:
            default = cfg[key]
        except Exception:  # omegaconf's own, and AttributeError
            raise UsageError(f"CrypTen has no setting {key!r}; see its configs/default.yaml.") from None
        if default is not None and type(value) is not type(default):
            raise UsageError(f"CrypTen's setting {key!r} is a value like {default!r}, not {value!r}.")
    return cfg.temp_override(dict(settings))


def set_zero_prgs(previous_prg: Prg, next_prg: Prg, local_prg: Prg) -> None:
    """Set the PRGs from which CrypTen expands sharings of zero: two in common with the other party, and a local one.

    Party 0's `next_prg` is party 1's `previous_prg`, and vice versa.
    """
    for name, prg in (("prev", previous_prg), ("next", next_prg), ("local", local_prg)):
        crypten.generators[name] = _for_any_device(prg)


def _for_any_device(prg: Prg) -> Mapping[Any, Prg]:
    """Return a map from every device to the PRG: CrypTen looks for a generator by device, ours draws for any."""
    return defaultdict(lambda: prg)


def arithmetic_tensor(share: Tensor) -> Any:
    """Return CrypTen's tensor of additively shared integers from this party's share, int64 of any shape."""
    return ArithmeticSharedTensor.from_shares(share, precision=0)


def binary_tensor(share: Tensor) -> Any:
    """Return CrypTen's tensor of XOR-shared words from this party's share, int64 of any shape."""
    return BinarySharedTensor.from_shares(share, precision=0)


def fixed_point_tensor(share: Tensor, precision: int | None = None) -> Shared:
    """Return an MPCTensor from this party's share, int64 of any shape.

    `precision` is the number of bits of fraction: by default CrypTen's setting, 16; 0 for plain integers.
    """
    return MPCTensor.from_shares(share, precision=precision)


PRODUCT_NAMES = {"mul": "multiply", "matmul": "matmul"}
"""Products that need triples: CrypTen's names and ours."""


class Provider(TupleProvider):  # type: ignore[misc]
    """CrypTen's tuples, from the source of our own kernels' correlations; CrypTen's trace of requests counts them.

    Offline bytes follow CrypTen's third-party provider: both parties expand their shares of a tuple from seeds, except
    party 0's share of its dependent part (the product, the square, the arithmetic copy of a bit), which must be sent.
    The base class refuses wrap counts, which CrypTen needs among three and more parties.
    """

    NAME = "pi-sim"

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.trace()

    def generate_additive_triple(self, first: Any, second: Any, op: str, device: Any = None) -> tuple[Any, ...]:
        """Return [a], [b], [a op b] for a product."""
        shares = self.source.deal(beaver_triple(PRODUCT_NAMES[op], tuple(first), tuple(second)))
        return tuple(arithmetic_tensor(share.to(device)) for share in shares)

    def square(self, size: Any, device: Any = None) -> tuple[Any, ...]:
        """Return [r], [r * r]."""
        return tuple(arithmetic_tensor(share.to(device)) for share in self.source.deal(square_pair(tuple(size))))

    def generate_binary_triple(self, first: Any, second: Any, device: Any = None) -> tuple[Any, ...]:
        """Return [a], [b], [a & b] in XOR shares."""
        shares = self.source.deal(and_triple(tuple(first), tuple(second)))
        return tuple(binary_tensor(share.to(device)) for share in shares)

    def B2A_rng(self, size: Any, device: Any = None) -> tuple[Any, ...]:  # noqa: N802
        """Return a random bit in additive and in XOR shares."""
        bit, ring = self.source.deal(random_bit(tuple(size)))
        return arithmetic_tensor(ring.to(device)), binary_tensor(bit.to(device))

    def tuple_count(self) -> int:
        """Return the number of tuples that CrypTen has requested."""
        return len(self.request_cache)

    def requested_bytes(self) -> int:
        """Return the bytes of the dependent parts of all tuples that CrypTen has requested, from their shapes alone."""
        return WORD_BYTES * sum(_dependent_elements(name, args) for name, args, _ in self.request_cache)


def _dependent_elements(request: str, args: tuple[Any, ...]) -> int:
    """Return the number of elements of the dependent part of one request in CrypTen's trace."""
    if request == "generate_additive_triple" and args[2] == "matmul":
        (*batch, rows, _), (*second_batch, _, columns) = args[0], args[1]
        return math.prod((*np.broadcast_shapes(batch, second_batch), rows, columns))
    if request in ("generate_additive_triple", "generate_binary_triple"):
        return math.prod(np.broadcast_shapes(args[0], args[1]))
    return math.prod(args[0])
