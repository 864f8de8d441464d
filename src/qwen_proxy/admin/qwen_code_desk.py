"""What an operator may do with sign-ins at Qwen Code: begin one, see it through, try it, forget it."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.grants import Grant, GrantPool, Grants, GrantWish, granted
from qwen_proxy.accounts.key_health import after_test
from qwen_proxy.accounts.key_pool import Change, KeyReport
from qwen_proxy.accounts.leasing import Leasing
from qwen_proxy.accounts.model import Credential, Feature, Tokens
from qwen_proxy.admin.audit import Author, audit_line
from qwen_proxy.chat.models import Model, ModelName
from qwen_proxy.chat.request import ChatRequest, Message, Role, Sampling, TextPart
from qwen_proxy.ground.errors import CredentialRejected, InvalidRequest, NotFound, ProxyError
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import GRANT_WISH
from qwen_proxy.state.store import Store
from qwen_proxy.state.vault import Vault
from qwen_proxy.upstreams.base import Upstream
from qwen_proxy.upstreams.qwen_code import DeviceSignIn
from qwen_proxy.upstreams.qwen_code_wire import ENDED, FIRST_INTERVAL_SECONDS, INSTEAD, Waiting, slower

ID_DIGITS: Final = 12
TEST_SECONDS: Final = 60.0
APPROVE_SECONDS: Final = 60.0
NOTICE: Final = f"{ENDED}; {INSTEAD}"
SWITCHED_OFF: Final = f"Qwen Code is switched off. {NOTICE}. To use it all the same set QWEN_CODE_ENABLED=true"


class Progress(StrEnum):
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class SignedIn(Struct, frozen=True, kw_only=True):
    """report: how this process's pool sees it, None for one that has ended. service: what it is good for."""

    id: str
    grant: Grant
    report: KeyReport | None
    service: str


class Begun(Struct, frozen=True, kw_only=True):
    id: str
    user_code: str
    uri: str
    complete_uri: str
    expires_at: float
    wait_seconds: float


class Polled(Struct, frozen=True, kw_only=True):
    state: Progress
    reason: str = ""
    wait_seconds: float = 0.0
    signed_in: SignedIn | None = None


class Tried(Struct, frozen=True, kw_only=True):
    model: str
    problem: str
    signed_in: SignedIn


class QwenCodeParts(Struct, frozen=True, kw_only=True):
    """What is worked with. service_of: the address that a sign-in's resource stands for. save: keeps its health."""

    is_enabled: bool
    models: tuple[str, ...]
    grants: Grants
    pool: GrantPool
    upstream: Upstream
    sign_in: DeviceSignIn
    service_of: Callable[[str], str]
    save: Callable[[str, Change | None], Awaitable[None]]


class QwenCodeDesk:
    """Every method but `all` and `remove` raises InvalidRequest while it is switched off. accounts: of the site; they
    may approve."""

    def __init__(
        self,
        parts: QwenCodeParts,
        store: Store,
        vault: Vault,
        book: AccountBook,
        accounts: Leasing,
        catch_up: Callable[[], Awaitable[None]],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._parts = parts
        self._wishes = Collection(store, GRANT_WISH, GrantWish, vault)
        self._book = book
        self._accounts = accounts
        self._catch_up = catch_up
        self._clock = clock
        self._ids = ids
        self.is_enabled: Final = parts.is_enabled
        self.models: Final = parts.models
        self.notice: Final = NOTICE if parts.is_enabled else SWITCHED_OFF

    async def all(self) -> list[SignedIn]:
        """The oldest first. Raises StoreUnavailable."""
        await self._catch_up()
        found = sorted((await self._parts.grants.all()).items(), key=lambda item: item[1].added_at)
        return [self._signed_in(id, grant) for id, grant in found]

    async def begin(self, by: Author, *, label: str, account: str) -> Begun:
        """With an account it is approved at once, but still has to be polled. Raises NotFound, ProxyError."""
        self._check()
        email = account.strip().lower()
        if email and await self._book.get(email) is None:
            raise NotFound(f"account {email[:100]!r}")
        begun = await self._parts.sign_in.begin()
        id, now = self._ids.token(ID_DIGITS), self._clock.now()
        wish = GrantWish(
            label=label.strip() or email or f"sign-in {id}",
            device_code=begun.device.device_code,
            verifier=begun.verifier,
            account=email,
            ends_at=now + begun.device.lasts_seconds,
            interval_seconds=FIRST_INTERVAL_SECONDS,
            next_poll_at=now if email else now + FIRST_INTERVAL_SECONDS,
        )
        line = audit_line(by, "qwen_code.begin", id, {"label": wish.label, "account": email or None})
        await self._wishes.update(id, lambda before: wish, line, lasts_seconds=begun.device.lasts_seconds)
        if email:
            await self._approve(email, begun.device.user_code)
        return Begun(
            id=id,
            user_code=begun.device.user_code,
            uri=begun.device.uri,
            complete_uri=begun.device.complete_uri,
            expires_at=now + begun.device.lasts_seconds,
            wait_seconds=0.0 if email else FIRST_INTERVAL_SECONDS,
        )

    async def _approve(self, email: str, user_code: str) -> None:
        deadline = self._clock.monotonic() + APPROVE_SECONDS
        async with self._accounts.lease(Feature.CHAT, deadline=deadline, only_account=email) as lease:
            await self._parts.sign_in.approve(lease.credential, user_code)

    async def poll(self, by: Author, id: str) -> Polled:
        """Raises NotFound for a sign-in that has ended, ProxyError for one that may still come to be."""
        self._check()
        now, found = self._clock.now(), await self._wishes.get(id)
        if found is None:
            if (grant := (await self._parts.grants.all()).get(id)) is not None:
                return Polled(state=Progress.DONE, signed_in=self._signed_in(id, grant))
            raise NotFound(f"sign-in {id[:100]!r}: its code has ended, or never was")
        is_due = False

        def turn(before: GrantWish | None) -> GrantWish | None:
            nonlocal is_due
            is_due = before is not None and before.next_poll_at <= now
            return replace(before, next_poll_at=now + before.interval_seconds) if before and is_due else before

        wish = await self._changed(id, found.value, turn)
        if not is_due or wish is None:
            return Polled(state=Progress.WAITING, wait_seconds=0.5 if wish is None else wish.next_poll_at - now)
        return await self._ask(by, id, wish)

    async def _ask(self, by: Author, id: str, wish: GrantWish) -> Polled:
        now = self._clock.now()
        try:
            answer = await self._parts.sign_in.poll(wish.device_code, wish.verifier)
        except CredentialRejected as error:
            failed = audit_line(by, "qwen_code.fail", id, {"label": wish.label, "reason": str(error)})
            await self._wishes.update(id, lambda before: None, failed)
            return Polled(state=Progress.FAILED, reason=str(error))
        if isinstance(answer, Tokens):
            return await self._keep(by, id, wish, answer)
        interval = wish.interval_seconds
        if answer is Waiting.SLOWER:
            interval = slower(interval)

            def slow(before: GrantWish | None) -> GrantWish | None:
                return before and replace(before, interval_seconds=interval, next_poll_at=now + interval)

            await self._changed(id, wish, slow)
        return Polled(state=Progress.WAITING, wait_seconds=interval)

    async def _keep(self, by: Author, id: str, wish: GrantWish, tokens: Tokens) -> Polled:
        grant = granted(tokens, self._clock.now(), label=wish.label, account=wish.account)
        details = {"label": grant.label, "account": grant.account or None}
        await self._parts.grants.add(id, grant, audit_line(by, "qwen_code.login", id, details))
        await self._wishes.update(id, lambda before: None)
        await self._catch_up()
        return Polled(state=Progress.DONE, signed_in=self._signed_in(id, grant))

    async def _changed(
        self, id: str, wish: GrantWish, change: Callable[[GrantWish | None], GrantWish | None]
    ) -> GrantWish | None:
        """It still ends with its code."""
        left = max(1.0, wish.ends_at - self._clock.now())
        entry = await self._wishes.update(id, change, lasts_seconds=left)
        return None if entry is None else entry.value

    async def test(self, id: str) -> Tried:
        """One that answers is used again, whatever it did before. Raises NotFound."""
        self._check()
        await self._catch_up()
        grant = self._parts.grants.known.get(id)
        if grant is None:
            raise NotFound(f"sign-in {id[:100]!r}")
        model, problem = self.models[0], grant.ended
        if not problem:
            problem = await self._tried(id, model)
        if not problem:
            await self._parts.save(id, after_test)
            await self._catch_up()
        return Tried(model=model, problem=problem, signed_in=self._signed_in(id, self._parts.grants.known[id]))

    async def _tried(self, id: str, model: str) -> str:
        """What is wrong, as a clause; a refused token is renewed once."""
        deadline = self._clock.monotonic() + TEST_SECONDS
        try:
            try:
                await self._chat(self._credential(id), model, deadline)
            except CredentialRejected:
                stale = self._credential(id)
                await self._parts.grants.renew(id, stale.token, was_refused=True, deadline=deadline)
                await self._chat(self._credential(id), model, deadline)
        except ProxyError as error:
            return str(error)
        return ""

    async def _chat(self, credential: Credential, model: str, deadline: float) -> None:
        question = ChatRequest(
            model=ModelName(model),
            messages=(Message(Role.USER, (TextPart("Say OK."),)),),
            sampling=Sampling(max_tokens=16),
        )
        known = Model(id=model, display_name=model)
        async with self._parts.upstream.open(question, known, credential, deadline) as batches:
            async for _ in batches:
                pass

    def _credential(self, id: str) -> Credential:
        seat = self._parts.pool.find(id)
        if seat is None:
            raise CredentialRejected("this sign-in has ended")
        return seat.credential

    async def remove(self, by: Author, id: str) -> None:
        """Raises NotFound. Also while it is switched off."""
        found = (await self._parts.grants.all()).get(id)
        label = None if found is None else found.label
        await self._parts.grants.remove(id, audit_line(by, "qwen_code.remove", id, {"label": label}))
        await self._parts.save(id, None)
        await self._catch_up()

    def _signed_in(self, id: str, grant: Grant) -> SignedIn:
        report = next((each for each in self._parts.pool.reports() if each.id == id), None)
        return SignedIn(id=id, grant=grant, report=report, service=self._parts.service_of(grant.resource_url))

    def _check(self) -> None:
        if not self.is_enabled:
            raise InvalidRequest(SWITCHED_OFF)
