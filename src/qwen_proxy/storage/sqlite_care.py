"""Whether a SQLite file is whole, and a copy of it: both take their time."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.storage.sqlite_schema import in_our_words

MOST_FAULTS: Final = 3  # told of


def problem(db: sqlite3.Connection) -> str | None:
    """A sentence on what is broken, None when it is whole. Reads the whole file."""
    try:
        faults = [str(fault) for (fault,) in db.execute(f"PRAGMA quick_check({MOST_FAULTS})")]
    except sqlite3.DatabaseError as error:
        return str(in_our_words(error))
    return None if faults == ["ok"] else f"the database is damaged: {'; '.join(faults)}"


def back_up(db: sqlite3.Connection, path: Path) -> None:
    """Copy all to a new file, check it, and give it its name only then. Raises StoreUnavailable."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            _copy(db, draft)
            os.link(draft, path)  # unlike a rename, never replaces a file
        finally:
            draft.unlink()
        _flush_folder(path.parent)
    except FileExistsError as error:
        raise StoreUnavailable("there is a file of the backup's name already") from error
    except OSError as error:
        raise StoreUnavailable(f"the backup can't be written: {error.strerror}") from error


def _copy(db: sqlite3.Connection, draft: Path) -> None:
    with closing(sqlite3.connect(draft, isolation_level=None)) as copy:
        # All pages in one step: that is one moment of the database. Page by page it would begin anew with every write
        # of another process; and a reader keeps nobody from writing.
        db.backup(copy, pages=-1)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without companions
        if (fault := problem(copy)) is not None:
            raise StoreUnavailable(f"the backup is of no use: {fault}")
    with open(draft, "rb") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
