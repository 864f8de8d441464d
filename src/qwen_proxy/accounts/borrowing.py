"""Which account's uses to borrow for a request, and whether that is better than what is in hand.

Only with other processes about: one that is alone holds every use there is. A question to the store takes a moment,
so it is asked only where nothing is in hand, or where what is in hand is second best: another account than the
session's own, or one that was to be avoided.
"""

from collections.abc import Callable

from qwen_proxy.accounts.health import Obstacle, hindrance
from qwen_proxy.accounts.ordering import Order, is_avoided
from qwen_proxy.accounts.seats import Seat
from qwen_proxy.accounts.waiting import Want


class Borrowing:
    """may_borrow: whether another use of an account may be had, as far as is known."""

    def __init__(self, order: Order, may_borrow: Callable[[Seat], bool]) -> None:
        self._order = order
        self._may_borrow = may_borrow

    def own(self, want: Want, now: float, limit: int) -> Seat | None:
        """The account of the session, where it lacks a use and one may be had."""
        if not want.session:
            return None
        own = self._order.own(want.session, want.feature, now, limit)
        if own is None or own.in_use < own.held or not self._may_borrow(own) or _is_avoided(own, want):
            return None
        return own

    def is_better(self, in_hand: Seat, want: Want, now: float, limit: int) -> bool:
        """Whether an account may be had that was not to be avoided, where the one in hand was."""
        return _is_avoided(in_hand, want) and any(
            self._may_borrow(seat) and not _is_avoided(seat, want)
            for seat in self._order.lacking(want.feature, now, limit)
        )

    def names(self, want: Want, now: float, limit: int) -> list[Seat]:
        """Those of which a use would serve this, the preferred first. Of the highest priority of which any may be had:
        the store may choose among them. Where none may be had now, those that lack uses, to ask for again."""
        if want.only_account is not None:
            seat = self._order.get(want.only_account)
            lacking = [] if seat is None or not _lacks(seat, want, now, limit) else [seat]
        else:
            lacking = list(self._order.lacking(want.feature, now, limit))
        lacking = [seat for seat in lacking if seat.held < limit]
        open = [seat for seat in lacking if self._may_borrow(seat)] or lacking
        best = [seat for seat in open if not _is_avoided(seat, want)] or open
        best = [seat for seat in best if seat.account.priority == best[0].account.priority]
        own = self.own(want, now, limit)
        return best if own is None else [own, *(seat for seat in best if seat is not own)]


def _lacks(seat: Seat, want: Want, now: float, limit: int) -> bool:
    hindered = hindrance(seat, want.feature, now, limit)
    return hindered is not None and hindered.obstacle is Obstacle.BUSY


def _is_avoided(seat: Seat, want: Want) -> bool:
    return is_avoided(seat, want.avoid_accounts, want.avoid_exits)
