"""Randomness that was dealt ahead of time: a file for each party, used once.

party0.dealing  a header with its seed, then its shares of all derived parts in the order in which they are needed
party1.dealing  a header alone: party 1 expands everything from its seed
"""

import mmap
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from pi_sim.errors import RunError, UsageError
from pi_sim.folders import new_folder
from pi_sim.mpc.dealer import header, once
from pi_sim.mpc.dealer.header import WORD, Header
from pi_sim.mpc.dealer.kinds import DEALING_NUMBER_BYTES, DEALT_FILE, ExternalDealer
from pi_sim.mpc.dealer.source import DealerSource
from pi_sim.mpc.dealer.stream import AesCtrPrg, new_seed
from pi_sim.mpc.dealer.tape import Demand, raw_bytes
from pi_sim.mpc.dealer.terms import RunIdentity

BUFFER_BYTES = 2**20
WINDOW_BYTES = 2**26
"""Bytes that are mapped at once, or more for a larger tensor."""


def party_path(path: Path, rank: int) -> Path:
    """A party's file: `path` itself, or the one in the folder that `pi-sim deal` wrote."""
    return path / f"party{rank}.dealing" if path.is_dir() else path


def read_usable_header(path: Path, rank: int, terms: RunIdentity, sequences: int) -> Header:
    """The header of a party's file, once it is sure to serve a run of so many sequences; else a `UsageError`."""
    path = party_path(path, rank)
    found = header.read_header(path)
    found.check_run(path, rank, terms, sequences)
    once.check_unused(path, found)
    return found


def open_dealt_file(path: Path, rank: int, terms: RunIdentity, sequences: int) -> ExternalDealer:
    """A party's way to its file, which is still unused until the parties have met."""
    found = read_usable_header(path, rank, terms, sequences)
    path = party_path(path, rank)
    number, stream = (bytes.fromhex(each) for each in (found.number, found.seed))
    return ExternalDealer(DEALT_FILE, rank, number, stream, MappedShares(path, len(found.line)), partial(once.mark_used, path, found))


class MappedShares:
    """Party 0's derived shares in order: the file's own pages, of which a window is mapped, so that nothing is copied.

    What a party writes there stays its own. Memory is that of the windows in use, however long the file. A file that
    shrinks while it is mapped ends the party by a signal, SIGBUS.
    """

    def __init__(self, path: Path, start: int) -> None:
        self.file = path.open("rb")
        self.position = self.window_start = self.window_end = start

    def take(self, length: int) -> Tensor:
        start, self.position = self.position, self.position + length
        if not length:
            return torch.empty(0, dtype=torch.uint8)
        if self.position > self.window_end:
            self._map(start)
        found = torch.frombuffer(self.window, dtype=torch.uint8, count=length, offset=start - self.window_start)
        return found.clone() if start % WORD else found

    def _map(self, start: int) -> None:
        """A window from the page in which the next bytes begin."""
        self.window_start = start - start % mmap.ALLOCATIONGRANULARITY
        self.window_end = min(max(self.position, start + WINDOW_BYTES), os.fstat(self.file.fileno()).st_size)
        if self.position > self.window_end:
            raise RunError("the dealer's file ended too soon; deal anew.")
        length = self.window_end - self.window_start
        try:
            self.window = mmap.mmap(self.file.fileno(), length, access=mmap.ACCESS_COPY, offset=self.window_start)
        except OSError as error:
            raise RunError(f"the dealer's file cannot be mapped into memory ({error.strerror}).") from None


def write_dealing(
    folder: Path, tape: Demand, terms: RunIdentity, sequences: int, progress: Callable[[float], None] = lambda fraction: None
) -> list[int]:
    """Deal for so many sequences: both files in a new folder, whole or not at all. How many bytes each has.

    The shares are written as they are dealt, so that memory stays bounded by one correlation of the largest.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another --out, or remove it.")
    with new_folder(folder, mode=0o700) as inside:
        return _write_files(inside, tape, terms, sequences, progress)


def _write_files(folder: Path, tape: Demand, terms: RunIdentity, sequences: int, progress: Callable[[float], None]) -> list[int]:
    seeds, number, payload = (new_seed(), new_seed()), os.urandom(DEALING_NUMBER_BYTES), tape.offline_bytes(sequences)
    with ExitStack() as stack:
        files = [stack.enter_context(_create_private(party_path(folder, rank))) for rank in (0, 1)]
        for rank, file in enumerate(files):
            found = Header(
                rank=rank, number=number.hex(), seed=seeds[rank].hex(), sequences=sequences,
                payload=payload * (rank == 0), graph=terms.graph, protocol=terms.protocol, version=terms.version,
            )  # fmt: skip
            file.write(found.line)
        start = files[0].tell()
        for shares in tape.replay(DealerSource(*map(AesCtrPrg, seeds)), sequences):
            for share in shares:
                files[0].write(raw_bytes(share))
            progress((files[0].tell() - start) / (payload or 1))
        return [file.tell() for file in files]


def _create_private(path: Path) -> BinaryIO:
    """A new file that its owner alone may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=BUFFER_BYTES)
