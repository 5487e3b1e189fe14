"""Cost and work: communication and computation of an operation, as monoids independent of hardware.

A machine's profile turns work into seconds of computing.
"""

from dataclasses import astuple, dataclass
from operator import add
from pathlib import Path

from pi_sim import records
from pi_sim.errors import UsageError
from pi_sim.files import user_folder
from pi_sim.records import MachineRecord, SecondsEach
from pi_sim.specs.toml import TomlModel, read_toml


@dataclass(frozen=True)
class Cost:
    """Rounds, payload bytes that one party sends, and bytes of correlated randomness that must reach it.

    Rounds are exchanges that cannot start before the previous one has arrived; where the parties send different
    amounts, `bytes` is the larger one.
    """

    rounds: int = 0
    bytes: int = 0
    offline: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.rounds + other.rounds, self.bytes + other.bytes, self.offline + other.offline)

    def __rmul__(self, times: int) -> "Cost":
        return Cost(times * self.rounds, times * self.bytes, times * self.offline)


ZERO_COST = Cost()


@dataclass(frozen=True)
class Work:
    """Computation of one party for an operation.

    It is everything that party 0 of a real run computes. With the first-party dealer that includes the dealer's work,
    because party 0 makes the correlations in its own process: a product of m x k with k x n by a Beaver triple is three
    products online and one of the dealer's, 4 m k n multiply-accumulates. With another dealer the last is not its own.
    """

    macs: int = 0
    """Multiply-accumulates of matrix products in the ring."""
    elements: int = 0
    """Elements that all other tensor operations write, in words of 64 bits: eight bytes count as one."""
    random: int = 0
    """Bytes drawn from the PRG."""
    calls: int = 0
    """Calls of tensor operations of any size: on small tensors the calls take the time."""
    tuples: int = 0
    """Tuples requested by CrypTen, which looks up its settings for every product: slower than many calls."""

    def __add__(self, other: "Work") -> "Work":
        return Work(*map(add, astuple(self), astuple(other)))

    def __rmul__(self, times: int) -> "Work":
        return Work(*(times * amount for amount in astuple(self)))


class Machine(TomlModel):
    """Profile of a machine, measured by `pi-sim calibrate` or written by hand."""

    name: str
    source: str
    seconds_each: SecondsEach

    def seconds(self, work: Work, rounds: int) -> float:
        """Return the seconds of computing, and of handing over the messages of `rounds` rounds.

        The time that a message takes for each of its bytes overlaps with the transfer, which a network charges for.
        """
        unit = self.seconds_each
        computing = work.macs * unit.macs + work.elements * unit.elements + work.random * unit.random
        return computing + work.calls * unit.calls + work.tuples * unit.tuples + rounds * unit.rounds


def profile_path() -> Path:
    """Return the path of this machine's profile, in `$XDG_CONFIG_HOME/pi-sim`, by default `~/.config/pi-sim`."""
    return user_folder("XDG_CONFIG_HOME", "~/.config") / "machine.json"


def save_profile(machine: Machine, path: Path) -> None:
    """Write a profile as a record, with the environment."""
    records.save(path, MachineRecord(**dict(machine)))


def load_profile(path: Path | None = None) -> Machine | None:
    """Load the profile at `path`, a record of `pi-sim calibrate` or TOML; by default this machine's, or None."""
    if path is None and not profile_path().exists():
        return None
    path = path or profile_path()
    if not path.is_file():
        raise UsageError(f"there is no file {path}; `pi-sim calibrate --out {path}` measures this machine.")
    if path.suffix == ".toml":
        return read_toml(Machine, path)
    record = records.load(path, MachineRecord)
    return Machine(name=record.name, source=record.source, seconds_each=record.seconds_each)
