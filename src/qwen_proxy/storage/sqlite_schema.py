"""The tables of the SQLite file, as numbered steps, and opening a connection to it.

A step that was once released never changes; what comes later is a new step at the end. `PRAGMA user_version` is how
many of them a file has had.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from qwen_proxy.ground.errors import StoreUnavailable

FIRST_PAUSE_SECONDS: Final = 0.0002
MOST_PAUSE_SECONDS: Final = 0.005

# record.generation and gone: of watched kinds only. usage: hours and days are kept apart, so that each is pruned alone.
# counter: `generation` of Store.generation; `horizon`, before which it is not known what is gone.
_FIRST: Final = (
    """CREATE TABLE counter (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID""",
    """INSERT INTO counter VALUES ('generation', 0), ('horizon', 0)""",
    """CREATE TABLE record (
        kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL,
        expires_at REAL, generation INTEGER, PRIMARY KEY (kind, id))""",
    """CREATE INDEX record_generation ON record (generation) WHERE generation IS NOT NULL""",
    """CREATE INDEX record_expiry ON record (expires_at) WHERE expires_at IS NOT NULL""",
    """CREATE TABLE gone (
        kind TEXT NOT NULL, id TEXT NOT NULL, generation INTEGER NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (kind, id)) WITHOUT ROWID""",
    """CREATE INDEX gone_generation ON gone (generation)""",
    """CREATE TABLE log (
        number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, at REAL NOT NULL, value BLOB NOT NULL)""",
    """CREATE INDEX log_topic ON log (topic, number)""",
    """CREATE TABLE usage (
        by_day INTEGER NOT NULL, starts_at INTEGER NOT NULL, key TEXT NOT NULL, account TEXT NOT NULL,
        model TEXT NOT NULL, feature TEXT NOT NULL, requests INTEGER NOT NULL, failures INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
        PRIMARY KEY (by_day, starts_at, key, account, model, feature)) WITHOUT ROWID""",
    """CREATE TABLE process (
        id TEXT NOT NULL PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, started_at REAL NOT NULL,
        beat_at REAL NOT NULL, is_hungry INTEGER NOT NULL, status BLOB NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE slot (
        name TEXT NOT NULL, process TEXT NOT NULL, count INTEGER NOT NULL,
        PRIMARY KEY (name, process)) WITHOUT ROWID""",
    """CREATE INDEX slot_process ON slot (process)""",
    """CREATE TABLE allowance (
        name TEXT NOT NULL PRIMARY KEY, ends_at REAL NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID""",
)
STEPS: Final = (_FIRST,)
TABLES: Final = ("record", "gone", "log", "usage", "process", "slot", "allowance")  # what `erase` empties


def open_writing(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """The connection that writes: its statements fail at once where another process has the lock (see `attempts`).

    Makes the file, for its owner only, and brings its tables up to date. Raises StoreUnavailable.
    """
    try:
        _make(path)
    except OSError as error:
        raise StoreUnavailable(f"the database can't be made: {error.strerror}") from error
    return _opened(path, 0.0, lambda db: _set_up(db, busy_seconds))


def open_reading(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Of a file that `open_writing` has made. Raises StoreUnavailable."""
    return _opened(path, busy_seconds, _only_read)


def attempts(busy_seconds: float) -> Iterator[bool]:
    """For what another process's lock may refuse: waits before each but the first; True with the last within the time.

    SQLite's own waiting is not used: it grows to 100 ms, while a lock is kept for a part of a millisecond or for one
    flush to the disk; and it does not wait at all where a file is turned to WAL.
    """
    waited, pause = 0.0, FIRST_PAUSE_SECONDS
    while waited < busy_seconds:
        yield False
        time.sleep(pause)
        waited += pause
        pause = min(MOST_PAUSE_SECONDS, pause * 1.2)
    yield True


def is_busy(error: sqlite3.Error) -> bool:
    """Another process has the lock."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def in_our_words(error: sqlite3.Error) -> sqlite3.Error | StoreUnavailable:
    """A short fact: SQLite's own text may hold a path. What is a bug of ours stays as it is."""
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
        return error
    fact = _FACTS.get(_code(error), "the database fails")
    return StoreUnavailable(f"{fact} ({getattr(error, 'sqlite_errorname', 'unknown')})")


_FACTS: Final = {
    sqlite3.SQLITE_BUSY: "another process keeps the database locked",
    sqlite3.SQLITE_LOCKED: "another process keeps the database locked",
    sqlite3.SQLITE_FULL: "no space is left for the database",
    sqlite3.SQLITE_IOERR: "the disk with the database can't be read or written",
    sqlite3.SQLITE_READONLY: "the database can't be written to",
    sqlite3.SQLITE_CANTOPEN: "the database can't be opened",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_NOTADB: "the database is damaged: it is no SQLite file",
}


def _code(error: sqlite3.Error) -> int:
    """The primary code of an extended one."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # none where Python itself complains


def _make(path: Path) -> None:
    """SQLite gives the files beside it (-wal, -shm) the mode of the file."""
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _opened(path: Path, timeout_seconds: float, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, timeout=timeout_seconds, isolation_level=None, cached_statements=256)
        try:
            db.execute("PRAGMA trusted_schema=OFF")
            prepare(db)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise in_our_words(error) from error
    return db


def _only_read(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA query_only=ON")


def _set_up(db: sqlite3.Connection, busy_seconds: float) -> None:
    for is_last in attempts(busy_seconds):
        try:
            (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                raise StoreUnavailable(f"its file system does not let processes share a database (journal mode {mode})")
            if _steps_of(db) != len(STEPS):
                _bring_up_to_date(db)
            return
        except sqlite3.OperationalError as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if is_last or not is_busy(error):
                raise


def _steps_of(db: sqlite3.Connection) -> int:
    (steps,) = db.execute("PRAGMA user_version").fetchone()
    if steps > len(STEPS):
        raise StoreUnavailable(
            f"the database was written by a newer version of this program (its form is {steps}, known here is "
            f"{len(STEPS)}): start that version, or put back a backup made by this one"
        )
    return steps


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    for number, step in enumerate(STEPS[_steps_of(db) :], _steps_of(db) + 1):
        for statement in step:
            db.execute(statement)
        db.execute(f"PRAGMA user_version={number}")
    db.execute("COMMIT")
