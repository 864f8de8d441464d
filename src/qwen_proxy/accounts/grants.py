"""Sign-ins by OAuth: kept for all processes, renewed before their end and once a token is refused, leased like keys.

A refresh token can be used once. So whoever renews claims the document first; all others, also of other processes,
wait for what comes of it. A claim ends by itself, should its holder be killed.

| what happens | the sign-in |
|---|---|
| its token is near its end | renewed, by whoever comes first |
| its token is refused | renewed once, then used again |
| a token that was renewed for that reason is refused too | not used any more, until it is tested or signed in anew |
| its refresh token is refused | its tokens are dropped, and it says why |
| a renewal fails otherwise | tried again a minute later, or when a request needs it |
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.key_pool import Change, KeyPool, KeySeat, Trading
from qwen_proxy.accounts.model import Credential, Outcome, OutcomeKind, Tokens
from qwen_proxy.config.backends import BackendSpec
from qwen_proxy.ground.errors import (
    AccountsBusy,
    CredentialRejected,
    NotFound,
    ProxyError,
    StoreUnavailable,
)
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.alarm import Alarm
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.collection import Collection, Entry
from qwen_proxy.state.kinds import GRANT
from qwen_proxy.state.store import Append, Record, Store
from qwen_proxy.state.vault import Vault

log = logging.getLogger(__name__)

NOTHING: Final = Secret("")
CLAIM_SECONDS: Final = 60.0  # longer than a renewal may take
ASK_AGAIN_SECONDS: Final = 0.2
TRY_AGAIN_SECONDS: Final = 60.0
BEFORE_END_SECONDS: Final = 120.0  # or a fifth of its life, where that is shorter
AT_ONCE_SECONDS: Final = 60.0  # a token that is refused so soon after its renewal was not refused for its age
SETTLE_SECONDS: Final = 5.0
WRITES: Final = 3  # of tokens that would be lost otherwise


class Grant(Struct, frozen=True, kw_only=True):
    """A document of kind `grant`. All times are Unix seconds.

    account: the account of the site that approved it, empty for whoever did so in a browser. renewed_at: because a
    token was refused. claimed_until: somebody renews it. ended: why it has no tokens any more, empty while it has.
    """

    label: str
    access_token: Secret
    refresh_token: Secret
    resource_url: str = ""
    account: str = ""
    added_at: float = 0.0
    obtained_at: float = 0.0
    expires_at: float = 0.0
    renewed_at: float = 0.0
    claimed_until: float = 0.0
    ended: str = ""

    @property
    def renew_at(self) -> float:
        return self.expires_at - min(BEFORE_END_SECONDS, (self.expires_at - self.obtained_at) / 5)


class GrantWish(Struct, frozen=True, kw_only=True):
    """A document of kind `grant_wish`, which ends with its code: a sign-in that waits for its owner."""

    label: str
    device_code: Secret
    verifier: Secret
    account: str = ""
    ends_at: float = 0.0
    interval_seconds: float = 2.0
    next_poll_at: float = 0.0


def granted(tokens: Tokens, now: float, *, label: str, account: str = "") -> Grant:
    return Grant(
        label=label,
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token or NOTHING,
        resource_url=tokens.resource_url,
        account=account,
        added_at=now,
        obtained_at=now,
        expires_at=now + tokens.lasts_seconds,
    )


def renewed(grant: Grant, tokens: Tokens, now: float, *, was_refused: bool) -> Grant:
    """What the answer leaves out stays."""
    return replace(
        grant,
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token or grant.refresh_token,
        resource_url=tokens.resource_url or grant.resource_url,
        obtained_at=now,
        expires_at=now + tokens.lasts_seconds,
        renewed_at=now if was_refused else grant.renewed_at,
        claimed_until=0.0,
        ended="",
    )


def free(grant: Grant) -> Grant:
    return replace(grant, claimed_until=0.0)


def ended(grant: Grant, why: str) -> Grant:
    return replace(grant, access_token=NOTHING, refresh_token=NOTHING, claimed_until=0.0, ended=why)


class Grants:
    """`take` is told what the watch sees. refresh: see `upstreams.qwen_code.DeviceSignIn`. changed: after each change.

    What is known is kept in this process too: a look costs nothing.
    """

    def __init__(
        self,
        store: Store,
        vault: Vault,
        refresh: Callable[[Secret], Coroutine[None, None, Tokens]],
        changed: Callable[[], None],
        clock: Clock,
        *,
        renews_early: Callable[[], bool],
    ) -> None:
        self._records = Collection(store, GRANT, Grant, vault)
        self._refresh = refresh
        self._changed = changed
        self._clock = clock
        self._renews_early = renews_early
        self._tasks = Tasks()
        self._timers = Tasks()
        self._alarm = Alarm(clock, self._timers, self._ring, name="renewal of sign-ins")
        self.known: dict[str, Grant] = {}
        self._versions: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    async def close(self) -> None:
        """A renewal under way is waited for: its token would be lost."""
        await self._timers.__aexit__(None, None, None)
        await self._tasks.settle(SETTLE_SECONDS)
        await self._tasks.__aexit__(None, None, None)

    def take(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        for id in gone:
            self.known.pop(id, None)
            self._versions.pop(id, None)
        for entry in self._records.readable(records):
            self._learn(entry)
        self.plan()
        self._changed()

    def _learn(self, entry: Entry[Grant]) -> bool:
        """Whether it is news. What the watch read before a write of ours may come behind it."""
        if entry.version <= self._versions.get(entry.id, 0):
            return False
        self._versions[entry.id] = entry.version
        self.known[entry.id] = entry.value
        return True

    async def add(self, id: str, grant: Grant, *also: Append) -> None:
        """Raises StoreUnavailable."""
        await self._records.update(id, lambda before: grant, *also)

    async def all(self) -> dict[str, Grant]:
        """By id. Raises StoreUnavailable."""
        return {entry.id: entry.value for entry in await self._records.all_readable()}

    async def remove(self, id: str, *also: Append) -> Grant:
        """Raises NotFound, StoreUnavailable."""
        found = await self._records.get(id)
        if found is None:
            raise NotFound(f"sign-in {id!r}")
        await self._records.update(id, lambda before: None, *also)
        return found.value

    def plan(self) -> None:
        """Set when the next one is to be renewed."""
        if not self._renews_early():
            return
        now = self._clock.now()
        ends = [
            max(grant.renew_at, self._not_before.get(id, 0.0), grant.claimed_until)
            for id, grant in self.known.items()
            if grant.refresh_token
        ]
        if ends:
            self._alarm.at(self._clock.monotonic() + max(0.0, min(ends) - now))

    def _ring(self) -> None:
        now = self._clock.now()
        for id, grant in self.known.items():
            if grant.refresh_token and now >= max(grant.renew_at, self._not_before.get(id, 0.0), grant.claimed_until):
                self._not_before[id] = now + TRY_AGAIN_SECONDS
                self._tasks.spawn(self._early(id, grant), name="renew a sign-in")
        self.plan()

    async def _early(self, id: str, grant: Grant) -> None:
        try:
            await self.renew(id, grant.access_token, was_refused=False, deadline=self._clock.monotonic())
        except AccountsBusy:
            pass  # another process is at it
        except ProxyError as error:
            log.warning("a sign-in could not be renewed", extra={"grant": id, "reason": str(error)})

    async def renew(self, id: str, stale: Secret, *, was_refused: bool, deadline: float) -> Grant:
        """The sign-in with another token than this one; whoever comes first renews it, whoever leaves meanwhile.

        Raises CredentialRejected where it can't be renewed, AccountsBusy at the deadline, and what the renewal raised.
        """
        while True:
            grant, is_ours = await self._claim(id, stale)
            if grant is None:
                raise CredentialRejected("this sign-in was removed")
            if grant.ended:
                raise CredentialRejected(grant.ended)
            if grant.access_token != stale:
                return grant
            if is_ours:
                failures: list[ProxyError] = []
                work = self._perform(id, grant, was_refused, failures)
                await asyncio.shield(self._tasks.spawn(work, name="renew a sign-in"))
                if failures:
                    raise failures[0]
                continue
            if self._clock.monotonic() >= deadline:
                raise AccountsBusy("the renewal of a sign-in did not end before the deadline")
            await self._clock.sleep(ASK_AGAIN_SECONDS)

    async def _claim(self, id: str, stale: Secret) -> tuple[Grant | None, bool]:
        """The document as it is now, and whether it is ours to renew."""
        is_ours = False

        def claim(before: Grant | None) -> Grant | None:
            nonlocal is_ours
            now = self._clock.now()
            is_ours = (
                before is not None and not before.ended and before.access_token == stale and before.claimed_until <= now
            )
            return replace(before, claimed_until=now + CLAIM_SECONDS) if before is not None and is_ours else before

        entry = await self._records.update(id, claim)
        if entry is not None and self._learn(entry):  # at once: who renewed it may be another process
            self.plan()
            self._changed()
        return (None if entry is None else entry.value), is_ours

    async def _perform(self, id: str, grant: Grant, was_refused: bool, failures: list[ProxyError]) -> None:
        stale = grant.access_token

        def change(before: Grant | None) -> Grant | None:
            """Only of what was claimed: it may have been signed in anew meanwhile, or removed."""
            return before if before is None or before.access_token != stale else turn(before)

        now = self._clock.now()
        turn: Callable[[Grant], Grant] = free
        try:
            if not grant.refresh_token:
                raise CredentialRejected("this sign-in can't be renewed: it has no refresh token")
            tokens = await self._refresh(grant.refresh_token)
        except CredentialRejected as error:
            why = str(error)
            turn = partial(ended, why=why)
            log.warning("a sign-in has ended", extra={"grant": id, "label": grant.label, "reason": why})
        except ProxyError as error:
            failures.append(error)
        else:
            turn = partial(renewed, tokens=tokens, now=now, was_refused=was_refused)
        await self._write(id, change, failures)

    async def _write(self, id: str, change: Callable[[Grant | None], Grant | None], failures: list[ProxyError]) -> None:
        for left in reversed(range(WRITES)):
            try:
                entry = await self._records.update(id, change)
            except StoreUnavailable as error:
                if not left:
                    failures.append(error)
                    log.error("a renewed sign-in could not be kept", extra={"grant": id, "reason": str(error)})
                    return
                await self._clock.sleep(1.0)
                continue
            if entry is not None:  # this process knows at once
                self._learn(entry)
                if not failures:
                    self._not_before.pop(id, None)
                self.plan()
                self._changed()
            return


class GrantPool(KeyPool):
    """Sign-ins leased like keys. if_none: what a lease is refused with while there is none."""

    noun = "sign-in"

    def __init__(
        self,
        spec: BackendSpec,
        exit: str,
        grants: Grants,
        *,
        if_none: str,
        save: Callable[[str, Change], Coroutine[None, None, None]],
        trading: Trading,
        clock: Clock,
    ) -> None:
        self._grants = grants
        self._if_none = if_none
        super().__init__(spec, exit, digest=lambda key: "", save=save, trading=trading, clock=clock)

    def changed(self, exit: str) -> None:
        self.use(self.spec, exit)

    def _credentials(self, spec: BackendSpec, exit: str) -> Iterable[Credential]:
        for id, grant in self._grants.known.items():
            if not grant.ended:
                yield Credential(account_id=id, token=grant.access_token, exit=exit, expires_at=grant.expires_at)

    def learn(self, seat: KeySeat, outcome: Outcome) -> None:
        """A refused token is no reason to retire a sign-in as long as it can be renewed."""
        if outcome.kind is OutcomeKind.CREDENTIAL_REJECTED and not self._was_just_renewed(seat.id):
            return
        super().learn(seat, outcome)

    async def renew(self, stale: Credential, *, deadline: float) -> None:
        if self._was_just_renewed(stale.account_id) and self._is_current(stale):
            raise CredentialRejected("a token that was renewed just now is refused too")
        await self._grants.renew(stale.account_id, stale.token, was_refused=True, deadline=deadline)

    def _is_current(self, credential: Credential) -> bool:
        grant = self._grants.known.get(credential.account_id)
        return grant is not None and grant.access_token == credential.token

    def _was_just_renewed(self, id: str) -> bool:
        grant = self._grants.known.get(id)
        return grant is not None and self._clock.now() - grant.renewed_at < AT_ONCE_SECONDS

    def _nothing_there(self) -> str:
        return next((grant.ended for grant in self._grants.known.values() if grant.ended), self._if_none)
