"""Records, the log and usage in SQLite: each function is one call, within a transaction of its caller's."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from qwen_proxy.state.store import (
    DAY_SECONDS,
    TRACE_SECONDS,
    Append,
    Change,
    Changes,
    Conflict,
    Delete,
    Gone,
    Kind,
    LogLine,
    Put,
    Record,
    UsageCounts,
    UsageKey,
    Written,
)
from qwen_proxy.storage.sqlite_schema import TABLES

_LIVE: Final = "(expires_at IS NULL OR expires_at > ?)"
_COLUMNS: Final = "kind, id, version, value, expires_at"


def generation(db: sqlite3.Connection) -> int:
    return _counter(db, "generation")


def get(db: sqlite3.Connection, kind: str, id: str, now: float) -> Record | None:
    query = f"SELECT {_COLUMNS} FROM record WHERE kind = ? AND id = ? AND {_LIVE}"
    row = db.execute(query, (kind, id, now)).fetchone()
    return None if row is None else _record(row)


def find(db: sqlite3.Connection, kind: str, after: str, limit: int, now: float) -> list[Record]:
    query = f"SELECT {_COLUMNS} FROM record WHERE kind = ? AND id > ? AND {_LIVE} ORDER BY id LIMIT ?"
    return [_record(row) for row in db.execute(query, (kind, after, now, limit))]


def write(db: sqlite3.Connection, changes: Sequence[Change], now: float) -> Written:
    """Raises Conflict before anything is changed."""
    expected = [change for change in changes if not isinstance(change, Append) and change.expect is not None]
    for change in expected:
        if change.expect != _version(db, change.kind, change.id, now):
            raise Conflict(change.kind.name, change.id)
    if any(not isinstance(change, Append) and change.kind.is_watched for change in changes):
        db.execute("UPDATE counter SET value = value + 1 WHERE name = 'generation'")
    at = generation(db)
    versions: list[int] = []
    for change in changes:
        match change:
            case Put():
                versions.append(_put(db, change, at, now))
            case Delete():
                _delete(db, change, at, now)
            case Append():
                line = (change.topic, now if change.at is None else change.at, change.value)
                db.execute("INSERT INTO log (topic, at, value) VALUES (?, ?, ?)", line)
    return Written(generation=at, versions=tuple(versions))


def changes(db: sqlite3.Connection, since: int, now: float) -> Changes:
    last = generation(db)
    if not _counter(db, "horizon") <= since <= last:
        return Changes(generation=last, records=(), gone=(), is_complete=False)
    rows = db.execute(f"SELECT {_COLUMNS} FROM record WHERE generation > ?", (since,))
    records: list[Record] = []
    gone = [
        Gone(kind=kind, id=id) for kind, id in db.execute("SELECT kind, id FROM gone WHERE generation > ?", (since,))
    ]
    for record in map(_record, rows):
        if record.expires_at is None or record.expires_at > now:
            records.append(record)
        else:
            gone.append(Gone(kind=record.kind, id=record.id))
    return Changes(generation=last, records=tuple(records), gone=tuple(gone))


def sweep(db: sqlite3.Connection, now: float) -> None:
    """Records, and traces of those that were deleted long ago."""
    db.execute(
        "INSERT OR REPLACE INTO gone SELECT kind, id, generation, ? FROM record"
        " WHERE expires_at <= ? AND generation IS NOT NULL",
        (now, now),
    )
    db.execute("DELETE FROM record WHERE expires_at <= ?", (now,))
    old = (now - TRACE_SECONDS,)
    (last,) = db.execute("SELECT MAX(generation) FROM gone WHERE at <= ?", old).fetchone()
    if last is not None:
        db.execute("UPDATE counter SET value = MAX(value, ?) WHERE name = 'horizon'", (last,))
        db.execute("DELETE FROM gone WHERE at <= ?", old)


def erase(db: sqlite3.Connection) -> None:
    for table in TABLES:
        db.execute(f"DELETE FROM {table}")
    db.execute("UPDATE counter SET value = value + 1 WHERE name = 'generation'")
    db.execute("UPDATE counter SET value = ? WHERE name = 'horizon'", (generation(db),))


def _counter(db: sqlite3.Connection, name: str) -> int:
    (value,) = db.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
    return value


def _record(row: tuple[str, str, int, bytes, float | None]) -> Record:
    kind, id, version, value, expires_at = row
    return Record(kind=kind, id=id, version=version, value=value, expires_at=expires_at)


def _version(db: sqlite3.Connection, kind: Kind, id: str, now: float) -> int:
    query = f"SELECT version FROM record WHERE kind = ? AND id = ? AND {_LIVE}"
    row = db.execute(query, (kind.name, id, now)).fetchone()
    return 0 if row is None else row[0]


def _put(db: sqlite3.Connection, put: Put, at: int, now: float) -> int:
    version = _version(db, put.kind, put.id, now) + 1
    expires_at = None if put.lasts_seconds is None else now + put.lasts_seconds
    db.execute(
        "INSERT OR REPLACE INTO record (kind, id, version, value, expires_at, generation) VALUES (?, ?, ?, ?, ?, ?)",
        (put.kind.name, put.id, version, put.value, expires_at, at if put.kind.is_watched else None),
    )
    if put.kind.is_watched:
        db.execute("DELETE FROM gone WHERE kind = ? AND id = ?", (put.kind.name, put.id))
    return version


def _delete(db: sqlite3.Connection, delete: Delete, at: int, now: float) -> None:
    db.execute("DELETE FROM record WHERE kind = ? AND id = ?", (delete.kind.name, delete.id))
    if delete.kind.is_watched:
        trace = (delete.kind.name, delete.id, at, now)
        db.execute("INSERT OR REPLACE INTO gone (kind, id, generation, at) VALUES (?, ?, ?, ?)", trace)


# --- the log -----------------------------------------------------------------------------------------------


def log(db: sqlite3.Connection, topic: str, before: int | None, limit: int) -> list[LogLine]:
    query = "SELECT number, at, value FROM log WHERE topic = ? AND number < ? ORDER BY number DESC LIMIT ?"
    rows = db.execute(query, (topic, 2**63 - 1 if before is None else before, limit))
    return [LogLine(number=number, at=at, value=value) for number, at, value in rows]


def prune_log(db: sqlite3.Connection, topic: str, before_at: float) -> None:
    db.execute("DELETE FROM log WHERE topic = ? AND at < ?", (topic, before_at))


# --- usage -------------------------------------------------------------------------------------------------


def add_usage(db: sqlite3.Connection, counts: Mapping[UsageKey, UsageCounts]) -> None:
    rows: list[tuple[bool, int, str, str, str, str, int, int, int, int, int]] = []
    for hour, more in counts.items():
        day = replace(hour, starts_at=hour.starts_at - hour.starts_at % DAY_SECONDS)
        for by_day, key in ((False, hour), (True, day)):
            rows.append(
                (by_day, key.starts_at, key.key, key.account, key.model, key.feature, more.requests, more.failures)
                + (more.prompt_tokens, more.completion_tokens, more.reasoning_tokens)
            )
    db.executemany(
        "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (by_day, starts_at, key, account, model, feature) DO UPDATE SET"
        " requests = requests + excluded.requests, failures = failures + excluded.failures,"
        " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
        " completion_tokens = completion_tokens + excluded.completion_tokens,"
        " reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens",
        rows,
    )


def usage(db: sqlite3.Connection, since: float, until: float, by_day: bool) -> dict[UsageKey, UsageCounts]:
    rows = db.execute(
        "SELECT starts_at, key, account, model, feature,"
        " requests, failures, prompt_tokens, completion_tokens, reasoning_tokens FROM usage"
        " WHERE by_day = ? AND starts_at >= ? AND starts_at < ? ORDER BY starts_at, key, account, model, feature",
        (by_day, since, until),
    )
    return {
        UsageKey(starts_at=starts_at, key=key, account=account, model=model, feature=feature): UsageCounts(
            requests=requests,
            failures=failures,
            prompt_tokens=prompt,
            completion_tokens=completion,
            reasoning_tokens=reasoning,
        )
        for starts_at, key, account, model, feature, requests, failures, prompt, completion, reasoning in rows
    }


def prune_usage(db: sqlite3.Connection, before_at: float, by_day: bool) -> None:
    db.execute("DELETE FROM usage WHERE by_day = ? AND starts_at < ?", (by_day, before_at))
