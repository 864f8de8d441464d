"""Which accounts' uses a process asks for."""

from qwen_proxy.accounts.borrowing import MOST_NAMES, Borrowing
from qwen_proxy.accounts.health import HEALTHY, AccountHealth, Rest
from qwen_proxy.accounts.model import Account, Credential, Feature
from qwen_proxy.accounts.ordering import Order
from qwen_proxy.accounts.seats import Exit, Seat
from qwen_proxy.accounts.waiting import Want
from qwen_proxy.config.choices import Strategy
from qwen_proxy.ground.secret import Secret
from tests.support.clock import FakeClock

LIMIT = 2
WANT = Want(feature=Feature.CHAT, deadline=0.0)


class Desk:
    """One process that has borrowed nothing yet."""

    def __init__(self, *names: str, strategy: Strategy = Strategy.LEAST_LOADED, place: int = 0) -> None:
        self.clock = FakeClock()
        self.seats = {name: _seat(name) for name in names}
        self.order = Order(strategy, self.seats.values())
        self.borrowing = Borrowing(self.order, self.clock, place, strategy)

    def names(self, want: Want = WANT) -> list[str]:
        return [seat.account.id for seat in self.borrowing.names(want, self.clock.now(), LIMIT)]

    def is_full(self, name: str) -> None:
        """Others have all its uses, the store has said."""
        self.seats[name].full_until = self.clock.monotonic() + 1


def _seat(name: str) -> Seat:
    priority = 1 if name.isupper() else 0
    account = Account(id=name, email=name, priority=priority)
    return Seat(account, Credential(account_id=name, token=Secret("t")), HEALTHY, Exit(""))


def many(strategy: Strategy, place: int = 0) -> Desk:
    return Desk(*(f"{number:03}" for number in range(200)), strategy=strategy, place=place)


def test_all_are_asked_for_that_lack_uses_only() -> None:
    desk = Desk(*"abcd")
    desk.seats["b"].health = AccountHealth(challenge=Rest(desk.clock.now() + 60))
    desk.seats["c"].held = 1
    assert desk.names() == ["a", "d"]


def test_one_that_uses_all_it_may_is_not_asked_for() -> None:
    desk = Desk(*"ab")
    desk.seats["a"].held = desk.seats["a"].in_use = LIMIT
    assert desk.names() == ["b"]


def test_the_highest_priority_of_which_any_may_be_had_comes_alone() -> None:
    desk = Desk(*"aBcD")
    assert desk.names() == ["B", "D"]
    desk.is_full("B")
    assert desk.names() == ["D"]
    desk.is_full("D")
    assert desk.names() == ["a", "c"]


def test_where_none_may_be_had_now_all_are_asked_for_again_later() -> None:
    desk = Desk(*"aB")
    desk.is_full("a")
    desk.is_full("B")
    assert desk.names() == ["B"]


def test_what_is_to_be_avoided_is_asked_for_only_where_nothing_else_is_to_be_had() -> None:
    desk = Desk(*"aB")
    want = Want(feature=Feature.CHAT, deadline=0.0, avoid_accounts=frozenset("B"))
    assert desk.names(want) == ["a"]
    assert desk.borrowing.is_better(desk.seats["B"], want, desk.clock.now(), LIMIT)
    assert not desk.borrowing.is_better(desk.seats["a"], want, desk.clock.now(), LIMIT)
    desk.is_full("a")
    assert desk.names(want) == ["B"]
    assert not desk.borrowing.is_better(desk.seats["B"], want, desk.clock.now(), LIMIT)


def test_the_one_that_is_meant_is_asked_for_alone() -> None:
    desk = Desk(*"aBc")
    assert desk.names(Want(feature=Feature.CHAT, deadline=0.0, only_account="c")) == ["c"]
    assert desk.names(Want(feature=Feature.CHAT, deadline=0.0, only_account="gone")) == []


def test_a_sessions_own_account_is_asked_for_first_and_once() -> None:
    desk = Desk(*"abcdef", strategy=Strategy.SESSION)
    own = next(desk.order.preferred("s")).account.id
    names = desk.names(Want(feature=Feature.CHAT, deadline=0.0, session="s"))
    assert names[0] == own
    assert sorted(names) == list("abcdef")


def test_of_many_each_process_asks_for_others_and_for_others_each_time() -> None:
    one, two = many(Strategy.LEAST_LOADED), many(Strategy.LEAST_LOADED, place=100)
    first, second = one.names(), one.names()
    assert len(first) == len(second) == MOST_NAMES
    assert not set(first) & set(second)
    assert first != two.names()
    assert {name for desk in [one] for _ in range(4) for name in desk.names()} == set(one.seats)


def test_where_the_order_matters_the_preferred_are_asked_for() -> None:
    desk = many(Strategy.FILL_FIRST)
    assert desk.names() == desk.names() == sorted(desk.seats)[:MOST_NAMES]
    desk.borrowing.follow(Strategy.ROUND_ROBIN)
    assert desk.names() != desk.names()
