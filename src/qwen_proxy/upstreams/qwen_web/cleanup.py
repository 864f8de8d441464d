"""Deletes the upstream's chats after use: else the account's side bar fills. Source: upstream protocol §3.5."""

import logging
from collections import deque
from types import TracebackType
from typing import Self

from msgspec import Struct

from qwen_proxy.accounts.model import Credential
from qwen_proxy.ground.errors import ProxyError, UpstreamChallenged
from qwen_proxy.runtime.alarm import Alarm
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
    since: float
    credential: Credential
    chat_id: str


class ChatCleanup:
    """Works in the background while entered; leaving works off the queue for a bounded time. A failure harms nobody."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._options = site.options.cleanup
        self._delay_seconds = self._options.delete_after_seconds
        self._queue: deque[_Waiting] = deque()
        self._running = 0
        self._tasks = Tasks()
        self._timers = Tasks()
        self._alarm = Alarm(site.clock, self._timers, self._start, name="chat cleanup")
        self._is_closing = False
        self._rest_until = 0.0
        self._deleted = self._failed = self._dropped = 0

    @property
    def counts(self) -> CleanupCounts:
        return CleanupCounts(self._deleted, self._failed, self._dropped, len(self._queue))

    def hand_over(self, credential: Credential, chat_id: str) -> None:
        """The chat is not needed any more."""
        if self._delay_seconds is None:
            return
        if len(self._queue) >= self._options.max_waiting:
            self._dropped += 1
            return
        self._queue.append(_Waiting(self._site.clock.monotonic(), credential, chat_id))
        self._start()

    def delete_after(self, seconds: float | None) -> None:
        """From now on, for chats that wait too; None keeps them."""
        self._delay_seconds = seconds
        if seconds is None:
            self._queue.clear()
        self._start()

    async def __aenter__(self) -> Self:
        await self._timers.__aenter__()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._start()
        clock = self._site.clock
        deadline = clock.monotonic() + self._options.shutdown_seconds
        while self._running and (left := deadline - clock.monotonic()) > 0:
            await self._tasks.settle(left)
        self._dropped += len(self._queue)
        self._queue.clear()
        await self._tasks.__aexit__(kind, error, trace)
        await self._timers.__aexit__(kind, error, trace)

    def _start(self) -> None:
        """Begin what is due, as far as there is room; see to it that the rest is begun in its time."""
        now = self._site.clock.monotonic()
        while self._queue and self._running < self._options.max_at_once:
            due_at = self._queue[0].since + (self._delay_seconds or 0)
            due_at = self._rest_until if self._is_closing else max(due_at, self._rest_until)
            if due_at > now:
                if not self._is_closing:
                    self._alarm.at(due_at)
                return
            self._running += 1
            self._tasks.spawn(self._delete(self._queue.popleft()), name="delete chat")

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
            self._running -= 1
        if is_gone:
            self._deleted += 1
        else:
            self._failed += 1
        self._start()
