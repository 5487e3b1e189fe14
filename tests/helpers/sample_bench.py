"""A sample record of a bench: operations, models and truncations, with figures written by hand."""

from typing import Any

from pi_sim.records import BenchRecord, BenchSize, KernelTiming, ModelTiming, TruncationTest

ELEMENTS = 393_216
STOCK = ("crypten", "crypten_tanh", "shaft")


def bench(**changes: Any) -> BenchRecord:
    """All targets met but for the rounds of GELU, the time of the shipped model and the number of products."""
    fields = {
        "extent": BenchSize(),
        "threads": 1,
        "load": (0.1, 2.0),
        "operations": operations(),
        "models": models(),
        "truncations": truncations(),
    }
    return BenchRecord(**{**fields, **changes})


def operations() -> tuple[KernelTiming, ...]:
    return (
        operation("relu", "kogge-stone", STOCK, 9, 232, 120, 0.6e-6),
        operation("relu", "masked", ("lean",), 4, 10.375, 40, 0.1e-6),
        operation("gelu", "erf-taylor", ("crypten",), 35, 392, 280, 1.5e-6, error=1813.25),
        operation("gelu", "tanh-form", ("crypten_tanh",), 26, 416, 256, 1.4e-6),
        operation("gelu", "fourier", ("lean",), 11, 16.75, 183, 0.15e-6),
        operation("scale", "local", STOCK, 0, 0, 0, 0.01e-6),
        operation("scale", "faithful", ("lean",), 1, 8, 16, 0.02e-6),
        operation("embedding, V = 50,257", "one-hot", (*STOCK, "lean"), 1, 917, 8, None),
    )


def operation(
    name: str, kernel: str, protocols: tuple[str, ...], rounds: int, sent: float, offline: int,
    seconds_each: float | None, error: float = 0.00031,
) -> KernelTiming:  # fmt: skip
    """Bytes and seconds for each element; online alone takes half of them."""
    seconds = None if seconds_each is None else seconds_each * ELEMENTS
    return KernelTiming(
        name=name, shapes="1x128x3072", kernel=kernel, protocols=protocols, elements=ELEMENTS, rounds=rounds,
        bytes=int(sent * ELEMENTS), offline_bytes=offline * ELEMENTS, session_bytes=0, seconds=seconds,
        online_seconds=seconds and seconds / 2, error=None if seconds is None else error,
    )  # fmt: skip


def models() -> tuple[ModelTiming, ...]:
    return (
        ran("one GPT-2 block", "crypten_tanh", "first-party", 188, 381_000_000, 9.0),
        ran("one GPT-2 block", "lean", "first-party", 61, 15_000_000, 1.5),
        ran("one GPT-2 block", "crypten_tanh", "file", 188, 381_000_000, 6.0),
        ran("one GPT-2 block", "lean", "file", 61, 15_000_000, 1.0),
        ran("relu_nonorm", "crypten_tanh", "first-party", 527, 278_052_864, 4.1),
        ran("relu_nonorm", "lean", "first-party", 252, 32_508_160, 1.4),
    )


def ran(model: str, protocol: str, dealer: str, rounds: int, sent: int, seconds: float) -> ModelTiming:
    return ModelTiming(
        model=model, protocol=protocol, dealer=dealer, rounds=rounds, bytes=sent, offline_bytes=sent // 2,
        session_bytes=0 if protocol != "lean" else 10_485_760, seconds=seconds, communication_seconds=seconds / 2,
        difference=0.0042,
    )  # fmt: skip


def truncations() -> tuple[TruncationTest, ...]:
    return (
        TruncationTest(
            protocol="crypten", kernel="beaver", bound=64, number=10**8, wrong=25, units=2, expected_locally=23.84
        ),
        TruncationTest(
            protocol="lean", kernel="faithful", bound=64, number=10**8, wrong=0, units=1, expected_locally=23.84
        ),
        TruncationTest(
            protocol="lean", kernel="faithful", bound=8, number=10**6, wrong=0, units=1, expected_locally=0.0037
        ),
    )
