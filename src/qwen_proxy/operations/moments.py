"""Points in time as a person writes them. Pure."""

import re
from datetime import UTC, datetime
from typing import Final

MOST_SECONDS: Final = 100 * 366 * 86400.0
UNITS: Final = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
ACCEPTS: Final = "12h, 30d, 8w, or a day such as 2026-12-31, or 2026-12-31T18:30 (UTC)"

_SPAN: Final = re.compile(r"([0-9]{1,6})([mhdw])")


class WrongMoment(ValueError):
    """The message says what would be right."""


def span_seconds(text: str) -> float | None:
    """Of `90m`, `12h`, `30d`, `8w`; None for what is none of these."""
    match = _SPAN.fullmatch(text.strip())
    return None if match is None else int(match[1]) * UNITS[match[2]]


def moment(text: str) -> float:
    """Unix seconds of a day (its beginning) or a time, in UTC unless it says otherwise. Raises WrongMoment."""
    try:
        read = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise WrongMoment(f"{text[:40]!r} is no point in time; one is written as {ACCEPTS}") from error
    return (read if read.tzinfo is not None else read.replace(tzinfo=UTC)).timestamp()


def ahead(text: str, now: float) -> float:
    """A point in time to come, by a span from now or by its date. Raises WrongMoment."""
    span = span_seconds(text)
    at = moment(text) if span is None else now + span
    if not now < at <= now + MOST_SECONDS:
        raise WrongMoment(f"{text[:40]!r} is not to come, or too far away")
    return at


def back(text: str, now: float) -> float:
    """The same the other way: `30d` is thirty days ago. Raises WrongMoment."""
    span = span_seconds(text)
    return moment(text) if span is None else now - span


def shown(at: float | None) -> str:
    """For a person, to the minute, in UTC; empty for none."""
    return "" if not at else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
