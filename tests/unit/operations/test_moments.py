import pytest

from qwen_proxy.operations.moments import WrongMoment, ahead, back, moment, shown, span_seconds

NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("12h", 43200), (" 30d ", 2592000), ("2w", 1209600), ("d", None), ("1.5h", None), ("-1d", None)],
)
def test_a_span(text: str, seconds: float | None) -> None:
    assert span_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2027-01-15", NOW - 8 * 3600),
        ("2027-01-15T08:00", NOW),
        ("2027-01-15 10:00+02:00", NOW),
        ("2027-01-15T08:00:00Z", NOW),
    ],
)
def test_a_point_in_time_is_utc_unless_it_says_otherwise(text: str, at: float) -> None:
    assert moment(text) == at


def test_ahead_and_back() -> None:
    assert ahead("1d", NOW) == NOW + 86400 and back("1d", NOW) == NOW - 86400
    assert ahead("2027-01-16", NOW) == NOW + 16 * 3600 and back("2027-01-16", NOW) == NOW + 16 * 3600
    for text in ("2027-01-15", "0m", "9999-01-01"):
        with pytest.raises(WrongMoment, match="not to come"):
            ahead(text, NOW)
    for read in (ahead, back):
        with pytest.raises(WrongMoment, match="'soon' is no point in time"):
            read("soon", NOW)


def test_shown() -> None:
    assert shown(NOW) == "2027-01-15 08:00"
    assert shown(None) == shown(0.0) == ""
