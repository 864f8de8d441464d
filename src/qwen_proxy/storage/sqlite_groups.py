"""Groups of calls as one transaction each: a commit costs more than most calls, a flush to disk far more."""

import sqlite3
from collections.abc import Sequence

from qwen_proxy.storage.sqlite_schema import attempts, in_our_words, is_busy
from qwen_proxy.storage.sqlite_thread import Answers, Asked


class Groups:
    """`answer` for a DatabaseThread that writes. A call that raises is undone alone; the others stand.

    Nothing is answered before the commit, which is flushed to the disk when a call of the group asks for it.
    """

    def __init__(self, busy_seconds: float) -> None:
        self._busy_seconds = busy_seconds
        self._is_flushing: bool | None = None

    def answer(self, db: sqlite3.Connection, group: Sequence[Asked]) -> Answers:
        try:
            self._flush(db, any(asked.is_flushed for asked in group))
            self._begin(db)
            try:
                answer = _alone if len(group) == 1 else _undone_when_it_fails
                answers = [(asked, answer(db, asked)) for asked in group]
                if db.in_transaction:
                    db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            return [(asked, in_our_words(error)) for asked in group]
        return answers

    def _flush(self, db: sqlite3.Connection, is_flushing: bool) -> None:
        if is_flushing is not self._is_flushing:
            db.execute(f"PRAGMA synchronous={'FULL' if is_flushing else 'NORMAL'}")
            self._is_flushing = is_flushing

    def _begin(self, db: sqlite3.Connection) -> None:
        for is_last in attempts(self._busy_seconds):
            try:
                # A deferred one that turns to writing fails whenever another wrote meanwhile.
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if is_last or not is_busy(error):
                    raise


def _alone(db: sqlite3.Connection, asked: Asked) -> object:
    try:
        return asked.call(db)
    except Exception as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        return in_our_words(error) if isinstance(error, sqlite3.Error) else error


def _undone_when_it_fails(db: sqlite3.Connection, asked: Asked) -> object:
    db.execute("SAVEPOINT call")
    try:
        answer = asked.call(db)
    except Exception as error:
        if not db.in_transaction:  # SQLite has given up the whole of it: no disk, no memory
            raise
        db.execute("ROLLBACK TO call")
        answer = in_our_words(error) if isinstance(error, sqlite3.Error) else error
    db.execute("RELEASE call")
    return answer
