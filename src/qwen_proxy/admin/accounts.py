"""/api/admin/accounts: the accounts of the site; looking at them, adding, changing, testing and deleting them."""

from collections import Counter
from typing import Annotated, Final

from msgspec import Meta, Struct

from qwen_proxy.accounts.model import Origin
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
)
from qwen_proxy.admin.account_desk import AccountDesk
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, given, route
from qwen_proxy.runtime.clock import Clock

PATH: Final = "/api/admin/accounts"
TAG: Final = "accounts"


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
    def __init__(self, desk: AccountDesk, clock: Clock) -> None:
        self._desk = desk
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

    async def all(self, call: Call[AccountsQuery, Nothing]) -> AccountsBody:
        query, desk = call.query, self._desk
        all_seats = await desk.seats()
        reports, usage, now = await desk.reports(), await desk.usage_today(), self._clock.now()
        seats = [seat for seat in all_seats if seat.account.id in reports]
        wanted = [seat for seat in seats if _fits(seat, reports[seat.account.id], query)]
        page = [seat for seat in wanted if seat.account.id > query.after][: query.limit]
        return AccountsBody(
            accounts=tuple(
                account_body(seat, reports[seat.account.id], usage.get(seat.account.id), now) for seat in page
            ),
            total=len(wanted),
            states=dict(Counter(report.state for report in reports.values())),
            next_after=page[-1].account.id if page and page[-1] is not wanted[-1] else None,
        )

    async def show(self, call: Call[Nothing, Nothing]) -> AccountBody:
        return await self._desk.body(call.path["id"])

    async def add(self, call: Call[Nothing, NewAccountBody]) -> AccountBody:
        return await self._desk.body((await self._desk.add(call.by, call.body)).id)

    async def change(self, call: Call[Nothing, AccountPatchBody]) -> AccountBody:
        await self._desk.change(call.by, call.path["id"], given(call.body))
        return await self._desk.body(call.path["id"])

    async def delete(self, call: Call[Nothing, Nothing]) -> AccountDeletedBody:
        id, origin = await self._desk.delete(call.by, call.path["id"])
        is_listed = origin is Origin.ENVIRONMENT
        note = "If ACCOUNTS lists it, the next start brings it back: take it out there too." if is_listed else ""
        return AccountDeletedBody(id=id, note=note)

    async def set_cookies(self, call: Call[Nothing, PastedCookiesBody]) -> CookiesSetBody:
        pasted = self._desk.read_cookies(call.body.cookies)
        has_token = await self._desk.set_cookies(call.by, call.path["id"], pasted)
        return CookiesSetBody(
            form=pasted.form.value,
            names=pasted.names,
            expires_at=pasted.expires_at,
            left_out=pasted.left_out,
            has_token=has_token,
        )

    async def drop_cookies(self, call: Call[Nothing, Nothing]) -> None:
        await self._desk.drop_cookies(call.by, call.path["id"])

    async def test(self, call: Call[Nothing, Nothing]) -> AccountTestBody:
        """Costs one sign-in, in its turn through the account's exit, and no request."""
        seat = await self._desk.seat(call.path["id"])
        started_at = self._clock.monotonic()
        reason = next_action = ""
        if seat.account.password is None:
            reason = "it has no password to sign in with; its token is used until it ends"
            next_action = "Give this account its password."
        elif (failure := await self._desk.sign_in(call.by, seat)) is not None:
            reason = str(failure)
        body = await self._desk.body(seat.account.id)
        return AccountTestBody(
            signed_in=not reason,
            reason=reason,
            next_action=next_action or (body.health.next_action if reason else ""),
            took_seconds=round(self._clock.monotonic() - started_at, 3),
            account=body,
        )

    async def refresh_one(self, call: Call[Nothing, Nothing]) -> AskedBody:
        await self._desk.demand(call.by, [await self._desk.seat(call.path["id"])])
        return AskedBody(asked=1, total=1)

    async def refresh(self, call: Call[Nothing, RefreshBody]) -> AskedBody:
        hours = call.body.within_hours
        asked = await self._desk.ending_within(None if hours is None else hours * 3600)
        await self._desk.demand(call.by, asked)
        return AskedBody(asked=len(asked), total=len(await self._desk.seats()))


def _fits(seat: Seat, report: AccountReport, query: AccountsQuery) -> bool:
    account = seat.account
    text = "" if query.text is None else query.text.casefold()
    return (
        query.label in (None, *account.labels)
        and query.state in (None, report.state)
        and any(text in part.casefold() for part in (account.id, account.note, *account.labels))
    )
