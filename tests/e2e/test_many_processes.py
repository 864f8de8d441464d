"""Four processes over one store, any of which may be killed at any time: no limit is exceeded, no use of an account is
lost beyond a heartbeat's expiry, and no acknowledged write is gone."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from qwen_proxy.accounts.model import Account
from qwen_proxy.app.commons import Kept, open_commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.state.store import PROCESS_SECONDS
from tests.support.redis_server import RedisServer
from tests.support.tenant import (
    NOTE,
    PLACES,
    REQUESTS_PER_MINUTE,
    RESERVED_TOKENS,
    SECRET,
    TOKENS_PER_DAY,
    TOPIC,
    place_at,
)

CLOCK = SystemClock()
CONCURRENCY = 2
ACCOUNTS = 3


class Note(Struct, frozen=True):
    at: float
    what: str
    name: str


class Tenant:
    """A process, and when it was killed."""

    def __init__(self, process: asyncio.subprocess.Process, notes: Path) -> None:
        self.process = process
        self.notes = notes
        self.killed_at: float | None = None

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        await self.process.wait()
        self.killed_at = CLOCK.monotonic()

    def read(self) -> list[Note]:
        if not self.notes.exists():
            return []
        found: list[Note] = []
        for line in self.notes.read_text().splitlines():
            at, what, name = line.split()
            found.append(Note(float(at), what, name))
        return found


class Street:
    def __init__(self, store: str, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.tenants: list[Tenant] = []

    async def add(self) -> Tenant:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.tenant", "--store", self.store, "--notes", str(self.folder)),
            *("--concurrency", str(CONCURRENCY)),
        )
        tenant = Tenant(process, self.folder / f"{process.pid}.notes")
        self.tenants.append(tenant)
        return tenant

    async def until(self, tenant: Tenant, what: str, since: float, seconds: float) -> Note:
        """The first note of this kind at or behind `since`."""
        async with asyncio.timeout(seconds):
            while True:
                for note in tenant.read():
                    if note.what == what and note.at >= since:
                        return note
                await asyncio.sleep(0.05)

    def most_at_once(self, begin: str, end: str) -> dict[str, int]:
        """Uses, by name; what a killed process began and did not end has ended with it."""
        steps: list[tuple[float, int, str]] = []
        for tenant in self.tenants:
            open_uses: Counter[str] = Counter()
            for note in tenant.read():
                if note.what in (begin, end):
                    step = 1 if note.what == begin else -1
                    steps.append((note.at, step, note.name))
                    open_uses[note.name] += step
            if tenant.killed_at is not None:
                steps += [(tenant.killed_at, -count, name) for name, count in open_uses.items() if count]
        now: Counter[str] = Counter()
        most: dict[str, int] = {}
        for _, step, name in sorted(steps):
            now[name] += step
            most[name] = max(most.get(name, 0), now[name])
        return most

    def told_of(self, what: str, key: str) -> dict[str, int]:
        """The number that was noted of each request of a key."""
        found: dict[str, int] = {}
        for tenant in self.tenants:
            for note in tenant.read():
                each, _, rest = note.name.partition("/")
                if note.what == what and each == key:
                    request, _, number = rest.partition("/")
                    found[request] = int(number)
        return found

    def count(self, what: str) -> int:
        return sum(note.what == what for tenant in self.tenants for note in tenant.read())


@asynccontextmanager
async def street(store: str, folder: Path) -> AsyncGenerator[Street]:
    """Four tenants who have all begun to use accounts."""
    async with open_commons(Kept(place_at(store, "tenants"), SECRET), Machine()) as commons:
        for number in range(ACCOUNTS):
            await commons.book.put(Account(id=f"a{number}", email=f"a{number}", password=Secret("p")))
    made = Street(store, folder)
    try:
        for tenant in [await made.add() for _ in range(4)]:
            await made.until(tenant, "begins", 0, 20)
        yield made
    finally:
        for tenant in made.tenants:
            if tenant.process.returncode is None:
                await tenant.kill()


async def written(store: str) -> tuple[set[str], set[str]]:
    """The records and the lines of the log that are there."""
    records: set[str] = set()
    lines: set[str] = set()
    async with open_commons(Kept(place_at(store, "tenants"), SECRET), Machine()) as commons:
        assert await commons.store.check() is None
        after = ""
        while page := await commons.store.find(NOTE, after=after):
            records |= {record.value.decode() for record in page}
            after = page[-1].id
        before: int | None = None
        while found := await commons.store.log(TOPIC, before=before, limit=1000):
            lines |= {line.value.decode() for line in found}
            before = found[-1].number
    return records, lines


async def holds_after_all_are_gone(store: str) -> dict[str, int]:
    async with open_commons(Kept(place_at(store, "tenants"), SECRET), Machine()) as commons:
        await asyncio.sleep(PROCESS_SECONDS + 0.5)
        return await commons.store.taken("account:") | await commons.store.taken("key:")


def check_keys(made: Street) -> None:
    """Limits were used well, and never exceeded. What a killed process had reserved may have been used, all of it."""
    assert made.most_at_once("enters", "leaves")["requests"] == PLACES
    minutes = Counter(made.told_of("admitted", "requests").values())
    assert REQUESTS_PER_MINUTE / 2 < max(minutes.values()) <= REQUESTS_PER_MINUTE, minutes
    used = made.told_of("used", "tokens")
    days: Counter[int] = Counter()
    for request, day in made.told_of("admitted", "tokens").items():
        days[day] += used.get(request, RESERVED_TOKENS)
    assert TOKENS_PER_DAY / 2 < max(days.values()) <= TOKENS_PER_DAY, days


async def check(made: Street, survivors: Sequence[Tenant]) -> None:
    """All that was promised, at the end."""
    for tenant in survivors:
        await tenant.kill()
    most = made.most_at_once("begins", "ends")
    assert len(most) == ACCOUNTS
    assert max(most.values()) == CONCURRENCY, most
    check_keys(made)
    acknowledged = {note.name for tenant in made.tenants for note in tenant.read() if note.what == "wrote"}
    records, lines = await written(made.store)
    assert acknowledged and acknowledged <= records
    assert acknowledged <= lines
    assert await holds_after_all_are_gone(made.store) == {}


@contextmanager
def data(kind: str, folder: Path) -> Generator[tuple[str, RedisServer | None]]:
    """Where a store is, and the server behind it."""
    if kind == "sqlite":
        yield str(folder / "data.db"), None
        return
    with RedisServer() as server:
        yield server.url, server


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_processes_killed_one_after_the_other(kind: str, tmp_path: Path) -> None:
    with data(kind, tmp_path) as (store, _):
        await kill_one_after_the_other(store, tmp_path)


async def kill_one_after_the_other(store: str, folder: Path) -> None:
    async with street(store, folder) as made:
        living = list(made.tenants)
        for _ in range(6):
            await asyncio.sleep(0.7)
            victim = living.pop(0)
            await victim.kill()
            living.append(await made.add())
        for tenant in living:
            await made.until(tenant, "ends", CLOCK.monotonic(), 3 * PROCESS_SECONDS)
        await check(made, living)


@pytest.mark.timeout(120)
async def test_redis_killed_and_started_again_under_load(tmp_path: Path) -> None:
    """Nothing new is granted that could not be counted, what runs goes on, and all go on when it is back."""
    with data("redis", tmp_path) as (store, server):
        assert server is not None
        async with street(store, tmp_path) as made:
            for pause_seconds in (0.3, PROCESS_SECONDS + 2):
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(pause_seconds)
                lapsed_at = CLOCK.monotonic()
                await asyncio.to_thread(server.start)
                for tenant in made.tenants:
                    await made.until(tenant, "wrote", lapsed_at, 20)
                    await made.until(tenant, "ends", lapsed_at, 20)
            assert made.count("lost") > 0
            await check(made, made.tenants)
