"""/api/admin/accounts/batches: many accounts at once, with progress by polling and as a stream of events."""

import asyncio
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.bulk.batches import Batches
from qwen_proxy.accounts.bulk.model import LineStatus
from qwen_proxy.accounts.bulk.report import BatchProgress, LineReport
from qwen_proxy.accounts.lines import PastedLines, read_lines
from qwen_proxy.admin.audit import audit_line
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, raw_route, route
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.serving.streaming import Heartbeats, StreamedReply
from qwen_proxy.state.store import Append

TAG: Final = "batches"
BASE: Final = "/api/admin/accounts/batches"
EVENT_STREAM: Final = "text/event-stream"
HEARTBEAT: Final = b": keep-alive\n\n"


class NewBatchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """lines: email:password or email:password|proxy, one a line; blank ones and those behind a # are passed over.

    labels: of every account that is added. dry_run: only look at the lines.
    """

    lines: str
    labels: tuple[str, ...] = ()
    dry_run: bool = False

    def __repr__(self) -> str:
        return "NewBatchBody(***)"


class BadLineBody(Struct, frozen=True, kw_only=True):
    """number: from 1. problem: what is wrong, and what would be right."""

    number: int
    problem: str


class CheckBody(Struct, frozen=True, kw_only=True):
    """What was found in the lines. repeated: numbers of lines whose account is there already, or stands above."""

    total: int
    good: int
    repeated: tuple[int, ...]
    invalid: tuple[BadLineBody, ...]


class CreatedBody(Struct, frozen=True, kw_only=True):
    """batch: null after a dry run."""

    check: CheckBody
    batch: BatchProgress | None


class BatchesBody(Struct, frozen=True, kw_only=True):
    """Newest first."""

    batches: tuple[BatchProgress, ...]


class LinesQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """after: a number; the lines behind it."""

    after: int = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    status: LineStatus | None = None


class LinesBody(Struct, frozen=True, kw_only=True):
    """next_after: for the next page; null at the end."""

    lines: tuple[LineReport, ...]
    next_after: int | None


class BatchRoutes:
    def __init__(self, batches: Batches, accounts: AccountBook, heartbeats: Heartbeats, clock: Clock) -> None:
        self._batches = batches
        self._accounts = accounts
        self._heartbeats = heartbeats
        self._clock = clock
        self._encoder = msgspec.json.Encoder()

    def table(self) -> tuple[AdminRoute, ...]:
        one = f"{BASE}/{{id}}"
        return (
            route("POST", BASE, "Add many accounts, or look at the lines first", self.create, tag=TAG, status=202),
            route("GET", BASE, "All batches, newest first", self.all, tag=TAG),
            route("GET", one, "How far a batch is", self.one, tag=TAG),
            route("GET", f"{one}/lines", "What became of each line", self.lines, tag=TAG),
            raw_route(
                "GET", f"{one}/events", "Its progress as it comes", self.events, tag=TAG, media_type=EVENT_STREAM
            ),
            route("POST", f"{one}/pause", "Begin no more lines for now", self.pause, tag=TAG),
            route("POST", f"{one}/resume", "Go on, whatever it was paused by", self.resume, tag=TAG),
            route("POST", f"{one}/cancel", "Do none of the lines that are left", self.cancel, tag=TAG),
            route("POST", f"{one}/retry", "Try its failed lines again", self.retry, tag=TAG),
            route("DELETE", one, "Forget a batch that is over", self.remove, tag=TAG),
        )

    async def create(self, call: Call[Nothing, NewBatchBody]) -> CreatedBody:
        known = set(await self._accounts.ids())
        pasted = await asyncio.to_thread(read_lines, call.body.lines, known)  # thousands take a while
        if call.body.dry_run:
            return CreatedBody(check=_check(pasted), batch=None)
        details = {"lines": pasted.total, "good": len(pasted.good), "invalid": len(pasted.bad)}
        line = audit_line(call.by, "batch.create", details=details)
        batch = await self._batches.create(pasted, line, labels=call.body.labels, by=call.by.key_name)
        return CreatedBody(check=_check(pasted), batch=batch)

    async def all(self, call: Call[Nothing, Nothing]) -> BatchesBody:
        return BatchesBody(batches=tuple(await self._batches.all()))

    async def one(self, call: Call[Nothing, Nothing]) -> BatchProgress:
        return await self._batches.progress(call.path["id"])

    async def lines(self, call: Call[LinesQuery, Nothing]) -> LinesBody:
        query = call.query
        page = await self._batches.lines(call.path["id"], after=query.after, limit=query.limit, status=query.status)
        return LinesBody(lines=page.lines, next_after=page.next_after)

    async def events(self, call: Call[Nothing, Nothing]) -> web.StreamResponse:
        """`event: progress` with a BatchProgress now and after each change, until the batch is over."""
        exchange = call.exchange
        async with self._batches.follow(call.path["id"]) as changes:
            headers = [
                ("Content-Type", EVENT_STREAM),
                ("Cache-Control", "no-store"),
                ("X-Accel-Buffering", "no"),
                ("x-request-id", exchange.request_id),
            ]
            reply = StreamedReply(exchange.http, headers, HEARTBEAT, self._clock.monotonic())
            exchange.stream, exchange.tell = reply, self._told
            with self._heartbeats.watch(reply):
                async for progress in changes:
                    await reply.write(self._event("progress", progress), self._clock.monotonic())
            await reply.end()
        return reply.response

    async def pause(self, call: Call[Nothing, Nothing]) -> BatchProgress:
        return await self._batches.pause(call.path["id"], _line(call, "batch.pause"))

    async def resume(self, call: Call[Nothing, Nothing]) -> BatchProgress:
        return await self._batches.resume(call.path["id"], _line(call, "batch.resume"))

    async def cancel(self, call: Call[Nothing, Nothing]) -> BatchProgress:
        return await self._batches.cancel(call.path["id"], _line(call, "batch.cancel"))

    async def retry(self, call: Call[Nothing, Nothing]) -> BatchProgress:
        return await self._batches.retry_failed(call.path["id"], _line(call, "batch.retry"))

    async def remove(self, call: Call[Nothing, Nothing]) -> None:
        await self._batches.remove(call.path["id"], _line(call, "batch.remove"))

    def _told(self, error: ProxyError) -> bytes:
        return self._event("error", {"message": str(error)})

    def _event(self, name: str, body: object) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), self._encoder.encode(body))


def _line(call: Call[Nothing, Nothing], action: str) -> Append:
    return audit_line(call.by, action, call.path["id"])


def _check(pasted: PastedLines) -> CheckBody:
    return CheckBody(
        total=pasted.total,
        good=len(pasted.good),
        repeated=tuple(line.number for line in pasted.repeated),
        invalid=tuple(BadLineBody(number=line.number, problem=line.problem) for line in pasted.bad),
    )
