"""Everything that is kept, into a bundle. While servers run, what they write meanwhile may be in it or not."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import BinaryIO, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy import __version__
from qwen_proxy.admin.audit import TOPIC as AUDIT
from qwen_proxy.app.commons import DEMO
from qwen_proxy.config.runtime import TOPIC as SETTINGS_HISTORY
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.offline import Opened
from qwen_proxy.operations.transfer.bundle import (
    FRAME_BYTES,
    Beginning,
    BundleWriter,
    CarriedLine,
    CarriedRecord,
    CarriedUsage,
    Ending,
    Lines,
    Records,
    Usage,
)
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.kinds import KINDS, SESSION, TRACE, VAULT
from qwen_proxy.state.store import DAY_SECONDS, Kind, LogLine, Record, Store, UsageCounts, UsageKey

T = TypeVar("T")

CARRIED: Final = tuple(kind for kind in KINDS if kind not in (VAULT, SESSION, TRACE))
TOPICS: Final = (AUDIT, SETTINGS_HISTORY)
PAGE: Final = 500
USAGE_AT_ONCE: Final = 5000
OLDEST: Final = 1_672_531_200  # 2023: before, there was no such site
STEP_SECONDS: Final = 7 * DAY_SECONDS

Tell = Callable[[str, int], None]  # what is being carried, and how many of it so far


class Carried(Struct, frozen=True):
    """How many were written."""

    records: int
    lines: int
    usage: int


async def export(
    opened: Opened, clock: Clock, file: BinaryIO, passphrase: Secret, tell: Tell = lambda what, count: None
) -> Carried:
    """Raises StoreUnavailable, OSError, and WrongSecret for a record that does not open."""
    writer = BundleWriter(file, passphrase)
    pepper = opened.vault.document.pepper
    writer.add(Beginning(program=__version__, made_at=clock.now(), pepper=pepper))
    records = 0
    for kind in CARRIED:
        async with aclosing(_records(opened, kind)) as pages:
            async for page in pages:
                for some in _in_frames(page, lambda record: len(record.value)):
                    writer.add(Records(kind.name, some))
                    tell("records", records := records + len(some))
    lines = 0
    for topic in TOPICS:
        for told in _in_frames(await _lines(opened.store, topic), lambda line: len(line.value)):
            writer.add(Lines(topic, told))
            tell("log lines", lines := lines + len(told))
    usage = 0
    async with aclosing(_usage(opened.store, clock.now())) as windows:
        async for rows in windows:
            for start in range(0, len(rows), USAGE_AT_ONCE):
                writer.add(Usage(tuple(rows[start : start + USAGE_AT_ONCE])))
            tell("usage", usage := usage + len(rows))
    writer.add(Ending(records, lines, usage))
    return Carried(records, lines, usage)


async def _records(opened: Opened, kind: Kind) -> AsyncGenerator[list[CarriedRecord]]:
    after = ""
    while page := await opened.store.find(kind, after=after, limit=PAGE):
        yield [_carried(opened, kind, record) for record in page if record.id != DEMO]
        after = page[-1].id


def _carried(opened: Opened, kind: Kind, record: Record) -> CarriedRecord:
    value = opened.vault.open(record.value, kind.name, record.id) if kind.is_sealed else record.value
    return CarriedRecord(record.id, value, record.expires_at)


async def _lines(store: Store, topic: str) -> list[CarriedLine]:
    """Oldest first."""
    lines: list[LogLine] = []
    while page := await store.log(topic, before=lines[-1].number if lines else None, limit=PAGE):
        lines += page
    return [CarriedLine(line.at, line.value) for line in reversed(lines)]


def _in_frames(items: Sequence[T], size: Callable[[T], int]) -> Iterator[tuple[T, ...]]:
    """In order, so many at a time as fit a frame; one that is too large for it, alone."""
    some: list[T] = []
    size_bytes = 0
    for item in items:
        if some and size_bytes + size(item) > FRAME_BYTES:
            yield tuple(some)
            some, size_bytes = [], 0
        some.append(item)
        size_bytes += size(item)
    if some:
        yield tuple(some)


async def _usage(store: Store, now: float) -> AsyncGenerator[list[CarriedUsage]]:
    """Some days at a time. Hours are read before their days, which then hold at least as much."""
    since, until = 0, OLDEST
    while since < now + DAY_SECONDS:
        hours = await store.usage(since, until)
        days = await store.usage(since, until, by_day=True)
        rows = [CarriedUsage(key, counts) for key, counts in hours.items()]
        if rows := sorted([*rows, *_only_by_day(hours, days)], key=lambda row: row.key.starts_at):
            yield rows
        since, until = until, until + STEP_SECONDS


def _only_by_day(hours: dict[UsageKey, UsageCounts], days: dict[UsageKey, UsageCounts]) -> Iterator[CarriedUsage]:
    """What days hold beyond their hours, which are kept for a shorter time."""
    known: dict[UsageKey, UsageCounts] = {}
    for key, counts in hours.items():
        day = replace(key, starts_at=key.starts_at - key.starts_at % DAY_SECONDS)
        known[day] = known.get(day, UsageCounts()) + counts
    for key, counts in days.items():
        if (rest := counts.beyond(known.get(key, UsageCounts()))) != UsageCounts():
            yield CarriedUsage(key, rest)
