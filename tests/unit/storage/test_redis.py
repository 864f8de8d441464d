"""What the Redis store does beyond what every store must: its connections, and what becomes of a lost answer."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from redis.crc import key_slot

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import Append, Charge, Hold, Kind, ProcessRow, Put, SlotsWanted, UsageCounts, UsageKey
from qwen_proxy.storage.redis import LOOK_SECONDS, RedisStore
from tests.support.certificates import Authority
from tests.support.clock import FakeClock
from tests.support.forwarder import Forwarder
from tests.support.redis_server import Raw, RedisServer, has_tls, shared
from tests.support.waiting import until

PLAIN = Kind(name="plain")
WATCHED = Kind(name="watched", is_watched=True)
CLOCK = SystemClock()


def prefix() -> str:
    return f"test-{SystemIds().token(12)}"


def store_at(url: str, prefix: str, ca_file: Path | None = None) -> RedisStore:
    return RedisStore(Secret(url), prefix, CLOCK, ca_file=ca_file)


def put(id: str, kind: Kind = PLAIN) -> Put:
    return Put(kind=kind, id=id, value=b"v")


def row(id: str) -> ProcessRow:
    return ProcessRow(id=id, host="h", pid=1, started_at=0.0, beat_at=0.0, is_hungry=False, status=b"")


async def refused(url: str, ca_file: Path | None = None) -> str:
    """What opening a store there says."""
    with pytest.raises(StoreUnavailable) as raised:
        async with store_at(url, prefix(), ca_file):
            pass
    assert "canary" not in str(raised.value)
    return raised.value.problem


# --- a command is sent once --------------------------------------------------------------------------------


def lost(data: bytes) -> bytes | None:
    return None


async def test_a_lost_answer_is_told_and_the_call_was_done_once() -> None:
    name = prefix()
    async with (
        Forwarder(shared().port) as between,
        store_at(f"redis://127.0.0.1:{between.port}", name) as store,
        store_at(shared().socket_url, name) as other,
    ):
        await store.join(row("p"), ())
        key = UsageKey(starts_at=0, key="k", account="a", model="m", feature="f")
        await store.add_usage({key: UsageCounts(requests=1)})
        wanted = SlotsWanted(names=("x",), capacity=9, need=1)

        between.answer = lost
        with pytest.raises(StoreUnavailable, match="broke off"):
            await store.take("p", wanted)
        with pytest.raises(StoreUnavailable):
            await store.add_usage({key: UsageCounts(requests=1)})
        between.answer = lambda data: data

        assert await store.taken("") == {"x": 1}
        assert await other.usage(0, 1) == {key: UsageCounts(requests=2)}
        await store.join(row("p"), [Hold("x", 0)])  # as the membership does when an answer was lost
        assert await other.taken("") == {}


async def test_a_connection_that_was_closed_while_it_was_idle_is_made_anew_without_a_word() -> None:
    name = prefix()
    async with (
        Forwarder(shared().port) as between,
        store_at(f"redis://127.0.0.1:{between.port}", name) as store,
        shared().raw() as redis,
    ):
        await store.write([put("a")])
        await _until_heard(redis, name, 1)
        connections, open = between.connections, between.open
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: between.open < open)
        assert await store.get(PLAIN, "a") is not None
        assert between.connections > connections


async def test_scripts_that_the_server_has_forgotten_are_sent_anew() -> None:
    async with store_at(shared().socket_url, prefix()) as store, shared().raw() as redis:
        await store.write([put("a")])
        await redis.execute_command("SCRIPT", "FLUSH")
        assert (await store.write([put("a")])).versions == (2,)


async def test_a_caller_who_is_cancelled_costs_no_connection_for_ever() -> None:
    async with store_at(shared().socket_url, prefix()) as store, Tasks() as tasks:
        for turns in range(100):
            task = tasks.spawn(_ask(store), name="asking")
            for _ in range(turns % 12):
                await asyncio.sleep(0)
            task.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*(store.get(PLAIN, "a") for _ in range(20)))


async def _ask(store: RedisStore) -> None:
    await store.get(PLAIN, "a")


# --- changes are pushed ------------------------------------------------------------------------------------


async def told(store: RedisStore, other: RedisStore, clock: FakeClock, *, pass_seconds: float = 0.0) -> None:
    """Returns when who waits at the one store has got what is written at the other. The clock stands still but for
    `pass_seconds` behind the write, so that nobody looks by himself."""
    since = await store.generation()
    sleepers = clock.sleepers
    found: list[int] = []

    async def wait() -> None:
        found.append(await store.wait(since, 30))

    async with Tasks() as tasks:
        waiting = tasks.spawn(wait(), name="waiting")
        await until(lambda: clock.sleepers > sleepers)
        written = await other.write([put("a", WATCHED)])
        if pass_seconds:
            await clock.advance(pass_seconds)
        async with asyncio.timeout(10):
            await waiting
    assert found == [written.generation]


async def test_a_change_is_told_at_once_and_one_whose_message_got_lost_a_second_later() -> None:
    name, clock = prefix(), FakeClock()
    url = Secret(shared().socket_url)
    async with RedisStore(url, name, clock) as store, RedisStore(url, name, clock) as other, shared().raw() as redis:
        await _until_heard(redis, name, 2)
        await told(store, other, clock)
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await _until_heard(redis, name, 0)
        await until(lambda: clock.sleepers == 2)  # both rest before they subscribe anew
        await told(store, other, clock, pass_seconds=LOOK_SECONDS)
        await _until_heard(redis, name, 2)
        await told(store, other, clock)


async def _until_heard(redis: Raw, name: str, by: int) -> None:
    async with asyncio.timeout(5):
        while await redis.execute_command("PUBSUB", "NUMSUB", channel := f"{{{name}}}:changes") != [channel, by]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# --- who may connect, and how ------------------------------------------------------------------------------


async def test_a_user_a_password_and_a_database() -> None:
    with RedisServer("--requirepass", "p@ss", "--user", "app", "on", ">s:cret", "~*", "&*", "+@all") as server:
        at = f"127.0.0.1:{server.port}"
        async with store_at(f"redis://:p%40ss@{at}/3", "one") as store:
            await store.write([put("a")])
        async with store_at(f"redis://app:s%3Acret@{at}/3", "one") as store:
            assert await store.get(PLAIN, "a") is not None
        async with store_at(f"unix://:p%40ss@{server.socket}?db=3", "one") as store:
            assert await store.get(PLAIN, "a") is not None
        async with store_at(f"redis://:p%40ss@{at}", "one") as store:
            assert await store.get(PLAIN, "a") is None
        assert "wants a password" in await refused(f"redis://{at}")
        assert "refuses the user or the password" in await refused(f"redis://app:canary@{at}")
        assert "refuses the user or the password" in await refused(f"unix://:canary@{server.socket}")


async def test_a_user_with_few_rights_is_enough() -> None:
    """Those of a managed service: no settings to read, no channels; changes are then seen each second."""
    rights = ["~{one}:*", "resetchannels", "-@all", "+eval", "+evalsha", "+get", "+@read", "+@write", "+time", "-info"]
    with RedisServer("--user", "app", "on", ">pw", *rights) as server:
        url = f"redis://app:pw@127.0.0.1:{server.port}"
        clock = FakeClock()
        async with RedisStore(Secret(url), "one", clock) as store, RedisStore(Secret(url), "one", clock) as other:
            assert await store.warnings() == ()
            await store.join(row("p"), ())
            assert (await store.take("p", SlotsWanted(names=("x",), capacity=1, need=1))).holds == (Hold("x", 1),)
            await until(lambda: clock.sleepers == 2)  # refused the channel
            await told(store, other, clock, pass_seconds=LOOK_SECONDS)
            assert await store.check() is None
        assert "see its ACL" in await refused(url)  # another prefix than it has rights to


async def test_certificates_are_checked(tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "foreign")
    async with tls_server(ours, "localhost") as port:
        url = f"rediss://localhost:{port}"
        async with store_at(url, "one", ours.ca_file) as store:
            assert (await store.write([put("a", WATCHED)])).versions == (1,)
            assert await store.get(PLAIN, "b") is None
        assert "certificate is not trusted" in await refused(url, foreign.ca_file)
        assert "certificate is not trusted" in await refused(url)
        assert "certificate is another host's" in await refused(f"rediss://127.0.0.1:{port}", ours.ca_file)
        assert await refused(f"redis://localhost:{port}") == "the connection broke off"


@asynccontextmanager
async def tls_server(authority: Authority, host: str) -> AsyncGenerator[int]:
    """Redis's own TLS, where the program has it; else in front of it."""
    issued = authority.issue(host)
    if has_tls():
        files = ("--tls-cert-file", str(issued.file), "--tls-key-file", str(issued.key_file))
        with RedisServer(*files, "--tls-auth-clients", "no", is_tls=True) as server:
            yield server.port
    else:
        async with Forwarder(shared().port, tls=issued.context()) as before:
            yield before.port


async def test_installations_with_other_prefixes_do_not_see_each_other() -> None:
    first, second = prefix(), prefix()
    async with store_at(shared().socket_url, first) as one, store_at(shared().socket_url, second) as two:
        await one.write([put("a", WATCHED)])
        await two.write([put("b", WATCHED)])
        await one.join(row("p"), [Hold("x", 1)])
        await two.erase()
        assert await one.get(WATCHED, "a") is not None
        assert await one.taken("") == {"x": 1}
        assert await two.find(WATCHED) == []


async def test_all_keys_are_in_one_slot() -> None:
    name = prefix()
    async with store_at(shared().socket_url, name) as store, shared().raw() as redis:
        await store.write([put("a}b{c", WATCHED)])
        await store.join(row("{p}"), [Hold("{x}", 1)])
        keys = msgspec.convert(await redis.execute_command("KEYS", f"*{name}*"), list[str])
        assert len(keys) > 5
        assert len({key_slot(key.encode()) for key in keys}) == 1


# --- servers that won't do ---------------------------------------------------------------------------------


async def test_nobody_answers(tmp_path: Path) -> None:
    assert await refused("redis://:canary@127.0.0.1:1") == "connection refused"
    assert await refused(f"unix://:canary@{tmp_path}/canary.sock") == "there is no such socket"
    assert await refused("redis://canary.invalid") == "its name has no address"


async def test_a_server_that_is_no_redis() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await refused(f"redis://:canary@127.0.0.1:{port}") == "what answers there is no Redis"


async def test_a_server_that_is_too_old() -> None:
    async with Forwarder(shared().port) as between:
        between.answer = lambda data: re.sub(rb"redis_version:\d", b"redis_version:5", data)
        assert "is too old: 6.2 or later" in await refused(f"redis://127.0.0.1:{between.port}")


async def test_a_server_that_became_a_replica_is_looked_for_anew() -> None:
    """Where a name leads to another server by now, as managed services have it."""
    with RedisServer() as server:
        async with Forwarder(server.port) as between:
            async with store_at(f"redis://127.0.0.1:{between.port}", "one") as store:
                async with server.raw() as redis:
                    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
                    connections = between.connections
                    with pytest.raises(StoreUnavailable, match="replica"):
                        await store.write([put("a")])
                    await redis.execute_command("REPLICAOF", "NO", "ONE")
                    assert (await store.write([put("a")])).versions == (1,)
                    assert between.connections > connections


async def test_settings_that_lose_data_are_warned_of() -> None:
    async with store_at(shared().socket_url, prefix()) as store:
        assert await store.warnings() == ()
    with RedisServer("--appendonly", "no", "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru") as server:
        async with store_at(server.url, "one") as store:
            first, second = await store.warnings()
            assert "appendonly no" in first and "allkeys-lru" in second


async def test_a_server_without_room_refuses_and_has_changed_nothing() -> None:
    with RedisServer() as server:
        async with store_at(server.url, "one") as store, server.raw() as redis:
            await store.write([put("a", WATCHED)])
            before = await store.generation()
            await redis.execute_command("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(StoreUnavailable, match="memory is full"):
                await store.write([put("b", WATCHED), put("c")])
            with pytest.raises(StoreUnavailable, match="memory is full"):
                await store.write([put("a")])
            await redis.execute_command("CONFIG", "SET", "maxmemory", "0")
            assert await store.generation() == before
            assert await store.get(PLAIN, "a") is None
            assert await store.check() is None


async def test_records_that_vanished_and_counts_that_do_not_fit_are_found() -> None:
    name = prefix()
    async with store_at(shared().socket_url, name) as store, shared().raw() as redis:
        await store.write([put(f"{n:04}") for n in range(1200)])
        await store.join(row("p"), [Hold("x", 1), Hold("y", 2)])
        assert await store.check() is None
        await redis.execute_command("DEL", f"{{{name}}}:record:plain:0000", f"{{{name}}}:record:plain:1100")
        assert (await store.check() or "").startswith("2 records are gone that nobody deleted")
        await store.write([put("0000"), put("1100")])
        await redis.execute_command("HDEL", f"{{{name}}}:taken", "x")
        assert "the count of slots" in (await store.check() or "")
        await store.join(row("p"), ())
        assert await store.check() is None


async def test_a_record_that_the_server_let_expire_by_itself_may_be_put_anew() -> None:
    """Nobody swept; what stood in the lists of a past life must not end the new one."""
    name = prefix()
    async with store_at(shared().socket_url, name) as store, shared().raw() as redis:
        await store.write([Put(kind=PLAIN, id="a", value=b"v", lasts_seconds=0.05)])
        await redis.execute_command("PEXPIRE", f"{{{name}}}:record:plain:a", 1)
        async with asyncio.timeout(5):
            while await redis.execute_command("EXISTS", f"{{{name}}}:record:plain:a"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert await store.find(PLAIN) == []
        assert (await store.write([put("a")])).versions == (1,)
        await asyncio.sleep(0.06)
        await store.sweep()
        assert await store.get(PLAIN, "a") is not None
        assert await store.check() is None


async def test_what_goes_by_pages_is_done_whole() -> None:
    name = prefix()
    many = 1200  # more than two pages of each
    async with store_at(shared().socket_url, name) as store, shared().raw() as redis:
        long_ago = CLOCK.now() - 1000
        await store.write([Append(topic="t", value=b"", at=long_ago + n % 2 * 2000) for n in range(many)])
        await store.write([Put(kind=WATCHED, id=f"{n}", value=b"", lasts_seconds=0.001) for n in range(many)])
        await store.charge([])
        await store.charge([Charge(name=f"{n}", ends_at=CLOCK.now() + 0.05, amount=1) for n in range(many)])
        hours = [UsageKey(starts_at=n * 3600, key="", account="", model="", feature="") for n in range(many)]
        await store.add_usage(dict.fromkeys(hours, UsageCounts(requests=1)))
        await asyncio.sleep(0.06)

        await store.sweep()
        await store.prune_log("t", CLOCK.now())
        assert len(await store.usage(0, 1e9)) == many
        await store.prune_usage(1000 * 3600)
        assert list(await store.usage(0, 1e9)) == hours[1000:]
        assert len(await store.log("t", limit=many)) == many // 2
        left = msgspec.convert(await redis.execute_command("KEYS", f"{{{name}}}:*"), list[str])
        assert not [key for key in left if ":record:" in key or ":index:" in key or key.endswith((":ends", ":used"))]
