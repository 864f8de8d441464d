"""A store that a test can cut off, and whose answers it can hold up."""

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import Beat, Changes, Hold, Kind, ProcessRow, Record, SlotsTaken, SlotsWanted
from qwen_proxy.storage.memory import MemoryStore

T = TypeVar("T")


class ShakyStore(MemoryStore):
    """is_down: nothing gets through. loses_answers: what is asked is done, and nobody hears of it. hang: answers wait
    for go_on. asked: the names of the calls that got through, in order."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.is_down = False
        self.loses_answers = False
        self.asked: list[str] = []
        self._going = asyncio.Event()
        self._going.set()

    def hang(self) -> None:
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    def _ask(self, call: str) -> None:
        if self.is_down:
            raise StoreUnavailable("cut off by the test")
        self.asked.append(call)

    async def _answer(self, value: T) -> T:
        await self._going.wait()
        if self.loses_answers:
            raise StoreUnavailable("the answer was lost by the test")
        return value

    async def get(self, kind: Kind, id: str) -> Record | None:
        self._ask("get")
        return await self._answer(await super().get(kind, id))

    async def find(self, kind: Kind, *, after: str = "", limit: int = 1000) -> list[Record]:
        self._ask("find")
        return await self._answer(await super().find(kind, after=after, limit=limit))

    async def generation(self) -> int:
        self._ask("generation")
        return await self._answer(await super().generation())

    async def changes(self, since: int) -> Changes:
        self._ask("changes")
        return await self._answer(await super().changes(since))

    async def wait(self, since: int, timeout_seconds: float) -> int:
        self._ask("wait")
        return await self._answer(await super().wait(since, timeout_seconds))

    async def join(self, row: ProcessRow, holds: Sequence[Hold]) -> None:
        self._ask("join")
        await self._answer(await super().join(row, holds))

    async def beat(self, process: str, *, is_hungry: bool, status: bytes) -> Beat:
        self._ask("beat")
        return await self._answer(await super().beat(process, is_hungry=is_hungry, status=status))

    async def leave(self, process: str) -> None:
        self._ask("leave")
        await self._answer(await super().leave(process))

    async def take(self, process: str, wanted: SlotsWanted) -> SlotsTaken:
        self._ask("take")
        return await self._answer(await super().take(process, wanted))

    async def give(self, process: str, holds: Sequence[Hold]) -> None:
        self._ask("give")
        await self._answer(await super().give(process, holds))
