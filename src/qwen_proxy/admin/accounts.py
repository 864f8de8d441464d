"""/api/admin/accounts: the accounts of the site; looking at them, adding, changing, testing and deleting them."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Final, TypeVar

from msgspec import Meta, Struct
from msgspec.structs import replace

from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.cookies import PastedCookies, WrongCookies, read_cookies
from qwen_proxy.accounts.model import Account, Credential, Origin
from qwen_proxy.accounts.pool import AccountPool
from qwen_proxy.accounts.report import AccountReport
from qwen_proxy.accounts.seats import Seat
from qwen_proxy.admin.account_bodies import (
    AccountBody,
    AccountDeletedBody,
    AccountPatchBody,
    AccountsBody,
    AccountTestBody,
    AskedBody,
    CookiesSetBody,
    NewAccountBody,
    PastedCookiesBody,
    account_body,
    check_account,
)
from qwen_proxy.admin.audit import audit_line
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, given, route
from qwen_proxy.ground.errors import AlreadyExists, InvalidRequest, NotFound, ProxyError
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import DAY_SECONDS, Store, UsageCounts
from qwen_proxy.upstreams.qwen_web.token import token_end

PATH: Final = "/api/admin/accounts"
TAG: Final = "accounts"
TEST_SECONDS: Final = 90.0

B = TypeVar("B", bound=Struct)


class AccountsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """after: an id. text: part of an id, a label or a note. state: such as "ready"."""

    after: str = ""
    limit: Annotated[int, Meta(ge=1, le=5000)] = 1000
    label: str | None = None
    state: str | None = None
    text: str | None = None


class RefreshBody(Struct, frozen=True, forbid_unknown_fields=True):
    """within_hours: only accounts without a token, or whose token ends so soon; null for all."""

    within_hours: Annotated[float, Meta(ge=0)] | None = None


class AccountRoutes:
    """catch_up: after a change this process knows of it too; the others do within a second."""

    def __init__(
        self, store: Store, book: AccountBook, pool: AccountPool, catch_up: Callable[[], Awaitable[None]], clock: Clock
    ) -> None:
        self._store = store
        self._book = book
        self._pool = pool
        self._catch_up = catch_up
        self._clock = clock

    def table(self) -> tuple[AdminRoute, ...]:
        one, cookies = f"{PATH}/{{id}}", f"{PATH}/{{id}}/cookies"
        return (
            route("GET", PATH, "The accounts, their health and what they were used for today", self.all, tag=TAG),
            route("POST", PATH, "Add an account; it is signed in by itself", self.add, tag=TAG, status=201),
            route("POST", f"{PATH}/refresh", "Have accounts signed in anew", self.refresh, tag=TAG, status=202),
            route("GET", one, "One account", self.show, tag=TAG),
            route("PATCH", one, "Change an account; enable or disable it", self.change, tag=TAG),
            route("POST", f"{one}/test", "Sign the account in now and tell how it went", self.test, tag=TAG),
            route("POST", f"{one}/refresh", "Have it signed in anew", self.refresh_one, tag=TAG, status=202),
            route("PUT", cookies, "Give it cookies that its owner copied from a browser", self.set_cookies, tag=TAG),
            route("DELETE", cookies, "Take its cookies away", self.drop_cookies, tag=TAG),
            route("DELETE", one, "Forget an account, its token and its health", self.delete, tag=TAG),
        )

    # --- looking

    async def all(self, call: Call[AccountsQuery, Nothing]) -> AccountsBody:
        query = call.query
        reports = await self._reports()
        seats = sorted(self._pool.seats(), key=lambda seat: seat.account.id)
        wanted = [seat for seat in seats if _fits(seat, reports[seat.account.id], query)]
        page = [seat for seat in wanted if seat.account.id > query.after][: query.limit]
        usage, now = await self._usage_today(), self._clock.now()
        return AccountsBody(
            accounts=tuple(
                account_body(seat, reports[seat.account.id], usage.get(seat.account.id), now) for seat in page
            ),
            total=len(wanted),
            states=dict(Counter(report.state for report in reports.values())),
            next_after=page[-1].account.id if page and page[-1] is not wanted[-1] else None,
        )

    async def show(self, call: Call[Nothing, Nothing]) -> AccountBody:
        return await self._body(await self._seat(call.path["id"]))

    # --- changing

    async def add(self, call: Call[Nothing, NewAccountBody]) -> AccountBody:
        """Raises InvalidRequest, AlreadyExists."""
        body, now = call.body, self._clock.now()
        email = body.email.strip()
        check_account(email=email, password=body.password, proxy=body.proxy or None)
        pasted = None if body.cookies is None else self._read(body.cookies)
        if body.password is None and (pasted is None or self._held_token(pasted) is None):
            raise InvalidRequest(
                "an account needs its password, or cookies with a token that still holds", param="password"
            )
        account = Account(
            id=email.lower(),
            email=email,
            password=None if body.password is None else Secret(body.password),
            exit=body.proxy or "",
            cookies=None if pasted is None else pasted.header,
            cookies_at=0.0 if pasted is None else now,
            enabled=body.enabled,
            labels=body.labels,
            weight=body.weight,
            priority=body.priority,
            note=body.note,
            origin=Origin.ADDED,
            added_at=now,
        )
        if await self._book.get(account.id) is not None:
            raise AlreadyExists(f"account {account.id!r}")
        details = {"proxy": account.exit or None, "labels": ", ".join(account.labels) or None}
        credential = None if pasted is None else self._credential(account, pasted)
        line = audit_line(call.by, "account.add", account.id, details)
        await self._book.put(account, line, credential=credential)
        return await self._changed(account.id)

    async def change(self, call: Call[Nothing, AccountPatchBody]) -> AccountBody:
        """Raises InvalidRequest, NotFound."""
        body = call.body
        check_account(password=body.password, proxy=body.proxy or None)
        fields = given(body)
        shown = {name: "(another)" if name == "password" else value for name, value in fields.items()}
        if "password" in fields:
            fields["password"] = Secret(fields["password"])
        if "proxy" in fields:
            fields["exit"] = fields.pop("proxy") or ""
        await self._change(call, "account.change", lambda account: replace(account, **fields), shown)
        return await self._changed(call.path["id"])

    async def delete(self, call: Call[Nothing, Nothing]) -> AccountDeletedBody:
        stored = await self._book.get(_id(call))
        if stored is None:
            raise _not_found(call)
        await self._book.remove(stored.account.id, audit_line(call.by, "account.delete", stored.account.id))
        await self._catch_up()
        is_listed = stored.account.origin is Origin.ENVIRONMENT
        note = "If ACCOUNTS lists it, the next start brings it back: take it out there too." if is_listed else ""
        return AccountDeletedBody(id=stored.account.id, note=note)

    async def set_cookies(self, call: Call[Nothing, PastedCookiesBody]) -> CookiesSetBody:
        """Raises InvalidRequest, NotFound."""
        pasted, now = self._read(call.body.cookies), self._clock.now()
        details = {"form": pasted.form.value, "cookies": len(pasted.names)}

        def change(account: Account) -> Account:
            return replace(account, cookies=pasted.header, cookies_at=now)

        account = await self._change(call, "account.cookies.set", change, details)
        credential = self._credential(account, pasted)
        if credential is not None:
            await self._book.keep_credential(account, lambda _: credential)
        await self._catch_up()
        return CookiesSetBody(
            form=pasted.form.value,
            names=pasted.names,
            expires_at=pasted.expires_at,
            left_out=pasted.left_out,
            has_token=credential is not None,
        )

    async def drop_cookies(self, call: Call[Nothing, Nothing]) -> None:
        """Its token stays."""
        await self._change(
            call, "account.cookies.drop", lambda account: replace(account, cookies=None, cookies_at=0.0), {}
        )
        await self._catch_up()

    # --- signing in

    async def test(self, call: Call[Nothing, Nothing]) -> AccountTestBody:
        """Costs one sign-in, in its turn through the account's exit, and no request. Raises NotFound."""
        seat = await self._seat(call.path["id"])
        started_at = self._clock.monotonic()
        reason = next_action = ""
        if seat.account.password is None:
            reason = "it has no password to sign in with; its token is used until it ends"
            next_action = "Give this account its password."
        else:
            try:
                await self._pool.sign_in(seat.account.id, deadline=started_at + TEST_SECONDS)
            except ProxyError as error:
                reason = str(error)
                next_action = (await self._reports())[seat.account.id].next_action
        return AccountTestBody(
            signed_in=not reason,
            reason=reason,
            next_action=next_action,
            took_seconds=round(self._clock.monotonic() - started_at, 3),
            account=await self._body(seat),
        )

    async def refresh_one(self, call: Call[Nothing, Nothing]) -> AskedBody:
        seat = await self._seat(call.path["id"])
        await self._ask([seat])
        await self._store.write([audit_line(call.by, "account.refresh", seat.account.id)])
        return AskedBody(asked=1, total=1)

    async def refresh(self, call: Call[Nothing, RefreshBody]) -> AskedBody:
        hours = call.body.within_hours
        seats = [seat for seat in self._pool.seats() if seat.account.enabled]
        asked = seats if hours is None else [seat for seat in seats if self._ends_within(seat, hours * 3600)]
        asked = [seat for seat in asked if seat.account.password is not None]
        await self._ask(asked)
        await self._store.write([audit_line(call.by, "account.refresh", "", {"asked": len(asked)})])
        return AskedBody(asked=len(asked), total=len(seats))

    async def _ask(self, seats: list[Seat]) -> None:
        await self._pool.demand([seat.account.id for seat in seats])

    def _ends_within(self, seat: Seat, seconds: float) -> bool:
        credential = seat.credential
        if credential is None:
            return True
        return credential.expires_at is not None and credential.expires_at - self._clock.now() <= seconds

    # --- shared

    async def _change(
        self,
        call: Call[Nothing, B],
        action: str,
        change: Callable[[Account], Account],
        details: Mapping[str, object],
    ) -> Account:
        account = await self._book.change(_id(call), change, audit_line(call.by, action, _id(call), details))
        if account is None:
            raise _not_found(call)
        return account

    async def _changed(self, id: str) -> AccountBody:
        await self._catch_up()
        return await self._body(await self._seat(id))

    async def _seat(self, id: str) -> Seat:
        """Of one that another process has added a moment ago, too. Raises NotFound."""
        id = id.strip().lower()
        if self._pool.find(id) is None:
            await self._catch_up()
        if (seat := self._pool.find(id)) is None:
            raise NotFound(f"account {id[:100]!r}")
        return seat

    async def _body(self, seat: Seat) -> AccountBody:
        id = seat.account.id
        return account_body(seat, (await self._reports())[id], (await self._usage_today()).get(id), self._clock.now())

    async def _reports(self) -> dict[str, AccountReport]:
        return {report.account: report for report in (await self._pool.status()).accounts}

    async def _usage_today(self) -> dict[str, UsageCounts]:
        now = self._clock.now()
        used: dict[str, UsageCounts] = {}
        for key, counts in (await self._store.usage(now - now % DAY_SECONDS, now + 1, by_day=True)).items():
            used[key.account] = used.get(key.account, UsageCounts()) + counts
        return used

    def _read(self, text: str) -> PastedCookies:
        try:
            return read_cookies(text, self._clock.now())
        except WrongCookies as error:
            raise InvalidRequest(str(error), param="cookies") from error

    def _held_token(self, pasted: PastedCookies) -> tuple[Secret, float] | None:
        """The token among the cookies, and its end, when it claims one that is still to come."""
        end = None if pasted.token is None else token_end(pasted.token.reveal())
        return None if pasted.token is None or end is None or end <= self._clock.now() else (pasted.token, end)

    def _credential(self, account: Account, pasted: PastedCookies) -> Credential | None:
        if (held := self._held_token(pasted)) is None:
            return None
        token, end = held
        return Credential(
            account_id=account.id, token=token, exit=account.exit, cookies=account.cookies, expires_at=end
        )


def _fits(seat: Seat, report: AccountReport, query: AccountsQuery) -> bool:
    account = seat.account
    text = "" if query.text is None else query.text.casefold()
    return (
        query.label in (None, *account.labels)
        and query.state in (None, report.state)
        and any(text in part.casefold() for part in (account.id, account.note, *account.labels))
    )


def _id(call: Call[Nothing, B]) -> str:
    return call.path["id"].strip().lower()


def _not_found(call: Call[Nothing, B]) -> NotFound:
    return NotFound(f"account {_id(call)[:100]!r}")
