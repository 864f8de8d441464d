"""The store in this process's memory: gone when it ends. For one process, and as the plain reading of the interface."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Self

from msgspec.structs import replace

from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import (
    DAY_SECONDS,
    PROCESS_SECONDS,
    TRACE_SECONDS,
    Append,
    Beat,
    Change,
    Changes,
    Charge,
    Conflict,
    Delete,
    Draw,
    Drawn,
    Gone,
    Hold,
    Kind,
    LogLine,
    ProcessRow,
    Put,
    Record,
    SlotsTaken,
    SlotsWanted,
    UsageCounts,
    UsageKey,
    Written,
)
from qwen_proxy.storage.sharing import Claim, share, shared_out

POLL_SECONDS: Final = 0.25


class _Trace(NamedTuple):
    generation: int
    at: float


class MemoryStore:
    """Fits `state.store.Store`. No call waits, so each is one step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._generation = 0
        self._clear()

    def _clear(self) -> None:
        self._records: dict[str, dict[str, Record]] = defaultdict(dict)
        self._changed: dict[tuple[str, str], _Trace] = {}  # of each watched record, also of one that is gone
        self._horizon = self._generation  # before it, what is gone is not known any more
        self._log: list[tuple[str, LogLine]] = []
        self._lines = 0
        self._hours: dict[UsageKey, UsageCounts] = {}
        self._days: dict[UsageKey, UsageCounts] = {}
        self._processes: dict[str, ProcessRow] = {}
        self._slots: dict[str, dict[str, int]] = defaultdict(dict)  # name -> process -> count
        self._allowances: dict[str, tuple[float, int]] = {}  # name -> end, used

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        pass

    # --- records

    async def get(self, kind: Kind, id: str) -> Record | None:
        return self._live(kind.name, id)

    async def find(self, kind: Kind, *, after: str = "", limit: int = 1000) -> list[Record]:
        ids = sorted(id for id in self._records[kind.name] if id > after)
        found = (self._live(kind.name, id) for id in ids)
        return [record for record in found if record is not None][:limit]

    async def write(self, changes: Sequence[Change]) -> Written:
        for change in changes:
            if not isinstance(change, Append) and change.expect is not None:
                record = self._live(change.kind.name, change.id)
                if change.expect != (0 if record is None else record.version):
                    raise Conflict(change.kind.name, change.id)
        if any(not isinstance(change, Append) and change.kind.is_watched for change in changes):
            self._generation += 1
        versions = [version for change in changes if (version := self._apply(change)) is not None]
        return Written(generation=self._generation, versions=tuple(versions))

    def _apply(self, change: Change) -> int | None:
        now = self._clock.now()
        if isinstance(change, Append):
            self._lines += 1
            self._log.append(
                (
                    change.topic,
                    LogLine(number=self._lines, at=now if change.at is None else change.at, value=change.value),
                )
            )
            return None
        kind, records = change.kind, self._records[change.kind.name]
        if kind.is_watched:
            self._changed[kind.name, change.id] = _Trace(self._generation, now)
        if isinstance(change, Delete):
            records.pop(change.id, None)
            return None
        return self._put(change, records, now)

    def _put(self, put: Put, records: dict[str, Record], now: float) -> int:
        old = self._live(put.kind.name, put.id)
        version = 1 if old is None else old.version + 1
        records[put.id] = Record(
            kind=put.kind.name,
            id=put.id,
            version=version,
            value=put.value,
            expires_at=None if put.lasts_seconds is None else now + put.lasts_seconds,
        )
        return version

    def _live(self, kind: str, id: str) -> Record | None:
        record = self._records[kind].get(id)
        if record is None or (record.expires_at is not None and record.expires_at <= self._clock.now()):
            return None
        return record

    async def generation(self) -> int:
        return self._generation

    async def changes(self, since: int) -> Changes:
        records: list[Record] = []
        gone: list[Gone] = []
        if not self._horizon <= since <= self._generation:
            return Changes(generation=self._generation, records=(), gone=(), is_complete=False)
        for (kind, id), trace in self._changed.items():
            if trace.generation > since:
                record = self._live(kind, id)
                if record is None:
                    gone.append(Gone(kind=kind, id=id))
                else:
                    records.append(record)
        return Changes(generation=self._generation, records=tuple(records), gone=tuple(gone))

    async def wait(self, since: int, timeout_seconds: float) -> int:
        deadline = self._clock.monotonic() + timeout_seconds
        while self._generation == since and (left := deadline - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(POLL_SECONDS, left))
        return self._generation

    async def sweep(self) -> None:
        now = self._clock.now()
        for kind, records in self._records.items():
            for id in [id for id in records if self._live(kind, id) is None]:
                del records[id]
        for (kind, id), trace in list(self._changed.items()):
            if trace.at <= now - TRACE_SECONDS and id not in self._records[kind]:
                del self._changed[kind, id]
                self._horizon = max(self._horizon, trace.generation)
        self._allowances = {name: (end, used) for name, (end, used) in self._allowances.items() if end > now}

    # --- the log

    async def log(self, topic: str, *, before: int | None = None, limit: int = 100) -> list[LogLine]:
        lines = [line for each, line in self._log if each == topic and (before is None or line.number < before)]
        return lines[::-1][:limit]

    async def prune_log(self, topic: str, before_at: float) -> None:
        self._log = [(each, line) for each, line in self._log if each != topic or line.at >= before_at]

    # --- usage

    async def add_usage(self, counts: Mapping[UsageKey, UsageCounts]) -> None:
        for key, more in counts.items():
            day = replace(key, starts_at=key.starts_at - key.starts_at % DAY_SECONDS)
            for rows, each in ((self._hours, key), (self._days, day)):
                rows[each] = rows.get(each, UsageCounts()) + more

    async def usage(self, since: float, until: float, *, by_day: bool = False) -> dict[UsageKey, UsageCounts]:
        rows = self._days if by_day else self._hours
        return {key: counts for key, counts in sorted(rows.items()) if since <= key.starts_at < until}

    async def prune_usage(self, before_at: float, *, by_day: bool = False) -> None:
        rows = self._days if by_day else self._hours
        for key in [key for key in rows if key.starts_at < before_at]:
            del rows[key]

    # --- processes

    async def join(self, row: ProcessRow, holds: Sequence[Hold]) -> None:
        self._free(row.id)
        self._processes[row.id] = replace(row, beat_at=self._clock.now())
        for hold in holds:
            self._hold(row.id, hold)

    async def beat(self, process: str, *, is_hungry: bool, status: bytes) -> Beat:
        self._bury()
        row = self._processes.get(process)
        if row is not None:
            self._processes[process] = replace(row, beat_at=self._clock.now(), is_hungry=is_hungry, status=status)
        hungry = any(other.is_hungry for other in self._processes.values() if other.id != process)
        return Beat(is_known=row is not None, processes=len(self._processes), others_are_hungry=hungry)

    async def leave(self, process: str) -> None:
        self._processes.pop(process, None)
        self._free(process)

    async def processes(self) -> list[ProcessRow]:
        self._bury()
        return [row for _, row in sorted(self._processes.items())]

    def _bury(self) -> None:
        now = self._clock.now()
        for process in [row.id for row in self._processes.values() if row.beat_at + PROCESS_SECONDS <= now]:
            del self._processes[process]
            self._free(process)

    def _free(self, process: str) -> None:
        for holders in self._slots.values():
            holders.pop(process, None)

    # --- blocks

    async def take(self, process: str, wanted: SlotsWanted) -> SlotsTaken:
        self._bury()
        if process not in self._processes:
            return SlotsTaken(holds=(), full=())
        claims = [Claim(name, sum(self._slots[name].values())) for name in wanted.names]
        holds = shared_out(claims, wanted, len(self._processes))
        for hold in holds:
            self._hold(process, hold)
        full = tuple(name for name in wanted.names if sum(self._slots[name].values()) >= wanted.capacity)
        return SlotsTaken(holds=holds, full=full)

    def _hold(self, process: str, hold: Hold) -> None:
        self._slots[hold.name][process] = self._slots[hold.name].get(process, 0) + hold.count

    async def give(self, process: str, holds: Sequence[Hold]) -> None:
        for hold in holds:
            left = self._slots[hold.name].pop(process, 0) - hold.count
            if left > 0:
                self._slots[hold.name][process] = left

    async def taken(self, prefix: str) -> dict[str, int]:
        self._bury()
        sums = ((name, sum(holders.values())) for name, holders in self._slots.items() if name.startswith(prefix))
        return {name: count for name, count in sums if count}

    async def draw(self, draws: Sequence[Draw]) -> list[Drawn]:
        self._bury()
        return [self._draw(draw) for draw in draws]

    def _draw(self, draw: Draw) -> Drawn:
        used = self._used(draw.name)
        if draw.ends_at <= self._clock.now():
            return Drawn(granted=0, used=used)
        free = draw.limit - used
        granted = 0 if free < draw.need else draw.need + share(free - draw.need, draw.extra, len(self._processes))
        if granted:
            self._allowances[draw.name] = (draw.ends_at, used + granted)
        return Drawn(granted=granted, used=used + granted)

    async def charge(self, charges: Sequence[Charge]) -> None:
        for charge in charges:
            if charge.ends_at > self._clock.now():
                used = self._used(charge.name)
                self._allowances[charge.name] = (charge.ends_at, max(0, used + charge.amount))

    def _used(self, name: str) -> int:
        end, used = self._allowances.get(name, (0.0, 0))
        return used if end > self._clock.now() else 0

    # --- care

    async def check(self) -> str | None:
        return None

    async def erase(self) -> None:
        self._generation += 1
        self._clear()
