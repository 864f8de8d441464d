"""Keeps the token of every account: gets it, renews it before its end, and drops it when it is rejected."""

import logging
from collections.abc import Awaitable, Callable
from random import Random

from msgspec.structs import replace

from qwen_proxy.accounts.health import (
    CHALLENGE,
    Growth,
    Obstacle,
    after_failed_sign_in,
    after_rejection,
    after_sign_in,
    token_hindrance,
)
from qwen_proxy.accounts.model import Account, Credential, Feature
from qwen_proxy.accounts.refresh import Schedule, next_sign_in_at
from qwen_proxy.accounts.report import exit_name
from qwen_proxy.accounts.seats import Seat
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


class Tokens:
    """The pool's half that signs in. `find` gives an account's seat while it has one; `changed(seat)` is called after
    each attempt and each dropped token."""

    def __init__(
        self,
        sign_in: Callable[[Account], Awaitable[Credential]],
        find: Callable[[str], Seat | None],
        changed: Callable[[Seat], None],
        clock: Clock,
        random: Random,
        tasks: Tasks,
        *,
        spacing_seconds: float,
        before_seconds: float,
        jitter_seconds: float,
        challenge: Growth = CHALLENGE,
    ) -> None:
        self._sign_in = sign_in
        self._find = find
        self._changed = changed
        self._clock = clock
        self._random = random
        self._before_seconds = before_seconds
        self._jitter_seconds = jitter_seconds
        self._challenge = challenge
        self._queue = SignInQueue(self._perform, clock, tasks, spacing_seconds=spacing_seconds)
        self._schedule = Schedule(clock, tasks, self._due)
        self._joined: WaitingLine[None] = WaitingLine()
        self._alarm = Alarm(clock, tasks, self._ring, name="sign-in deadlines")

    def plan(self, seat: Seat) -> None:
        """Set when this account is signed in next by itself. To be called when it is new or was changed."""
        at = next_sign_in_at(
            seat.health.sign_in,
            seat.credential,
            before_seconds=self._before_seconds,
            jitter_seconds=self._random.random() * self._jitter_seconds,
        )
        self._schedule.plan(seat.account.id, at if seat.account.enabled else None)

    def forget(self, seat: Seat) -> None:
        """The account goes, or is about to change."""
        self._schedule.plan(seat.account.id, None)
        self._queue.forget(seat)

    def hasten(self, seat: Seat) -> None:
        """Someone waits for this very account: if it may be signed in, it goes first."""
        if seat.credential is None and seat.account.enabled and self._may_sign_in(seat):
            self._queue.ask(seat, Urgency.DEMANDED)

    def reject(self, seat: Seat, credential: Credential) -> None:
        """Drop the token if it still is this one."""
        if seat.credential is not None and seat.credential.token == credential.token:
            seat.credential = None
            seat.health = after_rejection(seat.health, self._clock.now())
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
        seat.health = replace(seat.health, sign_in=replace(seat.health.sign_in, retry_at=0.0))
        await self._join(seat, deadline)

    def close(self) -> None:
        self._joined.refuse_all(ShuttingDown)

    def _seat(self, account_id: str) -> Seat:
        if (seat := self._find(account_id)) is None:
            raise NoAccountUsable("the account that was asked for is not here any more")
        return seat

    def _may_sign_in(self, seat: Seat) -> bool:
        return token_hindrance(seat, self._clock.now()).obstacle is Obstacle.SIGNING_IN

    async def _join(self, seat: Seat, deadline: float) -> None:
        self._queue.ask(seat, Urgency.DEMANDED)
        waiter = self._joined.join(_join_want(seat.account.id, deadline))
        self._alarm.at(deadline)
        await self._joined.wait(waiter, lambda _: None)

    def _ring(self) -> None:
        for waiter in self._joined.overdue(self._clock.monotonic()):
            self._joined.refuse(waiter, AccountsBusy("the account's sign-in did not end before the deadline"))
        if (deadline := self._joined.next_deadline()) is not None:
            self._alarm.at(deadline)

    def _due(self, account_id: str) -> None:
        if (seat := self._find(account_id)) is not None:
            self._queue.ask(seat, Urgency.MISSING if seat.credential is None else Urgency.REFRESH)

    async def _perform(self, seat: Seat) -> None:
        account = seat.account
        result: Credential | ProxyError = UpstreamProtocolError("the sign-in broke off")
        try:
            if account.password is None:
                raise SignInRefused(SignInReason.NO_PASSWORD)
            result = await self._sign_in(account)
        except ProxyError as error:
            result = error
        finally:  # an unknown error goes on into the log; the account is tried again all the same
            if self._find(account.id) is seat:
                if seat.account is account:
                    self._learn(seat, result)
                self.plan(seat)
                self._changed(seat)

    def _learn(self, seat: Seat, result: Credential | ProxyError) -> None:
        now = self._clock.now()
        names = {"account": masked_email(seat.account.id), "exit": exit_name(seat.account.exit)}
        wish = _join_want(seat.account.id, 0.0).wish
        if isinstance(result, ProxyError):
            seat.health, seat.exit.health = after_failed_sign_in(
                seat.health, seat.exit.health, result, now, self._challenge
            )
            log.warning("sign-in failed", extra={**names, "reason": str(result)})
            self._joined.refuse_wish(wish, lambda: result)
        else:
            seat.health, seat.exit.health = after_sign_in(seat.health, seat.exit.health, now)
            seat.credential = result
            log.info("signed in", extra={**names, "expires_at": result.expires_at})
            self._joined.serve_wish(wish, None)


def _join_want(account_id: str, deadline: float) -> Want:
    return Want(feature=Feature.CHAT, deadline=deadline, only_account=account_id)
