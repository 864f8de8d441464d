"""GET /api/admin/diagnostics: what an operator, or `qwen-proxy doctor`, wants to know of the running server."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from qwen_proxy.accounts.report import AccountReport, ExitReport
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, route


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


class UnmappedBody(Struct, frozen=True, kw_only=True):
    """A model name that clients asked for and nobody gave a meaning; as the process that answers has counted."""

    name: str
    count: int


class DiagnosticsBody(Struct, frozen=True, kw_only=True):
    version: str
    uptime_seconds: float
    accounts: tuple[AccountReport, ...]
    exits: tuple[ExitReport, ...]
    drift: tuple[DriftBody, ...]
    workers: tuple[WorkerBody, ...]
    upstream: UpstreamBody
    unmapped_models: tuple[UnmappedBody, ...]


class DiagnosticsRoutes:
    def __init__(self, gather: Callable[[], Awaitable[DiagnosticsBody]]) -> None:
        self._gather = gather

    def table(self) -> tuple[AdminRoute, ...]:
        path, summary = "/api/admin/diagnostics", "Accounts, exits, workers, and what upstream does that nobody knows"
        return (route("GET", path, summary, self.show, tag="diagnostics"),)

    async def show(self, call: Call[Nothing, Nothing]) -> DiagnosticsBody:
        """For the admin key only: account names are whole here, secrets are nowhere."""
        return await self._gather()
