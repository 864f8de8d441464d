"""GET /api/admin/diagnostics: what an operator, or `qwen-proxy doctor`, wants to know of the running server."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from msgspec import Struct

from qwen_proxy.accounts.report import AccountReport, ExitReport
from qwen_proxy.serving.endpoint import Exchange


class DriftBody(Struct, frozen=True, kw_only=True):
    """Something upstream that the protocol page does not know. `kind` and `name` are shapes, never content."""

    kind: str
    name: str
    count: int


class WorkerBody(Struct, frozen=True, kw_only=True):
    """`state`: "starting", "ready" or "retiring"."""

    slot: int
    pid: int
    state: str
    uptime_seconds: float
    memory_bytes: int


class UpstreamBody(Struct, frozen=True, kw_only=True):
    """clock_offset_seconds: the upstream's Date header minus our clock, None until one was seen."""

    base_url: str
    simulated: bool
    clock_offset_seconds: float | None


class DiagnosticsBody(Struct, frozen=True, kw_only=True):
    version: str
    uptime_seconds: float
    accounts: tuple[AccountReport, ...]
    exits: tuple[ExitReport, ...]
    drift: tuple[DriftBody, ...]
    workers: tuple[WorkerBody, ...]
    upstream: UpstreamBody


class DiagnosticsRoutes:
    def __init__(self, gather: Callable[[], Awaitable[DiagnosticsBody]]) -> None:
        self._gather = gather

    async def show(self, exchange: Exchange) -> web.StreamResponse:
        """For the admin key only: account names are whole here, secrets are nowhere."""
        response = web.Response(body=msgspec.json.encode(await self._gather()), content_type="application/json")
        response.headers["x-request-id"] = exchange.request_id
        return response
