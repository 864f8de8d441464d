"""One timer for many deadlines."""

import asyncio
from collections.abc import Callable

from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks


class Alarm:
    """Calls `ring()` at the earliest time asked for; who still waits for a later one asks again in `ring`.

    Asking for a time that is not the earliest costs a comparison.
    """

    def __init__(self, clock: Clock, tasks: Tasks, ring: Callable[[], None], *, name: str) -> None:
        self._clock = clock
        self._tasks = tasks
        self._ring = ring
        self._name = name
        self._at: float | None = None
        self._timer: asyncio.Task[None] | None = None

    def at(self, monotonic: float) -> None:
        if self._at is not None and self._at <= monotonic:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = monotonic
        self._timer = self._tasks.spawn(self._wait(monotonic), name=self._name)

    async def _wait(self, monotonic: float) -> None:
        await self._clock.sleep(max(0.0, monotonic - self._clock.monotonic()))
        self._at = self._timer = None
        self._ring()
