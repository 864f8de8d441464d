"""Processes, slots and allowances in SQLite: each function is one call, within a transaction of its caller's."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from qwen_proxy.state.store import (
    PROCESS_SECONDS,
    Beat,
    Charge,
    Draw,
    Drawn,
    Hold,
    ProcessRow,
    SlotsTaken,
    SlotsWanted,
)
from qwen_proxy.storage.sharing import Claim, share, shared_out

FEW_NAMES: Final = 16  # for more of them one walk over the table costs less than a search for each


def join(db: sqlite3.Connection, row: ProcessRow, holds: Sequence[Hold], now: float) -> None:
    leave(db, row.id)
    db.execute(
        "INSERT INTO process (id, host, pid, started_at, beat_at, is_hungry, status) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (row.id, row.host, row.pid, row.started_at, now, row.is_hungry, row.status),
    )
    _hold(db, row.id, holds)


def beat(db: sqlite3.Connection, process: str, is_hungry: bool, status: bytes, now: float) -> Beat:
    living = _bury(db, now)
    known = db.execute(
        "UPDATE process SET beat_at = ?, is_hungry = ?, status = ? WHERE id = ?", (now, is_hungry, status, process)
    )
    (others,) = db.execute("SELECT COUNT(*) FROM process WHERE is_hungry AND id != ?", (process,)).fetchone()
    return Beat(is_known=known.rowcount > 0, processes=len(living), others_are_hungry=others > 0)


def leave(db: sqlite3.Connection, process: str) -> None:
    db.execute("DELETE FROM process WHERE id = ?", (process,))
    db.execute("DELETE FROM slot WHERE process = ?", (process,))


def processes(db: sqlite3.Connection, now: float) -> list[ProcessRow]:
    rows = db.execute(
        "SELECT id, host, pid, started_at, beat_at, is_hungry, status FROM process WHERE beat_at > ? ORDER BY id",
        (now - PROCESS_SECONDS,),
    )
    return [
        ProcessRow(
            id=id,
            host=host,
            pid=pid,
            started_at=started_at,
            beat_at=beat_at,
            is_hungry=bool(is_hungry),
            status=status,
        )
        for id, host, pid, started_at, beat_at, is_hungry, status in rows
    ]


def take(db: sqlite3.Connection, process: str, wanted: SlotsWanted, now: float) -> SlotsTaken:
    living = _bury(db, now)
    if process not in living:
        return SlotsTaken(holds=(), full=())
    claims = _claims(db, wanted.names)
    holds = shared_out(claims, wanted, len(living))
    _hold(db, process, holds)
    granted = {hold.name: hold.count for hold in holds}
    full = tuple(claim.name for claim in claims if claim.taken + granted.get(claim.name, 0) >= wanted.capacity)
    return SlotsTaken(holds=holds, full=full)


def give(db: sqlite3.Connection, process: str, holds: Sequence[Hold]) -> None:
    db.executemany(
        "UPDATE slot SET count = count - ? WHERE name = ? AND process = ?",
        [(hold.count, hold.name, process) for hold in holds],
    )
    db.executemany(
        "DELETE FROM slot WHERE name = ? AND process = ? AND count <= 0", [(hold.name, process) for hold in holds]
    )


def taken(db: sqlite3.Connection, prefix: str, now: float) -> dict[str, int]:
    rows = db.execute(
        "SELECT name, SUM(count) FROM slot WHERE name >= ? AND substr(name, 1, ?) = ?"
        " AND process IN (SELECT id FROM process WHERE beat_at > ?) GROUP BY name",
        (prefix, len(prefix), prefix, now - PROCESS_SECONDS),
    )
    return dict(rows.fetchall())


def draw(db: sqlite3.Connection, draws: Sequence[Draw], now: float) -> list[Drawn]:
    living = len(_bury(db, now))
    return [_draw(db, each, living, now) for each in draws]


def charge(db: sqlite3.Connection, charges: Sequence[Charge], now: float) -> None:
    for each in charges:
        if each.ends_at > now:
            _use(db, each.name, each.ends_at, max(0, _used(db, each.name, now) + each.amount))


def sweep(db: sqlite3.Connection, now: float) -> None:
    db.execute("DELETE FROM allowance WHERE ends_at <= ?", (now,))


def _bury(db: sqlite3.Connection, now: float) -> set[str]:
    """Free what the gone have held. Returns who lives."""
    living: set[str] = set()
    for id, beat_at in db.execute("SELECT id, beat_at FROM process").fetchall():
        if beat_at > now - PROCESS_SECONDS:
            living.add(id)
        else:
            leave(db, id)
    return living


def _claims(db: sqlite3.Connection, names: Sequence[str]) -> list[Claim]:
    if len(names) <= FEW_NAMES:
        return [Claim(name, _held(db, name)) for name in names]
    # Many of them are most of what there is between the first and the last: one walk over that.
    rows = db.execute(
        "SELECT name, SUM(count) FROM slot WHERE name >= ? AND name <= ? GROUP BY name", (min(names), max(names))
    )
    taken = dict(rows.fetchall())
    return [Claim(name, taken.get(name, 0)) for name in names]


def _held(db: sqlite3.Connection, name: str) -> int:
    return sum(count for (count,) in db.execute("SELECT count FROM slot WHERE name = ?", (name,)))


def _hold(db: sqlite3.Connection, process: str, holds: Sequence[Hold]) -> None:
    db.executemany(
        "INSERT INTO slot (name, process, count) VALUES (?, ?, ?)"
        " ON CONFLICT (name, process) DO UPDATE SET count = count + excluded.count",
        [(hold.name, process, hold.count) for hold in holds],
    )


def _draw(db: sqlite3.Connection, draw: Draw, living: int, now: float) -> Drawn:
    used = _used(db, draw.name, now)
    free = draw.limit - used
    if free < draw.need or draw.ends_at <= now:
        return Drawn(granted=0, used=used)
    granted = draw.need + share(free - draw.need, draw.extra, living)
    if granted:
        _use(db, draw.name, draw.ends_at, used + granted)
    return Drawn(granted=granted, used=used + granted)


def _used(db: sqlite3.Connection, name: str, now: float) -> int:
    row = db.execute("SELECT used FROM allowance WHERE name = ? AND ends_at > ?", (name, now)).fetchone()
    return 0 if row is None else row[0]


def _use(db: sqlite3.Connection, name: str, ends_at: float, used: int) -> None:
    db.execute("INSERT OR REPLACE INTO allowance (name, ends_at, used) VALUES (?, ?, ?)", (name, ends_at, used))
