"""CrypTen, mended: the only module that imports it.

Two mendings. Its ONNX converter uses a part of torch that is gone, so an empty module takes the converter's place.
And its communicator is replaced by ours: `use` puts a Link or a phantom where CrypTen's primitives look for one.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import MissingError, UsageError
from pi_sim.mpc import session


def _stand_in(name: str) -> None:
    """Put a module in the place of one that no longer imports; every name in it is None."""
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: None  # type: ignore[method-assign]
    sys.modules.setdefault(name, module)


_stand_in("crypten.nn.onnx_converter")

try:
    import crypten
    from crypten.communicator.communicator import Communicator, _logging
    from crypten.communicator.in_process_communicator import InProcessCommunicator
    from crypten.config import cfg
    from crypten.mpc import MPCTensor
    from crypten.mpc.provider import TrustedFirstParty
except ImportError as error:
    raise MissingError(
        f"CrypTen cannot be imported ({error}); install it without its broken dependencies: "
        "pip install omegaconf pyyaml && pip install --no-deps crypten==0.4.1."
    ) from None

__all__ = [
    "Communicator",
    "MPCTensor",
    "TrustedFirstParty",
    "counted",
    "override",
    "phantom_generators",
    "seed_generators",
    "shares",
    "use",
]

counted = _logging
"""CrypTen's decorator for a communicator's methods: it counts rounds and bytes, sent plus received."""


@contextmanager
def use(communicator: Any, dealer: Any, settings: Mapping[str, Any]) -> Iterator[None]:
    """Run CrypTen over `communicator` with tuples from `dealer` and the settings of a protocol's TOML."""
    providers = vars(crypten.mpc)["__SUPPORTED_PROVIDERS"]
    providers[dealer.NAME] = dealer
    InProcessCommunicator.tls.instance = communicator
    crypten.comm._init(use_threads=True)
    try:
        with (
            session.run(communicator, dealer.source),
            override({**settings, "communicator.verbose": True, "mpc.provider": dealer.NAME}),
        ):
            yield
    finally:
        del InProcessCommunicator.tls.instance, providers[dealer.NAME]


def override(settings: Mapping[str, Any]) -> Any:
    """A context in which CrypTen's configuration has other values; an unknown key is a `UsageError`."""
    for key, value in settings.items():
        try:
            known = cfg[key]
        except Exception:  # omegaconf's own, and AttributeError
            raise UsageError(f"CrypTen has no setting {key!r}; see its configs/default.yaml.") from None
        if known is not None and type(value) is not type(known):
            raise UsageError(f"CrypTen's setting {key!r} is a value like {known!r}, not {value!r}.")
    return cfg.temp_override(dict(settings))


def seed_generators(previous: int, following: int, local: int) -> None:
    """Seed the generators from which CrypTen expands zero sharings (shared seeds) and masks (the local one)."""
    for name, seed in (("prev", previous), ("next", following), ("local", local)):
        crypten.generators[name][torch.device("cpu")] = torch.Generator().manual_seed(seed)


def phantom_generators() -> None:
    """Let tensors on the meta device, which hold no data, be "drawn" without a generator."""
    seed_generators(0, 0, 0)
    for name in ("prev", "next", "local"):
        crypten.generators[name][torch.device("meta")] = None


def shares(share: Tensor, precision: int | None = None) -> Any:
    """An MPCTensor from this party's share, an int64 tensor of any shape; `precision` 0 holds plain integers."""
    return MPCTensor.from_shares(share, precision=precision)
