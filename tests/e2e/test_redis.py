"""A real Redis that is killed, comes back, or stands still, with the settings that are shipped."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import pytest

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.membership import Membership, Role
from qwen_proxy.state.store import Append, Beat, Hold, Kind, ProcessRow, Put, SlotsWanted, Store, UsageCounts, UsageKey
from qwen_proxy.storage.redis import RedisStore
from qwen_proxy.storage.redis_server import CALL_SECONDS
from tests.support.counting_store import GUARDED, NUMBER, PAIR, TOPIC, read
from tests.support.redis_server import RedisServer, shared
from tests.support.waiting import until

CLOCK = SystemClock()
PLAIN = Kind(name="plain")
WATCHED = Kind(name="watched", is_watched=True)
USAGE = UsageKey(starts_at=0, key="k", account="a", model="m", feature="f")
WRITERS = 20  # more than a process has connections


def store_at(server: RedisServer) -> RedisStore:
    return RedisStore(Secret(server.url), "test", CLOCK)


@asynccontextmanager
async def down(server: RedisServer) -> AsyncGenerator[None]:
    """Killed, and started again with what it had on its disk."""
    server.kill()
    yield
    await asyncio.to_thread(server.start)


class Writer:
    """Writes a number and a line with it, again and again; `acknowledged` are those whose write returned."""

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self.acknowledged: set[int] = set()
        self.refusals = 0
        self.slowest_refusal_seconds = 0.0
        self._store = store

    async def run(self) -> None:
        number = 0
        while True:
            number += 1
            value = b"%d" % number
            asked_at = CLOCK.monotonic()
            try:
                await self._store.write(
                    [
                        Put(kind=WATCHED, id=self.name, value=value),
                        Append(topic=self.name, value=value),
                    ]
                )
                self.acknowledged.add(number)
            except StoreUnavailable:
                self.refusals += 1
                self.slowest_refusal_seconds = max(self.slowest_refusal_seconds, CLOCK.monotonic() - asked_at)
                await asyncio.sleep(0.02)


async def test_no_acknowledged_write_is_gone_when_redis_is_killed_under_load() -> None:
    with RedisServer() as server:
        async with store_at(server) as store, Tasks() as tasks:
            writers = [Writer(store, f"writer {n}") for n in range(WRITERS)]
            for writer in writers:
                tasks.spawn(writer.run(), name=writer.name)
            for _ in range(3):
                await _each(writers, lambda writer: len(writer.acknowledged), more=20)
                async with down(server):
                    await _each(writers, lambda writer: writer.refusals, more=2)
            await _each(writers, lambda writer: len(writer.acknowledged), more=1)
        async with store_at(server) as store:
            for writer in writers:
                record = await store.get(WATCHED, writer.name)
                lines = Counter(int(line.value) for line in await store.log(writer.name, limit=100_000))
                assert record is not None and int(record.value) >= max(writer.acknowledged)
                assert writer.acknowledged <= set(lines)
                assert set(lines.values()) == {1}, "one was written twice"
                assert writer.slowest_refusal_seconds < CALL_SECONDS + 1.0
            assert await store.check() is None


async def _each(writers: Iterable[Writer], count: Callable[[Writer], int], *, more: int) -> None:
    before = [(writer, count(writer)) for writer in writers]
    await until(lambda: all(count(writer) >= start + more for writer, start in before), 15)


def calls(store: Store) -> list[Awaitable[object]]:
    """One of each."""
    row = ProcessRow(id="p", host="", pid=0, started_at=0.0, beat_at=0.0, is_hungry=False, status=b"")
    return [
        store.get(PLAIN, "a"),
        store.find(PLAIN),
        store.write([Put(kind=PLAIN, id="a", value=b"")]),
        store.generation(),
        store.changes(0),
        store.wait(0, 60),
        store.sweep(),
        store.log("t"),
        store.prune_log("t", 0),
        store.add_usage({USAGE: UsageCounts(requests=1)}),
        store.usage(0, 1),
        store.prune_usage(0),
        store.join(row, ()),
        store.beat("p", is_hungry=False, status=b""),
        store.leave("p"),
        store.processes(),
        store.take("p", SlotsWanted(names=("x",), capacity=1, need=1)),
        store.give("p", [Hold("x", 1)]),
        store.taken(""),
        store.draw([]),
        store.check(),
        store.erase(),
    ]


async def test_every_call_is_refused_in_time_while_redis_is_down_or_stands_still() -> None:
    with RedisServer() as server:
        async with store_at(server) as store:
            await store.write([Put(kind=WATCHED, id="a", value=b"")])
            since = await store.generation()
            async with down(server):
                assert await _refused(store) < CALL_SECONDS
            assert await store.generation() == since

            server.freeze()
            assert await _refused(store) < CALL_SECONDS + 1.0
            server.thaw()
            async with asyncio.timeout(5):
                assert await _again(store.processes) == []


async def _refused(store: Store) -> float:
    """All calls at a time; how long the slowest took."""
    started_at = CLOCK.monotonic()
    answers = await asyncio.gather(*calls(store), return_exceptions=True)
    answered = [answer for answer in answers if not isinstance(answer, StoreUnavailable)]
    assert answered == [[]], "only a draw of nothing needs no server"
    return CLOCK.monotonic() - started_at


async def _again(call: Callable[[], Awaitable[object]]) -> object:
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(0.01)


async def test_waiting_for_changes_goes_on_behind_an_outage() -> None:
    with RedisServer() as server:
        async with store_at(server) as store, store_at(server) as other, Tasks() as tasks:
            heard: list[int] = []

            async def listen() -> None:
                since = await store.generation()
                heard.append(since)
                while True:
                    try:
                        since = await store.wait(since, 60)
                        heard.append(since)
                    except StoreUnavailable:
                        await asyncio.sleep(0.05)

            tasks.spawn(listen(), name="listening")
            await until(lambda: len(heard) == 1)
            await other.write([Put(kind=WATCHED, id="a", value=b"")])
            await until(lambda: len(heard) == 2)
            async with down(server):
                pass
            written = await _again(lambda: other.write([Put(kind=WATCHED, id="a", value=b"")]))
            assert written is not None
            await until(lambda: len(heard) == 3)
            async with server.raw() as redis:
                await until_subscribed(redis.execute_command, 2)
            await other.write([Put(kind=WATCHED, id="a", value=b"")])
            await until(lambda: len(heard) == 4)


async def until_subscribed(command: Callable[..., Awaitable[object]], by: int) -> None:
    async with asyncio.timeout(5):
        while await command("PUBSUB", "NUMSUB", "{test}:changes") != ["{test}:changes", by]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Uses:
    """Two slots of one name in use, whatever happens, and one that is idle."""

    is_hungry = False

    def __init__(self) -> None:
        self.idle = 1

    def held(self) -> list[Hold]:
        return [Hold("account:a", 2 + self.idle)]

    def forget_idle(self) -> None:
        self.idle = 0

    async def after_beat(self, beat: Beat) -> None:
        pass


async def test_a_member_lapses_with_redis_and_comes_back_with_what_it_uses() -> None:
    turns: list[str] = []
    with RedisServer() as server:
        async with store_at(server) as store:
            membership = Membership(store, CLOCK, id="p")
            membership.add(Uses())
            membership.compete(Role("keeper", lambda: turns.append("began"), lambda: turns.append("ended")))
            async with membership:
                await until(lambda: turns == ["began"])
                assert await store.taken("") == {"account:a": 3, "role:keeper": 1}
                async with down(server):
                    await until(lambda: not membership.is_valid, 8)
                    with pytest.raises(StoreUnavailable, match="lost touch"):
                        membership.require()
                    await until(lambda: turns == ["began", "ended"])
                    await asyncio.sleep(1.0)  # until the others would count it as gone
                await until(lambda: membership.is_valid and turns == ["began", "ended", "began"], 8)
                assert await store.taken("") == {"account:a": 2, "role:keeper": 1}


async def test_four_processes_count_together_and_none_is_lost() -> None:
    prefix, times, processes = f"test-{SystemIds().token(12)}", 25, 4
    command = [sys.executable, "-m", "tests.support.counting_store", shared().url, prefix, str(times)]
    running = [await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE) for _ in range(processes)]
    conflicts = [int((await process.communicate())[0]) for process in running]
    assert sum(conflicts) > 0, "they never met"
    async with RedisStore(Secret(shared().socket_url), prefix, CLOCK) as store:
        for id in (*PAIR, GUARDED):
            assert await read(store, id) == (times * processes, times * processes)
        assert len(await store.log(TOPIC, limit=10_000)) == times * processes
        assert await store.taken("") == {}
        assert len(await store.find(NUMBER)) == 3
        assert await store.check() is None
