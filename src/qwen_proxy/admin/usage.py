"""/api/admin/usage: what was used, by whom, of what; as JSON or as a CSV file."""

from typing import Annotated, Final, Literal

from aiohttp import web
from msgspec import Meta, Struct

from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, raw_route, route
from qwen_proxy.config.keybook import KeyBook
from qwen_proxy.gateway.usage_report import Axis, UsageLine, as_csv, summed
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import DAY_SECONDS, Store

USUAL_DAYS: Final = 30


class UsageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """since, until: Unix seconds; without them the last 30 days. per: whether time is told by the day or by the hour.

    by: the axes, with commas between, of time, key, account, model and feature; the rest is summed over. key, account,
    model, feature: only this one.
    """

    since: float | None = None
    until: float | None = None
    per: Literal["day", "hour"] = "day"
    by: Annotated[str, Meta(max_length=100)] = "time"
    key: str | None = None
    account: str | None = None
    model: str | None = None
    feature: str | None = None


class UsageLineBody(Struct, frozen=True, kw_only=True):
    """starts_at: Unix seconds. What was summed over is null. key: an id; key_name is null for a key that is gone."""

    starts_at: int | None
    key: str | None
    key_name: str | None
    account: str | None
    model: str | None
    feature: str | None
    requests: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    total_tokens: int


class UsageBody(Struct, frozen=True, kw_only=True):
    since: float
    until: float
    lines: tuple[UsageLineBody, ...]


class UsageRoutes:
    def __init__(self, store: Store, keys: KeyBook, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    def table(self) -> tuple[AdminRoute, ...]:
        return (
            route("GET", "/api/admin/usage", "What was used, by whom, of what", self.usage, tag="usage"),
            raw_route(
                "GET", "/api/admin/usage.csv", "The same as a CSV file", self.csv, tag="usage", media_type="text/csv"
            ),
        )

    async def usage(self, call: Call[UsageQuery, Nothing]) -> UsageBody:
        query = call.query
        names = await self._names()
        since, until = self._period(query)
        return UsageBody(
            since=since,
            until=until,
            lines=tuple(
                UsageLineBody(
                    starts_at=line.starts_at,
                    key=line.key,
                    key_name=None if line.key is None else names.get(line.key),
                    account=line.account,
                    model=line.model,
                    feature=line.feature,
                    requests=line.counts.requests,
                    failures=line.counts.failures,
                    prompt_tokens=line.counts.prompt_tokens,
                    completion_tokens=line.counts.completion_tokens,
                    reasoning_tokens=line.counts.reasoning_tokens,
                    total_tokens=line.counts.prompt_tokens + line.counts.completion_tokens,
                )
                for line in await self._lines(query)
            ),
        )

    async def csv(self, call: Call[UsageQuery, Nothing]) -> web.StreamResponse:
        text = as_csv(await self._lines(call.query), _axes(call.query.by), await self._names())
        response = web.Response(text=text, content_type="text/csv", charset="utf-8")
        response.headers["Content-Disposition"] = 'attachment; filename="usage.csv"'
        return response

    def _period(self, query: UsageQuery) -> tuple[float, float]:
        until = self._clock.now() if query.until is None else query.until
        return (until - USUAL_DAYS * DAY_SECONDS if query.since is None else query.since), until

    async def _lines(self, query: UsageQuery) -> list[UsageLine]:
        """Raises InvalidRequest."""
        axes = _axes(query.by)
        since, until = self._period(query)
        if since >= until:
            raise InvalidRequest("it has to be before 'until'", param="since")
        rows = await self._store.usage(since, until, by_day=query.per == "day")
        wanted = (
            (row, counts)
            for row, counts in rows.items()
            if query.key in (None, row.key)
            and query.account in (None, row.account)
            and query.model in (None, row.model)
            and query.feature in (None, row.feature)
        )
        return summed(dict(wanted), axes)

    async def _names(self) -> dict[str, str]:
        return {key.id: key.name for key in await self._keys.all()}


def _axes(text: str) -> list[Axis]:
    """Raises InvalidRequest."""
    axes: list[Axis] = []
    for word in (part.strip() for part in text.split(",")):
        if word not in {axis.value for axis in Axis}:
            raise InvalidRequest(f"{word!r} is none of {', '.join(Axis)}", param="by")
        if Axis(word) not in axes:
            axes.append(Axis(word))
    return axes
