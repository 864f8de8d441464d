"""One subscription for the whole process: wakes who waits when another has changed something."""

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.storage.redis_server import RedisServer

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 0.5


class Listening:
    """Runs within `tasks`. A message may be missed while there is no connection: who waits looks by itself too."""

    def __init__(self, server: RedisServer, channel: str, clock: Clock, tasks: Tasks) -> None:
        self._server = server
        self._channel = channel
        self._clock = clock
        self._tasks = tasks
        self._bells: set[asyncio.Event] = set()

    def start(self) -> None:
        self._tasks.spawn(self._run(), name="redis subscription")

    @contextmanager
    def bell(self) -> Generator[asyncio.Event]:
        """Set with each message, and whenever the subscription was made anew."""
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            yield bell
        finally:
            self._bells.discard(bell)

    async def rung(self, bell: asyncio.Event, within_seconds: float) -> None:
        """Return when it is set, or after that time."""

        async def ring_late() -> None:
            await self._clock.sleep(within_seconds)
            bell.set()

        timer = self._tasks.spawn(ring_late(), name="end of waiting")
        try:
            await bell.wait()
        finally:
            timer.cancel()

    async def _run(self) -> None:
        was_heard = True
        while True:
            try:
                async with self._server.subscription(self._channel) as subscription:
                    while True:
                        await subscription.get_message(timeout=None)
                        was_heard = True
                        for bell in self._bells:
                            bell.set()
            except StoreUnavailable as error:
                if was_heard:  # once an outage
                    log.warning("changes are looked for each second only", extra={"reason": str(error)})
                was_heard = False
            await self._clock.sleep(AGAIN_SECONDS)
