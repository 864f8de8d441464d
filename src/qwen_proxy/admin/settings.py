"""/api/admin/settings: what is in force and where it came from, changing it at run time, its history and undo."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from qwen_proxy.admin.audit import audit_line
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, route
from qwen_proxy.config.runtime import LiveSettings, ValueChange
from qwen_proxy.config.variables import GROUPS

PATH = "/api/admin/settings"
TAG = "settings"

Limit = Annotated[int, Meta(ge=1, le=1000)]
Given = str | int | float | bool | dict[str, str | list[str]] | None


class SettingBody(Struct, frozen=True, kw_only=True):
    """value: as it would stand in `.env`, secrets masked. source: "runtime", "environment", ".env" or "default".

    accepts: in words, what may be set. is_live: whether it can be changed here; others need a new start.
    """

    name: str
    value: str
    source: str
    default: str
    group: str
    meaning: str
    accepts: str
    is_live: bool


class SettingsBody(Struct, frozen=True, kw_only=True):
    """warnings: whole sentences about the settings of the start."""

    settings: tuple[SettingBody, ...]
    warnings: tuple[str, ...]


class SettingsPatchBody(Struct, frozen=True, forbid_unknown_fields=True):
    """values: by variable, as text, number, boolean, (MODEL_MAP, MODEL_ROUTES) object; null: as the start has it."""

    values: dict[str, Given]


class ValueChangeBody(Struct, frozen=True, kw_only=True):
    """null: not set at run time."""

    name: str
    before: str | None
    after: str | None


class SettingsChangedBody(Struct, frozen=True, kw_only=True):
    """Empty when everything was so already."""

    changes: tuple[ValueChangeBody, ...]


class PageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """before: a number of an entry; those older than it."""

    before: int | None = None
    limit: Limit = 50


class SettingsEntryBody(Struct, frozen=True, kw_only=True):
    """at: Unix seconds. by: the name of the key that was used."""

    number: int
    at: float
    by: str
    request_id: str
    changes: tuple[ValueChangeBody, ...]


class SettingsHistoryBody(Struct, frozen=True, kw_only=True):
    """Newest first. next_before: for the next page; null at the end."""

    entries: tuple[SettingsEntryBody, ...]
    next_before: int | None


class UndoBody(Struct, frozen=True, forbid_unknown_fields=True):
    """number: an entry of the history; everything becomes as it was right after it. null: as before the newest one."""

    number: int | None = None


class SettingsRoutes:
    def __init__(self, live: LiveSettings) -> None:
        self._live = live

    def table(self) -> tuple[AdminRoute, ...]:
        return (
            route("GET", PATH, "Every setting, its value and where it came from", self.show, tag=TAG),
            route("PATCH", PATH, "Change settings in every worker, within a second", self.change, tag=TAG),
            route("GET", f"{PATH}/history", "Who changed what", self.history, tag=TAG),
            route("POST", f"{PATH}/undo", "Go back to an earlier state", self.undo, tag=TAG),
        )

    async def show(self, call: Call[Nothing, Nothing]) -> SettingsBody:
        current = self._live.current
        return SettingsBody(
            settings=tuple(
                SettingBody(
                    name=variable.name,
                    value=current.texts[variable.name],
                    source=current.sources[variable.name].value,
                    default=variable.default,
                    group=group.title,
                    meaning=variable.meaning,
                    accepts=variable.parser.accepts,
                    is_live=variable.is_live,
                )
                for group in GROUPS
                for variable in group.variables
            ),
            warnings=current.warnings,
        )

    async def change(self, call: Call[Nothing, SettingsPatchBody]) -> SettingsChangedBody:
        """Raises InvalidRequest, which names the variable."""
        values = {name: as_text(value) for name, value in call.body.values.items()}
        shown = {name: "as the start has it" if text is None else text for name, text in values.items()}
        line = audit_line(call.by, "settings.change", details=shown)
        by = call.by
        return _changed(await self._live.change(values, line, by=by.key_name, request_id=by.request_id))

    async def undo(self, call: Call[Nothing, UndoBody]) -> SettingsChangedBody:
        by, number = call.by, call.body.number
        line = audit_line(by, "settings.undo", "" if number is None else str(number))
        return _changed(await self._live.undo(number, line, by=by.key_name, request_id=by.request_id))

    async def history(self, call: Call[PageQuery, Nothing]) -> SettingsHistoryBody:
        found = await self._live.history(before=call.query.before, limit=call.query.limit)
        return SettingsHistoryBody(
            entries=tuple(
                SettingsEntryBody(
                    number=entry.number,
                    at=entry.at,
                    by=entry.line.by,
                    request_id=entry.line.request_id,
                    changes=_changes(entry.line.changes),
                )
                for entry in found
            ),
            next_before=found[-1].number if len(found) == call.query.limit else None,
        )


def as_text(value: Given) -> str | None:
    """As it would stand in `.env`."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case dict():
            return msgspec.json.encode(value).decode()
        case int() | float():
            return f"{value:.15g}" if isinstance(value, float) else str(value)


def _changed(changes: Iterable[ValueChange]) -> SettingsChangedBody:
    return SettingsChangedBody(changes=_changes(changes))


def _changes(changes: Iterable[ValueChange]) -> tuple[ValueChangeBody, ...]:
    return tuple(ValueChangeBody(name=each.name, before=each.before, after=each.after) for each in changes)
