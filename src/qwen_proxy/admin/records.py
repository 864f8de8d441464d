"""/api/admin/audit: who did what. /api/admin/processes: what runs, on every machine of the installation."""

from typing import Annotated

from msgspec import Meta, Struct

from qwen_proxy.admin.audit import audit_log
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, route
from qwen_proxy.state.membership import statuses
from qwen_proxy.state.store import Store


class AuditQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """before: a number of an entry; those older than it."""

    before: int | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class AuditEntryBody(Struct, frozen=True, kw_only=True):
    """at: Unix seconds. action: such as "account.delete". target: what it was done to. address: the caller's."""

    number: int
    at: float
    action: str
    target: str
    details: dict[str, str]
    key_id: str
    key_name: str
    address: str
    request_id: str


class AuditBody(Struct, frozen=True, kw_only=True):
    """Newest first. next_before: for the next page; null at the end."""

    entries: tuple[AuditEntryBody, ...]
    next_before: int | None


class ProcessBody(Struct, frozen=True, kw_only=True):
    """in_use: replies at a time, by account. waiting: requests that wait for an account. roles: what it does for all.

    Times are Unix seconds.
    """

    id: str
    host: str
    pid: int
    label: str
    started_at: float
    beat_at: float
    in_use: dict[str, int]
    waiting: int
    roles: tuple[str, ...]


class ProcessesBody(Struct, frozen=True, kw_only=True):
    processes: tuple[ProcessBody, ...]


class RecordRoutes:
    def __init__(self, store: Store) -> None:
        self._store = store

    def table(self) -> tuple[AdminRoute, ...]:
        return (
            route("GET", "/api/admin/audit", "Who did what, newest first", self.audit, tag="audit"),
            route("GET", "/api/admin/processes", "Every process, on all machines", self.processes, tag="processes"),
        )

    async def audit(self, call: Call[AuditQuery, Nothing]) -> AuditBody:
        found = await audit_log(self._store, before=call.query.before, limit=call.query.limit)
        return AuditBody(
            entries=tuple(
                AuditEntryBody(
                    number=entry.number,
                    at=entry.at,
                    action=entry.line.action,
                    target=entry.line.target,
                    details=entry.line.details,
                    key_id=entry.line.by.key_id,
                    key_name=entry.line.by.key_name,
                    address=entry.line.by.address,
                    request_id=entry.line.by.request_id,
                )
                for entry in found
            ),
            next_before=found[-1].number if len(found) == call.query.limit else None,
        )

    async def processes(self, call: Call[Nothing, Nothing]) -> ProcessesBody:
        return ProcessesBody(
            processes=tuple(
                ProcessBody(
                    id=row.id,
                    host=row.host,
                    pid=row.pid,
                    label=status.label,
                    started_at=row.started_at,
                    beat_at=row.beat_at,
                    in_use=status.in_use,
                    waiting=status.waiting,
                    roles=status.roles,
                )
                for row, status in statuses(await self._store.processes())
            )
        )
