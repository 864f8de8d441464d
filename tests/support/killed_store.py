"""Kills processes in the middle of their writes to one SQLite file, and looks whether what they were promised is there.

`python -m tests.support.killed_store FOLDER ROUNDS PAIRS` prints a `Report` as JSON. Writers are forked from this
process, which never has a thread of its own, so a round costs milliseconds.
"""

import asyncio
import os
import random
import select
import signal
import sqlite3
import struct
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from msgspec import Struct

from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import Append, Kind, Put
from qwen_proxy.storage import sqlite_care as care
from qwen_proxy.storage import sqlite_records as records
from qwen_proxy.storage.sqlite import SqliteStore
from qwen_proxy.storage.sqlite_schema import open_writing

FLUSHED: Final = Kind(name="flushed", is_watched=True)
QUICK: Final = Kind(name="quick", is_flushed=False)
WRITERS: Final = 3  # at a time within a process
NUMBER: Final = struct.Struct("<I")
FRESH_FILE_EVERY: Final = 20  # rounds: a kill may come while the file is made, too
LATEST_KILL_SECONDS: Final = 0.02  # after the start, or after the first promise
SURVIVOR_WRITES: Final = 15  # promised after the other's death


class Report(Struct, frozen=True):
    """promised: writes that had returned. broken: sentences, one for each promise that was not kept."""

    rounds: int
    promised: int
    killed_before_any: int
    broken: list[str]


async def _write_for_ever(path: Path, name: str, pipe: int) -> None:
    """Tell each number on the pipe once its write has returned: a record and a line of the log, in one step."""

    async def write(first: int) -> None:
        number = first
        while True:
            kind = QUICK if number % 4 == 0 else FLUSHED
            value = b"%d" % number * 50
            await store.write(
                [Put(kind=kind, id=f"{name}-{number}", value=value), Append(topic=name, value=b"%d" % number)]
            )
            os.write(pipe, NUMBER.pack(number))
            number += WRITERS

    async with SqliteStore(path, SystemClock()) as store, Tasks() as tasks:
        for first in range(WRITERS):
            tasks.spawn(write(first), name="writer")
        await asyncio.sleep(60)


class Writer:
    """A process that writes for ever."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.promised: set[int] = set()
        self._pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _be(lambda: asyncio.run(_write_for_ever(path, name, theirs)))
        os.close(theirs)

    def listen(self, within_seconds: float, *, until: int = sys.maxsize) -> None:
        """Take down promises until there are so many, or the time is over."""
        end = time.perf_counter() + within_seconds
        while len(self.promised) < until and (left := end - time.perf_counter()) > 0:
            if select.select([self._pipe], [], [], left)[0]:
                self._take_down(os.read(self._pipe, 4096))

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        while more := os.read(self._pipe, 4096):
            self._take_down(more)
        os.close(self._pipe)

    def _take_down(self, told: bytes) -> None:
        self.promised.update(number for (number,) in NUMBER.iter_unpack(told))


def _be(work: Callable[[], None]) -> NoReturn:
    """The rest of a forked child's life."""
    try:
        work()
    finally:
        os._exit(1)


def broken(path: Path, writers: list[Writer]) -> list[str]:
    """What is wrong with the file, which is opened as the next start would."""
    found: list[str] = []
    with closing(open_writing(path, 5.0)) as db:
        if (problem := care.problem(db)) is not None:
            return [problem]
        for writer in writers:
            lines = {int(line.value) for line in records.log(db, writer.name, None, 10**6)}
            ids = {int(number) for number in _numbers(db, writer.name)}
            found += [f"{writer.name}: line {number} is lost" for number in writer.promised - lines]
            found += [f"{writer.name}: record {number} is lost" for number in writer.promised - ids]
            found += [f"{writer.name}: {number} was done in half" for number in lines ^ ids]
    return found


def _numbers(db: sqlite3.Connection, name: str) -> list[str]:
    kept = [record for kind in (FLUSHED, QUICK) for record in records.find(db, kind.name, f"{name}-", 10**6, 0.0)]
    parts = [record.id.rpartition("-") for record in kept]
    return [number for writer, _, number in parts if writer == name]


def one_alone(path: Path, name: str, chance: random.Random) -> Writer:
    """Half of the kills come at any time after the start, half at any time after the first promise."""
    writer = Writer(path, name)
    if chance.random() < 0.5:
        writer.listen(10, until=1)
    writer.listen(chance.random() * LATEST_KILL_SECONDS)
    writer.kill()
    return writer


def one_of_two(path: Path, name: str, chance: random.Random) -> list[Writer]:
    """One is killed in the middle; the other must go on."""
    dead, survivor = Writer(path, f"{name}d"), Writer(path, f"{name}s")
    for writer in (dead, survivor):
        writer.listen(10, until=1)
    survivor.listen(chance.random() * LATEST_KILL_SECONDS)
    dead.kill()
    goal = len(survivor.promised) + SURVIVOR_WRITES
    survivor.listen(10, until=goal)
    survivor.kill()
    if len(survivor.promised) < goal:
        survivor.promised.add(-1)  # so that it is told of as broken
    return [dead, survivor]


def main(folder: Path, rounds: int, pairs: int) -> Report:
    chance = random.Random(20261124)
    writers: dict[Path, list[Writer]] = {}
    found: list[str] = []
    for number in range(rounds + pairs):
        path = folder / f"{number // FRESH_FILE_EVERY}.db"
        here = writers.setdefault(path, [])
        if number < rounds:
            here.append(one_alone(path, f"w{number}", chance))
        else:
            here += one_of_two(path, f"w{number}", chance)
        found += broken(path, here)
    everyone = [writer for those in writers.values() for writer in those]
    return Report(
        rounds=rounds + pairs,
        promised=sum(len(writer.promised) for writer in everyone),
        killed_before_any=sum(1 for writer in everyone if not writer.promised),
        broken=found,
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
