"""Time, as something that is handed in."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """`now()` is Unix seconds, `monotonic()` seconds that never go back; `sleep` is cancellable."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's. Without functions of its own: each read of an upstream asks for the time twice."""

    now = staticmethod(time.time)  # noqa: TID251
    monotonic = staticmethod(time.monotonic)  # noqa: TID251

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
