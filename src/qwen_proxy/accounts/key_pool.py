"""The API keys of one backend: leased one for one request, rested and retired by how their uses end.

With no limit of uses a lease costs no await. A limit holds over all processes: its uses are slots of the store, taken
one at a time, so it costs a write; who finds none waits, and newcomers do not overtake who waits in this process.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence, Set
from types import TracebackType
from typing import Final, Protocol

from msgspec import Struct

from qwen_proxy.accounts.key_health import (
    SOUND,
    KeyHealth,
    KeyState,
    after_use,
    rests_until,
    state_of,
)
from qwen_proxy.accounts.model import Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.config.backend_book import NO_KEY
from qwen_proxy.config.backends import BackendSpec
from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsOutOfQuota,
    CredentialRejected,
    NoAccountUsable,
    ShuttingDown,
    StoreUnavailable,
)
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.alarm import Alarm
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import Beat, Hold, SlotsTaken, SlotsWanted

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS: Final = 0.15

Change = Callable[[KeyHealth], KeyHealth]


class Trading(Protocol):
    """What is needed of `state.membership.Membership`."""

    async def take(self, wanted: SlotsWanted) -> SlotsTaken: ...
    async def give(self, holds: Sequence[Hold]) -> None: ...


class KeySeat:
    """A key's place in its pool. `id` is made of the key, so that another key is another id."""

    __slots__ = ("credential", "health", "id", "in_use", "last_used")

    def __init__(self, id: str, credential: Credential) -> None:
        self.id: Final = id
        self.credential = credential
        self.health: KeyHealth = SOUND
        self.in_use = 0
        self.last_used = 0


class KeyReport(Struct, frozen=True, kw_only=True):
    """A key for its operator. hint: its last characters. until: when it is used again by itself, Unix seconds."""

    id: str
    hint: str
    state: KeyState
    in_use: int
    until: float | None
    reason: str


class Tried(Struct, frozen=True, kw_only=True):
    """What came of testing one key: its models, or why there is none. key: its id."""

    key: str
    models: tuple[str, ...] = ()
    problem: str = ""


class KeyLease:
    """Fits `leasing.Lease`, and is its block."""

    __slots__ = ("_holds", "_pool", "_seat", "_told", "_wish", "credential")

    def __init__(self, pool: "KeyPool", wish: "_Wish") -> None:
        self._pool = pool
        self._wish = wish
        self._seat: KeySeat
        self._holds: list[Hold] = []
        self._told = False
        self.credential: Credential

    async def __aenter__(self) -> "KeyLease":
        pool = self._pool
        self._seat, self._holds = pool.try_take(self._wish) or await pool.take(self._wish)
        self.credential = self._seat.credential
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.take_back(self._seat, self._holds)

    def report(self, outcome: Outcome) -> None:
        if not self._told:
            self._told = True
            if outcome.kind is OutcomeKind.CREDENTIAL_REJECTED and self.credential.token != self._seat.credential.token:
                return  # it says nothing of the one that is there by now
            self._pool.learn(self._seat, outcome)


class _Wish(Struct, frozen=True):
    deadline: float
    avoid: Set[str]
    only: str | None


class KeyPool:
    """Fits `leasing.Leasing`, and `membership.Holder` for its limits. `close` refuses whoever waits.

    digest: the id of a key. save: keeps, for all processes, what one use changed about a key's health.
    """

    follows_sessions: bool = False
    noun: str = "API key"

    def __init__(
        self,
        spec: BackendSpec,
        exit: str,
        *,
        digest: Callable[[Secret], str],
        save: Callable[[str, Change], Coroutine[None, None, None]],
        trading: Trading,
        clock: Clock,
    ) -> None:
        self._digest = digest
        self._save = save
        self._trading = trading
        self._clock = clock
        self._tasks = Tasks()
        self._seats: dict[str, KeySeat] = {}
        self._known: dict[str, KeyHealth] = {}
        self._line: deque[asyncio.Future[None]] = deque()
        self._alarm = Alarm(clock, self._tasks, self._wake_all, name="API keys")
        self._uses = 0
        self._held: dict[str, int] = {}
        self._is_closed = False
        self.use(spec, exit)

    def use(self, spec: BackendSpec, exit: str) -> None:
        """From now on. A key that is still there keeps its health; what is under way goes on as it began."""
        self.spec = spec
        self._seat(self._credentials(spec, exit))

    def _credentials(self, spec: BackendSpec, exit: str) -> Iterable[Credential]:
        for key in spec.keys or (Secret(""),):
            yield Credential(account_id=self._digest(key), token=key, exit=exit)

    def _seat(self, credentials: Iterable[Credential]) -> None:
        before, self._seats = self._seats, {}
        for credential in credentials:
            id = credential.account_id
            seat = before.get(id) or KeySeat(id, credential)
            seat.credential = credential
            seat.health = self._known.get(id, SOUND)
            self._seats[id] = seat
        self._wake_all()

    def learned(self, id: str, health: KeyHealth | None) -> None:
        """What is kept of a key now, as this or another process wrote it; None: nothing."""
        if health is None:
            self._known.pop(id, None)
        else:
            self._known[id] = health
        if (seat := self._seats.get(id)) is not None:
            seat.health = health or SOUND
            self._wake_all()

    async def close(self) -> None:
        self._is_closed = True
        self._wake_all()
        await self._tasks.__aexit__(None, None, None)

    # --- leasing

    def lease(
        self,
        feature: Feature,
        *,
        deadline: float,
        avoid_accounts: Set[str] = frozenset(),
        avoid_exits: Set[str] = frozenset(),
        only_account: str | None = None,
        session: str = "",
    ) -> KeyLease:
        return KeyLease(self, _Wish(deadline, avoid_accounts, only_account))

    async def renew(self, stale: Credential, *, deadline: float) -> None:
        """There is nothing to renew: a rejected key is retired."""
        raise CredentialRejected(f"the API key {stale.account_id} of the backend {self.spec.name!r} was refused")

    def try_take(self, wish: _Wish) -> tuple[KeySeat, list[Hold]] | None:
        """None where it has to be asked for, or waited for."""
        if self.spec.concurrency or self.spec.key_concurrency or self._is_closed:
            return None
        seats = self._candidates(wish)
        if not seats:
            return None
        self._begin(seats[0])
        return seats[0], []

    async def take(self, wish: _Wish) -> tuple[KeySeat, list[Hold]]:
        """Raises NoAccountUsable, ShuttingDown, StoreUnavailable."""
        has_waited = False
        while True:
            if self._is_closed:
                raise ShuttingDown
            seats = self._candidates(wish)
            if not seats:
                raise self._shortage(wish)
            if not (self.spec.concurrency or self.spec.key_concurrency):
                self._begin(seats[0])
                return seats[0], []
            if (has_waited or not self._line) and (taken := await self._borrow(seats)) is not None:
                return taken
            if self._clock.monotonic() >= wish.deadline:
                raise AccountsBusy(f"every key of the backend {self.spec.name!r} is in use as often as it may")
            await self._turn(wish.deadline)
            has_waited = True

    def shortage(self) -> NoAccountUsable | None:
        """What a lease would be refused with now; None where it would be had, or asked for."""
        wish = _Wish(0.0, frozenset(), None)
        return None if self._candidates(wish) else self._shortage(wish)

    def credentials(self) -> list[Credential]:
        """Of the keys that can be used now, the first of which is the best."""
        return [seat.credential for seat in self._candidates(_Wish(0.0, frozenset(), None))]

    def every_credential(self) -> list[Credential]:
        """Of all keys, also those that are not used now."""
        return [seat.credential for seat in self._seats.values()]

    def learn(self, seat: KeySeat, outcome: Outcome) -> None:
        """How a use ended, or another call with this key. One that is gone meanwhile has no health to be kept."""
        if seat.id not in self._seats or (seat.health is SOUND and outcome.kind is OutcomeKind.SUCCEEDED):
            return
        now = self._clock.now()
        if outcome.kind is OutcomeKind.CREDENTIAL_REJECTED and seat.id == NO_KEY:
            outcome = Outcome(kind=OutcomeKind.UPSTREAM_FAILED, detail=outcome.detail)

        def change(health: KeyHealth) -> KeyHealth:
            return after_use(health, outcome, now)

        before, seat.health = seat.health, change(seat.health)
        if seat.health is before:
            return
        self._known[seat.id] = seat.health
        if outcome.kind is not OutcomeKind.SUCCEEDED:
            log.warning(
                "API key outcome",
                extra={
                    "backend": self.spec.name,
                    "key": seat.id,
                    "outcome": outcome.kind.value,
                    "detail": outcome.detail,
                },
            )
        if not self._is_closed:
            self._tasks.spawn(self._save(seat.id, change), name="health of an API key")

    def find(self, id: str) -> KeySeat | None:
        return self._seats.get(id)

    def take_back(self, seat: KeySeat, holds: list[Hold]) -> None:
        """The end of a lease: of use to `KeyLease` only."""
        seat.in_use -= 1
        if holds:
            self._give(holds)
        if self._line:
            self._wake_first()

    def reports(self) -> list[KeyReport]:
        now = self._clock.now()
        return [_report(seat, now) for seat in self._seats.values()]

    # --- what others hold

    @property
    def is_hungry(self) -> bool:
        return bool(self._line)

    def held(self) -> Iterable[Hold]:
        return [Hold(name, count) for name, count in self._held.items() if count]

    def forget_idle(self) -> None:
        """There is nothing idle: what is held is in use."""

    async def after_beat(self, beat: Beat) -> None:
        """Nor is there anything to give back."""

    # --- within

    def _candidates(self, wish: _Wish) -> list[KeySeat]:
        """What can be used now, the best first: not avoided, not failing, least in use, longest idle."""
        now = self._clock.now()
        seats = [
            seat
            for seat in self._seats.values()
            if (wish.only is None or wish.only == seat.id)
            and (seat.health is SOUND or state_of(seat.health, now) is KeyState.READY)
        ]
        if len(seats) > 1:
            seats.sort(
                key=lambda seat: (seat.health.failing.until > now, seat.id in wish.avoid, seat.in_use, seat.last_used)
            )
        return seats

    def _begin(self, seat: KeySeat) -> None:
        self._uses += 1
        seat.last_used = self._uses
        seat.in_use += 1

    async def _borrow(self, seats: list[KeySeat]) -> tuple[KeySeat, list[Hold]] | None:
        """A use of the backend, and one of a key: over all processes. None: there is none now."""
        holds: list[Hold] = []
        try:
            if self.spec.concurrency:
                if not (taken := await self._slot([f"backend:{self.spec.name}"], self.spec.concurrency)):
                    return None
                holds += taken
            if self.spec.key_concurrency:
                names = {self._slot_of(seat): seat for seat in seats}
                if not (taken := await self._slot(list(names), self.spec.key_concurrency)):
                    return None
                holds += taken
                seats = [names[taken[0].name]]
            self._begin(seats[0])
            kept, holds = holds, []
            return seats[0], kept
        finally:
            self._give(holds)

    def _slot_of(self, seat: KeySeat) -> str:
        return f"key:{self.spec.name}:{seat.id}"

    async def _slot(self, names: list[str], capacity: int) -> list[Hold]:
        """In a task of its own: what is granted has to be given back, whoever leaves meanwhile."""
        asked = _Asked()
        asking = self._tasks.spawn(self._ask(asked, tuple(names), capacity), name="uses of a backend")
        try:
            await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(lambda task: self._give(asked.holds))
            raise
        if asked.failure is not None:
            raise asked.failure
        return asked.holds

    async def _ask(self, asked: "_Asked", names: tuple[str, ...], capacity: int) -> None:
        try:
            taken = await self._trading.take(SlotsWanted(names=names, capacity=capacity, need=1, is_spread=False))
        except StoreUnavailable as error:
            asked.failure = error
            return
        asked.holds = list(taken.holds)
        for hold in taken.holds:
            self._held[hold.name] = self._held.get(hold.name, 0) + hold.count

    def _give(self, holds: list[Hold]) -> None:
        for hold in holds:
            self._held[hold.name] -= hold.count
        if holds and not self._is_closed:
            self._tasks.spawn(self._trading.give(holds), name="give back uses of a backend")

    async def _turn(self, deadline: float) -> None:
        """Until a use here ends, or it is time to look what others gave back."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(waiting)
        self._alarm.at(min(deadline, self._clock.monotonic() + ASK_AGAIN_SECONDS))
        try:
            await waiting
        finally:
            if waiting in self._line:
                self._line.remove(waiting)

    def _wake_first(self) -> None:
        while self._line:
            waiting = self._line.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    def _wake_all(self) -> None:
        waiting, self._line = self._line, deque()
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def _shortage(self, wish: _Wish) -> NoAccountUsable:
        now, name = self._clock.now(), self.spec.name
        seats = [seat for seat in self._seats.values() if wish.only in (None, seat.id)]
        ends = [until for seat in seats if (until := rests_until(seat.health, now)) is not None]
        if ends:
            said = f"every {self.noun}" if len(seats) > 1 else f"the {self.noun}"
            return AccountsOutOfQuota(f"{said} of the backend {name!r} has to rest", max(0.0, min(ends) - now))
        why = next((seat.health.retired for seat in seats if seat.health.retired), "")
        if why:
            return NoAccountUsable(f"no {self.noun} of the backend {name!r} is taken by its server any more ({why})")
        return NoAccountUsable(self._nothing_there())

    def _nothing_there(self) -> str:
        return f"the backend {self.spec.name!r} has no such {self.noun}"


class _Asked:
    """What came of asking for a use."""

    def __init__(self) -> None:
        self.holds: list[Hold] = []
        self.failure: StoreUnavailable | None = None


def _report(seat: KeySeat, now: float) -> KeyReport:
    health, key = seat.health, seat.credential.token.reveal()
    state = state_of(health, now)
    return KeyReport(
        id=seat.id,
        hint=f"…{key[-4:]}" if len(key) >= 16 else "",
        state=state,
        in_use=seat.in_use,
        until=rests_until(health, now),
        reason=health.retired
        if state is KeyState.RETIRED
        else health.last_error
        if state is not KeyState.READY
        else "",
    )
