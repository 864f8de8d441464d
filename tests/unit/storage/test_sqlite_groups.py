"""Groups of calls when the disk is full or SQLite fails: who is told what, and what is there afterwards."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.storage.sqlite_groups import Groups
from qwen_proxy.storage.sqlite_schema import open_writing
from qwen_proxy.storage.sqlite_thread import Answers, Asked, DatabaseThread

LARGE = 2_000_000  # bytes, more than a small file holds


def small(path: Path) -> sqlite3.Connection:
    """A file that may grow by a few hundred kilobytes only, as on a disk that is nearly full."""
    db = open_writing(path, 1.0)
    db.execute("PRAGMA max_page_count=150")
    return db


def line(db: sqlite3.Connection, size_bytes: int) -> int:
    return db.execute("INSERT INTO log (topic, at, value) VALUES ('t', 0, ?)", (b"x" * size_bytes,)).rowcount


def lines(db: sqlite3.Connection) -> int:
    (count,) = db.execute("SELECT COUNT(*) FROM log").fetchone()
    return count


async def test_a_full_disk_is_told_to_whom_it_concerns_and_the_file_stays_whole(tmp_path: Path) -> None:
    async with DatabaseThread("small", lambda: small(tmp_path / "x.db"), Groups(1.0).answer) as thread:
        sizes = [10, LARGE, 10, LARGE, 10]
        outcomes = await asyncio.gather(
            *(thread.ask(lambda db, size=size: line(db, size), is_flushed=True) for size in sizes),
            return_exceptions=True,
        )
        kept = await thread.ask(lines)
        for size, outcome in zip(sizes, outcomes, strict=True):
            if size == LARGE:
                assert isinstance(outcome, StoreUnavailable) and "no space" in outcome.problem
        assert kept == outcomes.count(1)  # whoever was told that it is done, and nobody else
        with pytest.raises(StoreUnavailable, match="no space"):
            await thread.ask(lambda db: line(db, LARGE))
        assert await thread.ask(lambda db: line(db, 10)) == 1
        assert await thread.ask(lines) == kept + 1


async def test_when_sqlite_gives_up_the_transaction_nobody_is_told_that_it_is_done(tmp_path: Path) -> None:
    def give_up(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")  # as SQLite does by itself when it has no memory or no disk
        db.execute("SELECT * FROM none")

    async with DatabaseThread("small", lambda: small(tmp_path / "x.db"), Groups(1.0).answer) as thread:
        calls = [thread.ask(lambda db: line(db, 10)), thread.ask(give_up), thread.ask(lambda db: line(db, 10))]
        first = asyncio.gather(thread.ask(lines), *calls, return_exceptions=True)
        outcomes = await first
        told = [outcome for outcome in outcomes[1:] if not isinstance(outcome, StoreUnavailable)]
        assert isinstance(outcomes[2], StoreUnavailable)
        assert await thread.ask(lines) == len(told)
        with pytest.raises(StoreUnavailable):
            await thread.ask(give_up)  # in a group of its own
        assert await thread.ask(lambda db: line(db, 10)) == 1


async def test_a_commit_that_fails_is_told_to_all_of_the_group(tmp_path: Path) -> None:
    def promise(db: sqlite3.Connection) -> None:
        """What is broken is found out at the commit only."""
        db.execute("PRAGMA defer_foreign_keys=ON")
        db.execute("INSERT INTO child VALUES (7)")

    def opened() -> sqlite3.Connection:
        db = small(tmp_path / "x.db")
        db.execute("PRAGMA foreign_keys=ON")
        db.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        db.execute("CREATE TABLE child (id INTEGER REFERENCES parent (id))")
        return db

    async with DatabaseThread("small", opened, Groups(1.0).answer) as thread:
        with pytest.raises(sqlite3.IntegrityError):
            await thread.ask(promise)
        assert await thread.ask(lambda db: line(db, 10)) == 1
        assert await thread.ask(lambda db: db.execute("SELECT COUNT(*) FROM child").fetchone()) == (0,)


async def test_a_bug_in_a_thread_is_raised_where_something_was_asked(tmp_path: Path) -> None:
    def wrong(db: sqlite3.Connection, group: Sequence[Asked]) -> Answers:
        raise KeyError("a bug")

    async with DatabaseThread("wrong", lambda: small(tmp_path / "x.db"), wrong) as thread:
        for _ in range(2):
            with pytest.raises(KeyError):
                await thread.ask(lines)
