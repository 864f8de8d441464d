"""The queue of sign-ins: one at a time per exit, spaced, the most wanted first.

Source: upstream protocol §1.3 (a few quick sign-ins from one address meet a wall).
"""

import itertools
from collections.abc import Awaitable, Callable
from enum import IntEnum

from qwen_proxy.accounts.seats import Exit, Seat
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks


class Urgency(IntEnum):
    """Lower goes first."""

    DEMANDED = 0  # someone waits for this very account
    MISSING = 1  # it has no token
    REFRESH = 2  # its token still works


class _Desk:
    """The sign-ins of one exit."""

    __slots__ = ("current", "free_at", "is_running", "pending")

    def __init__(self) -> None:
        self.pending: dict[str, tuple[Urgency, int, Seat]] = {}
        self.current: Seat | None = None
        self.is_running = False
        self.free_at = 0.0


class SignInQueue:
    """`perform(seat)` signs in and deals with the end, good or bad; it is called for each seat asked for.

    No task lives while nothing is asked for.
    """

    def __init__(
        self,
        perform: Callable[[Seat], Awaitable[None]],
        clock: Clock,
        tasks: Tasks,
        *,
        spacing_seconds: float,
    ) -> None:
        self._perform = perform
        self._clock = clock
        self._tasks = tasks
        self._spacing_seconds = spacing_seconds
        self._desks: dict[str, _Desk] = {}
        self._order = itertools.count()

    def ask(self, seat: Seat, urgency: Urgency) -> None:
        """Queue it, or hasten it where it is queued. An account that is being signed in is not queued again."""
        desk = self._desks.setdefault(seat.exit.name, _Desk())
        if desk.current is seat:
            return
        queued = desk.pending.get(seat.account.id)
        if queued is None or urgency < queued[0]:
            desk.pending[seat.account.id] = (urgency, next(self._order), seat)
        if not desk.is_running:
            desk.is_running = True
            self._tasks.spawn(self._serve(desk, seat.exit), name="sign-in")

    def forget(self, seat: Seat) -> None:
        """It is no longer wanted; one that is under way goes on."""
        if (desk := self._desks.get(seat.exit.name)) is not None:
            desk.pending.pop(seat.account.id, None)

    async def _serve(self, desk: _Desk, exit: Exit) -> None:
        try:
            while desk.pending:
                if (wait_seconds := self._wait_seconds(desk, exit)) > 0:
                    await self._clock.sleep(wait_seconds)
                    continue
                seat = min(desk.pending.values(), key=lambda entry: entry[:2])[2]
                del desk.pending[seat.account.id]
                desk.free_at = self._clock.monotonic() + self._spacing_seconds
                desk.current = seat
                await self._perform(seat)
                desk.current = None
        finally:
            desk.current = None
            desk.is_running = False

    def _wait_seconds(self, desk: _Desk, exit: Exit) -> float:
        rests_until = max(exit.health.sign_in.until, exit.health.unreachable.until)
        return max(desk.free_at - self._clock.monotonic(), rests_until - self._clock.now())
