"""What the SQLite store does beyond the interface: its files, its groups, its care, and what it says of a bad file."""

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import TRACE_SECONDS, Append, Conflict, Delete, Draw, Kind, Put
from qwen_proxy.storage.sqlite import SqliteStore
from tests.support.clock import FakeClock
from tests.support.freed import until

PLAIN = Kind(name="plain")
QUICK = Kind(name="quick", is_flushed=False)
WATCHED = Kind(name="watched", is_watched=True)


def put(id: str, value: bytes = b"v", kind: Kind = PLAIN, expect: int | None = None) -> Put:
    return Put(kind=kind, id=id, value=value, expect=expect)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "test.db"


@pytest.fixture
async def store(path: Path) -> AsyncGenerator[SqliteStore]:
    async with SqliteStore(path, FakeClock(), busy_seconds=0.2) as store:
        yield store


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def store_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("store ")]


# --- the file ----------------------------------------------------------------------------------------------


async def test_the_owner_alone_may_read_the_file_and_its_companions(store: SqliteStore, path: Path) -> None:
    await store.write([put("a")])
    assert names(path.parent) == ["test.db", "test.db-shm", "test.db-wal"]
    assert {mode(path.parent / name) for name in names(path.parent)} == {0o600}
    assert mode(path.parent) == 0o700


async def test_closed_it_is_one_file_and_no_thread(path: Path) -> None:
    async with SqliteStore(path, FakeClock()) as store:
        await store.write([put("a")])
        assert sorted(store_threads()) == ["store reader", "store writer"]
    assert names(path.parent) == ["test.db"]
    assert store_threads() == []


async def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    async with SqliteStore(tmp_path / "x.db", FakeClock()):
        pass
    assert mode(tmp_path) == 0o755


async def fails_to_open(path: Path) -> str:
    with pytest.raises(StoreUnavailable) as raised:
        async with SqliteStore(path, FakeClock(), busy_seconds=0.05):
            pass
    assert str(path) not in str(raised.value) and str(path.parent) not in str(raised.value)
    assert store_threads() == []
    return raised.value.problem


async def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "can't be made" in await fails_to_open(tmp_path / "file" / "x.db")
    assert "can't be made" in await fails_to_open(tmp_path)


async def test_what_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"something else" * 1000)
    assert "damaged" in await fails_to_open(path)
    assert path.read_bytes() == b"something else" * 1000


async def test_a_form_from_the_future_is_told_and_left_alone(path: Path) -> None:
    async with SqliteStore(path, FakeClock()) as store:
        await store.write([put("a")])
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=999")
    assert "newer version of this program" in await fails_to_open(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=1")
    async with SqliteStore(path, FakeClock()) as store:
        assert await store.get(PLAIN, "a") is not None


async def test_many_who_open_a_new_file_at_once_all_get_it(path: Path) -> None:
    async def opened(number: int) -> None:
        async with SqliteStore(path, FakeClock()) as store:
            await store.write([put(f"{number}")])

    await asyncio.gather(*(opened(number) for number in range(8)))
    async with SqliteStore(path, FakeClock()) as store:
        assert len(await store.find(PLAIN)) == 8


async def test_whoever_is_cancelled_while_it_opens_leaves_no_thread(path: Path) -> None:
    async def opened() -> None:
        async with SqliteStore(path, FakeClock()):
            pass

    async with Tasks() as tasks:
        for turns in range(12):
            task = tasks.spawn(opened(), name="opening")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert await until(lambda: not store_threads(), within_seconds=2)  # its last steps are its own


# --- others at work ----------------------------------------------------------------------------------------


async def test_a_lock_that_is_kept_too_long_is_told_and_nothing_is_lost_but_the_call(
    store: SqliteStore, path: Path
) -> None:
    await store.write([put("a")])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.write([put("b")])
        assert await store.get(PLAIN, "a") is not None  # a reader is not kept waiting
        other.execute("ROLLBACK")
    await store.write([put("c")])
    assert [record.id for record in await store.find(PLAIN)] == ["a", "c"]


async def test_a_lock_that_is_kept_for_a_moment_is_waited_for(path: Path) -> None:
    async with SqliteStore(path, FakeClock()) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with Tasks() as tasks:

                async def write() -> None:
                    await store.write([put("a")])

                task = tasks.spawn(write(), name="write")
                await asyncio.sleep(0.03)
                assert not task.done()
                other.execute("COMMIT")
                await task
        assert await store.get(PLAIN, "a") is not None


async def test_a_file_that_another_keeps_locked_while_it_is_made_is_waited_for(path: Path) -> None:
    os.mkdir(path.parent)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "locked" in await fails_to_open(path)
        async with Tasks() as tasks:

            async def opened() -> None:
                async with SqliteStore(path, FakeClock()) as store:
                    await store.write([put("a")])

            task = tasks.spawn(opened(), name="opening")
            await asyncio.sleep(0.02)
            other.execute("ROLLBACK")
            await task


# --- groups ------------------------------------------------------------------------------------------------


async def test_in_a_group_each_call_stands_or_falls_alone(store: SqliteStore) -> None:
    """All of them wait in the queue together, so they share transactions."""
    await store.write([put("there")])
    calls = [store.write([put(f"{n}"), put("there" if n % 3 == 0 else f"x{n}", expect=0)]) for n in range(60)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for n, outcome in enumerate(outcomes):
        assert isinstance(outcome, Conflict) == (n % 3 == 0)
        assert (await store.get(PLAIN, f"{n}") is None) == (n % 3 == 0)
    assert len(await store.find(PLAIN)) == 1 + 2 * 40


async def test_a_call_that_sqlite_refuses_leaves_the_others_of_its_group(store: SqliteStore) -> None:
    """A number beyond 64 bits, and text that is none: bugs of callers, raised where they were made."""
    too_much = Draw(name="n", ends_at=2e9, limit=2**70, need=2**65)
    outcomes = await asyncio.gather(
        store.write([put("a")]),
        store.draw([Draw(name="m", ends_at=2e9, limit=5, need=1), too_much]),
        store.write([put("b"), put("half \ud800 a character")]),
        store.write([put("c")]),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], OverflowError) and isinstance(outcomes[2], UnicodeEncodeError)
    assert [record.id for record in await store.find(PLAIN)] == ["a", "c"]
    (drawn,) = await store.draw([Draw(name="m", ends_at=2e9, limit=5, need=1)])
    assert drawn.used == 1
    with pytest.raises(OverflowError):  # alone, in a group of one
        await store.draw([too_much])
    with pytest.raises(UnicodeEncodeError):
        await store.get(PLAIN, "\ud800")
    assert await store.get(PLAIN, "b") is None
    assert await store.check() is None


async def test_leaving_waits_for_what_was_asked_before(path: Path) -> None:
    async with SqliteStore(path, FakeClock()) as store, Tasks() as tasks:

        async def write(number: int) -> None:
            await store.write([put(f"{number}", kind=QUICK if number % 2 else PLAIN)])

        for number in range(50):
            tasks.spawn(write(number), name="write")
        await asyncio.sleep(0)  # all have asked, and are cancelled before they are answered
    async with SqliteStore(path, FakeClock()) as store:
        assert len(await store.find(PLAIN)) == len(await store.find(QUICK)) == 25


async def test_a_closed_store_says_so(path: Path) -> None:
    async with SqliteStore(path, FakeClock()) as store:
        pass
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.get(PLAIN, "a")
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.write([put("a")])


# --- care --------------------------------------------------------------------------------------------------


async def test_traces_of_deleted_records_are_swept_after_their_time(path: Path) -> None:
    clock = FakeClock()
    async with SqliteStore(path, clock) as store:
        start = (await store.write([put("kept", kind=WATCHED), put("old", kind=WATCHED)])).generation
        deleted = (await store.write([Delete(kind=WATCHED, id="old")])).generation
        await clock.advance(TRACE_SECONDS - 1)
        await store.sweep()
        assert [gone.id for gone in (await store.changes(start)).gone] == ["old"]
        later = (await store.write([Delete(kind=WATCHED, id="never")])).generation
        await clock.advance(2)
        await store.sweep()
        assert not (await store.changes(start)).is_complete
        changes = await store.changes(deleted)
        assert changes.is_complete and [gone.id for gone in changes.gone] == ["never"]
        assert (await store.changes(later)).is_complete


def damage(path: Path, *, at: int, size_bytes: int) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + size_bytes] = b"\xff" * size_bytes
    path.write_bytes(content)


async def test_a_damaged_file_is_told_by_the_check(path: Path) -> None:
    async with SqliteStore(path, FakeClock()) as store:
        await store.write([put(f"{n:04}", b"x" * 3000) for n in range(200)])
    damage(path, at=400_000, size_bytes=20_000)
    async with SqliteStore(path, FakeClock()) as store:
        problem = await store.check()
        assert problem is not None and "damaged" in problem
        with pytest.raises(StoreUnavailable, match="damaged"):
            await store.find(PLAIN)
        assert await store.generation() == 0  # what can be read is
        with pytest.raises(StoreUnavailable, match="backup is of no use"):
            await store.backup(path.parent / "copy")
    assert names(path.parent) == ["test.db"]


async def test_a_file_that_is_damaged_throughout_is_told_by_the_check(path: Path) -> None:
    async with SqliteStore(path, FakeClock()) as store:
        await store.write([put("a")])
    async with SqliteStore(path, FakeClock()) as store:
        damage(path, at=100, size_bytes=3_000)  # the list of its tables
        problem = await store.check()
        assert problem is not None and "damaged" in problem
    assert "damaged" in await fails_to_open(path)


async def test_a_backup_is_one_whole_moment_while_others_write(path: Path, tmp_path: Path) -> None:
    async with SqliteStore(path, SystemClock()) as store, SqliteStore(path, SystemClock()) as other:
        is_done = False

        async def write() -> None:
            number = 0
            while not is_done:
                number += 1
                await other.write([put("a", b"%d" % number), put("b", b"%d" % number), put(f"{number}", b"x" * 2000)])

        async with Tasks() as tasks:
            task = tasks.spawn(write(), name="write")
            for number in range(5):
                await store.backup(tmp_path / f"{number}.backup")
            is_done = True
            await task
    sizes: list[int] = []
    for number in range(5):
        copy = tmp_path / f"{number}.backup"
        assert mode(copy) == 0o600
        async with SqliteStore(copy, SystemClock()) as again:
            assert await again.check() is None
            a, b = await again.get(PLAIN, "a"), await again.get(PLAIN, "b")
            assert (a and a.value) == (b and b.value)
            sizes.append(len(await again.find(PLAIN, limit=10**6)))
    assert sizes == sorted(sizes)
    assert names(tmp_path) == [*(f"{n}.backup" for n in range(5)), "data"]


async def test_a_backup_never_replaces_a_file(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    await store.write([put("a")])
    with pytest.raises(StoreUnavailable, match="already"):
        await store.backup(path)
    assert await store.check() is None
    with pytest.raises(StoreUnavailable, match="can't be written: No such file"):
        await store.backup(tmp_path / "none" / "x")
    assert names(tmp_path) == ["data"]


async def test_the_log_keeps_its_numbers_through_a_reopening(path: Path) -> None:
    async with SqliteStore(path, FakeClock()) as store:
        await store.write([Append(topic="t", value=b"1")])
        (line,) = await store.log("t")
        await store.prune_log("t", line.at + 1)
    async with SqliteStore(path, FakeClock()) as store:
        await store.write([Append(topic="t", value=b"2")])
        assert (await store.log("t"))[0].number > line.number
