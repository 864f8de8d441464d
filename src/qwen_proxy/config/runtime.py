"""What an admin changes while the server runs: values in front of those of the start, the same in every process.

Precedence: set at run time > environment > `.env` > default. Values are texts, read by the variables' own parsers.
"""

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.config.settings import Settings, WrongSetting, overlaid
from qwen_proxy.config.variables import LIVE, NAMES
from qwen_proxy.ground.errors import InvalidRequest, StoreUnavailable, Unreadable
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import SETTINGS
from qwen_proxy.state.store import Append, Change, Conflict, LogLine, Record, Store
from qwen_proxy.state.vault import Vault
from qwen_proxy.state.watching import Watch

log = logging.getLogger(__name__)

TOPIC: Final = "settings"  # of the log: the history
ID: Final = "live"
LIVE_NAMES: Final = frozenset(variable.name for variable in LIVE)


class LiveValues(Struct, frozen=True):
    """What is set at run time: texts by variable."""

    values: dict[str, str] = {}


class ValueChange(Struct, frozen=True):
    """None: not set at run time, so what the start has holds."""

    name: str
    before: str | None
    after: str | None


class HistoryLine(Struct, frozen=True, kw_only=True):
    """by: who, as the audit log names keys. values: all that was set at run time afterwards."""

    by: str
    request_id: str
    changes: tuple[ValueChange, ...]
    values: dict[str, str]


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """number: of the log line. at: Unix seconds."""

    number: int
    at: float
    line: HistoryLine


class LiveSettings:
    """The settings in force, kept up to date by `watch`, which has to be loaded and run."""

    def __init__(self, base: Settings, store: Store, vault: Vault, watch: Watch) -> None:
        self.base: Final = base
        self.current = base
        self.values: Mapping[str, str] = {}
        self._store = store
        self._watch = watch
        self._documents = Collection(store, SETTINGS, LiveValues, vault)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(HistoryLine)
        self._callbacks: list[Callable[[Settings], None]] = []
        watch.subscribe(SETTINGS, self._take)

    def on_change(self, callback: Callable[[Settings], None]) -> None:
        """Call it with the new settings whenever they have changed, in every process."""
        self._callbacks.append(callback)

    async def change(
        self, changes: Mapping[str, str | None], *also: Append, by: str, request_id: str = ""
    ) -> Sequence[ValueChange]:
        """Set variables, or with None take back what was set. What changed; `also` is written in the same step.

        In force in this process when it returns, in the others within a second. Raises InvalidRequest, which names the
        variable, and StoreUnavailable.
        """
        self._check(changes)

        return await self._write(lambda values: _changed(values, changes), also, by, request_id)

    async def amend(
        self, name: str, change: Callable[[str], str], *also: Append, by: str, request_id: str = ""
    ) -> Sequence[ValueChange]:
        """Make a variable's new text of the one that is in force, also where several do so at once. `change` may be
        called several times. Raises what it raises, InvalidRequest, StoreUnavailable."""

        def give(values: Mapping[str, str]) -> dict[str, str]:
            text = change(values.get(name, self.base.texts[name]))
            self._check({name: text})
            return _changed(values, {name: text})

        return await self._write(give, also, by, request_id)

    async def undo(self, number: int | None, *also: Append, by: str, request_id: str = "") -> Sequence[ValueChange]:
        """Everything as it was right after this entry of the history; without a number, as before the newest entry.

        Raises InvalidRequest when there is no such entry, or this version can't use a value of it; StoreUnavailable.
        """
        lines = await self._store.log(TOPIC, before=None if number is None else number + 1, limit=1)
        if not lines or number not in (None, lines[0].number):
            raise InvalidRequest("the history of settings has no such entry", param="number")
        line = self._decoder.decode(lines[0].value)
        values = dict(line.values)
        if number is None:
            values |= {each.name: each.before for each in line.changes if each.before is not None}
            for each in line.changes:
                if each.before is None:
                    values.pop(each.name, None)
        self._check(values)
        return await self._write(lambda _: values, also, by, request_id)

    async def history(self, *, before: int | None = None, limit: int = 50) -> list[HistoryEntry]:
        """Newest first. Raises StoreUnavailable."""
        return [self._entry(line) for line in await self._store.log(TOPIC, before=before, limit=limit)]

    def _entry(self, line: LogLine) -> HistoryEntry:
        return HistoryEntry(number=line.number, at=line.at, line=self._decoder.decode(line.value))

    def _check(self, changes: Mapping[str, str | None]) -> None:
        for name, text in changes.items():
            if name not in LIVE_NAMES:
                raise InvalidRequest(_not_live(name), param=name)
            if text is not None:
                try:
                    overlaid(self.base, {name: text.strip()})
                except WrongSetting as error:
                    raise InvalidRequest(str(error), param=name) from error

    async def _write(
        self, give: Callable[[Mapping[str, str]], dict[str, str]], also: Sequence[Append], by: str, request_id: str
    ) -> Sequence[ValueChange]:
        while True:
            entry = await self._documents.get(ID)
            before = {} if entry is None else entry.value.values
            after = give(before)
            made = tuple(
                ValueChange(name, before.get(name), after.get(name))
                for name in sorted({*before, *after})
                if before.get(name) != after.get(name)
            )
            if not made:
                return made
            line = HistoryLine(by=by, request_id=request_id, changes=made, values=after)
            changes: list[Change] = [
                self._documents.put(ID, LiveValues(after), expect=0 if entry is None else entry.version),
                Append(topic=TOPIC, value=self._encoder.encode(line)),
                *also,
            ]
            try:
                await self._store.write(changes)
            except Conflict:
                continue
            with suppress(StoreUnavailable):  # it is written; the watch will learn of it
                await self._watch.catch_up()
            return made

    def _take(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        values = {} if ID in gone else dict(self.values)
        for record in records:
            if record.id == ID:
                try:
                    values = self._documents.entry(record).value.values
                except Unreadable as error:
                    log.warning("settings not read", extra={"reason": str(error)})
        self._apply(values)

    def _apply(self, values: Mapping[str, str]) -> None:
        """A value that this version can't use (a newer one may have written it) is as good as none."""
        settings = self.base
        used: dict[str, str] = {}
        for name, text in values.items():
            if name not in LIVE_NAMES:
                log.warning("setting ignored", extra={"variable": name, "reason": "it can't be changed at run time"})
                continue
            try:
                settings = overlaid(settings, {name: text})
            except WrongSetting as error:
                log.warning("setting ignored", extra={"variable": name, "reason": str(error)})
                continue
            used[name] = text
        self.values = used
        if settings == self.current:
            return
        self.current = settings
        log.info("settings changed", extra={"set": ",".join(sorted(used))})
        for callback in self._callbacks:
            try:
                callback(settings)
            except Exception:  # one part that fails must not keep the others from theirs
                log.exception("a change of settings could not be applied")


def _changed(values: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    asked = {name: changes.get(name, values.get(name)) for name in {*values, *changes}}
    return {name: text.strip() for name, text in sorted(asked.items()) if text is not None}


def _not_live(name: str) -> str:
    if name in NAMES:
        return f"{name} can't be changed while the server runs: set it in the environment or .env, and start again"
    near = difflib.get_close_matches(name.upper()[:100], LIVE_NAMES, n=1, cutoff=0.7)
    hint = f"; did you mean {near[0]}?" if near else "; GET /api/admin/settings lists them"
    return f"there is no setting {name[:100]!r}{hint}"
