"""When the windows of allowances begin and end."""

from datetime import UTC, datetime

import pytest

from qwen_proxy.state.windows import Period, window_at


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        (Period.MINUTE, "2026-11-24T06:59:59.9", "2026-11-24T06:59:00", "2026-11-24T07:00:00"),
        (Period.MINUTE, "2026-11-24T07:00:00", "2026-11-24T07:00:00", "2026-11-24T07:01:00"),
        (Period.DAY, "2026-11-24T23:59:59.9", "2026-11-24", "2026-11-25"),
        (Period.DAY, "2024-02-29T00:00:00", "2024-02-29", "2024-03-01"),
        (Period.MONTH, "2026-11-30T23:59:59.9", "2026-11-01", "2026-12-01"),
        (Period.MONTH, "2026-12-31T23:59:59.9", "2026-12-01", "2027-01-01"),
        (Period.MONTH, "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_a_window_begins_on_the_clock_in_utc(period: Period, now: str, start: str, end: str) -> None:
    assert window_at(period, at(now)) == (at(start), at(end))
