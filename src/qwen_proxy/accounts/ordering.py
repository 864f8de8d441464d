"""The order in which accounts are taken, kept so that nothing is looked at twice that can't be taken. Pure.

`health.choose` over all accounts, in order, is the rule; this gives the same account for less. For each feature, every
account stands in one of four places:

| place | who | left for |
|---|---|---|
| ready | can be taken, as far as is known; in order | the others, when a look finds out why not |
| failing | can be taken, but only where no other can; in order | ready: when that ends, or something about it changes |
| short | lacks uses only; in order | ready: when one is returned or borrowed, or something changes |
| aside | rests, is disabled or has no token | ready: when its rest ends, or something about it or its exit changes |

So an account comes back to `ready` whenever it might be of use, and only a look there decides: a look at one that
turns out to be of none is made once a change. Taking and returning cost a search in a sorted list.
"""

import heapq
import itertools
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Set
from enum import Enum, auto
from typing import Final, assert_never

from qwen_proxy.accounts.affinity import Ring, SessionCounts, session_point
from qwen_proxy.accounts.health import Hindrance, Obstacle, hindrance
from qwen_proxy.accounts.model import Feature
from qwen_proxy.accounts.seats import Seat
from qwen_proxy.config.choices import Strategy

MOST_STEPS: Final = 2048  # from point to point of a ring; who finds no account so far takes what is best for all
MOST_NEIGHBOURS: Final = 32
LEAST_WEIGHT: Final = 0.001
EXIT_OBSTACLES: Final = frozenset({Obstacle.EXIT_CHALLENGED, Obstacle.EXIT_UNREACHABLE, Obstacle.EXIT_ON_TRIAL})

# Lower first: priority (negative), what the strategy goes by, when it was last used, id. Never compared further.
Entry = tuple[int, float, float, str, Seat]
NOBODY: Final[Set[str]] = frozenset()


class _Place(Enum):
    READY = auto()
    FAILING = auto()
    SHORT = auto()
    ASIDE = auto()


class _Standing:
    """Of one account. taken, used: numbers that grow, of when it was last taken, and last taken or returned.

    distance: how far it has come with `weighted`: each time it is taken, by so much more the less it weighs.
    """

    __slots__ = ("distance", "taken", "used")

    def __init__(self, number: int, distance: float) -> None:
        self.taken = number
        self.used = number
        self.distance = distance


class Order:
    """Iterating gives all, in the order they came."""

    def __init__(self, strategy: Strategy = Strategy.LEAST_LOADED, seats: Iterable[Seat] = ()) -> None:
        self.sessions: Final = SessionCounts()
        self._strategy = strategy
        self._seats: dict[str, Seat] = {}
        self._standings: dict[Seat, _Standing] = {}
        self._numbers = itertools.count(1)
        self._reached: dict[int, float] = {}  # by priority, the distance of whoever was taken last
        self._rings: dict[int, Ring] = {}  # by priority; kept while the strategy is `session`
        self._lanes: dict[Feature, _Lane] = {}
        for seat in sorted(seats, key=lambda seat: (seat.health.last_used_at, seat.account.id)):
            self.add(seat)

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats.values())

    def __len__(self) -> int:
        return len(self._seats)

    def get(self, account_id: str) -> Seat | None:
        return self._seats.get(account_id)

    # --- who is in it

    def add(self, seat: Seat) -> None:
        """It ranks as if it had just been used."""
        self._seats[seat.account.id] = seat
        start = self._reached.get(seat.account.priority, 0.0) + _step(seat) / 2
        self._standings[seat] = _Standing(next(self._numbers), start)
        self._put_on_ring(seat)
        for lane in self._lanes.values():
            lane.add(seat)
        seat.watcher = self

    def remove(self, account_id: str) -> None:
        """Its leases may still be out; they end as they do."""
        seat = self._seats.pop(account_id)
        seat.watcher = None
        seat.exit.kept_back.pop(seat, None)
        del self._standings[seat]
        for ring in self._rings.values():
            ring.remove(account_id)
        for lane in self._lanes.values():
            lane.remove(seat)

    def use(self, strategy: Strategy) -> None:
        """From now on; what is in use stays so, and shares by weight begin anew."""
        if strategy is self._strategy:
            return
        self._strategy = strategy
        self._reached = {}
        for seat, standing in self._standings.items():
            standing.distance = _step(seat) / 2
        self._rings = {}
        for seat in self._seats.values():
            self._put_on_ring(seat)
        self._lanes = {}

    # --- changes

    def take(self, seat: Seat, session: str = "") -> None:
        """For a session, it is counted whether it is its own account."""
        if session and self._strategy is Strategy.SESSION:
            self.sessions.count(session, is_hit=next(self.preferred(session), None) is seat)
        seat.in_use += 1
        standing = self._standings.get(seat)
        if standing is None:
            return  # removed
        standing.taken = standing.used = next(self._numbers)
        priority = seat.account.priority
        reached = max(standing.distance, self._reached.get(priority, 0.0))  # time off gives no claim to more
        self._reached[priority] = reached
        standing.distance = reached + _step(seat)
        for lane in self._lanes.values():
            lane.moved(seat)

    def give_back(self, seat: Seat) -> None:
        seat.in_use -= 1
        standing = self._standings.get(seat)
        if standing is None:
            return
        standing.used = next(self._numbers)
        for lane in self._lanes.values():
            lane.returned(seat)

    def reordered(self, seat: Seat) -> None:
        """Its account was edited: weight, priority, or whether it is enabled."""
        for ring in self._rings.values():
            ring.remove(seat.account.id)
        self._put_on_ring(seat)
        for lane in self._lanes.values():
            lane.moved(seat)
            lane.reconsider(seat)

    def reconsidered(self, seat: Seat) -> None:
        for lane in self._lanes.values():
            lane.reconsider(seat)

    # --- choosing

    def choose(
        self,
        feature: Feature,
        now: float,
        limit: int,
        avoid_accounts: Set[str] = NOBODY,
        avoid_exits: Set[str] = NOBODY,
        session: str = "",
    ) -> Seat | None:
        """The account that `health.choose` would choose; a session's own, or the next on its ring, before all others.

        session: empty where it is not known whose request it is; then no account is preferred for it.
        """
        lane = self._lane(feature, now, limit)
        if not session or self._strategy is not Strategy.SESSION:
            return lane.choose(avoid_accounts, avoid_exits)
        best = lane.choose(NOBODY, NOBODY)
        if best is None:
            return None
        walk = self._rings[best.account.priority].walk(session_point(session))
        near = (self._seats[account_id] for account_id in itertools.islice(walk, MOST_STEPS))
        return lane.first_of(near, avoid_accounts, avoid_exits) or lane.choose(avoid_accounts, avoid_exits)

    def lacking(
        self,
        feature: Feature,
        now: float,
        limit: int,
        such: Callable[[Seat], bool] = lambda seat: True,
        start: Callable[[int], int] = lambda count: 0,
    ) -> Iterator[Seat]:
        """Those that lack uses only, of such as are asked for, the preferred first.

        start: told how many the highest priority has, with which of them to begin; those before it come behind.
        """
        return self._lane(feature, now, limit).lacking(such, start)

    def preferred(self, session: str) -> Iterator[Seat]:
        """The accounts that are to serve this session, its own first, each once, whatever hinders them; none that is
        disabled. Empty but with the strategy `session`."""
        point = session_point(session)
        for priority in sorted(self._rings, reverse=True):
            passed: set[str] = set()
            for account_id in self._rings[priority].walk(point):
                if account_id not in passed:
                    passed.add(account_id)
                    yield self._seats[account_id]

    def own(self, session: str, feature: Feature, now: float, limit: int) -> Seat | None:
        """The account that is to serve this session now if another use of it can be had: it lacks nothing else."""
        for seat in itertools.islice(self.preferred(session), MOST_NEIGHBOURS):
            hindered = hindrance(seat, feature, now, limit)
            if hindered is None or hindered.obstacle is Obstacle.BUSY:
                return seat
        return None

    # --- within

    def _put_on_ring(self, seat: Seat) -> None:
        account = seat.account
        if self._strategy is Strategy.SESSION and account.enabled:
            self._rings.setdefault(account.priority, Ring()).put(account.id, max(LEAST_WEIGHT, account.weight))

    def _lane(self, feature: Feature, now: float, limit: int) -> "_Lane":
        lane = self._lanes.get(feature)
        if lane is None or lane.limit != limit:
            lane = self._lanes[feature] = _Lane(feature, limit, self._entry)
            for seat in self._seats.values():
                lane.add(seat)
        lane.wake(now)
        return lane

    def _entry(self, seat: Seat) -> Entry:
        standing, account = self._standings[seat], seat.account
        match self._strategy:
            case Strategy.LEAST_LOADED | Strategy.SESSION:
                return (-account.priority, seat.in_use, standing.used, account.id, seat)
            case Strategy.ROUND_ROBIN:
                return (-account.priority, standing.taken, 0.0, account.id, seat)
            case Strategy.FILL_FIRST:
                return (-account.priority, account.added_at, 0.0, account.id, seat)
            case Strategy.WEIGHTED:
                return (-account.priority, standing.distance, standing.taken, account.id, seat)
            case _:
                assert_never(self._strategy)


class _Lane:
    """Where each account stands for one feature, under one limit of uses at a time."""

    def __init__(self, feature: Feature, limit: int, entry: Callable[[Seat], Entry]) -> None:
        self.limit = limit
        self._feature = feature
        self._entry = entry
        self._now = 0.0
        self._places: dict[Seat, _Place] = {}
        self._entries: dict[Seat, Entry] = {}  # of those that stand in order
        self._lists: dict[_Place, list[Entry]] = {_Place.READY: [], _Place.FAILING: [], _Place.SHORT: []}
        self._ready = self._lists[_Place.READY]
        self._failing = self._lists[_Place.FAILING]
        self._alarms: list[tuple[float, int, Seat]] = []  # when to look again at those failing and aside
        self._alarm: dict[Seat, int] = {}  # the number of the one that holds
        self._numbers = itertools.count()

    # --- changes

    def add(self, seat: Seat) -> None:
        self._put(seat, _Place.READY)

    def remove(self, seat: Seat) -> None:
        self._pull(seat)
        del self._places[seat]

    def moved(self, seat: Seat) -> None:
        """Its rank may be another."""
        was = self._entries.get(seat)
        if was is not None and (entry := self._entry(seat)) != was:
            ranked = self._lists[self._places[seat]]
            del ranked[bisect_left(ranked, was)]
            insort(ranked, entry)
            self._entries[seat] = entry

    def returned(self, seat: Seat) -> None:
        if self._places[seat] is _Place.SHORT:
            self.reconsider(seat)
        else:
            self.moved(seat)

    def reconsider(self, seat: Seat) -> None:
        if self._places[seat] is not _Place.READY:
            self._pull(seat)
            self._put(seat, _Place.READY)

    def wake(self, now: float) -> None:
        self._now = now
        alarms = self._alarms
        while alarms and alarms[0][0] <= now:
            _, number, seat = heapq.heappop(alarms)
            if self._alarm.get(seat) == number:
                self.reconsider(seat)

    # --- looks

    def choose(self, avoid_accounts: Set[str], avoid_exits: Set[str]) -> Seat | None:
        return self._first(_Place.READY, avoid_accounts, avoid_exits) or self._first(
            _Place.FAILING, avoid_accounts, avoid_exits
        )

    def first_of(self, seats: Iterable[Seat], avoid_accounts: Set[str], avoid_exits: Set[str]) -> Seat | None:
        """The first of these that is ready and not to be avoided."""
        for seat in seats:
            is_ready = self._places[seat] is _Place.READY
            if is_ready and not is_avoided(seat, avoid_accounts, avoid_exits) and self._is_at_place(seat):
                return seat
        return None

    def lacking(self, such: Callable[[Seat], bool], start: Callable[[int], int]) -> Iterator[Seat]:
        for entry in list(self._ready):
            self._is_at_place(entry[-1])
        found = [entry for entry in self._lists[_Place.SHORT] if such(entry[-1])]
        highest = bisect_right(found, found[0][0], key=lambda entry: entry[0]) if found else 0
        first = start(highest)
        for entry in itertools.chain(found[first:highest], found[:first], found[highest:]):
            if self._is_at_place(entry[-1]):
                yield entry[-1]

    def _first(self, place: _Place, avoid_accounts: Set[str], avoid_exits: Set[str]) -> Seat | None:
        """The first that is not to be avoided, else the first. Whoever does not belong there is put elsewhere."""
        ranked, avoided, index = self._lists[place], None, 0
        while index < len(ranked):
            seat = ranked[index][-1]
            is_last_choice = is_avoided(seat, avoid_accounts, avoid_exits)
            if is_last_choice and avoided is not None:
                index += 1
            elif not self._is_at_place(seat):
                continue
            elif is_last_choice:
                avoided = seat
                index += 1
            else:
                return seat
        return avoided

    def _is_at_place(self, seat: Seat) -> bool:
        """Whether it still belongs where it stands; else it stands where it does belong then."""
        found = hindrance(seat, self._feature, self._now, self.limit)
        until = 0.0
        if found is None:
            until = seat.health.failing.until
            place = _Place.FAILING if until > self._now else _Place.READY
        elif found.obstacle is Obstacle.BUSY:
            place = _Place.SHORT
        else:
            place, until = _Place.ASIDE, _until(seat, found)
        if place is self._places[seat]:
            return True
        self._pull(seat)
        self._put(seat, place)
        if until:
            self._set_alarm(seat, until)
        if found is not None and found.obstacle in EXIT_OBSTACLES:
            seat.exit.kept_back[seat] = None
        return False

    def _pull(self, seat: Seat) -> None:
        self._alarm.pop(seat, None)
        if (entry := self._entries.pop(seat, None)) is not None:
            ranked = self._lists[self._places[seat]]
            del ranked[bisect_left(ranked, entry)]

    def _put(self, seat: Seat, place: _Place) -> None:
        self._places[seat] = place
        if (ranked := self._lists.get(place)) is not None:
            entry = self._entries[seat] = self._entry(seat)
            insort(ranked, entry)

    def _set_alarm(self, seat: Seat, until: float) -> None:
        number = self._alarm[seat] = next(self._numbers)
        heapq.heappush(self._alarms, (until, number, seat))
        if len(self._alarms) > 2 * len(self._places) + 64:  # those woken before their time leave theirs behind
            self._alarms = [each for each in self._alarms if self._alarm.get(each[2]) == each[1]]
            heapq.heapify(self._alarms)


def is_avoided(seat: Seat, accounts: Set[str], exits: Set[str]) -> bool:
    return bool(accounts or exits) and (seat.account.id in accounts or seat.account.exit in exits)


def _until(seat: Seat, found: Hindrance) -> float:
    """0: nobody knows. A trial may end before, which its exit tells."""
    if found.obstacle is Obstacle.EXIT_ON_TRIAL:
        return seat.exit.trial_until
    return found.until or 0.0


def _step(seat: Seat) -> float:
    return 1.0 / max(LEAST_WEIGHT, seat.account.weight)
