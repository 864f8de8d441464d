"""Being up to date for those who miss something that another process may have written a moment ago."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock

SPACING_SECONDS: Final = 0.05


class Freshness:
    """One reading for all who ask at a time, and at most one each SPACING_SECONDS: a flood of questions about what
    does not exist, such as wrong keys, is no flood for the store.

    catch_up: as `state.watching.Watch.catch_up`.
    """

    def __init__(self, catch_up: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self._catch_up = catch_up
        self._clock = clock
        self._reading = asyncio.Lock()
        self._begun = 0  # readings, counted
        self._ended = 0  # the number of the last that came to its end, well or not
        self._failure: StoreUnavailable | None = None  # of that one
        self._next_at = 0.0

    async def read(self) -> None:
        """What was written before this call is known when it returns. Raises StoreUnavailable."""
        begun = self._begun
        async with self._reading:
            if self._ended <= begun:  # else one that began behind our call has come to its end
                await self._read()
            if self._failure is not None:
                raise self._failure.with_traceback(None)

    async def _read(self) -> None:
        await self._clock.sleep(max(0.0, self._next_at - self._clock.monotonic()))
        self._begun = number = self._begun + 1
        self._next_at = self._clock.monotonic() + SPACING_SECONDS
        failure: StoreUnavailable | None = None
        try:
            await self._catch_up()
        except StoreUnavailable as error:
            failure = error
        self._ended, self._failure = number, failure
