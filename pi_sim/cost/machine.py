"""Machines: how long a party computes, from the work and from what a machine needs for one unit of it."""

from pathlib import Path

from pi_sim import records
from pi_sim.cost.cost import Work
from pi_sim.errors import UsageError
from pi_sim.files import user_folder
from pi_sim.records import MachineRecord, SecondsEach
from pi_sim.specs.toml import TomlModel, read_toml


class Machine(TomlModel):
    """A machine's profile: measured by `pi-sim calibrate`, or written down."""

    name: str
    source: str
    seconds_each: SecondsEach

    def seconds(self, work: Work, rounds: int) -> float:
        """Seconds of computing, and of handing over the messages of so many rounds.

        What handling a message takes for each of its bytes overlaps with their transfer, which a network charges for.
        """
        each = self.seconds_each
        computing = work.macs * each.macs + work.elements * each.elements + work.random * each.random
        return computing + work.calls * each.calls + work.tuples * each.tuples + rounds * each.rounds


def profile_path() -> Path:
    """Where the profile of this machine lies: `$XDG_CONFIG_HOME/pi-sim`, by default `~/.config/pi-sim`."""
    return user_folder("XDG_CONFIG_HOME", "~/.config") / "machine.json"


def save_profile(machine: Machine, path: Path) -> None:
    """Write a profile as a record, with its environment."""
    records.save(path, MachineRecord(name=machine.name, source=machine.source, seconds_each=machine.seconds_each))


def load_profile(path: Path | None = None) -> Machine | None:
    """The profile at `path`, a record of `pi-sim calibrate` or TOML; by default this machine's, if it has one."""
    if path is None and not profile_path().exists():
        return None
    path = path or profile_path()
    if not path.is_file():
        raise UsageError(f"there is no file {path}; `pi-sim calibrate --out {path}` measures this machine.")
    if path.suffix == ".toml":
        return read_toml(Machine, path)
    record = records.load(path, MachineRecord)
    return Machine(name=record.name, source=record.source, seconds_each=record.seconds_each)
