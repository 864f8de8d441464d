"""A log line that comes with every request, made for a part of what the standard library takes."""

import logging
from collections.abc import Mapping
from typing import Final

from qwen_proxy.runtime.clock import SystemClock

_now: Final = SystemClock.now


class Told(logging.LogRecord):
    """A record as any other, whose fields also stand apart."""

    __slots__ = ("fields",)
    fields: Mapping[str, object]


class FrequentLine:
    """A line that is logged all the time: what every record of it has in common is found out once.

    `tell` does what `logger.log(level, message, extra=fields)` does, but for the place in the source, which our lines
    do not show.
    """

    def __init__(self, logger: logging.Logger, message: str) -> None:
        self._logger = logger
        self._message = message
        self._common: dict[int, dict[str, object]] = {}  # by level

    def tell(self, level: int, fields: Mapping[str, object]) -> None:
        """At a level that the logger has enabled. `fields` are kept, so they must not change; no name is one that each
        record has, such as `name`."""
        self._logger.handle(self._record(level, fields))

    def _record(self, level: int, fields: Mapping[str, object]) -> logging.LogRecord:
        common = self._common.get(level) or self._first(level)
        now = _now()
        record = Told.__new__(Told)
        record.fields = fields
        record.__dict__ = {**common, **fields}
        record.relativeCreated += (now - record.created) * 1000
        record.created = now
        record.msecs = int(now % 1 * 1000) + 0.0
        return record

    def _first(self, level: int) -> dict[str, object]:
        record = self._logger.makeRecord(self._logger.name, level, "(unknown file)", 0, self._message, (), None)
        self._common[level] = common = dict(record.__dict__)
        return common
