"""Which account's uses to borrow for a request, and whether that is better than what is in hand.

Only with other processes about: one that is alone holds every use there is. A question to the store takes a moment,
so it is asked only where nothing is in hand, or where what is in hand is second best: another account than the
session's own, or one that was to be avoided.
"""

from collections.abc import Callable
from itertools import groupby, islice
from typing import Final

from qwen_proxy.accounts.ordering import Order, is_avoided
from qwen_proxy.accounts.seats import Seat
from qwen_proxy.accounts.waiting import Want
from qwen_proxy.config.choices import Strategy
from qwen_proxy.runtime.clock import Clock

MOST_NAMES: Final = 64  # of accounts in one question to the store; each costs Redis 2 µs
SPREAD: Final = frozenset({Strategy.LEAST_LOADED, Strategy.ROUND_ROBIN})


class Borrowing:
    """place: of this process, another number than others have. Where it does not matter which of many accounts is
    borrowed, every process asks for others, else all would ask for the same, and find them taken."""

    def __init__(self, order: Order, clock: Clock, place: int, strategy: Strategy) -> None:
        self._order = order
        self._clock = clock
        self._place = place
        self._is_spread = strategy in SPREAD

    def follow(self, strategy: Strategy) -> None:
        self._is_spread = strategy in SPREAD

    def own(self, want: Want, now: float, limit: int) -> Seat | None:
        """The account of the session, where it lacks a use and one may be had."""
        if not want.session:
            return None
        own = self._order.own(want.session, want.feature, now, limit)
        if own is None or own.in_use < own.held or _is_avoided(own, want):
            return None
        return own if may_borrow(own, limit, self._clock.monotonic()) else None

    def is_better(self, in_hand: Seat, want: Want, now: float, limit: int) -> bool:
        """Whether an account may be had that was not to be avoided, where the one in hand was."""
        if not _is_avoided(in_hand, want):
            return False
        open = self._open(want, limit)
        return any(
            self._order.lacking(want.feature, now, limit, lambda seat: open(seat) and not _is_avoided(seat, want))
        )

    def names(self, want: Want, now: float, limit: int) -> list[Seat]:
        """Those of which a use would serve this, the preferred first, at most MOST_NAMES. All of one priority, the
        highest of which any may be had: the store may choose among them. Where none may be had now, those that lack
        uses all the same, to ask for later."""
        open = self._open(want, limit)
        found = (
            self._lacking(want, now, limit, lambda seat: open(seat) and not _is_avoided(seat, want))
            or self._lacking(want, now, limit, open)
            or self._lacking(want, now, limit, lambda seat: seat.held < limit and _is_meant(seat, want))
        )
        own = self.own(want, now, limit)
        return found if own is None else [own, *(seat for seat in found if seat is not own)]

    def _lacking(self, want: Want, now: float, limit: int, such: Callable[[Seat], bool]) -> list[Seat]:
        lacking = self._order.lacking(want.feature, now, limit, such, self._start)
        _, equals = next(groupby(lacking, lambda seat: seat.account.priority), (0, ()))
        return list(islice(equals, MOST_NAMES))

    def _start(self, count: int) -> int:
        """With which of so many to begin."""
        if not self._is_spread or count <= MOST_NAMES:
            return 0
        self._place += MOST_NAMES
        return self._place % count

    def _open(self, want: Want, limit: int) -> Callable[[Seat], bool]:
        now = self._clock.monotonic()
        return lambda seat: may_borrow(seat, limit, now) and _is_meant(seat, want)


def may_borrow(seat: Seat, limit: int, monotonic: float) -> bool:
    """Whether another use of it may be had, as far as is known."""
    return seat.held < limit and seat.full_until <= monotonic


def _is_meant(seat: Seat, want: Want) -> bool:
    return want.only_account is None or want.only_account == seat.account.id


def _is_avoided(seat: Seat, want: Want) -> bool:
    return is_avoided(seat, want.avoid_accounts, want.avoid_exits)
