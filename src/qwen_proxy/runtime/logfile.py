"""A log file that turns over at a size, and that several processes may write."""

import fcntl
import os
import tempfile
from pathlib import Path


def check_folder(folder: Path) -> None:
    """Raises OSError when no file can be made there: what `RollingFile` writes would be lost without a word."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


class RollingFile:
    """`path`, and older ones as `path.1` (the newest) and so on: `files` in all, each a little over `max_bytes`.

    Every process appends whole lines in one write. Who finds the file full moves it away, under a lock; the others
    see that the path leads to another file now, and follow. A failing disk loses lines and raises nothing.
    """

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._descriptor = -1
        self._identity = (0, 0)  # device and inode

    def write(self, lines: bytes) -> None:
        try:
            size = self._size()
            if (self._reopen() if size is None else size) >= self._max_bytes:
                self._turn_over()
            while lines:
                lines = lines[os.write(self._descriptor, lines) :]
        except OSError:
            self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _size(self) -> int | None:
        """In bytes; None where the path leads to another file than ours by now, or to none.

        One call to the system: after each of them the thread has to ask for the interpreter again.
        """
        if self._descriptor < 0:
            return None
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_size if (found.st_dev, found.st_ino) == self._identity else None

    def _reopen(self) -> int:
        """Gives the size in bytes."""
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        found = os.fstat(self._descriptor)
        self._identity = (found.st_dev, found.st_ino)
        return found.st_size

    def _turn_over(self) -> None:
        with open(self._path.with_name(self._path.name + ".lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._size() is not None:  # else another process was first
                for number in range(self._files - 1, 0, -1):
                    newer = self._numbered(number - 1)
                    if newer.exists():
                        newer.replace(self._numbered(number))
                if self._files == 1:
                    self._path.unlink()
            self._reopen()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
