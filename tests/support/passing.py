"""A way to a store that another store's every call passes through."""

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Self, TypeVar

from qwen_proxy.state.store import (
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
    Store,
    UsageCounts,
    UsageKey,
    Written,
)

T = TypeVar("T")


class PassingStore(ABC):
    """Fits `state.store.Store`, over another, which is opened and closed by itself."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @abstractmethod
    async def _through(self, name: str, call: Coroutine[Any, Any, T]) -> T:
        """Do the call, which was not begun yet, and give its answer; or close it and raise what a store may."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:  # noqa: B027 - most have nothing to close
        pass

    async def get(self, kind: Kind, id: str) -> Record | None:
        return await self._through("get", self._store.get(kind, id))

    async def find(self, kind: Kind, *, after: str = "", limit: int = 1000) -> list[Record]:
        return await self._through("find", self._store.find(kind, after=after, limit=limit))

    async def write(self, changes: Sequence[Change]) -> Written:
        return await self._through("write", self._store.write(changes))

    async def generation(self) -> int:
        return await self._through("generation", self._store.generation())

    async def changes(self, since: int) -> Changes:
        return await self._through("changes", self._store.changes(since))

    async def wait(self, since: int, timeout_seconds: float) -> int:
        return await self._through("wait", self._store.wait(since, timeout_seconds))

    async def sweep(self) -> None:
        await self._through("sweep", self._store.sweep())

    async def log(self, topic: str, *, before: int | None = None, limit: int = 100) -> list[LogLine]:
        return await self._through("log", self._store.log(topic, before=before, limit=limit))

    async def prune_log(self, topic: str, before_at: float) -> None:
        await self._through("prune_log", self._store.prune_log(topic, before_at))

    async def add_usage(self, counts: Mapping[UsageKey, UsageCounts]) -> None:
        await self._through("add_usage", self._store.add_usage(counts))

    async def usage(self, since: float, until: float, *, by_day: bool = False) -> dict[UsageKey, UsageCounts]:
        return await self._through("usage", self._store.usage(since, until, by_day=by_day))

    async def prune_usage(self, before_at: float, *, by_day: bool = False) -> None:
        await self._through("prune_usage", self._store.prune_usage(before_at, by_day=by_day))

    async def join(self, row: ProcessRow, holds: Sequence[Hold]) -> None:
        await self._through("join", self._store.join(row, holds))

    async def beat(self, process: str, *, is_hungry: bool, status: bytes) -> Beat:
        return await self._through("beat", self._store.beat(process, is_hungry=is_hungry, status=status))

    async def leave(self, process: str) -> None:
        await self._through("leave", self._store.leave(process))

    async def processes(self) -> list[ProcessRow]:
        return await self._through("processes", self._store.processes())

    async def take(self, process: str, wanted: SlotsWanted) -> SlotsTaken:
        return await self._through("take", self._store.take(process, wanted))

    async def give(self, process: str, holds: Sequence[Hold]) -> None:
        await self._through("give", self._store.give(process, holds))

    async def taken(self, prefix: str) -> dict[str, int]:
        return await self._through("taken", self._store.taken(prefix))

    async def draw(self, draws: Sequence[Draw]) -> list[Drawn]:
        return await self._through("draw", self._store.draw(draws))

    async def charge(self, charges: Sequence[Charge]) -> None:
        await self._through("charge", self._store.charge(charges))

    async def check(self) -> str | None:
        return await self._through("check", self._store.check())

    async def erase(self) -> None:
        await self._through("erase", self._store.erase())
