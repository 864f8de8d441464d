"""Asyncio in virtual time: a loop whose clock jumps to whatever happens next, so that an hour costs what its events do.

There are no sockets and no threads in such a loop: with one seed, every run is the same, step by step.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

START = 1_800_000_000.0

T = TypeVar("T")


class _Jump(selectors.SelectSelector):
    """Waits for nothing: it moves the time on by as much as there would have been to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


class VirtualClock:
    """Fits `runtime.clock.Clock`, within a VirtualLoop."""

    def now(self) -> float:
        return START + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(work: Coroutine[None, None, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
