"""The words of the page."""

from pi_sim.records import BenchSize
from pi_sim.reporting.kernels import exactness
from pi_sim.reporting.kernels.findings import STOCK_MODELS, Kernels
from pi_sim.reporting.sections.provenance import environment, run_command

TITLE = "# Kernels: stock CrypTen, SHAFT and lean between two processes"
QUESTION = """\
What does each operation of a transformer cost under stock CrypTen's kernels, and what under our own? Every operation
below was computed by two processes over TCP on shares of random values. Rounds, bytes and offline bytes are what both
parties counted, by the link's counter and by CrypTen's, and equal the price or the bench ends with an error; bytes are
what one party sends. *Stock* is the protocol `crypten`; where GELU and erf matter, `crypten_tanh`, because CrypTen's
erf is wrong beyond small inputs."""
COUNTED = """\
Bytes for each element of the result. Of a causal softmax stock CrypTen computes all scores and lean those that the
mask leaves, so that bytes are for each of all scores there and for each visible score here; *times fewer* compares the
whole operation. Where stock sends nothing, each party truncates its own share, which fails now and then, see below.
Embedding with the larger vocabulary is priced, not run; what lean opens once in a session stands in *Every kernel*."""
TIMED = """\
Microseconds of wall time for each element, from when both parties begin until both are done, the loopback included:
the quickest of a few repetitions. *Dealing included*: party 0 stands in the dealer's place and makes the randomness
while both wait. *Online alone*: all randomness was dealt, drawn and expanded beforehand and lay in memory."""
EVERY = """\
One row for each kernel; a protocol that computes an operation by the same kernel at the same price stands in the same
row. The error is the largest distance from the value in double precision, for normally distributed inputs of standard
deviation 1 (for a reciprocal, 1 and above), some of which lie outside the domain in which a stock kernel is right."""
TRUNCATIONS = """\
Products of two secrets, uniform between plus and minus a bound, by each protocol's own kernel between both parties,
compared with the product of the plain integers, rounded down. Each party's shifting its own share goes wrong with
probability |x| / 2^64, x being the product in the ring, and is then off by 2^32: the sum of these probabilities is what
is expected of it. It can also be off by two units in the last place; what is off by more counts as wrong. The faithful
truncation cannot wrap, and rounds down or up."""
ACCURACY = """\
Shipped models under lean on held-out text: private perplexity against the plain one on the same tokens, all places
counted. A place is destroyed where a logit is off by more than 1,000."""
BYTES = (
    "Bytes that one party sends for an element, by operation and protocol. Dots in one place are drawn inside one "
    "another; what sends nothing has none."
)
MAPS = 4
"""The maps of a block, 12 times the width squared, over the one to queries, keys and values that is measured."""
SECONDS = "Microseconds for an element, dealing included, by operation and protocol."


def extent(kernels: Kernels) -> str:
    """At what size this was measured."""
    found = kernels.bench.extent
    told = f"Measured at {found.tokens:,} tokens, width {found.width:,} and {found.heads} heads"
    if found == BenchSize():
        return f"{told}, the sizes of a GPT-2 block."
    return f"{told}: **not the sizes that the targets are meant for**, so that verdicts show the form alone."


def bound(kernels: Kernels) -> str:
    """What keeps a block from becoming as much faster as it sends less."""
    both = next((pair for pair in kernels.pairs if pair[0].name == "linear"), ())
    seconds = [MAPS * each.online_seconds for each in both if each.online_seconds]
    if len(seconds) < 2:
        return ""
    stock, ours = seconds
    return (
        f"What bounds the block's seconds: its linear maps multiply {MAPS} times as many numbers as the one below, "
        f"which makes {stock:.2f} s under stock CrypTen and {ours:.2f} s under lean with all randomness in memory. "
        "Party 0 multiplies three pairs of matrices there and two here, so that by products alone lean is 1.5 times "
        "faster."
    )


def models(kernels: Kernels) -> str:
    """What was run."""
    found = kernels.bench.extent
    return (
        f"One layer of GPT-2 with {found.heads} heads and width {found.width:,} between an embedding and a head of a "
        "vocabulary of 256, without the last norm; with random weights, embeddings large enough for stock CrypTen's "
        f"norms, and {found.tokens:,} random tokens. Then shipped models of size tiny on held-out text. *Times* "
        f"compare with `{STOCK_MODELS}` and the same dealer: `first-party` is party 0, which both wait for; `file` "
        "was dealt beforehand and is read during the run. Seconds are those of the quickest sequence, weights opened. "
        "Where other work takes a part of the memory's bandwidth all take longer, and lean gains less."
    )


def missing(kernels: Kernels) -> str:
    """Shipped models that nothing is known of."""
    names = exactness.missing(kernels)
    return f"Not run yet: {', '.join(names)}." if names else ""


def commands(kernels: Kernels) -> str:
    """What makes every record of this page."""
    runs = [run_command(run) for _, run in sorted(kernels.runs.items())]
    lines = ["make bench", *runs, *map(exactness.command, exactness.missing(kernels)), "pi-sim report"]
    return "\n".join(["```sh", *lines, "```"])


def machine(kernels: Kernels) -> str:
    """Where, with how many threads, and how busy the machine was with this and other work."""
    found = kernels.bench
    before, after = found.load
    return (
        f"{environment(kernels.bench.model_dump())}. Each party computes with {found.threads} "
        f"thread{'s' if found.threads > 1 else ''}; the machine's load was {before:.1f} before and {after:.1f} "
        f"afterwards, where two busy parties make 2.0. The quickest of {found.extent.repetitions} repetitions and of "
        f"{found.extent.sequences} sequences counts."
    )
