"""What a log record looks like as a line, of text or of JSON: when, how bad, a word, and its fields.

source: of the process, such as `worker-1`, or empty. redact: takes secrets out of a text.
"""

import logging
import re
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

from qwen_proxy.runtime.frequent_line import Told

Redact = Callable[[str], str]

LEVELS: Final = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "request_id"}
_NEVER_SHOWN: Final = frozenset(("token", "password", "cookie", "cookies", "authorization", "api_key", "secret"))
_HIDDEN: Final = "***"
_MARK: Final = re.compile(r"[ \"'=]")  # what a value without quotes may not have in it
_PLAIN: Final = (int, float, bool, type(None))
_SHORT_CHARS: Final = 64  # most values are, and come again and again: names, words, paths


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    if isinstance(record, Told):
        return record.fields
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _safe(text: str, redact: Redact) -> str:
    """Without secrets, and without the lone surrogates of undecodable input, which no encoder takes."""
    return (_cleaned_once if len(text) <= _SHORT_CHARS else _cleaned)(text, redact)


def _cleaned(text: str, redact: Redact) -> str:
    return redact(text).encode(errors="backslashreplace").decode()


_cleaned_once: Final = lru_cache(1024)(_cleaned)


def _trace(record: logging.LogRecord, redact: Redact) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    return _safe("".join(traceback.format_exception(record.exc_info[1])), redact)


@lru_cache(64)
def _level(levelno: int) -> str:
    return next((word for word, number in reversed(LEVELS.items()) if levelno >= number), "DEBUG")


def time_of(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.created % 1 * 1000):03d}Z"


@lru_cache(8)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _message(record: logging.LogRecord, redact: Redact) -> str:
    try:
        return _safe(record.getMessage(), redact)
    except (TypeError, ValueError):  # a foreign library's arguments don't fit its text
        return _safe(str(record.msg), redact)


def json_line(record: logging.LogRecord, source: str, redact: Redact) -> str:
    line: dict[str, object] = {
        "time": time_of(record),
        "level": _level(record.levelno),
        "message": _message(record, redact),
        "logger": record.name,
    }
    if source:
        line["source"] = source
    if request_id := record.__dict__.get("request_id"):
        line["request_id"] = request_id
    for name, value in _fields(record).items():
        if name in _NEVER_SHOWN:
            line[name] = _HIDDEN
        else:
            line[name] = value if isinstance(value, _PLAIN) else _safe(str(value), redact)
    if record.exc_info and (trace := _trace(record, redact)):
        line["trace"] = trace
    return msgspec.json.encode(line).decode() + "\n"


def text_line(record: logging.LogRecord, source: str, redact: Redact) -> str:
    message = _message(record, redact)
    # A message with a line feed would pass for two lines, the second one forged.
    message = message if message.isprintable() else _json_text(message)
    line = f"{time_of(record)} {_level(record.levelno):<5} {message}"
    if source:
        line += f" source={_quoted(source)}"
    if request_id := record.__dict__.get("request_id"):
        line += f" request_id={_quoted(request_id)}"
    for name, value in _fields(record).items():
        if value == "" or value is None:
            continue
        if name in _NEVER_SHOWN:
            text = _HIDDEN
        elif type(value) is str:  # nearly all are this or a number: no call more than it takes
            text = (_worded_once if len(value) <= _SHORT_CHARS else _worded)(value, redact)
        else:
            text = value if type(value) is int else _text_value(value, redact)
        line += f" {name}={text}"
    if record.exc_info:
        parts = _trace(record, redact).splitlines()
        return line + "\n" + "".join(f"    {part}\n" for part in parts)
    return line + "\n"


def _text_value(value: object, redact: Redact) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    text = str(value)
    if isinstance(value, int):
        return text
    return (_worded_once if len(text) <= _SHORT_CHARS else _worded)(text, redact)


def _worded(text: str, redact: Redact) -> str:
    return _quoted(_cleaned(text, redact))


_worded_once: Final = lru_cache(1024)(_worded)


def _quoted(text: str) -> str:
    plain = text.isprintable() and _MARK.search(text) is None
    return text if plain else _json_text(text)


def _json_text(text: str) -> str:
    return msgspec.json.encode(text).decode()
