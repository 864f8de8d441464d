"""A store as it takes in what a bundle holds; see `importing` for what REPLACE and MERGE mean."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.operations.transfer.bundle import CarriedLine, CarriedRecord, CarriedUsage, Lines, Records
from qwen_proxy.operations.transfer.exporting import CARRIED
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.kinds import BATCH, BATCH_LINE, EXIT, KEY
from qwen_proxy.state.store import DAY_SECONDS, Append, Conflict, Kind, Put, Store, UsageCounts, UsageKey
from qwen_proxy.state.vault import Vault

T = TypeVar("T")

AT_ONCE: Final = 100
BY_NAME: Final = {kind.name: kind for kind in CARRIED}
OF_ONE_PEPPER: Final = (KEY, EXIT)  # ids and digests made with it
NOT_MERGED: Final = (BATCH, BATCH_LINE)


class Way(StrEnum):
    REPLACE = "replace"
    MERGE = "merge"


class KindCount(Struct, frozen=True, kw_only=True):
    """added: not there yet. same: there, and equal. kept: there, and different; it stays. left_out: not taken."""

    kind: str
    added: int = 0
    same: int = 0
    kept: int = 0
    left_out: int = 0


class Target:
    """A store as it takes things in. With REPLACE everything counts as not there."""

    def __init__(self, store: Store, vault: Vault, clock: Clock, way: Way, *, is_of_one_pepper: bool) -> None:
        self.vault = vault
        self._store = store
        self._clock = clock
        self._merges = way is Way.MERGE
        self._is_of_one_pepper = is_of_one_pepper
        self._takes_lines: dict[str, bool] = {}

    def why_not(self, name: str) -> list[str]:
        """A sentence when records of this kind are left out."""
        kind = BY_NAME.get(name)
        if kind is None:
            return [f"records of kind {name!r} are left out: this version does not know them"]
        if self._merges and kind in NOT_MERGED:
            return ["batches are not merged: they would be signed in twice"]
        if self._merges and kind is KEY and not self._is_of_one_pepper:
            return ["client keys can't be merged into another installation: make new ones"]
        if self._merges and kind in OF_ONE_PEPPER and not self._is_of_one_pepper:
            return ["what is known of exits is not merged: it is learned anew"]
        return []

    async def count(self, frame: Records, known: KindCount) -> KindCount:
        if self.why_not(frame.kind):
            return replace(known, left_out=known.left_out + len(frame.records))
        kind = BY_NAME[frame.kind]
        added = same = kept = 0
        for carried in frame.records:
            if self._is_over(carried):
                continue
            value = await self._value(kind, carried.id)
            added += value is None
            same += value == carried.value
            kept += value not in (None, carried.value)
        return replace(known, added=known.added + added, same=known.same + same, kept=known.kept + kept)

    async def _value(self, kind: Kind, id: str) -> bytes | None:
        record = await self._store.get(kind, id) if self._merges else None
        if record is None:
            return None
        return self.vault.open(record.value, kind.name, id) if kind.is_sealed else record.value

    async def put(self, frame: Records) -> None:
        """What is there stays."""
        if self.why_not(frame.kind):
            return
        kind = BY_NAME[frame.kind]
        for some in _slices([carried for carried in frame.records if not self._is_over(carried)], AT_ONCE):
            try:
                await self._store.write([self._put(kind, carried) for carried in some])
            except Conflict:
                for carried in some:
                    if await self._store.get(kind, carried.id) is None:
                        await self._put_alone(kind, carried)

    async def _put_alone(self, kind: Kind, carried: CarriedRecord) -> None:
        try:
            await self._store.write([self._put(kind, carried)])
        except Conflict:  # another process added it this very moment
            return

    def _put(self, kind: Kind, carried: CarriedRecord) -> Put:
        value = carried.value
        if kind.is_sealed:
            value = self.vault.seal(value, kind.name, carried.id)
        lasts = None if carried.expires_at is None else carried.expires_at - self._clock.now()
        return Put(kind=kind, id=carried.id, value=value, expect=0, lasts_seconds=lasts)

    def _is_over(self, carried: CarriedRecord) -> bool:
        return carried.expires_at is not None and carried.expires_at <= self._clock.now()

    async def takes_lines(self, topic: str) -> bool:
        """All of a topic or nothing: its lines are read by their order."""
        if topic not in self._takes_lines:
            self._takes_lines[topic] = not (self._merges and await self._store.log(topic, limit=1))
        return self._takes_lines[topic]

    async def append(self, frame: Lines) -> None:
        if await self.takes_lines(frame.topic):
            for some in _slices(frame.lines, AT_ONCE):
                await self._store.write([_append(frame.topic, line) for line in some])

    async def lacking(self, rows: Sequence[CarriedUsage]) -> dict[UsageKey, UsageCounts]:
        """Of the rows of one day, what the store does not have yet."""
        given = {row.key: row.counts for row in rows}
        if not self._merges or not given:
            return given
        totals: dict[UsageKey, UsageCounts] = {}
        for key, counts in given.items():
            day = _day_key(key)
            totals[day] = totals.get(day, UsageCounts()) + counts
        since = next(iter(totals)).starts_at
        kept = await self._store.usage(since, since + DAY_SECONDS, by_day=True)
        whole = {key: counts for key, counts in given.items() if _day_key(key) not in kept}
        rest = {day: total.beyond(kept[day]) for day, total in totals.items() if day in kept}
        return whole | {day: counts for day, counts in rest.items() if counts != UsageCounts()}

    async def add(self, rows: Sequence[CarriedUsage]) -> None:
        if more := await self.lacking(rows):
            await self._store.add_usage(more)


class Days:
    """Gathers rows, which come by time, to whole days: a day is compared and written at once."""

    def __init__(self) -> None:
        self._rows: list[CarriedUsage] = []

    def take(self, rows: Sequence[CarriedUsage]) -> Iterator[list[CarriedUsage]]:
        """The days that end with these."""
        for row in rows:
            if self._rows and _day_key(self._rows[-1].key).starts_at != _day_key(row.key).starts_at:
                yield self.rest()
            self._rows.append(row)

    def rest(self) -> list[CarriedUsage]:
        rows, self._rows = self._rows, []
        return rows


def _append(topic: str, line: CarriedLine) -> Append:
    return Append(topic=topic, value=line.value, at=line.at)


def _day_key(key: UsageKey) -> UsageKey:
    return replace(key, starts_at=key.starts_at - key.starts_at % DAY_SECONDS)


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
