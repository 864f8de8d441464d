"""The store in one SQLite file (WAL), which every process of this machine opens.

Each process has two threads: one writes, in groups that are a transaction each, and one reads. A reader is never kept
waiting by a writer; what a write has returned, the next read sees.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Self, TypeVar

from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import (
    Append,
    Beat,
    Change,
    Changes,
    Charge,
    Draw,
    Drawn,
    Hold,
    Kind,
    LogLine,
    ProcessRow,
    Record,
    SlotsTaken,
    SlotsWanted,
    UsageCounts,
    UsageKey,
    Written,
)
from qwen_proxy.storage import sqlite_care as care
from qwen_proxy.storage import sqlite_records as records
from qwen_proxy.storage import sqlite_sharing as sharing
from qwen_proxy.storage.sqlite_groups import Groups
from qwen_proxy.storage.sqlite_schema import open_reading, open_writing
from qwen_proxy.storage.sqlite_thread import DatabaseThread, one_by_one

POLL_SECONDS: Final = 0.25
BUSY_SECONDS: Final = 10.0
T = TypeVar("T")


class SqliteStore:
    """Fits `state.store.Store`. Entering it makes the file, for its owner only, or brings it up to date; leaving it
    waits for what was asked before. Raises StoreUnavailable for a file that can't be used.

    busy_seconds: how long another process may keep the file locked before a call fails.
    """

    def __init__(self, path: Path, clock: Clock, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self._open_reading = lambda: open_reading(path, busy_seconds)
        self._clock = clock
        self._stack = AsyncExitStack()
        self._writer = DatabaseThread(
            "store writer", lambda: open_writing(path, busy_seconds), Groups(busy_seconds).answer
        )
        self._reader = DatabaseThread("store reader", self._open_reading, one_by_one)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._writer)
            await stack.enter_async_context(self._reader)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    # --- records

    async def get(self, kind: Kind, id: str) -> Record | None:
        return await self._reader.ask(lambda db: records.get(db, kind.name, id, self._clock.now()))

    async def find(self, kind: Kind, *, after: str = "", limit: int = 1000) -> list[Record]:
        return await self._reader.ask(lambda db: records.find(db, kind.name, after, limit, self._clock.now()))

    async def write(self, changes: Sequence[Change]) -> Written:
        is_flushed = any(isinstance(change, Append) or change.kind.is_flushed for change in changes)
        now = self._clock.now
        return await self._writer.ask(lambda db: records.write(db, changes, now()), is_flushed=is_flushed)

    async def generation(self) -> int:
        return await self._reader.ask(records.generation)

    async def changes(self, since: int) -> Changes:
        return await self._reader.ask(lambda db: records.changes(db, since, self._clock.now()))

    async def wait(self, since: int, timeout_seconds: float) -> int:
        deadline = self._clock.monotonic() + timeout_seconds
        while (generation := await self.generation()) == since and (left := deadline - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(POLL_SECONDS, left))
        return generation

    async def sweep(self) -> None:
        def swept(db: sqlite3.Connection) -> None:
            now = self._clock.now()
            records.sweep(db, now)
            sharing.sweep(db, now)

        await self._writer.ask(swept)

    # --- the log

    async def log(self, topic: str, *, before: int | None = None, limit: int = 100) -> list[LogLine]:
        return await self._reader.ask(lambda db: records.log(db, topic, before, limit))

    async def prune_log(self, topic: str, before_at: float) -> None:
        await self._writer.ask(lambda db: records.prune_log(db, topic, before_at))

    # --- usage

    async def add_usage(self, counts: Mapping[UsageKey, UsageCounts]) -> None:
        await self._writer.ask(lambda db: records.add_usage(db, counts))

    async def usage(self, since: float, until: float, *, by_day: bool = False) -> dict[UsageKey, UsageCounts]:
        return await self._reader.ask(lambda db: records.usage(db, since, until, by_day))

    async def prune_usage(self, before_at: float, *, by_day: bool = False) -> None:
        await self._writer.ask(lambda db: records.prune_usage(db, before_at, by_day))

    # --- processes

    async def join(self, row: ProcessRow, holds: Sequence[Hold]) -> None:
        await self._writer.ask(lambda db: sharing.join(db, row, holds, self._clock.now()))

    async def beat(self, process: str, *, is_hungry: bool, status: bytes) -> Beat:
        return await self._writer.ask(lambda db: sharing.beat(db, process, is_hungry, status, self._clock.now()))

    async def leave(self, process: str) -> None:
        await self._writer.ask(lambda db: sharing.leave(db, process))

    async def processes(self) -> list[ProcessRow]:
        return await self._reader.ask(lambda db: sharing.processes(db, self._clock.now()))

    # --- blocks

    async def take(self, process: str, wanted: SlotsWanted) -> SlotsTaken:
        return await self._writer.ask(lambda db: sharing.take(db, process, wanted, self._clock.now()))

    async def give(self, process: str, holds: Sequence[Hold]) -> None:
        await self._writer.ask(lambda db: sharing.give(db, process, holds))

    async def taken(self, prefix: str) -> dict[str, int]:
        return await self._reader.ask(lambda db: sharing.taken(db, prefix, self._clock.now()))

    async def draw(self, draws: Sequence[Draw]) -> list[Drawn]:
        return await self._writer.ask(lambda db: sharing.draw(db, draws, self._clock.now()))

    async def charge(self, charges: Sequence[Charge]) -> None:
        await self._writer.ask(lambda db: sharing.charge(db, charges, self._clock.now()))

    # --- care

    async def check(self) -> str | None:
        return await self._aside(care.problem)

    async def erase(self) -> None:
        await self._writer.ask(records.erase, is_flushed=True)

    async def backup(self, path: Path) -> None:
        """A whole copy as of now, in one file for its owner only, while others write. Never replaces a file.

        Raises StoreUnavailable, which leaves nothing at `path`.
        """
        await self._aside(lambda db: care.back_up(db, path))

    async def _aside(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """What takes long has a thread and a connection of its own."""
        async with DatabaseThread("store care", self._open_reading, one_by_one) as thread:
            return await thread.ask(call)
