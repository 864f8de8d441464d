"""One try to get an answer's headers, and how long it may take."""

import asyncio
from typing import Literal

Phase = Literal["connect", "headers", "total"]


class Attempt:
    """The time one request has until its headers: first to get a connection, then for the answer's start.

    The watchdog ends it by cancelling the request's task, as asyncio.timeout does, without a timer of its own.
    """

    __slots__ = ("_cancelling", "_deadline", "_since", "_task", "expired", "phase", "seconds")

    def __init__(self, deadline: float, now: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._deadline = deadline
        self.expired = False
        self.seconds = 0.0  # that it had, once it expired
        self.begin("connect", now)

    def begin(self, phase: Phase, now: float) -> None:
        self.phase: Phase = phase
        self._since = now

    def expire(self, now: float, connect_seconds: float, headers_seconds: float) -> None:
        """Nothing is worked out before the watchdog looks: most attempts are over by then."""
        if self.expired:
            return
        seconds = connect_seconds if self.phase == "connect" else headers_seconds
        phase, left = self.phase, max(0.0, self._deadline - self._since)
        if left <= seconds:
            phase, seconds = "total", left
        if now >= self._since + seconds:
            self.expired, self.phase, self.seconds = True, phase, seconds
            self._task.cancel()

    def was_cancelled_by_us(self) -> bool:
        """Ask once, for a cancellation that came: whether it was the watchdog's alone."""
        return self.expired and self._task.uncancel() <= self._cancelling
