"""The original project's routes for accounts, batches and statistics. Source: upstream protocol §10.5.

What is not as there: passwords, tokens and a proxy's login are masked; a failure has our error shape, and its status
(502 and not 401 where the site refuses an account: 401 is about the caller's key); sign-ins that take their turn are
counted when they are asked for, and not waited for.
"""

from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from qwen_proxy.accounts.bulk.batches import Batches
from qwen_proxy.accounts.bulk.report import TaskSnapshot
from qwen_proxy.accounts.lines import read_lines
from qwen_proxy.accounts.report import exit_name
from qwen_proxy.accounts.seats import Seat
from qwen_proxy.admin.account_bodies import NewAccountBody
from qwen_proxy.admin.account_desk import AccountDesk
from qwen_proxy.admin.audit import audit_line
from qwen_proxy.admin.original_bodies import (
    HIDDEN,
    AccountMessageBody,
    AccountPage,
    AccountRow,
    AccountStats,
    AccountStatsBody,
    AllRefreshedBody,
    ArchivedBody,
    EmailBody,
    MessageBody,
    PageQuery,
    ProxyMessageBody,
    RefreshedBody,
    SetAccountBody,
    SetAccountsBody,
    SetProxyBody,
    StatsHistoryBody,
    ThresholdBody,
)
from qwen_proxy.admin.original_stats import HISTORY_DAYS, day_of, day_stats, histories, standing
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, json_response, raw_route, route
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import DAY_SECONDS, Store, UsageCounts, UsageKey

TAG: Final = "original"


class OriginalAccounts:
    def __init__(self, desk: AccountDesk, batches: Batches, store: Store, clock: Clock) -> None:
        self._desk = desk
        self._batches = batches
        self._store = store
        self._clock = clock

    def table(self) -> tuple[AdminRoute, ...]:
        add_many = "Add many accounts; with async at once, and to be asked for by its taskId"
        return (
            route("GET", "/api/getAllAccounts", "The accounts, page by page", self.accounts, tag=TAG),
            route("POST", "/api/setAccount", "Add an account, if it can be signed in", self.add, tag=TAG),
            route("DELETE", "/api/deleteAccount", "Delete an account", self.delete, tag=TAG),
            raw_route("POST", "/api/setAccounts", add_many, self.add_many, tag=TAG, answer=TaskSnapshot),
            route("GET", "/api/batchTasks/{taskId}", "How far that is", self.task, tag=TAG),
            route("POST", "/api/updateAccountProxy", "Give an account another proxy, or none", self.proxy, tag=TAG),
            route("POST", "/api/refreshAccount", "Sign an account in anew", self.refresh_one, tag=TAG),
            route("POST", "/api/refreshAllAccounts", "Sign in those whose token ends soon", self.refresh, tag=TAG),
            route("POST", "/api/forceRefreshAllAccounts", "Sign in all", self.refresh_all, tag=TAG),
            route("GET", "/api/accountStats", "What the accounts were used for today", self.stats, tag=TAG),
            route("GET", "/api/statsHistory", "The same, by day", self.history, tag=TAG),
            route("POST", "/api/debug/archiveYesterday", "Nothing: days are kept by themselves", self.archive, tag=TAG),
        )

    # --- accounts

    async def accounts(self, call: Call[PageQuery, Nothing]) -> AccountPage:
        query, seats = call.query, await self._desk.seats()
        first = (query.page - 1) * query.page_size
        rows = tuple(_row(seat) for seat in seats[first : first + query.page_size])
        return AccountPage(total=len(seats), page=query.page, page_size=query.page_size, data=rows)

    async def add(self, call: Call[Nothing, SetAccountBody]) -> AccountMessageBody:
        """One that can't be signed in is not added. Raises AlreadyExists, InvalidRequest, and what the sign-in did."""
        body, desk = call.body, self._desk
        _require(email=body.email, password=body.password)
        added = await desk.add(call.by, NewAccountBody(email=body.email, password=body.password, proxy=body.proxy))
        if desk.is_left_alone(added.id):
            return AccountMessageBody("The account was added; it is signed in in a moment.", added.email)
        failure = await desk.sign_in(call.by, await desk.seat(added.id))
        if failure is not None:
            await desk.delete(call.by, added.id)
            raise failure
        return AccountMessageBody("The account was added.", added.email)

    async def delete(self, call: Call[Nothing, EmailBody]) -> MessageBody:
        _require(email=call.body.email)
        await self._desk.delete(call.by, call.body.email)
        return MessageBody("The account was deleted.")

    async def proxy(self, call: Call[Nothing, SetProxyBody]) -> ProxyMessageBody:
        _require(email=call.body.email)
        account = await self._desk.change(call.by, call.body.email, {"proxy": call.body.proxy or None})
        shown = exit_name(account.exit) if account.exit else None
        return ProxyMessageBody("The account's proxy was changed.", account.email, shown)

    # --- batches

    async def add_many(self, call: Call[Nothing, SetAccountsBody]) -> web.StreamResponse:
        """Without `async` the answer comes when the batch is over, or has stopped. Raises InvalidRequest."""
        _require(accounts=call.body.accounts)
        pasted = read_lines(call.body.accounts, {seat.account.id for seat in await self._desk.seats()})
        details = {"lines": pasted.total, "good": len(pasted.good), "invalid": len(pasted.bad)}
        line = audit_line(call.by, "batch.create", details=details)
        batch = await self._batches.create(pasted, line, by=call.by.key_name)
        if not call.body.is_async:
            await self._batches.settled(batch.id)
        return json_response(202 if call.body.is_async else 200, await self._batches.task(batch.id))

    async def task(self, call: Call[Nothing, Nothing]) -> TaskSnapshot:
        return await self._batches.task(call.path["taskId"])

    # --- signing in

    async def refresh_one(self, call: Call[Nothing, EmailBody]) -> AccountMessageBody:
        """Raises what the sign-in did."""
        _require(email=call.body.email)
        seat = await self._desk.seat(call.body.email)
        if (failure := await self._desk.sign_in(call.by, seat)) is not None:
            raise failure
        return AccountMessageBody("The account was signed in anew.", seat.account.email)

    async def refresh(self, call: Call[Nothing, ThresholdBody]) -> RefreshedBody:
        hours = call.body.threshold_hours
        seats = await self._desk.ending_within(hours * 3600)
        await self._desk.demand(call.by, seats)
        return RefreshedBody(_being_signed_in(seats), len(seats), hours)

    async def refresh_all(self, call: Call[Nothing, Nothing]) -> AllRefreshedBody:
        seats = await self._desk.ending_within(None)
        await self._desk.demand(call.by, seats)
        return AllRefreshedBody(_being_signed_in(seats), len(seats), len(await self._desk.seats()))

    # --- statistics

    async def stats(self, call: Call[Nothing, Nothing]) -> AccountStatsBody:
        seats, now, reports = await self._desk.seats(), self._clock.now(), await self._desk.reports()
        rows: dict[str, list[tuple[UsageKey, UsageCounts]]] = {}
        for row in (await self._store.usage(now - now % DAY_SECONDS, now + 1, by_day=True)).items():
            rows.setdefault(row[0].account, []).append(row)
        return AccountStatsBody(
            accounts=tuple(
                AccountStats(
                    email=seat.account.email,
                    stats=day_stats(rows.get(seat.account.id, ())),
                    status=standing(reports[seat.account.id], now),
                )
                for seat in seats
                if seat.account.id in reports
            )
        )

    async def history(self, call: Call[Nothing, Nothing]) -> StatsHistoryBody:
        now = self._clock.now()
        since = now - now % DAY_SECONDS - (HISTORY_DAYS - 1) * DAY_SECONDS
        rows = await self._store.usage(since, now + 1, by_day=True)
        emails = {seat.account.id: seat.account.email for seat in await self._desk.seats()}
        return StatsHistoryBody(today=day_of(now), accounts=histories(rows, emails))

    async def archive(self, call: Call[Nothing, Nothing]) -> ArchivedBody:
        at = f"{datetime.fromtimestamp(self._clock.now(), UTC):%Y-%m-%dT%H:%M:%SZ}"
        return ArchivedBody(True, at, "Nothing had to be archived: every day's usage is kept as it comes.")


def _row(seat: Seat) -> AccountRow:
    credential = seat.credential
    expires_at = None if credential is None else credential.expires_at
    return AccountRow(
        email=seat.account.email,
        password="" if seat.account.password is None else HIDDEN,
        token="" if credential is None else HIDDEN,
        expires=None if expires_at is None else int(expires_at),
        proxy=exit_name(seat.account.exit) if seat.has_own_exit else None,
    )


def _require(**fields: str) -> None:
    """Raises InvalidRequest for one that is empty, or was left out."""
    for name, value in fields.items():
        if not value.strip():
            raise InvalidRequest(f"`{name}` is missing", param=name)


def _being_signed_in(seats: list[Seat]) -> str:
    return f"{len(seats)} accounts are being signed in anew, each in its turn."
