"""The account pool: leases accounts, signs them in, and learns from how each use ended.

Everything between two awaits is one step, so there is no lock. A lease that can be had at once costs no task and
no await; one that can't waits in a `WaitingLine` until an account is returned, signed in, or has rested, or until
its deadline. One `Alarm` serves all deadlines and all ends of rests.
"""

import heapq
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Set
from random import Random
from types import TracebackType
from typing import Final, Self

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.affinity import SessionReport, session_point
from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.borrowing import Borrowing
from qwen_proxy.accounts.health import (
    CHALLENGE,
    AccountHealth,
    ExitHealth,
    Growth,
    after_outcome,
    choose,
    hindrance,
    is_calm,
)
from qwen_proxy.accounts.leasing import PoolStatus
from qwen_proxy.accounts.model import DIRECT, Account, Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.accounts.report import (
    AccountReport,
    ExitReport,
    account_report,
    exit_report,
    is_worth_waiting,
    shortage,
)
from qwen_proxy.accounts.roster import Roster
from qwen_proxy.accounts.saving import Saver
from qwen_proxy.accounts.seats import Seat
from qwen_proxy.accounts.slots import Slots
from qwen_proxy.accounts.tokens import TokenOptions, Tokens
from qwen_proxy.accounts.waiting import Waiter, WaitingLine, Want
from qwen_proxy.config.choices import Strategy
from qwen_proxy.ground.errors import NoAccountUsable, ShuttingDown, StoreUnavailable
from qwen_proxy.ground.redact import masked_email
from qwen_proxy.runtime.alarm import Alarm
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.membership import Membership, ProcessStatus, Role, statuses
from qwen_proxy.state.store import Store
from qwen_proxy.state.vault import Vault
from qwen_proxy.state.watching import Watch

log = logging.getLogger(__name__)

HARMLESS: Final = frozenset({OutcomeKind.SUCCEEDED, OutcomeKind.CANCELLED, OutcomeKind.CLIENT_FAULT})


class PoolOptions(Struct, frozen=True, kw_only=True):
    """`account_concurrency` 0 sets no limit. `challenge_rest_seconds`: how long an account, or an exit, rests after its
    first challenge; the next rests double, up to an hour. `trial_seconds`: when a half-open exit's trial has neither
    failed nor ended after so long, it is probably a long answer, and the next one is let through. `general_exit`: of
    accounts without a proxy of their own. `only_account`: no other is used, nor signed in; empty for all. `strategy`:
    see `ordering`."""

    account_concurrency: int = 2
    strategy: Strategy = Strategy.LEAST_LOADED
    signin_spacing_seconds: float = 10.0
    refresh_before_seconds: float = 24 * 3600.0
    refresh_jitter_seconds: float = 2 * 3600.0
    renews_early: bool = True
    general_exit: str = DIRECT
    only_account: str = ""
    challenge_rest_seconds: float = CHALLENGE.first_seconds
    trial_seconds: float = 20.0


class PoolLease:
    """Fits `leasing.Lease`. `end()` gives the account back, once, however often it is called."""

    __slots__ = ("_outcome", "_pool", "credential", "feature", "has_ended", "is_harmless", "seat", "trial_until")

    def __init__(
        self, pool: "AccountPool", seat: Seat, credential: Credential, feature: Feature, trial_until: float
    ) -> None:
        self._pool = pool
        self._outcome: Outcome | None = None
        self.seat = seat
        self.credential = credential
        self.feature = feature
        self.trial_until = trial_until
        self.has_ended = False
        self.is_harmless = True  # for everyone else's chances

    def report(self, outcome: Outcome) -> None:
        if self._outcome is None and not self.has_ended:
            self._outcome = outcome
            self.is_harmless = outcome.kind in HARMLESS and not self.trial_until
            self._pool.learn(self, outcome)

    def end(self) -> None:
        if not self.has_ended:
            if self._outcome is None:
                self.report(Outcome(kind=OutcomeKind.CANCELLED, feature=self.feature))
            self.has_ended = True
            self._pool.take_back(self)


class _Use:
    """The block in which a lease is held."""

    __slots__ = ("_lease", "_pool", "_want")

    def __init__(self, pool: "AccountPool", want: Want) -> None:
        self._pool = pool
        self._want = want
        self._lease: PoolLease  # once entered

    async def __aenter__(self) -> PoolLease:
        self._lease = lease = self._pool.try_take(self._want) or await self._pool.take(self._want)
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lease.end()


class AccountPool:
    """Fits `leasing.Leasing` and `leasing.Overview`. Make it, load the watch, enter the membership, then enter it;
    leaving it refuses whoever waits and saves what was learned.

    `sign_in` gives a new credential or raises a ProxyError; it keeps its own time limits.
    """

    def __init__(
        self,
        store: Store,
        vault: Vault,
        watch: Watch,
        membership: Membership,
        sign_in: Callable[[Account], Awaitable[Credential]],
        clock: Clock,
        random: Random,
        options: PoolOptions | None = None,
    ) -> None:
        self.book: Final = AccountBook(store, vault)
        self._store = store
        self._watch = watch
        self._membership = membership
        self._clock = clock
        self.options = options = options or PoolOptions()
        self._is_closed = False
        self._tasks = Tasks()
        self._line: WaitingLine[PoolLease] = WaitingLine()
        self._rest_ends: list[float] = []
        self._alarm = Alarm(clock, self._tasks, self._ring, name="account pool")
        self._roster = Roster(self.book, self, options.general_exit, options.strategy, options.only_account)
        self._seats = self._roster.seats
        self._find = self._roster.find
        self._saver = Saver(store, self.book, clock, self._tasks, self._find, self._roster.take_account)
        self._roster.follow(watch, self._saver)
        self._slots = Slots(membership, self, clock, self._tasks, options.account_concurrency)
        self._slots.follow(options.strategy)
        self._borrowing = Borrowing(self._seats, clock, session_point(membership.id), options.strategy)
        self._tokens = Tokens(
            sign_in, self._find, self._token_changed, self._saver, clock, random, self._tasks, _token_options(options)
        )
        membership.add(self._slots)
        self._keeper = Role("keeper", self._begin_keeping, self._end_keeping)
        self._keeping: list[tuple[Callable[[], None], Callable[[], None]]] = []
        membership.compete(self._keeper)

    async def __aenter__(self) -> Self:
        self._slots.ask()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        await self._saver.flush()

    async def stop(self) -> None:
        """Refuse whoever waits and end all work in the background, without saving anything."""
        self._is_closed = True
        self._line.refuse_all(ShuttingDown)
        self._tokens.close()
        await self._tasks.__aexit__(None, None, None)

    def use(self, options: PoolOptions) -> None:
        """From now on; what is under way goes on as it began."""
        self.options = options
        self._roster.use(options.general_exit)
        self._seats.use(options.strategy)
        self._slots.follow(options.strategy)
        self._borrowing.follow(options.strategy)
        self._slots.use(options.account_concurrency)
        self._tokens.use(_token_options(options), self._seats)
        self._serve_line()

    @property
    def _limit(self) -> int:
        return self._slots.limit

    @property
    def _challenge(self) -> Growth:
        return Growth(self.options.challenge_rest_seconds, CHALLENGE.cap_seconds)

    # --- leasing -------------------------------------------------------------------------------------------

    def lease(
        self,
        feature: Feature,
        *,
        deadline: float,
        avoid_accounts: Set[str] = frozenset(),
        avoid_exits: Set[str] = frozenset(),
        only_account: str | None = None,
        session: str = "",
    ) -> _Use:
        want = Want(
            feature=feature,
            deadline=deadline,
            avoid_accounts=avoid_accounts,
            avoid_exits=avoid_exits,
            only_account=only_account,
            session=session,
        )
        return _Use(self, want)

    def try_take(self, want: Want) -> PoolLease | None:
        """A lease if one can be had this moment without overtaking anyone. The caller calls its `end`."""
        return self._choose(want) if not self._line else None

    async def take(self, want: Want) -> PoolLease:
        """A lease, after waiting where that helps. The caller calls its `end`. Raises NoAccountUsable."""
        if self._is_closed:
            raise ShuttingDown
        if self._limit:
            self._membership.require()
        if want.only_account is not None and (seat := self._find(want.only_account)) is not None:
            self._tokens.hasten(seat)
        waiter = self._line.join(want)
        self._set_alarm(want.deadline)
        self._serve_line()
        return await self._line.wait(waiter, PoolLease.end)

    def _choose(self, want: Want) -> PoolLease | None:
        if self._limit and not self._membership.is_valid:
            return None
        now, limit = self._clock.now(), self._limit
        seat = self._best(want, now, limit)
        return None if seat is None else self._grant(seat, want, now)

    def _best(self, want: Want, now: float, limit: int) -> Seat | None:
        """None also where a better one may be borrowed."""
        if want.only_account is not None:
            return choose(self._candidates(want.only_account), want.feature, now, limit)
        may_borrow = limit > 0 and self._membership.processes > 1
        if may_borrow and self._borrowing.own(want, now, limit) is not None:
            return None
        seat = self._seats.choose(want.feature, now, limit, want.avoid_accounts, want.avoid_exits, want.session)
        is_second = seat is not None and may_borrow and self._borrowing.is_better(seat, want, now, limit)
        return None if is_second else seat

    @property
    def follows_sessions(self) -> bool:
        return self.options.strategy is Strategy.SESSION

    @property
    def sessions(self) -> SessionReport:
        """What this process has seen of conversations."""
        return self._seats.sessions.report()

    def _grant(self, seat: Seat, want: Want, now: float) -> PoolLease:
        assert seat.credential is not None  # `hindrance` saw to it
        trial_until = 0.0
        if seat.exit.health.is_half_open(now):
            trial_until = seat.exit.trial_until = now + self.options.trial_seconds
            self._look_again_at(trial_until)
        self._seats.take(seat, want.session)
        self._slots.grant(seat)
        return PoolLease(self, seat, seat.credential, want.feature, trial_until)

    def learn(self, lease: PoolLease, outcome: Outcome) -> None:
        """How a lease went: of use to `PoolLease` only."""
        seat, now, challenge = lease.seat, self._clock.now(), self._challenge

        def change(health: AccountHealth, exit: ExitHealth) -> tuple[AccountHealth, ExitHealth]:
            return after_outcome(health, exit, outcome, seat.account.id, now, challenge)

        is_news = outcome.kind not in HARMLESS or (
            outcome.kind is OutcomeKind.SUCCEEDED and not is_calm(seat.health, seat.exit.health)
        )
        seat.health, seat.exit.health = change(seat.health, seat.exit.health)
        if is_news and not self._is_closed:
            self._saver.learned(seat, change)
        if lease.trial_until and lease.trial_until == seat.exit.trial_until:
            seat.exit.trial_until = 0.0
        if outcome.kind in HARMLESS or self._is_closed:
            return
        log.warning(
            "account outcome",
            extra={"account": masked_email(seat.account.id), "outcome": outcome.kind.value, "detail": outcome.detail},
        )
        if outcome.kind is OutcomeKind.CREDENTIAL_REJECTED:
            self._tokens.reject(seat, lease.credential)
        self._watch_rests(seat)

    def take_back(self, lease: PoolLease) -> None:
        """The end of a lease: of use to `PoolLease` only."""
        self._seats.give_back(lease.seat)
        if self._limit and not self._slots.keeps(lease.seat):
            return
        if not self._line:
            return
        if lease.is_harmless:
            self._offer(lease.seat)
        else:  # more than this one place may have changed
            self._serve_line()

    def _offer(self, seat: Seat) -> None:
        """One place is free: the longest waiting of those it can serve gets it."""
        now = self._clock.now()
        if self._find(seat.account.id) is not seat:
            return
        for waiter in self._line.heads_for(seat.account.id):
            if hindrance(seat, waiter.want.feature, now, self._limit) is None:
                self._line.serve(waiter, self._grant(seat, waiter.want, now))
                return

    def _serve_line(self) -> None:
        """After any larger change: serve who can be served, in order; send away whom waiting can't help."""
        while any(self._serve_first(waiter) for waiter in self._line.heads()):
            pass
        now = self._clock.now()
        for waiter in self._line.heads():
            want = waiter.want
            if not is_worth_waiting(self._candidates(want.only_account), want.feature, now, self._limit):
                self._line.refuse_wish(waiter.wish, lambda want=want: self._shortage(want))
        if self._line:
            self._slots.ask()  # what came free may be a use that nobody holds

    def _serve_first(self, waiter: Waiter[PoolLease]) -> bool:
        lease = self._choose(waiter.want)
        if lease is not None:
            self._line.serve(waiter, lease)
        return lease is not None

    def _shortage(self, want: Want) -> NoAccountUsable:
        if want.only_account is not None and self._find(want.only_account) is None:
            return NoAccountUsable("the account that was asked for is not here any more")
        return shortage(self._candidates(want.only_account), want.feature, self._clock.now(), self._limit)

    def _candidates(self, only_account: str | None) -> Iterable[Seat]:
        if only_account is None:
            return self._seats
        seat = self._find(only_account)
        return () if seat is None else (seat,)

    def _find(self, account_id: str) -> Seat | None:
        return self._seats.get(account_id)

    # --- time ----------------------------------------------------------------------------------------------

    def _watch_rests(self, seat: Seat) -> None:
        health, exit = seat.health, seat.exit.health
        for rest in (*health.parked.values(), health.challenge, exit.challenge, exit.unreachable):
            self._look_again_at(rest.until)

    def _look_again_at(self, at: float) -> None:
        if at > self._clock.now() and at not in self._rest_ends:
            heapq.heappush(self._rest_ends, at)
            self._set_alarm(None)

    def _set_alarm(self, deadline: float | None) -> None:
        if deadline is not None:
            self._alarm.at(deadline)
        if self._rest_ends:
            self._alarm.at(self._clock.monotonic() + self._rest_ends[0] - self._clock.now())

    def _ring(self) -> None:
        while self._rest_ends and self._rest_ends[0] <= self._clock.now():
            heapq.heappop(self._rest_ends)
        self._serve_line()
        for waiter in self._line.overdue(self._clock.monotonic()):
            self._line.refuse(waiter, self._shortage(waiter.want))
        self._set_alarm(self._line.next_deadline())

    # --- accounts ------------------------------------------------------------------------------------------

    async def renew(self, stale: Credential, *, deadline: float) -> None:
        """Raises CredentialRejected when no sign-in may be tried now, else what the sign-in raised."""
        await self._tokens.renew(stale, deadline=deadline)

    async def sign_in(self, account_id: str, *, deadline: float) -> None:
        """Sign this account in now, at an operator's wish, whatever came of it before. Raises ProxyError."""
        await self._tokens.sign_in(account_id, deadline=deadline)

    async def put(self, account: Account) -> None:
        """Add an account, or change it as `book.merged` says. Raises StoreUnavailable."""
        await self.book.put(account)
        await self._watch.catch_up()

    async def remove(self, account_id: str) -> None:
        """Leases of it that are out go on to their end. Raises StoreUnavailable."""
        await self.book.remove(account_id)
        await self._watch.catch_up()

    async def demand(self, account_ids: Iterable[str]) -> None:
        """Have these signed in, each in its turn, without waiting for it."""
        for account_id in account_ids:
            if (seat := self._find(account_id)) is not None:
                self._tokens.demand(seat)

    async def try_account(self, account: Account) -> Credential:
        """Sign in an account that is not here yet, in its turn through its exit. Only where `is_keeper`.

        Raises ProxyError.
        """
        exit = self._roster.exit_of(account)
        return await self._tokens.try_account(replace(account, exit=exit.name), exit)

    @property
    def is_keeper(self) -> bool:
        return self._keeper.is_held

    def while_keeper(self, began: Callable[[], None], ended: Callable[[], None]) -> None:
        """Called by turns, as this process becomes the keeper and is it no more."""
        self._keeping.append((began, ended))

    def _begin_keeping(self) -> None:
        self._tokens.begin(self._seats)
        for began, _ in self._keeping:
            began()

    def _end_keeping(self) -> None:
        self._tokens.end()
        for _, ended in self._keeping:
            ended()

    # --- what others write (roster.Followers), and what is borrowed (slots.Wanted)

    def joined(self, seat: Seat) -> None:
        self.changed(seat)
        if self._membership.processes == 1:
            self._slots.ask()

    def leaving(self, seat: Seat) -> None:
        self._tokens.forget(seat)

    def left(self, seat: Seat) -> None:
        self._slots.removed(seat)
        self._serve_line()

    def changed(self, seat: Seat) -> None:
        self._tokens.plan(seat)
        self._tokens.noticed(seat)
        self._token_changed(seat)

    def borrowable(self) -> tuple[list[Seat], int]:
        now, limit = self._clock.now(), self._limit
        found: dict[Seat, None] = {}
        for waiter in self._line.heads():
            found |= dict.fromkeys(self._borrowing.names(waiter.want, now, limit))
        return list(found), len(self._line)

    def seats(self) -> Iterable[Seat]:
        return self._seats

    def find(self, account_id: str) -> Seat | None:
        return self._find(account_id)

    def arrived(self) -> None:
        self._serve_line()

    def failed(self, error: StoreUnavailable) -> None:
        self._line.refuse_all(lambda: StoreUnavailable(error.problem))

    def _token_changed(self, seat: Seat) -> None:
        self._watch_rests(seat)
        self._serve_line()

    @property
    def waiting(self) -> int:
        """How many requests stand in the queue for an account."""
        return len(self._line)

    def snapshot(self) -> list[AccountReport]:
        """Every account, by id, with the uses that this process makes of it."""
        now = self._clock.now()
        # What others hold may be ours in a moment: an account is busy here only when we have all of it.
        reports = [account_report(seat, now, self._limit if seat.held >= self._limit else 0) for seat in self._seats]
        return sorted(reports, key=lambda report: report.account)

    def exits(self) -> list[ExitReport]:
        now = self._clock.now()
        count = Counter(seat.exit.name for seat in self._seats)
        return [exit_report(name, self._roster.exit(name).health, count[name], now) for name in sorted(count)]

    @property
    def has_accounts(self) -> bool:
        """Whether there is any, of use or not."""
        return len(self._seats) > 0

    def usable(self, feature: Feature) -> bool:
        """Whether some account could serve a request now, or will when its present ones end."""
        now = self._clock.now()
        return any(hindrance(seat, feature, now, 0) is None for seat in self._seats)

    def own_exits(self) -> list[str]:
        """Each account's own proxy, by id; empty where it has none."""
        seats = sorted(self._seats, key=lambda seat: seat.account.id)
        return [seat.exit.name if seat.has_own_exit else DIRECT for seat in seats]

    def describe(self) -> ProcessStatus:
        """For the other processes."""
        in_use = {seat.account.id: seat.in_use for seat in self._seats if seat.in_use}
        return ProcessStatus(in_use=in_use, waiting=len(self._line))

    def shortage(self) -> NoAccountUsable | None:
        """What a lease for a chat would be refused with now, or waits for (AccountsBusy); None: it would be had."""
        now = self._clock.now()
        if any(hindrance(seat, Feature.CHAT, now, self._limit) is None for seat in self._seats):
            return None
        return shortage(self._seats, Feature.CHAT, now, self._limit)

    def why_not_ready(self) -> str | None:
        """None when some account could serve a chat request, else a clause that says why none can."""
        if self._limit and not self._membership.is_valid:
            return "the store that the accounts' limits are kept in can't be reached"
        if self.usable(Feature.CHAT):
            return None
        return str(shortage(self._seats, Feature.CHAT, self._clock.now(), 0))

    async def status(self) -> PoolStatus:
        """Of all processes: what others do with the accounts is at most about a second old. Raises StoreUnavailable."""
        elsewhere: Counter[str] = Counter()
        for row, told in statuses(await self._store.processes()):
            if row.id != self._membership.id:
                elsewhere.update(told.in_use)
        reports = (replace(each, in_use=each.in_use + elsewhere[each.account]) for each in self.snapshot())
        return PoolStatus(accounts=tuple(reports), exits=tuple(self.exits()), why_not_ready=self.why_not_ready())


def _token_options(options: PoolOptions) -> TokenOptions:
    return TokenOptions(
        spacing_seconds=options.signin_spacing_seconds,
        before_seconds=options.refresh_before_seconds,
        jitter_seconds=options.refresh_jitter_seconds,
        challenge=Growth(options.challenge_rest_seconds, CHALLENGE.cap_seconds),
        renews_early=options.renews_early,
    )
