"""Log lines as fields, written by a thread so that no request waits for a terminal or a disk.

Code logs with the standard library, a word and its fields: `log.info("lease", extra={"account": ...})`; what comes
with every request is a `frequent_line.FrequentLine`.
`Logs` decides where lines go and what they look like. A request's id is on every line logged on its behalf.
"""

import logging
import sys
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Literal, Self, TextIO

from msgspec import Struct

from qwen_proxy.runtime.log_lines import LEVELS, Redact, json_line, text_line, time_of
from qwen_proxy.runtime.logfile import RollingFile

# Set where a request enters; whatever runs for it, tasks included, inherits it.
request_id_var: ContextVar[str] = ContextVar("request_id", default="")

_MOST_WAITING: Final = 50_000  # lines; beyond it they are dropped and counted: a stuck terminal must not eat the memory
_MOST_AT_ONCE: Final = 1024
_GATHER_SECONDS: Final = 0.05


def set_level(level: str) -> None:
    """A key of LEVELS, for this process from now on."""
    logging.getLogger().setLevel(LEVELS[level])


class LogOptions(Struct, frozen=True, kw_only=True):
    """level: a key of LEVELS; floor: another, below which nothing is written, whatever `set_level` says. redact: takes
    secrets out of a text. source: names this process, such as `worker-1`.

    file: where lines go besides the stream; several processes may share it. max_bytes, files: of one file, and how
    many are kept.
    """

    level: str = "INFO"
    floor: str = "DEBUG"
    form: Literal["text", "json"] = "text"
    source: str = ""
    file: Path | None = None
    max_bytes: int = 10 * 1024**2
    files: int = 5
    redact: Redact


class Logs:
    """From entering to leaving, everything logged in this process goes to `stream` and the file."""

    def __init__(self, options: LogOptions, stream: TextIO | None = None) -> None:
        self._options = options
        self._handler = _Queueing()
        self._stream = stream or sys.stderr
        self._file = RollingFile(options.file, options.max_bytes, options.files) if options.file else None
        self._format = json_line if options.form == "json" else text_line
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="logs", daemon=True)
        self._before: tuple[int, list[logging.Handler]] = (logging.WARNING, [])

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._before = (root.level, list(root.handlers))
        root.handlers[:] = [self._handler]
        self._handler.setLevel(LEVELS[self._options.floor])
        # What no line of ours shows need not be found out for each record.
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        logging._srcfile = None  # pyright: ignore[reportPrivateUsage]  as its manual has it: no caller
        root.setLevel(LEVELS[self._options.level])
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes what waits; a stream that takes nothing is given up after two seconds."""
        root = logging.getLogger()
        level, root.handlers[:] = self._before
        root.setLevel(level)
        self._ended.set()
        self._handler.waiting.put(None)
        self._thread.join(2)
        if self._file:
            self._file.close()

    def _write_all(self) -> None:
        """Lines come in flocks. The first of one wakes this thread, which then looks for more by itself: to be woken by
        a line takes the interpreter, and often the processor, from the loop."""
        waiting = self._handler.waiting
        while True:
            batch = [waiting.get()]
            while batch:
                self._ended.wait(_GATHER_SECONDS)
                while len(batch) < _MOST_AT_ONCE and not waiting.empty():
                    batch.append(waiting.get())
                self._write([record for record in batch if record is not None])
                if None in batch:
                    return
                batch.clear()

    def _write(self, records: Sequence[logging.LogRecord]) -> None:
        lines = [self._line(record) for record in records]
        if dropped := self._handler.take_dropped():
            record = logging.makeLogRecord({"levelno": logging.WARNING, "msg": "log lines dropped", "name": __name__})
            record.__dict__["count"] = dropped
            lines.append(self._line(record))
        if not lines:
            return
        text = "".join(lines)
        # A closed terminal or a full disk is no reason to stop serving, and there is nowhere to tell of it.
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass
        if self._file:
            self._file.write(text.encode(errors="backslashreplace"))

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self._format(record, self._options.source, self._options.redact)
        except Exception as error:  # a value that can't be printed loses its line, not all lines after it
            return f"{time_of(record)} ERROR log line lost reason={type(error).__name__} logger={record.name}\n"


class _Queueing(logging.Handler):
    """Hands records to the writing thread. Nothing is formatted here: fields are values, not objects that change."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._dropped = 0

    def createLock(self) -> None:  # noqa: N802  # the base class's name
        self.lock = None  # the queue needs none

    def handle(self, record: logging.LogRecord) -> bool:
        """As the base class has it, without the calls to its lock and its filters, which there are none of."""
        if self.waiting.qsize() >= _MOST_WAITING:
            self._dropped += 1
            return False
        if current := request_id_var.get():
            record.__dict__["request_id"] = current
        self.waiting.put(record)
        return True

    def take_dropped(self) -> int:
        dropped, self._dropped = self._dropped, 0
        return dropped
