"""The queue of sign-ins: one at a time per exit, spaced, the most wanted first.

Source: upstream protocol §1.3 (a few quick sign-ins from one address meet a wall).
"""

import itertools
from collections.abc import Awaitable, Callable
from enum import IntEnum
from random import Random
from typing import Final

from qwen_proxy.accounts.seats import Exit
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks

Perform = Callable[[], Awaitable[None]]

JITTER: Final = 0.3  # of the spacing, so that sign-ins do not come like clockwork


class Urgency(IntEnum):
    """Lower goes first."""

    DEMANDED = 0  # someone waits for this very account
    MISSING = 1  # it has no token
    BULK = 2  # it is about to be added
    REFRESH = 3  # its token still works


class _Desk:
    """The sign-ins of one exit."""

    __slots__ = ("current", "free_at", "is_running", "pending")

    def __init__(self) -> None:
        self.pending: dict[str, tuple[Urgency, int, Perform]] = {}
        self.current = ""
        self.is_running = False
        self.free_at = 0.0


class SignInQueue:
    """What is asked for signs in and deals with the end, good or bad. No task lives while nothing is asked for."""

    def __init__(
        self, clock: Clock, random: Random, tasks: Tasks, *, spacing_seconds: float, jitter: float = JITTER
    ) -> None:
        self._clock = clock
        self._random = random
        self._tasks = tasks
        self.spacing_seconds = spacing_seconds
        self._jitter = jitter
        self._desks: dict[str, _Desk] = {}
        self._order = itertools.count()

    def ask(self, exit: Exit, key: str, urgency: Urgency, perform: Perform) -> None:
        """Queue it, or hasten it where it is queued. What is under way is not queued again. `key`: the account."""
        desk = self._desks.setdefault(exit.name, _Desk())
        if desk.current == key:
            return
        queued = desk.pending.get(key)
        if queued is None or urgency < queued[0]:
            desk.pending[key] = (urgency, next(self._order), perform)
        if not desk.is_running:
            desk.is_running = True
            self._tasks.spawn(self._serve(desk, exit), name="sign-in")

    def forget(self, exit: Exit, key: str) -> None:
        """It is no longer wanted; one that is under way goes on."""
        if (desk := self._desks.get(exit.name)) is not None:
            desk.pending.pop(key, None)

    def forget_all(self) -> None:
        for desk in self._desks.values():
            desk.pending.clear()

    def not_before(self, exit: Exit, monotonic: float) -> None:
        """The next one through this exit: another process may have signed in a moment ago."""
        desk = self._desks.setdefault(exit.name, _Desk())
        desk.free_at = max(desk.free_at, monotonic)

    async def _serve(self, desk: _Desk, exit: Exit) -> None:
        try:
            while desk.pending:
                if (wait_seconds := self._wait_seconds(desk, exit)) > 0:
                    await self._clock.sleep(wait_seconds)
                    continue
                key = min(desk.pending, key=lambda each: desk.pending[each][:2])
                perform = desk.pending.pop(key)[2]
                spacing = self.spacing_seconds * (1 + self._jitter * self._random.random())
                desk.free_at = self._clock.monotonic() + spacing
                desk.current = key
                await perform()
                desk.current = ""
        finally:
            desk.current = ""
            desk.is_running = False

    def _wait_seconds(self, desk: _Desk, exit: Exit) -> float:
        rests_until = max(exit.health.sign_in.until, exit.health.unreachable.until)
        return max(desk.free_at - self._clock.monotonic(), rests_until - self._clock.now())
