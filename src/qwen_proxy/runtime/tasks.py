"""Tasks that are named, logged when they fail, and awaited at the end."""

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)


class Tasks:
    """Owns what it spawned: leaving the block cancels what still runs and waits for it.

    A task that fails is logged with its name; the failure ends that task only.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name=name)  # noqa: TID251
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", extra={"task": task.get_name()}, exc_info=error)

    async def settle(self, timeout_seconds: float) -> None:
        """Wait for what runs to end by itself, at most so long."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
