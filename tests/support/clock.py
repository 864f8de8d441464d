"""A clock that stands still until a test moves it, and one whose minute has just begun."""

import asyncio
import heapq
import itertools

from qwen_proxy.runtime.clock import SystemClock

QUIET_TURNS = 25  # of the loop: enough for a chain of tasks without I/O to come to rest


class FakeClock:
    """Fits `runtime.clock.Clock`. `advance` wakes sleepers one by one, each at its own time, in order of time, then
    of arrival, and lets the loop come to rest in between; so what a sleeper does next sees the time it woke at."""

    def __init__(self, now: float = 1_800_000_000.0, monotonic: float = 1_000.0) -> None:
        self._now = now
        self._monotonic = monotonic
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    @property
    def sleepers(self) -> int:
        return sum(1 for _, _, future in self._sleepers if not future.done())

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if seconds <= 0:
            future.set_result(None)
            await asyncio.sleep(0)
        else:
            heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        end = self._monotonic + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                self._move_to(at)
                future.set_result(None)
                await self.settle()
        self._move_to(end)
        await self.settle()

    async def settle(self) -> None:
        """Let everything run that can without time passing."""
        for _ in range(QUIET_TURNS):
            await asyncio.sleep(0)

    def set_wall_clock(self, now: float) -> None:
        """The machine's time is corrected; monotonic time does not notice."""
        self._now = now

    def _move_to(self, monotonic: float) -> None:
        step = max(0.0, monotonic - self._monotonic)
        self._monotonic += step
        self._now += step


class MinuteClock(SystemClock):
    """The machine's, put back a little: a minute has just begun."""

    def __init__(self) -> None:
        now = super().now()
        self._begun_at = now - now % 60
        self._since = self.monotonic()

    def now(self) -> float:
        return self._begun_at + self.monotonic() - self._since
