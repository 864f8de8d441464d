"""The store in a Redis or Valkey server, for processes on several machines: Redis 6.2 or later, or any Valkey.

Each call is one script that runs on the server (redis_scripts/), so it is one step for all processes, and its time is
the server's. Round trips: one a call, but for long answers, which come in pages. How long a write outlives the server
is told by the server's settings: docker/redis.conf is what is meant for it.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final, Self

import msgspec

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import (
    PROCESS_SECONDS,
    TRACE_SECONDS,
    Append,
    Beat,
    Change,
    Changes,
    Charge,
    Conflict,
    Draw,
    Drawn,
    Hold,
    Kind,
    LogLine,
    ProcessRow,
    Record,
    SlotsTaken,
    SlotsWanted,
    UsageCounts,
    UsageKey,
    Written,
)
from qwen_proxy.storage import redis_replies as replies
from qwen_proxy.storage.redis_listening import Listening
from qwen_proxy.storage.redis_problems import doubts, too_old, write_failure
from qwen_proxy.storage.redis_replies import Part, micros
from qwen_proxy.storage.redis_server import SERVER_TIME, RedisServer, Script

LOOK_SECONDS: Final = 1.0  # so much later a change is seen whose message got lost
MOST_CHANGES: Final = 20_000  # told of in one answer; of more all is to be read anew, which goes by pages
BUCKETS: Final = 24  # of usage in one answer
PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]+")

# In the order in which the scripts name them; each script says what its own are.
RECORD_KEYS: Final = "generation horizon changed gone ends index: record: lines topic:"
USAGE_KEYS: Final = "hours days hour: day:"
SHARING_KEYS: Final = "beats rows status hungry taken held: used windows"


class RedisStore:
    """Fits `state.store.Store`.

    url: redis://, rediss:// (the certificate is checked; ca_file is trusted too) or unix://. prefix: of all keys;
    installations that share a server need one each. time: Lua that defines now(), for tests.
    Entering it raises StoreUnavailable, also for a server that is too old.
    """

    def __init__(
        self, url: Secret, prefix: str, clock: Clock, *, ca_file: Path | None = None, time: str = SERVER_TIME
    ) -> None:
        assert PREFIX.fullmatch(prefix), "a prefix of letters, digits, '_', '.', ':' and '-'"
        self._clock = clock
        self._server = RedisServer(url, prefix, ca_file)
        limits = f"local PROCESS_MICROSECONDS = {micros(PROCESS_SECONDS)}\n"
        self._records = self._server.script("records", RECORD_KEYS, time)
        self._usage = self._server.script("usage", USAGE_KEYS, time)
        self._sharing = self._server.script("sharing", SHARING_KEYS, time + limits)
        self._channel = self._server.key("changes")
        self._tasks = Tasks()
        self._listening = Listening(self._server, self._channel, clock, self._tasks)

    async def __aenter__(self) -> Self:
        try:
            told = await self._server.ask("INFO", "server")
            if isinstance(told, bytes) and (problem := too_old(told.decode(errors="replace"))) is not None:
                raise StoreUnavailable(problem)
            await self._server.run(self._records, "get", "", "")
        except BaseException:
            await self._server.close()
            raise
        self._listening.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._tasks.__aexit__(None, None, None)
        await self._server.close()

    # --- records

    async def get(self, kind: Kind, id: str) -> Record | None:
        told = await self._server.run(self._records, "get", kind.name, id)
        return replies.FOUND.decode(told).record()

    async def find(self, kind: Kind, *, after: str = "", limit: int = 1000) -> list[Record]:
        told = await self._server.run(self._records, "find", kind.name, after, limit)
        return list(replies.records(replies.FOUND_LIST.decode(told)))

    async def write(self, changes: Sequence[Change]) -> Written:
        parts = [part for change in changes for part in replies.change_parts(change)]
        told = replies.WRITE.decode(await self._server.run(self._records, "write", self._channel, *parts))
        if told.conflict:
            change = changes[told.conflict - 1]
            assert not isinstance(change, Append)
            raise Conflict(change.kind.name, change.id)
        return Written(generation=told.generation, versions=told.versions)

    async def generation(self) -> int:
        told = await self._server.call("GET", self._server.key("generation"))
        return int(told) if isinstance(told, bytes) else 0

    async def changes(self, since: int) -> Changes:
        told = replies.CHANGES.decode(await self._server.run(self._records, "changes", since, MOST_CHANGES))
        return Changes(
            generation=told.generation,
            records=replies.records(told.found),
            gone=replies.gone(told.found),
            is_complete=told.is_complete,
        )

    async def wait(self, since: int, timeout_seconds: float) -> int:
        deadline = self._clock.monotonic() + timeout_seconds
        with self._listening.bell() as bell:
            while True:
                bell.clear()
                generation = await self.generation()
                left = deadline - self._clock.monotonic()
                if generation != since or left <= 0:
                    return generation
                await self._listening.rung(bell, min(LOOK_SECONDS, left))

    async def sweep(self) -> None:
        await self._repeat(self._records, "sweep", micros(TRACE_SECONDS))
        await self._repeat(self._sharing, "sweep")

    # --- the log

    async def log(self, topic: str, *, before: int | None = None, limit: int = 100) -> list[LogLine]:
        if limit <= 0:
            return []
        told = await self._server.run(self._records, "log", topic, "+" if before is None else before, limit)
        return [each.line() for each in replies.LINES.decode(told)]

    async def prune_log(self, topic: str, before_at: float) -> None:
        after = ""
        while True:
            told = await self._server.run(self._records, "prune_log", topic, micros(before_at), after)
            if not (after := replies.TEXT.decode(told)):
                return

    # --- usage

    async def add_usage(self, counts: Mapping[UsageKey, UsageCounts]) -> None:
        if counts:
            await self._server.run(self._usage, "add", *replies.usage_parts(counts))

    async def usage(self, since: float, until: float, *, by_day: bool = False) -> dict[UsageKey, UsageCounts]:
        unit = _unit(by_day)
        starts = replies.STARTS.decode(await self._server.run(self._usage, "starts", unit, repr(since), repr(until)))
        rows: list[tuple[UsageKey, UsageCounts]] = []
        for place in range(0, len(starts), BUCKETS):
            told = await self._server.run(self._usage, "read", unit, *starts[place : place + BUCKETS])
            rows += (each.row() for each in replies.USAGE.decode(told))
        return dict(sorted(rows, key=lambda row: row[0]))

    async def prune_usage(self, before_at: float, *, by_day: bool = False) -> None:
        await self._repeat(self._usage, "prune", _unit(by_day), repr(before_at))

    # --- processes

    async def join(self, row: ProcessRow, holds: Sequence[Hold]) -> None:
        identity = msgspec.msgpack.encode(replies.Identity(row.host, row.pid, row.started_at))
        parts: list[Part] = [row.id, identity, int(row.is_hungry), row.status, *replies.hold_parts(holds)]
        await self._server.run(self._sharing, "join", *parts)

    async def beat(self, process: str, *, is_hungry: bool, status: bytes) -> Beat:
        told = replies.BEAT.decode(await self._server.run(self._sharing, "beat", process, int(is_hungry), status))
        return Beat(is_known=told.is_known, processes=told.processes, others_are_hungry=told.others_are_hungry)

    async def leave(self, process: str) -> None:
        await self._server.run(self._sharing, "leave", process)

    async def processes(self) -> list[ProcessRow]:
        told = replies.PROCESSES.decode(await self._server.run(self._sharing, "processes"))
        return sorted((each.row() for each in told), key=lambda row: row.id)

    # --- blocks

    async def take(self, process: str, wanted: SlotsWanted) -> SlotsTaken:
        parts: list[Part] = [wanted.capacity, wanted.need, wanted.extra, int(wanted.is_spread)]
        names = msgspec.msgpack.encode(wanted.names)  # of a thousand, each as a part would cost more than the rest
        told = replies.TAKE.decode(await self._server.run(self._sharing, "take", process, *parts, names))
        return SlotsTaken(
            holds=tuple(Hold(wanted.names[place], count) for place, count in told.holds),
            full=tuple(wanted.names[place] for place in told.full),
        )

    async def give(self, process: str, holds: Sequence[Hold]) -> None:
        if holds:
            await self._server.run(self._sharing, "give", process, *replies.hold_parts(holds))

    async def taken(self, prefix: str) -> dict[str, int]:
        return dict(replies.COUNTS.decode(await self._server.run(self._sharing, "taken", prefix)))

    async def draw(self, draws: Sequence[Draw]) -> list[Drawn]:
        if not draws:
            return []
        parts: list[Part] = []
        for draw in draws:
            parts += (draw.name, micros(draw.ends_at), draw.limit, draw.need, draw.extra)
        told = replies.PAIRS.decode(await self._server.run(self._sharing, "draw", *parts))
        return [Drawn(granted=granted, used=used) for granted, used in told]

    async def charge(self, charges: Sequence[Charge]) -> None:
        parts: list[Part] = []
        for charge in charges:
            parts += (charge.name, micros(charge.ends_at), charge.amount)
        if parts:
            await self._server.run(self._sharing, "charge", *parts)

    # --- care

    async def check(self) -> str | None:
        persistence = await self._server.ask("INFO", "persistence")
        if isinstance(persistence, bytes) and (failure := write_failure(persistence.decode(errors="replace"))):
            return failure
        missing = 0
        async with aclosing(self._kinds()) as kinds:
            async for kind in kinds:
                after = ""
                while True:
                    told = replies.CHECK.decode(await self._server.run(self._records, "check", kind, after))
                    missing += told.missing
                    if not (after := told.last):
                        break
        if missing:
            return f"{missing} records are gone that nobody deleted: does the server evict keys (maxmemory-policy)?"
        if not replies.YES_OR_NO.decode(await self._server.run(self._sharing, "check")):
            return "the count of slots is not what the processes hold: did another program or an eviction change keys?"
        return None

    async def _kinds(self) -> AsyncGenerator[str]:
        """Of which there is a record."""
        beginning = self._server.key("index:")
        found: set[str] = set()
        cursor = b"0"
        while True:
            told = await self._server.call("SCAN", cursor, "MATCH", f"{beginning}*", "COUNT", 1000)
            cursor, keys = msgspec.convert(told, tuple[bytes, list[bytes]])
            kinds = {key.decode().removeprefix(beginning) for key in keys}
            for kind in sorted(kinds - found):
                yield kind
            found |= kinds
            if cursor == b"0":
                return

    async def erase(self) -> None:
        await self._server.run(self._records, "erase", self._channel, f"{self._server.key('')}*")

    async def warnings(self) -> tuple[str, ...]:
        """Sentences on settings of the server that may cost what is kept; none where it does not tell its settings."""
        settings: dict[str, str] = {}
        for name in ("appendonly", "maxmemory", "maxmemory-policy"):
            told = await self._server.ask("CONFIG", "GET", name)
            if told:
                settings[name] = msgspec.convert(told, tuple[bytes, bytes])[1].decode()
        return doubts(settings)

    async def _repeat(self, script: Script, function: str, *parts: Part) -> None:
        """Page by page, until it says that nothing is left."""
        while replies.YES_OR_NO.decode(await self._server.run(script, function, *parts)):
            pass


def _unit(by_day: bool) -> str:
    return "day" if by_day else "hour"
