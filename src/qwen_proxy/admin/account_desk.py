"""What an operator does with accounts, whichever route asks for it. Each change has its line in the audit log."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from qwen_proxy.accounts.book import AccountBook, StoredAccount
from qwen_proxy.accounts.cookies import PastedCookies, WrongCookies, read_cookies
from qwen_proxy.accounts.model import Account, Credential, Origin
from qwen_proxy.accounts.pool import AccountPool
from qwen_proxy.accounts.report import AccountReport, account_report
from qwen_proxy.accounts.seats import Exit, Seat
from qwen_proxy.admin.account_bodies import AccountBody, NewAccountBody, account_body, check_account
from qwen_proxy.admin.audit import Author, audit_line
from qwen_proxy.ground.errors import AlreadyExists, InvalidRequest, NotFound, ProxyError, Unreadable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import DAY_SECONDS, Store, UsageCounts
from qwen_proxy.upstreams.qwen_web.token import token_end

TEST_SECONDS: Final = 90.0


class AccountDesk:
    """Methods that name an account take its email in any spelling, and raise NotFound; all raise StoreUnavailable.

    catch_up: after a change this process knows of it too; the others do within a second.
    """

    def __init__(
        self, store: Store, book: AccountBook, pool: AccountPool, catch_up: Callable[[], Awaitable[None]], clock: Clock
    ) -> None:
        self._store = store
        self._book = book
        self._pool = pool
        self._catch_up = catch_up
        self._clock = clock

    # --- looking

    async def seats(self) -> list[Seat]:
        """By id, also those that another process has added a moment ago."""
        await self._catch_up()
        return sorted(self._pool.seats(), key=lambda seat: seat.account.id)

    async def seat(self, email: str) -> Seat:
        """Its place in the pool; of one that the pool leaves alone for now, what it would have there."""
        id = account_id(email)
        if self._pool.find(id) is None:
            await self._catch_up()
        if (seat := self._pool.find(id)) is not None:
            return seat
        stored = await self._stored(id)
        return Seat(stored.account, stored.credential, stored.health, Exit(stored.account.exit))

    async def body(self, email: str) -> AccountBody:
        seat = await self.seat(email)
        id, now = seat.account.id, self._clock.now()
        report = (await self.reports()).get(id) or account_report(seat, now, 0)
        return account_body(seat, report, (await self.usage_today()).get(id), now)

    async def reports(self) -> dict[str, AccountReport]:
        """By id, with the uses that all processes make of it."""
        return {report.account: report for report in (await self._pool.status()).accounts}

    async def usage_today(self) -> dict[str, UsageCounts]:
        """Since midnight UTC, by account."""
        now = self._clock.now()
        used: dict[str, UsageCounts] = {}
        for key, counts in (await self._store.usage(now - now % DAY_SECONDS, now + 1, by_day=True)).items():
            used[key.account] = used.get(key.account, UsageCounts()) + counts
        return used

    async def _stored(self, email: str) -> StoredAccount:
        stored = await self._book.get(account_id(email))
        if stored is None:
            raise NotFound(f"account {account_id(email)[:100]!r}")
        return stored

    # --- changing

    async def add(self, by: Author, body: NewAccountBody) -> Account:
        """Raises InvalidRequest, AlreadyExists."""
        now, email = self._clock.now(), body.email.strip()
        check_account(email=email, password=body.password, proxy=body.proxy or None)
        pasted = None if body.cookies is None else self.read_cookies(body.cookies)
        if body.password is None and (pasted is None or self._held_token(pasted) is None):
            raise InvalidRequest(
                "an account needs its password, or cookies with a token that still holds", param="password"
            )
        account = Account(
            id=account_id(email),
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
        await self._book.put(account, audit_line(by, "account.add", account.id, details), credential=credential)
        await self._catch_up()
        return account

    async def change(self, by: Author, email: str, fields: Mapping[str, object]) -> Account:
        """fields: of AccountPatchBody, those that are to change. Raises InvalidRequest."""
        password, proxy = fields.get("password"), fields.get("proxy")
        check_account(
            password=password if isinstance(password, str) else None, proxy=proxy if isinstance(proxy, str) else None
        )
        shown = {name: "(another)" if name == "password" else value for name, value in fields.items()}
        changed: dict[str, object] = {name: value for name, value in fields.items() if name != "proxy"}
        if isinstance(password, str):
            changed["password"] = Secret(password)
        if "proxy" in fields:
            changed["exit"] = proxy or ""
        account = await self._change(by, "account.change", email, lambda account: replace(account, **changed), shown)
        await self._catch_up()
        return account

    async def delete(self, by: Author, email: str) -> tuple[str, Origin | None]:
        """Its id, and where it came from; None for one that can't be read, which goes all the same."""
        id = account_id(email)
        try:
            origin = (await self._stored(id)).account.origin
        except Unreadable:
            origin = None
        if not await self._book.remove(id, audit_line(by, "account.delete", id)):
            raise NotFound(f"account {id[:100]!r}")
        await self._catch_up()
        return id, origin

    async def set_cookies(self, by: Author, email: str, pasted: PastedCookies) -> bool:
        """Whether a token that still holds was among them: then it is the account's token from now on."""
        details, now = {"form": pasted.form.value, "cookies": len(pasted.names)}, self._clock.now()
        account = await self._change(
            by,
            "account.cookies.set",
            email,
            lambda account: replace(account, cookies=pasted.header, cookies_at=now),
            details,
        )
        credential = self._credential(account, pasted)
        if credential is not None:
            await self._book.keep_credential(account, lambda _: credential)
        await self._catch_up()
        return credential is not None

    async def drop_cookies(self, by: Author, email: str) -> None:
        """Its token stays."""
        await self._change(
            by, "account.cookies.drop", email, lambda account: replace(account, cookies=None, cookies_at=0.0), {}
        )
        await self._catch_up()

    async def _change(
        self,
        by: Author,
        action: str,
        email: str,
        change: Callable[[Account], Account],
        details: Mapping[str, object],
    ) -> Account:
        id = account_id(email)
        account = await self._book.change(id, change, audit_line(by, action, id, details))
        if account is None:
            raise NotFound(f"account {id[:100]!r}")
        return account

    # --- signing in

    def is_left_alone(self, email: str) -> bool:
        """Whether it is not signed in here, since the simulated upstream stands in until the workers are replaced."""
        return self._pool.find(account_id(email)) is None

    async def sign_in(self, by: Author, seat: Seat) -> ProxyError | None:
        """Now, in its turn through its exit; why it failed."""
        failure: ProxyError | None = None
        try:
            await self._pool.sign_in(seat.account.id, deadline=self._clock.monotonic() + TEST_SECONDS)
        except ProxyError as error:
            failure = error
        line = audit_line(by, "account.sign_in", seat.account.id, {"failure": failure})
        await self._store.write([line])
        return failure

    async def demand(self, by: Author, seats: Sequence[Seat]) -> None:
        """Have them signed in, each in its turn, without waiting for it."""
        await self._pool.demand([seat.account.id for seat in seats])
        target = seats[0].account.id if len(seats) == 1 else ""
        await self._store.write([audit_line(by, "account.refresh", target, {"asked": len(seats)})])

    async def ending_within(self, seconds: float | None) -> list[Seat]:
        """Enabled ones that can be signed in, and have no token or one that ends so soon; None for whenever."""
        now = self._clock.now()

        def ends(seat: Seat) -> bool:
            credential = seat.credential
            if seconds is None or credential is None:
                return True
            return credential.expires_at is not None and credential.expires_at - now <= seconds

        seats = await self.seats()
        able = (seat for seat in seats if seat.account.enabled and seat.account.password is not None)
        return [seat for seat in able if ends(seat)]

    # --- cookies

    def read_cookies(self, text: str) -> PastedCookies:
        """Raises InvalidRequest."""
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


def account_id(email: str) -> str:
    return email.strip().lower()
