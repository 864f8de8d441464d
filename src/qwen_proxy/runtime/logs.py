"""Log lines as fields, written by a thread so that no request waits for a terminal or a disk.

Code logs with the standard library, a word and its fields: `log.info("lease", extra={"account": ...})`.
`Logs` decides where lines go and what they look like. A request's id is on every line logged on its behalf.
"""

import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Literal, Self, TextIO

import msgspec
from msgspec import Struct

from qwen_proxy.runtime.logfile import RollingFile

# Set where a request enters; whatever runs for it, tasks included, inherits it.
request_id_var: ContextVar[str] = ContextVar("request_id", default="")

LEVELS: Final = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}

_MOST_WAITING: Final = 50_000  # lines; beyond it they are dropped and counted: a stuck terminal must not eat the memory
_MOST_AT_ONCE: Final = 1024
_GATHER_SECONDS: Final = 0.05
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "request_id"}
_NEVER_SHOWN: Final = frozenset(("token", "password", "cookie", "cookies", "authorization", "api_key", "secret"))
_MARK: Final = re.compile(r"[ \"'=]")  # what a value without quotes may not have in it
_PLAIN: Final = (int, float, bool, type(None))
_SHORT_CHARS: Final = 64  # most values are, and come again and again: names, words, paths


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
    redact: Callable[[str], str]


class Logs:
    """From entering to leaving, everything logged in this process goes to `stream` and the file."""

    def __init__(self, options: LogOptions, stream: TextIO | None = None) -> None:
        self._options = options
        self._handler = _Queueing()
        self._stream = stream or sys.stderr
        self._file = RollingFile(options.file, options.max_bytes, options.files) if options.file else None
        self._format = _json_line if options.form == "json" else _text_line
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
        waiting = self._handler.waiting
        while True:
            batch = [waiting.get()]
            # Lines come in flocks: to wake for each would take the interpreter from the loop each time.
            if batch[0] is not None and self._ended.wait(_GATHER_SECONDS):
                pass  # told to end: write what there is at once
            while len(batch) < _MOST_AT_ONCE and not waiting.empty():
                batch.append(waiting.get())
            self._write([record for record in batch if record is not None])
            if batch[-1] is None:
                return

    def _write(self, records: Iterable[logging.LogRecord]) -> None:
        lines = [self._line(record) for record in records]
        if dropped := self._handler.take_dropped():
            record = logging.makeLogRecord({"levelno": logging.WARNING, "msg": "log lines dropped", "name": __name__})
            record.__dict__["count"] = dropped
            lines.append(self._line(record))
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
            return self._format(record, self._options)
        except Exception as error:  # a value that can't be printed loses its line, not all lines after it
            return f"{_time(record)} ERROR log line lost reason={type(error).__name__} logger={record.name}\n"


class _Queueing(logging.Handler):
    """Hands records to the writing thread. Nothing is formatted here: fields are values, not objects that change."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._dropped = 0

    def createLock(self) -> None:  # noqa: N802  # the base class's name
        self.lock = None  # the queue needs none

    def emit(self, record: logging.LogRecord) -> None:
        if self.waiting.qsize() >= _MOST_WAITING:
            self._dropped += 1
            return
        if current := request_id_var.get():
            record.__dict__["request_id"] = current
        self.waiting.put(record)

    def take_dropped(self) -> int:
        dropped, self._dropped = self._dropped, 0
        return dropped


def _fields(record: logging.LogRecord, options: LogOptions) -> dict[str, object]:
    fields: dict[str, object] = {"source": options.source} if options.source else {}
    if "request_id" in record.__dict__:
        fields["request_id"] = record.__dict__["request_id"]
    for name, value in record.__dict__.items():
        if name not in _STANDARD:
            fields[name] = "***" if name in _NEVER_SHOWN else _shown(value, options)
    return fields


def _shown(value: object, options: LogOptions) -> object:
    return value if isinstance(value, _PLAIN) else _safe(str(value), options)


def _safe(text: str, options: LogOptions) -> str:
    """Without secrets, and without the lone surrogates of undecodable input, which no encoder takes."""
    return (_cleaned_once if len(text) <= _SHORT_CHARS else _cleaned)(text, options.redact)


def _cleaned(text: str, redact: Callable[[str], str]) -> str:
    return redact(text).encode(errors="backslashreplace").decode()


_cleaned_once: Final = lru_cache(1024)(_cleaned)


def _trace(record: logging.LogRecord, options: LogOptions) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    return _safe("".join(traceback.format_exception(record.exc_info[1])), options)


def _level(record: logging.LogRecord) -> str:
    return _level_word(record.levelno)


@lru_cache(64)
def _level_word(levelno: int) -> str:
    return next((word for word, number in reversed(LEVELS.items()) if levelno >= number), "DEBUG")


def _time(record: logging.LogRecord) -> str:
    second, part = divmod(record.created, 1)
    return f"{_second(int(second))}.{int(part * 1000):03d}Z"


@lru_cache(8)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _message(record: logging.LogRecord, options: LogOptions) -> str:
    try:
        return _safe(record.getMessage(), options)
    except (TypeError, ValueError):  # a foreign library's arguments don't fit its text
        return _safe(str(record.msg), options)


def _json_line(record: logging.LogRecord, options: LogOptions) -> str:
    line: dict[str, object] = {
        "time": _time(record),
        "level": _level(record),
        "message": _message(record, options),
        "logger": record.name,
        **_fields(record, options),
    }
    if trace := _trace(record, options):
        line["trace"] = trace
    return msgspec.json.encode(line).decode() + "\n"


def _text_line(record: logging.LogRecord, options: LogOptions) -> str:
    fields = "".join(
        f" {name}={_quoted(value)}" for name, value in _fields(record, options).items() if value not in ("", None)
    )
    message = _message(record, options)
    # A message with a line feed would pass for two lines, the second one forged.
    message = message if message.isprintable() else _json_text(message)
    trace = "".join(f"    {line}\n" for line in _trace(record, options).splitlines())
    return f"{_time(record)} {_level(record):<5} {message}{fields}\n{trace}"


def _quoted(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    text = str(value)
    if isinstance(value, int):
        return text
    return (_as_shown_once if len(text) <= _SHORT_CHARS else _as_shown)(text)


def _as_shown(text: str) -> str:
    plain = text.isprintable() and _MARK.search(text) is None
    return text if plain else _json_text(text)


_as_shown_once: Final = lru_cache(1024)(_as_shown)


def _json_text(text: str) -> str:
    return msgspec.json.encode(text).decode()
