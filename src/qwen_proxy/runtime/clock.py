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
    """The machine's."""

    def now(self) -> float:
        return time.time()  # noqa: TID251

    def monotonic(self) -> float:
        return time.monotonic()  # noqa: TID251

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
