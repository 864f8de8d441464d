"""The uses of accounts that this process has borrowed from all there are, in blocks, so that a lease costs no write.

| when | what |
|---|---|
| somebody waits, and an account has uses that nobody holds | borrow what is needed, and some more out of plenty |
| no other process lives | borrow everything there is, and keep it |
| each second, with others about | give back what was borrowed a second ago and is idle: so accounts take turns, too |
| there are few uses for so many processes | give back what was idle for a moment |
| others want uses and find none | give back all that is idle, and what is returned beyond a fair share |
| the store does not answer | who waits is refused; nothing is granted once this process may count as gone |

The name of an account's slots is `account:<id>`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from qwen_proxy.accounts.borrowing import MOST_NAMES, SPREAD, may_borrow
from qwen_proxy.accounts.seats import Seat
from qwen_proxy.config.choices import Strategy
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import Beat, Hold, SlotsTaken, SlotsWanted

PREFIX: Final = "account:"
IDLE_SECONDS: Final = 1.0
ASK_AGAIN_SECONDS: Final = 0.15
FEW_PER_PROCESS: Final = 8  # uses: below it nobody can afford to keep idle ones
MOMENT_SECONDS: Final = 0.1
MOST_AT_ONCE: Final = 64
LEAST_SPARE: Final = 2


class Trading(Protocol):
    """What is needed of `state.membership.Membership`."""

    processes: int

    @property
    def is_valid(self) -> bool: ...
    def require(self) -> None: ...
    async def take(self, wanted: SlotsWanted) -> SlotsTaken: ...
    async def give(self, holds: Sequence[Hold]) -> None: ...
    def doubt(self) -> None: ...


class Wanted(Protocol):
    """Who wants uses: the pool."""

    def borrowable(self) -> tuple[list[Seat], int]:
        """Accounts of which another use would serve somebody who waits, the preferred first, and how many wait."""
        ...

    def seats(self) -> Iterable[Seat]: ...

    def find(self, account_id: str) -> Seat | None: ...

    def arrived(self) -> None:
        """Uses were borrowed: serve who waits."""
        ...

    def failed(self, error: StoreUnavailable) -> None:
        """None can be borrowed: the store does not answer."""
        ...


class Slots:
    """Fits `state.membership.Holder`. limit: uses at a time of each account over all processes, 0 for no limit."""

    def __init__(self, trading: Trading, pool: Wanted, clock: Clock, tasks: Tasks, limit: int) -> None:
        self._trading = trading
        self._pool = pool
        self._clock = clock
        self._tasks = tasks
        self.limit = limit
        self._is_spread = True
        self._has_spare = True
        self.is_hungry = False
        self._is_asking = False
        self._to_surrender = 0
        self._granted = 0  # since the last beat
        self._spare = LEAST_SPARE
        self._is_few = False
        self._is_settling = False
        self._removed: dict[Seat, None] = {}  # seats that have left the pool while in use

    # --- the pool's side

    def ask(self) -> None:
        """Somebody waits, or there is more to be had."""
        if self.limit and not self._is_asking:
            self._is_asking = True
            self._tasks.spawn(self._ask(), name="borrow uses of accounts")

    def follow(self, strategy: Strategy) -> None:
        """Over all processes too, accounts are taken in this order, as well as it can be told to the store. A
        conversation's account is of use to it alone: there, nothing is borrowed in advance."""
        self._is_spread = strategy in SPREAD
        self._has_spare = strategy is not Strategy.SESSION

    def grant(self, seat: Seat) -> None:
        """A use begins."""
        self._granted += 1

    def keeps(self, seat: Seat) -> bool:
        """A use has ended; whether its slot is still ours."""
        if not self.limit:
            return False
        if seat in self._removed or self._to_surrender > 0 or seat.held > self.limit:
            if seat not in self._removed:
                self._to_surrender = max(0, self._to_surrender - 1)
            self._give([(seat, 1)])
            if not seat.in_use:
                self._removed.pop(seat, None)
            return False
        if self._is_few and not self._is_settling:
            self._is_settling = True
            self._tasks.spawn(self._settle(), name="give back idle uses of accounts")
        return True

    def removed(self, seat: Seat) -> None:
        """It has left the pool; what is in use comes back when it ends."""
        self._give([(seat, seat.held - seat.in_use)])
        if seat.in_use:
            self._removed[seat] = None

    def use(self, limit: int) -> None:
        """From now on so many uses of each account."""
        was, self.limit = self.limit, limit
        if limit and not was:  # what runs was never counted: the next beat tells all of it
            for seat in self._pool.seats():
                seat.held = seat.in_use
            self._trading.doubt()
        elif was and not limit:
            self._give([(seat, seat.held) for seat in self._pool.seats()])
        else:
            self._give([(seat, min(seat.held - limit, seat.held - seat.in_use)) for seat in self._pool.seats()])
        self.ask()

    # --- the membership's side

    def held(self) -> Iterator[Hold]:
        for seat in (*self._pool.seats(), *self._removed):
            if seat.held > 0:
                yield Hold(PREFIX + seat.account.id, seat.held)

    def forget_idle(self) -> None:
        for seat in (*self._pool.seats(), *self._removed):
            seat.held = seat.in_use if self.limit else 0

    async def after_beat(self, beat: Beat) -> None:
        self._spare = max(LEAST_SPARE, min(MOST_AT_ONCE, self._granted // 4))
        self._granted = 0
        if not self.limit:
            return
        if beat.processes == 1:
            self._to_surrender = 0
            self._is_few = False
            self.ask()
            return
        seats = list(self._pool.seats())
        self._is_few = self.limit * len(seats) < FEW_PER_PROCESS * beat.processes
        old = self._clock.monotonic() - IDLE_SECONDS
        back = [
            (seat, seat.held - seat.in_use)
            for seat in seats
            if seat.held > seat.in_use and (beat.others_are_hungry or seat.borrowed_at <= old)
        ]
        if back and not self._pool.borrowable()[1]:
            self._give(back)
        self._to_surrender = 0
        if beat.others_are_hungry:
            fair = max(1, self.limit * len(seats) // beat.processes)
            self._to_surrender = max(0, sum(seat.held for seat in seats) - fair)

    # --- trade

    async def _settle(self) -> None:
        try:
            await self._clock.sleep(MOMENT_SECONDS)
            if self._is_few and self.limit and not self._pool.borrowable()[1]:
                self._give([(seat, seat.held - seat.in_use) for seat in self._pool.seats()])
        finally:
            self._is_settling = False

    async def _ask(self) -> None:
        try:
            while self.limit:
                if await self._borrow_everything():
                    return
                seats, waiting = self._pool.borrowable()
                if not waiting or not seats:
                    return
                some = self._open(seats)[:MOST_NAMES]
                spare = self._spare if self._has_spare else 0
                if await self._borrow(some, min(waiting, MOST_AT_ONCE), spare):
                    continue
                if some and {*self._open(self._pool.borrowable()[0])} - {*some}:
                    continue  # the next ones, at once
                self.is_hungry = True
                await self._clock.sleep(ASK_AGAIN_SECONDS)
        except StoreUnavailable as error:
            self._pool.failed(error)
        finally:
            self.is_hungry = self._is_asking = False

    async def _borrow_everything(self) -> bool:
        """When no other process lives. Whether that leaves nothing to ask for."""
        if self._trading.processes > 1:
            return False
        missing = self._open(self._pool.seats())
        for start in range(0, len(missing), MOST_NAMES):
            some = missing[start : start + MOST_NAMES]
            if not await self._borrow(some, 0, sum(self.limit - seat.held for seat in some)):
                return False
        return bool(missing) and all(seat.held >= self.limit for seat in self._pool.seats())

    async def _borrow(self, seats: list[Seat], need: int, extra: int) -> bool:
        """Whether anything was granted. Raises StoreUnavailable."""
        names = [PREFIX + seat.account.id for seat in seats]
        if not names:
            return False
        wanted = SlotsWanted(names=tuple(names), capacity=self.limit, need=need, extra=extra, is_spread=self._is_spread)
        taken = await self._trading.take(wanted)
        now = self._clock.monotonic()
        strangers: list[Hold] = []
        for hold in taken.holds:
            seat = self._pool.find(hold.name.removeprefix(PREFIX))
            if seat is None:
                strangers.append(hold)
            else:
                seat.held += hold.count
                seat.borrowed_at = now
        for name in taken.full:
            if (seat := self._pool.find(name.removeprefix(PREFIX))) is not None and seat.held < self.limit:
                seat.full_until = now + ASK_AGAIN_SECONDS
        if strangers:
            self._tasks.spawn(self._trading.give(strangers), name="give back uses of accounts")
        if taken.holds or taken.full:  # who waits for these alone waits in vain, and may take others
            self._pool.arrived()
        return bool(taken.holds)

    def _open(self, seats: Iterable[Seat]) -> list[Seat]:
        now = self._clock.monotonic()
        return [seat for seat in seats if may_borrow(seat, self.limit, now)]

    def _give(self, back: Iterable[tuple[Seat, int]]) -> None:
        holds: list[Hold] = []
        for seat, count in back:
            if count > 0:
                seat.held -= count
                holds.append(Hold(PREFIX + seat.account.id, count))
        if holds:
            self._tasks.spawn(self._trading.give(holds), name="give back uses of accounts")
