"""The memory store behind a model of the time that SQLite or Redis takes: calls queue for the one who serves them.

A call is done, as one step, when its turn has come and its service time is over. Reads of SQLite queue for nobody:
each process has a reader of its own.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress

from msgspec import Struct

from bench.virtual import VirtualClock
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
    ProcessRow,
    Record,
    SlotsTaken,
    SlotsWanted,
    UsageCounts,
    UsageKey,
    Written,
)
from qwen_proxy.storage.memory import MemoryStore

POLL_SECONDS = 0.25  # of SQLite (storage/sqlite.py)
LOOK_SECONDS = 1.0  # of Redis (storage/redis.py)


class Service(Struct, frozen=True, kw_only=True):
    """Milliseconds. call: of the server, for any call that changes something; name: beyond that, for each name of
    accounts in it; flush: for a write that has to reach the disk; read: for one that only looks; trip: to the server
    and back. has_one_queue: reads wait for writes too, and changes are told at once (Redis)."""

    call: float
    name: float
    flush: float
    read: float
    trip: float
    has_one_queue: bool


class QueuedStore(MemoryStore):
    """calls, busy_seconds: since `reset`."""

    def __init__(self, clock: VirtualClock, service: Service) -> None:
        super().__init__(clock)
        self._virtual = clock
        self._service = service
        self._free_at = 0.0
        self._pause = LOOK_SECONDS if service.has_one_queue else POLL_SECONDS
        self._bells: list[asyncio.Event] = []  # of those who wait for changes
        self.reset()

    def reset(self) -> None:
        self.calls: Counter[str] = Counter()
        self.busy_seconds = 0.0
        self.longest_queue_seconds = 0.0

    async def _turn(self, call: str, milliseconds: float, *, is_read: bool = False) -> None:
        self.calls[call] += 1
        now, seconds = self._virtual.monotonic(), milliseconds / 1000
        if is_read and not self._service.has_one_queue:
            await self._virtual.sleep(seconds + self._service.trip / 1000)
            return
        start = max(now, self._free_at)
        self._free_at = start + seconds
        self.busy_seconds += seconds
        self.longest_queue_seconds = max(self.longest_queue_seconds, start - now)
        await self._virtual.sleep(self._free_at - now + self._service.trip / 1000)

    async def _change(self, call: str, names: int = 0, *, flushed: bool = False) -> None:
        service = self._service
        await self._turn(call, service.call + names * service.name + (service.flush if flushed else 0.0))

    async def _look(self, call: str, names: int = 0) -> None:
        await self._turn(call, self._service.read + names * self._service.name, is_read=True)

    async def get(self, kind: Kind, id: str) -> Record | None:
        await self._look("get")
        return await super().get(kind, id)

    async def find(self, kind: Kind, *, after: str = "", limit: int = 1000) -> list[Record]:
        found = await super().find(kind, after=after, limit=limit)
        await self._look("find", len(found))
        return found

    async def write(self, changes: Sequence[Change]) -> Written:
        flushed = any(isinstance(change, Append) or change.kind.is_flushed for change in changes)
        await self._change("write", len(changes), flushed=flushed)
        written = await super().write(changes)
        for bell in self._bells:
            bell.set()
        return written

    def slots_of(self, processes: Set[str]) -> int:
        """How many are held by any of these, as the store counts now."""
        return sum(count for holders in self._slots.values() for id, count in holders.items() if id in processes)

    async def generation(self) -> int:
        await self._look("generation")
        return await super().generation()

    async def changes(self, since: int) -> Changes:
        await self._look("changes")
        return await super().changes(since)

    async def wait(self, since: int, timeout_seconds: float) -> int:
        deadline = self._virtual.monotonic() + timeout_seconds
        bell = asyncio.Event()
        if self._service.has_one_queue:
            self._bells.append(bell)
        try:
            while True:
                bell.clear()
                generation = await self.generation()
                left = deadline - self._virtual.monotonic()
                if generation != since or left <= 0:
                    return generation
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(self._pause, left)):
                        await bell.wait()
        finally:
            if self._service.has_one_queue:
                self._bells.remove(bell)

    async def add_usage(self, counts: Mapping[UsageKey, UsageCounts]) -> None:
        await self._change("add_usage", len(counts))
        await super().add_usage(counts)

    async def join(self, row: ProcessRow, holds: Sequence[Hold]) -> None:
        await self._change("join", len(holds))
        await super().join(row, holds)

    async def beat(self, process: str, *, is_hungry: bool, status: bytes) -> Beat:
        await self._change("beat")
        return await super().beat(process, is_hungry=is_hungry, status=status)

    async def leave(self, process: str) -> None:
        await self._change("leave")
        await super().leave(process)

    async def take(self, process: str, wanted: SlotsWanted) -> SlotsTaken:
        await self._change("take", len(wanted.names))
        return await super().take(process, wanted)

    async def give(self, process: str, holds: Sequence[Hold]) -> None:
        await self._change("give", len(holds))
        await super().give(process, holds)

    async def draw(self, draws: Sequence[Draw]) -> list[Drawn]:
        await self._change("draw", len(draws))
        return await super().draw(draws)

    async def charge(self, charges: Sequence[Charge]) -> None:
        await self._change("charge", len(charges))
        await super().charge(charges)
