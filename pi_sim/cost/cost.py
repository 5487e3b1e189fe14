"""Cost and work: communication and computation of an operation, as monoids independent of hardware.

A machine's profile turns work into seconds of computing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import add
from pathlib import Path

from pi_sim import records
from pi_sim.errors import UsageError
from pi_sim.files import user_folder
from pi_sim.network import Network
from pi_sim.records import MachineRecord, SecondsEach
from pi_sim.specs.toml import TomlModel, read_toml

Traffic = tuple[int, int]
"""Bytes that each party sends, the server's first."""


def _add(first: Traffic, second: Traffic) -> Traffic:
    return first[0] + second[0], first[1] + second[1]


@dataclass(frozen=True)
class Cost:
    """Communication of an operation or of several: costs add up component by component.

    Rounds are exchanges that cannot start before the previous one has arrived.
    """

    rounds: int = 0
    sent: Traffic = (0, 0)
    """Payload bytes that the parties send once the input is there."""
    offline: int = 0
    """Bytes of correlated randomness that must reach a party."""
    serial: int = 0
    """Bytes of the busier direction of every round: the time of a full-duplex link is theirs."""
    ahead: Traffic = (0, 0)
    """Payload bytes that the parties can send before the input is there."""
    session: Traffic = (0, 0)
    """Payload bytes that the parties send once per session, to open weights under their masks."""

    @classmethod
    def symmetric(cls, rounds: int, bytes: int, offline: int = 0) -> "Cost":
        """Return the cost of rounds in which each party sends the same number of bytes, `bytes` in all."""
        return cls(rounds, (bytes, bytes), offline, bytes)

    @property
    def bytes(self) -> int:
        """Bytes that the busier party sends."""
        return max(self.sent)

    @property
    def ahead_bytes(self) -> int:
        """Bytes that the party that is busier before the input sends then."""
        return max(self.ahead)

    @property
    def session_bytes(self) -> int:
        """Bytes that the party that is busier at the start of a session sends then."""
        return max(self.session)

    def seconds_before(self, network: Network) -> float:
        """Return the network's seconds of all that is sent before the input of a first query, one after another."""
        before = [sent for sent in (self.session_bytes, self.ahead_bytes) if sent]
        return network.seconds(len(before), sum(before))

    @property
    def numbers(self) -> tuple[int, ...]:
        """All components, for `from_numbers`."""
        return self.rounds, *self.sent, self.offline, self.serial, *self.ahead, *self.session

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> "Cost":
        """Return the cost of these components."""
        rounds, server, client, offline, serial, *rest = numbers
        return cls(rounds, (server, client), offline, serial, (rest[0], rest[1]), (rest[2], rest[3]))

    @classmethod
    def sum_of(cls, costs: "Iterable[Cost]") -> "Cost":
        """Return the sum of costs, quicker than one by one."""
        return cls.from_numbers(
            [sum(column) for column in zip(cls().numbers, *(cost.numbers for cost in costs), strict=True)]
        )

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.rounds + other.rounds,
            _add(self.sent, other.sent),
            self.offline + other.offline,
            self.serial + other.serial,
            _add(self.ahead, other.ahead),
            _add(self.session, other.session),
        )

    def __rmul__(self, times: int) -> "Cost":
        return Cost.from_numbers([times * number for number in self.numbers])


ZERO_COST = Cost()


@dataclass(frozen=True)
class Work:
    """Computation of one party for an operation.

    It is everything that party 0 of a real run computes. With the first-party dealer that includes the dealer's work,
    because party 0 makes the correlations in its own process: a product of m x k with k x n by a Beaver triple is three
    products online and one of the dealer's, 4 m k n multiply-accumulates. With another dealer the last is not its own;
    party 1 expands its shares meanwhile.
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
    nanoseconds: int = 0
    """Nanoseconds that a declared protocol's source states; of a protocol that runs here there are none."""

    @property
    def amounts(self) -> tuple[int, ...]:
        """All components in order."""
        return self.macs, self.elements, self.random, self.calls, self.tuples, self.nanoseconds

    @classmethod
    def sum_of(cls, works: "Iterable[Work]") -> "Work":
        """Return the sum of works, quicker than one by one."""
        return cls(*(sum(column) for column in zip(cls().amounts, *(work.amounts for work in works), strict=True)))

    def __add__(self, other: "Work") -> "Work":
        return Work(*map(add, self.amounts, other.amounts))

    def __rmul__(self, times: int) -> "Work":
        return Work(*(times * amount for amount in self.amounts))


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
        calling = work.calls * unit.calls + work.tuples * unit.tuples + rounds * unit.rounds
        return computing + calling + work.nanoseconds / 1e9


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
