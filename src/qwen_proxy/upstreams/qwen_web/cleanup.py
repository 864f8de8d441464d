"""Deletes the upstream's chats after use: else the account's side bar fills. Source: upstream protocol §3.5."""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Self

from msgspec import Struct

from qwen_proxy.accounts.model import Credential
from qwen_proxy.ground.errors import ProxyError, UpstreamChallenged
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.upstreams.qwen_web.errors import classify_body
from qwen_proxy.upstreams.qwen_web.site import Site

log = logging.getLogger(__name__)


class CleanupCounts(Struct, frozen=True):
    """What became of the chats that were handed over. A dropped one found the queue full."""

    deleted: int = 0
    failed: int = 0
    dropped: int = 0
    waiting: int = 0


class _Waiting(Struct, frozen=True):
    due_at: float
    credential: Credential
    chat_id: str


class ChatCleanup:
    """Works in the background while entered; leaving works off the queue for a bounded time. A failure harms nobody."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._options = site.options.cleanup
        self._queue: deque[_Waiting] = deque()  # in order of due_at: the delay is the same for all
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(self._options.max_at_once)
        self._tasks = Tasks()
        self._is_closing = False
        self._rest_until = 0.0
        self._deleted = self._failed = self._dropped = 0

    @property
    def counts(self) -> CleanupCounts:
        return CleanupCounts(self._deleted, self._failed, self._dropped, len(self._queue))

    def hand_over(self, credential: Credential, chat_id: str) -> None:
        """The chat is not needed any more."""
        delay_seconds = self._options.delete_after_seconds
        if delay_seconds is None:
            return
        if len(self._queue) >= self._options.max_waiting:
            self._dropped += 1
            return
        self._queue.append(_Waiting(self._site.clock.monotonic() + delay_seconds, credential, chat_id))
        self._wake.set()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.spawn(self._work(), name="chat cleanup")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._wake.set()
        await self._tasks.settle(self._options.shutdown_seconds)
        self._dropped += len(self._queue)
        self._queue.clear()
        await self._tasks.__aexit__(kind, error, trace)

    async def _work(self) -> None:
        while self._queue or not self._is_closing:
            if not self._queue:
                await self._wake.wait()
                self._wake.clear()
                continue
            now = self._site.clock.monotonic()
            if self._is_closing and now < self._rest_until:
                break
            seconds = max(self._queue[0].due_at, self._rest_until) - now
            if seconds > 0 and not self._is_closing:
                await self._sleep_or_close(seconds)
                continue
            await self._slots.acquire()
            self._tasks.spawn(self._delete(self._queue.popleft()), name="delete chat")
            if self._options.spacing_seconds and not self._is_closing:
                await self._site.clock.sleep(self._options.spacing_seconds)
        for _ in range(self._options.max_at_once):  # wait for those under way
            await self._slots.acquire()

    async def _sleep_or_close(self, seconds: float) -> None:
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _delete(self, chat: _Waiting) -> None:
        try:
            response = await self._site.call(
                "DELETE",
                f"/api/v2/chats/{chat.chat_id}",
                page="/",
                credential=chat.credential,
                timeout_seconds=self._options.timeout_seconds,
            )
            status = self._site.status(response)
            failure = classify_body(status, response.body, "", self._site.drift)
            if isinstance(failure, UpstreamChallenged):
                self._rest_until = self._site.clock.monotonic() + self._options.rest_seconds
            is_gone = status == 404 or failure is None
        except ProxyError as error:
            log.debug("chat not deleted", extra={"reason": str(error)})
            is_gone = False
        finally:
            self._slots.release()
        if is_gone:
            self._deleted += 1
        else:
            self._failed += 1
