"""Machine: seconds of computing, from a party's work and the seconds of one unit of it."""

from pathlib import Path

from pi_sim import records
from pi_sim.cost.cost import Work
from pi_sim.errors import UsageError
from pi_sim.files import user_folder
from pi_sim.records import MachineRecord, SecondsEach
from pi_sim.specs.toml import TomlModel, read_toml


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
    records.save(path, MachineRecord(name=machine.name, source=machine.source, seconds_each=machine.seconds_each))


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
