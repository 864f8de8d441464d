"""What was used, by whom, of what: gathered in memory, added to the store each second.

A request counts once, under the account that answered it or was tried last; it is a failure when the client was told
of one. What a killed process gathered in its last second is lost; a store that is not there gets it later.
"""

import asyncio
import logging
from types import TracebackType
from typing import Final, Self

from qwen_proxy.chat.events import Usage
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import HOUR_SECONDS, Store, UsageCounts, UsageKey

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
MOST_ROWS: Final = 100_000  # of different keys, accounts and models, while the store is away
NOTHING: Final = UsageCounts()
UNUSED: Final = Usage(prompt_tokens=0, completion_tokens=0)


class UsageRecorder:
    """Adds each second while it is entered, and once more when it is left."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._gathered: dict[UsageKey, UsageCounts] = {}
        self._lost = 0
        self._is_away = False
        self._adding = asyncio.Lock()
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        self._tasks.spawn(self._run(), name="usage")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._adding:  # what is being added is not cut off: nobody would know whether it arrived
            await self._tasks.__aexit__(kind, error, trace)
        await self.flush()

    def note(
        self, *, key_id: str, account_id: str, model: str, feature: str, usage: Usage | None, has_failed: bool
    ) -> None:
        """A request is over."""
        now = int(self._clock.now())
        row = UsageKey(starts_at=now - now % HOUR_SECONDS, key=key_id, account=account_id, model=model, feature=feature)
        known = self._gathered.get(row, NOTHING)
        if known is NOTHING and len(self._gathered) >= MOST_ROWS:
            self._lost += 1
            return
        used = usage or UNUSED
        self._gathered[row] = UsageCounts(
            requests=known.requests + 1,
            failures=known.failures + has_failed,
            prompt_tokens=known.prompt_tokens + used.prompt_tokens,
            completion_tokens=known.completion_tokens + used.completion_tokens,
            reasoning_tokens=known.reasoning_tokens + used.reasoning_tokens,
        )

    async def flush(self) -> None:
        """Nothing is lost when the store does not answer: it is added the next time."""
        async with self._adding:
            await self._flush()

    async def _flush(self) -> None:
        if not self._gathered:
            return
        gathered, self._gathered = self._gathered, {}
        try:
            await self._store.add_usage(gathered)
            self._is_away = False
        except StoreUnavailable as error:
            if not self._is_away:
                log.warning("usage not written yet", extra={"rows": len(gathered), "reason": str(error)})
            self._is_away = True
            for row, counts in gathered.items():
                self._add(row, counts)
        if self._lost:
            log.error("usage lost: too much waits for the store", extra={"requests": self._lost})
            self._lost = 0

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            await self.flush()

    def _add(self, row: UsageKey, counts: UsageCounts) -> None:
        known = self._gathered.get(row)
        if known is None and len(self._gathered) >= MOST_ROWS:
            self._lost += counts.requests
        else:
            self._gathered[row] = counts if known is None else known + counts
