"""The targets that the protocol lean was made for, and whether a benchmark and private runs meet them."""

from collections.abc import Iterator, Mapping

from pi_sim.records import BenchRecord, KernelTiming, ModelTiming, RunRecord

STOCK, STOCK_MODELS, LEAN = "crypten", "crypten_tanh", "lean"
"""Stock CrypTen, of whose GELUs only the one by tanh can serve a model, and our protocol."""
ELEMENT_TARGETS = {"relu": (14, 6), "gelu": (60, 10), "softmax": (100, 60), "tanh": (30, 7)}
"""At most so many bytes an element and rounds."""
BLOCK_BYTES, BLOCK_BOTH_WAYS, BLOCK_AHEAD, BLOCK_ROUNDS = 17e6, 32e6, 6e6, 72
"""At most so much for one GPT-2 block: bytes of the busier party, of both, ahead of the input, and rounds."""
WHOLE_MODEL = "GPT-2 small"
WHOLE_BOTH_WAYS, WHOLE_AHEAD, WHOLE_OFFLINE, WHOLE_ROUNDS = 0.40e9, 0.07e9, 1.4e9, 900
"""At most so much for GPT-2 small without embedding and head: SIGMA sends 0.885 GB in 1,128 rounds, with 15.4 GB."""
FASTER_BLOCK = {"AVX-512": {"file": 6.0, "first-party": 4.0}, "AVX2": {"file": 15.0, "first-party": 8.0}}
"""At least so many times faster than stock CrypTen, by the CPU's vector instructions and the dealer."""
FASTER_MODEL = {"AVX2": {"file": 8.0, "first-party": 6.0}}
PRODUCTS, SEQUENCES = 10**8, 100
DRIFT, TOP1 = 0.001, 0.999

Target = dict[str, str]
"""Subject, target, result and verdict, in words."""


def lean_targets(bench: BenchRecord, runs: Mapping[str, RunRecord], missing: list[str]) -> list[Target]:
    """Return every target that something was measured for, and those of models whose run is `missing`."""
    return [*_element_targets(bench), *_model_targets(bench), *_truncation_targets(bench), *_accuracy(runs, missing)]


def stock_timing(bench: BenchRecord, timing: ModelTiming) -> ModelTiming | None:
    """Return the run of the same model with the same dealer under stock CrypTen."""
    key = (timing.model, timing.dealer, STOCK_MODELS)
    return next((row for row in bench.models if (row.model, row.dealer, row.protocol) == key), None)


def _target(subject: str, aim: str, result: str, is_met: bool | None) -> Target:
    verdict = "not measured" if is_met is None else "met" if is_met else "missed"
    return {"subject": subject, "target": aim, "result": result, "verdict": verdict}


def _element_targets(bench: BenchRecord) -> Iterator[Target]:
    """Yield bytes and rounds of single operations, where stock CrypTen was measured too."""
    by_protocol: dict[tuple[str, str], KernelTiming] = {
        (row.name, protocol): row for row in bench.operations for protocol in row.protocols
    }
    for name, (most, rounds) in ELEMENT_TARGETS.items():
        lean, stock = by_protocol.get((name, LEAN)), by_protocol.get((name, STOCK))
        if lean and stock:
            sent, usual = lean.bytes / lean.elements, stock.bytes / stock.elements
            result = f"{sent:,.1f} bytes and {lean.rounds} rounds; stock {usual:,.1f} and {stock.rounds}"
            is_met = sent <= most and lean.rounds <= rounds
            yield _target(name, f"at most {most} bytes an element and {rounds} rounds", result, is_met)


def _model_targets(bench: BenchRecord) -> Iterator[Target]:
    """Yield a block's counts, which do not depend on the dealer, and any model's seconds, which do."""
    for timing in bench.models:
        stock = stock_timing(bench, timing)
        if timing.model == WHOLE_MODEL and timing.protocol == LEAN:
            yield from _whole_targets(timing)
        if timing.protocol != LEAN or stock is None:
            continue
        is_block = "block" in timing.model
        if is_block and timing.dealer == "first-party":
            yield from _block_targets(timing)
        least = (FASTER_BLOCK if is_block else FASTER_MODEL).get(bench.vector_instructions)
        if least is None:
            continue
        faster, aim = stock.seconds / timing.seconds, least[timing.dealer]
        subject = f"{timing.model}, dealer {timing.dealer}, {bench.vector_instructions}"
        yield _target(subject, f"{aim:g} times faster", f"{faster:.1f} times", faster >= aim)


def _whole_targets(timing: ModelTiming) -> Iterator[Target]:
    """Yield the counts of GPT-2 small without embedding and head."""
    both = sum(timing.bytes_by_party or (timing.bytes, timing.bytes))
    for subject, most, amount in (
        ("sent both ways", WHOLE_BOTH_WAYS, both),
        ("sent ahead of the input", WHOLE_AHEAD, timing.ahead_bytes or 0),
        ("dealt", WHOLE_OFFLINE, timing.offline_bytes),
    ):
        aim, result = f"at most {most / 1e9:g} GB", f"{amount / 1e9:.3f} GB"
        yield _target(f"{timing.model}, {subject}", aim, result, amount <= most)
    rounds = timing.rounds
    yield _target(timing.model, f"at most {WHOLE_ROUNDS} rounds", f"{rounds} rounds", rounds <= WHOLE_ROUNDS)


def _block_targets(timing: ModelTiming) -> Iterator[Target]:
    """Yield the counts of a block."""
    both = sum(timing.bytes_by_party or (timing.bytes, timing.bytes))
    for subject, most, sent in (
        ("sent by the busier party", BLOCK_BYTES, timing.bytes),
        ("sent both ways", BLOCK_BOTH_WAYS, both),
        ("sent ahead of the input", BLOCK_AHEAD, timing.ahead_bytes or 0),
    ):
        yield _target(f"{timing.model}, {subject}", f"at most {most / 1e6:g} MB", f"{sent / 1e6:.2f} MB", sent <= most)
    rounds = timing.rounds
    yield _target(timing.model, f"at most {BLOCK_ROUNDS} rounds", f"{rounds} rounds", rounds <= BLOCK_ROUNDS)


def _truncation_targets(bench: BenchRecord) -> Iterator[Target]:
    for test in bench.truncations:
        if test.protocol == LEAN:
            is_met = not test.wrong and test.number >= PRODUCTS
            subject, result = f"products of factors up to {test.bound}", f"{test.wrong:,} of {test.number:,}"
            yield _target(subject, f"none of {PRODUCTS:,} wrong", result, is_met)


def _accuracy(runs: Mapping[str, RunRecord], missing: list[str]) -> Iterator[Target]:
    """Yield the accuracy of every shipped model under lean."""
    aim = f"perplexity within {DRIFT:.1%}, same top-1 above {TOP1:.1%}, no corrupted position in {SEQUENCES} sequences"
    for model, record in sorted(runs.items()):
        if record.agreement:
            drift, top1, corrupted = record.drift, record.agreement.top1, record.agreement.corrupted_positions
            is_met = drift is not None and abs(drift) <= DRIFT and (top1 or 0.0) > TOP1 and not corrupted
            change = "overflow" if drift is None else f"{drift:+.3%}"
            result = f"{change}, {top1 or 0.0:.2%}, {corrupted} in {record.sequences}"
            yield _target(model, aim, result, is_met and record.sequences >= SEQUENCES)
    yield from (_target(model, aim, "", None) for model in missing)
