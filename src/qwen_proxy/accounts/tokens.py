"""Keeps the token of every account: gets it, renews it before its end, and drops it when it is rejected.

Only the process with the role of keeper signs in (`begin`, `end`). The others note what they find, a rejected token or
somebody's demand, in the store, and hear from there what became of it; who waits here waits for that.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from random import Random

from msgspec import Struct

from qwen_proxy.accounts.health import (
    CHALLENGE,
    Growth,
    Obstacle,
    SignInState,
    after_demand,
    after_failed_sign_in,
    after_rejection,
    after_sign_in,
    token_hindrance,
)
from qwen_proxy.accounts.model import Account, Credential, Feature
from qwen_proxy.accounts.refresh import Schedule, next_sign_in_at
from qwen_proxy.accounts.report import exit_name
from qwen_proxy.accounts.saving import Saver
from qwen_proxy.accounts.seats import Exit, HealthChange, Seat
from qwen_proxy.accounts.signing import SignInQueue, Urgency
from qwen_proxy.accounts.waiting import WaitingLine, Want
from qwen_proxy.ground.errors import (
    AccountsBusy,
    CredentialRejected,
    NoAccountUsable,
    ProxyError,
    ShuttingDown,
    SignInReason,
    SignInRefused,
    UpstreamProtocolError,
)
from qwen_proxy.ground.redact import masked_email
from qwen_proxy.runtime.alarm import Alarm
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks

log = logging.getLogger(__name__)


class TokenOptions(Struct, frozen=True, kw_only=True):
    """spacing_seconds: between two sign-ins through one exit. before_seconds, jitter_seconds: see next_sign_in_at.

    renews_early False: a token is renewed only once it is rejected.
    """

    spacing_seconds: float = 10.0
    before_seconds: float = 24 * 3600.0
    jitter_seconds: float = 2 * 3600.0
    challenge: Growth = CHALLENGE
    renews_early: bool = True


class Tokens:
    """The pool's half that signs in. `find` gives an account's seat while it has one; `changed(seat)` is called after
    each attempt and each dropped token."""

    def __init__(
        self,
        sign_in: Callable[[Account], Awaitable[Credential]],
        find: Callable[[str], Seat | None],
        changed: Callable[[Seat], None],
        saver: Saver,
        clock: Clock,
        random: Random,
        tasks: Tasks,
        options: TokenOptions,
    ) -> None:
        self._sign_in = sign_in
        self._find = find
        self._changed = changed
        self._saver = saver
        self._clock = clock
        self._random = random
        self._options = options
        self._is_keeper = False
        self._queue = SignInQueue(clock, random, tasks, spacing_seconds=options.spacing_seconds)
        self._schedule = Schedule(clock, tasks, self._due)
        self._joined: WaitingLine[None] = WaitingLine()
        self._tried = itertools.count()
        self._awaited: dict[str, int] = {}  # account -> the attempt that those who joined wait for
        self._alarm = Alarm(clock, tasks, self._ring, name="sign-in deadlines")

    # --- the role

    def begin(self, seats: Iterable[Seat]) -> None:
        """This process signs in from now on. What another did a moment ago counts for the spacing."""
        self._is_keeper = True
        now, monotonic = self._clock.now(), self._clock.monotonic()
        for seat in seats:
            if seat.health.sign_in.attempts:
                ago = max(0.0, now - seat.health.sign_in.attempted_at)
                if ago < self._options.spacing_seconds:
                    self._queue.not_before(seat.exit, monotonic + self._options.spacing_seconds - ago)
            self.plan(seat)

    def end(self) -> None:
        """Another process does. What is under way comes to its end."""
        self._is_keeper = False
        self._schedule.clear()
        self._queue.forget_all()

    def use(self, options: TokenOptions, seats: Iterable[Seat]) -> None:
        """From now on."""
        self._options = options
        self._queue.spacing_seconds = options.spacing_seconds
        for seat in seats:
            self.plan(seat)

    def plan(self, seat: Seat) -> None:
        """Set when this account is signed in next by itself. To be called when it is new or was changed."""
        if not self._is_keeper:
            return
        options, credential = self._options, seat.credential
        at = None
        if credential is None or options.renews_early:
            at = next_sign_in_at(
                seat.health.sign_in,
                credential,
                before_seconds=options.before_seconds,
                jitter_seconds=self._random.random() * options.jitter_seconds,
            )
        self._schedule.plan(seat.account.id, at if seat.account.enabled else None)
        if seat.health.sign_in.is_wanted:
            self._ask(seat, Urgency.DEMANDED)

    def forget(self, seat: Seat) -> None:
        """The account goes, or is about to change."""
        self._schedule.plan(seat.account.id, None)
        self._queue.forget(seat.exit, seat.account.id)

    # --- what is found out

    def hasten(self, seat: Seat) -> None:
        """Someone waits for this very account: if it may be signed in, it goes first."""
        if self._is_keeper and seat.credential is None and seat.account.enabled and self._may_sign_in(seat):
            self._ask(seat, Urgency.DEMANDED)

    def reject(self, seat: Seat, credential: Credential) -> None:
        """Drop the token if it still is this one."""
        if seat.credential is None or seat.credential.token != credential.token:
            return
        now = self._clock.now()
        seat.credential = None
        seat.rejected = rejected = credential.token
        self._learn(seat, lambda health, exit: (after_rejection(health, now), exit))
        self._saver.token(seat.account, lambda kept: None if kept is None or kept.token == rejected else kept)
        self.plan(seat)
        self._changed(seat)

    async def renew(self, stale: Credential, *, deadline: float) -> None:
        """See `leasing.Leasing`. Raises CredentialRejected when no sign-in may be tried now, else what it raised."""
        seat = self._seat(stale.account_id)
        self.reject(seat, stale)
        if seat.credential is None:
            if not self._may_sign_in(seat):
                raise CredentialRejected
            await self._join(seat, deadline)

    async def sign_in(self, account_id: str, *, deadline: float) -> None:
        """Sign this account in now, at an operator's wish, whatever came of it before. Raises ProxyError."""
        seat = self._seat(account_id)
        self.demand(seat)
        await self._join(seat, deadline)

    def demand(self, seat: Seat) -> None:
        """The same without waiting for it."""
        if not seat.health.sign_in.is_wanted:
            self._learn(seat, lambda health, exit: (after_demand(health), exit))
        self.plan(seat)

    async def try_account(self, account: Account, exit: Exit) -> Credential:
        """Sign in an account that the pool does not have, in its turn. Raises ProxyError. Only the keeper may."""
        ended: asyncio.Future[Credential | ProxyError] = asyncio.get_running_loop().create_future()

        async def perform() -> None:
            result = await self._attempt(account)
            if not ended.done():
                ended.set_result(result)

        # A key of its own: what the queue takes for the same as another would never be performed, and this never end.
        key = f"{account.id} {next(self._tried)}"
        self._queue.ask(exit, key, Urgency.BULK, perform)
        try:
            result = await ended
        finally:
            self._queue.forget(exit, key)
        if isinstance(result, ProxyError):
            raise result
        return result

    def noticed(self, seat: Seat) -> None:
        """The account's token or health was read anew: whoever waits for a sign-in may be answered by it."""
        account_id = seat.account.id
        awaited = self._awaited.get(account_id)
        if awaited is None:
            return
        sign_in = seat.health.sign_in
        if sign_in.attempts < awaited:
            return
        wish = _join_want(account_id, 0.0).wish
        if sign_in.state is SignInState.SUCCEEDED:
            if seat.credential is not None:
                self._awaited.pop(account_id)
                self._joined.serve_wish(wish, None)
        else:
            self._awaited.pop(account_id)
            self._joined.refuse_wish(wish, lambda: _told(sign_in.state, sign_in.reason))

    def close(self) -> None:
        self._joined.refuse_all(ShuttingDown)

    def _seat(self, account_id: str) -> Seat:
        if (seat := self._find(account_id)) is None:
            raise NoAccountUsable("the account that was asked for is not here any more")
        return seat

    def _may_sign_in(self, seat: Seat) -> bool:
        return token_hindrance(seat, self._clock.now()).obstacle is Obstacle.SIGNING_IN

    async def _join(self, seat: Seat, deadline: float) -> None:
        self._awaited.setdefault(seat.account.id, seat.health.sign_in.attempts + 1)
        if self._is_keeper:
            self._ask(seat, Urgency.DEMANDED)
        waiter = self._joined.join(_join_want(seat.account.id, deadline))
        self._alarm.at(deadline)
        await self._joined.wait(waiter, lambda _: None)

    def _ring(self) -> None:
        for waiter in self._joined.overdue(self._clock.monotonic()):
            self._joined.refuse(waiter, AccountsBusy("the account's sign-in did not end before the deadline"))
        if (deadline := self._joined.next_deadline()) is not None:
            self._alarm.at(deadline)

    # --- signing in

    def _due(self, account_id: str) -> None:
        if (seat := self._find(account_id)) is not None:
            self._ask(seat, Urgency.MISSING if seat.credential is None else Urgency.REFRESH)

    def _ask(self, seat: Seat, urgency: Urgency) -> None:
        self._queue.ask(seat.exit, seat.account.id, urgency, lambda: self._perform(seat))

    async def _perform(self, seat: Seat) -> None:
        account = seat.account
        result: Credential | ProxyError = UpstreamProtocolError("the sign-in broke off")
        try:
            result = await self._attempt(account)
        finally:  # an unknown error goes on into the log; the account is tried again all the same
            if self._find(account.id) is seat:
                if seat.account.password == account.password and seat.account.exit == account.exit:
                    self._conclude(seat, result)
                self.plan(seat)
                self._changed(seat)

    async def _attempt(self, account: Account) -> Credential | ProxyError:
        try:
            if account.password is None:
                raise SignInRefused(SignInReason.NO_PASSWORD)
            return await self._sign_in(account)
        except ProxyError as error:
            return error

    def _conclude(self, seat: Seat, result: Credential | ProxyError) -> None:
        now, challenge = self._clock.now(), self._options.challenge
        names = {"account": masked_email(seat.account.id), "exit": exit_name(seat.account.exit)}
        wish = _join_want(seat.account.id, 0.0).wish
        self._awaited.pop(seat.account.id, None)
        if isinstance(result, ProxyError):
            self._learn(seat, lambda health, exit: after_failed_sign_in(health, exit, result, now, challenge))
            log.warning("sign-in failed", extra={**names, "reason": str(result)})
            self._joined.refuse_wish(wish, lambda: result)
        else:
            seat.credential, seat.rejected = result, None
            self._saver.token(seat.account, lambda _: result)
            self._learn(seat, lambda health, exit: after_sign_in(health, exit, now))
            log.info("signed in", extra={**names, "expires_at": result.expires_at})
            self._joined.serve_wish(wish, None)

    def _learn(self, seat: Seat, change: HealthChange) -> None:
        seat.health, seat.exit.health = change(seat.health, seat.exit.health)
        self._saver.learned(seat, change)


def _told(state: SignInState, reason: str) -> ProxyError:
    """What another process found out at a sign-in, as far as it has written it down."""
    if state is SignInState.REFUSED and reason in {each.value for each in SignInReason}:
        return SignInRefused(SignInReason(reason))
    return NoAccountUsable(f"the account could not be signed in ({reason})")


def _join_want(account_id: str, deadline: float) -> Want:
    return Want(feature=Feature.CHAT, deadline=deadline, only_account=account_id)
