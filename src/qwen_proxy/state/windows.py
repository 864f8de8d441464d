"""The stretches of time that allowances are for: fixed, and the same for all processes. Pure."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

MINUTE_SECONDS: Final = 60
DAY_SECONDS: Final = 86400


class Period(StrEnum):
    """Days and months are UTC's."""

    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"


def window_at(period: Period, now: float) -> tuple[int, int]:
    """When the window began that `now` is in, and when the next one begins: Unix seconds."""
    second = int(now // 1)
    if period is Period.MONTH:
        day = datetime.fromtimestamp(second, UTC)
        start = day.replace(day=1, hour=0, minute=0, second=0)
        december = start.month == 12
        end = start.replace(year=start.year + december, month=1 if december else start.month + 1)
        return int(start.timestamp()), int(end.timestamp())
    length = MINUTE_SECONDS if period is Period.MINUTE else DAY_SECONDS
    start = second - second % length
    return start, start + length
