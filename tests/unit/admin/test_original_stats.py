import pytest
from msgspec.structs import replace

from qwen_proxy.accounts.health import SignInState
from qwen_proxy.accounts.report import AccountReport
from qwen_proxy.admin.original_bodies import CliStats, DayStats, TokenStats
from qwen_proxy.admin.original_stats import day_of, day_stats, histories, standing
from qwen_proxy.state.store import UsageCounts, UsageKey

NOW = 1_800_000_000.0
DAY = 1_799_971_200  # 2027-01-15, UTC
REPORT = AccountReport(
    account="a@example.com",
    exit="direct",
    state="ready",
    reason="",
    next_action="",
    until=None,
    in_use=0,
    has_token=True,
    token_expires_at=NOW + 30 * 86400,
    parked={},
    sign_in_state=SignInState.SUCCEEDED,
    sign_in_reason="",
    sign_in_attempted_at=0.0,
    last_used_at=0.0,
    last_error="",
    last_error_at=0.0,
    succeeded=0,
    failed=0,
)


def row(feature: str, model: str = "", day: int = DAY, account: str = "a@example.com") -> UsageKey:
    return UsageKey(starts_at=day, key="k", account=account, model=model, feature=feature)


COUNTS = UsageCounts(requests=1, prompt_tokens=10, completion_tokens=4)


def test_everything_but_the_old_command_line_service_counts_as_chat() -> None:
    rows = {row("chat"): COUNTS, row("chat", "other"): COUNTS, row("image"): COUNTS, row("cli"): COUNTS}
    assert day_stats(rows.items()) == DayStats(chat=TokenStats(30, 12), cli=CliStats(1, 10, 4))
    assert day_stats(()) == DayStats()


def test_a_history_has_every_account_and_the_days_on_which_it_was_used() -> None:
    rows = {
        row("chat", day=DAY): COUNTS,
        row("chat", day=DAY - 86400): COUNTS,
        row("chat", account="gone@example.com"): COUNTS,
    }
    used, unused = histories(rows, {"a@example.com": "A@example.com", "b@example.com": "b@example.com"})
    assert used.email == "A@example.com" and list(used.history) == ["2027-01-14", "2027-01-15"]
    assert used.history["2027-01-15"].chat == TokenStats(10, 4)
    assert (unused.email, unused.history) == ("b@example.com", {})


def test_days_are_those_of_utc() -> None:
    assert (day_of(DAY), day_of(DAY - 1), day_of(DAY + 86399)) == ("2027-01-15", "2027-01-14", "2027-01-15")


@pytest.mark.parametrize(
    ("report", "kind", "ends_at"),
    [
        (REPORT, "active", None),
        (replace(REPORT, state="busy", until=None), "active", None),
        (replace(REPORT, state="out_of_quota", until=NOW + 60), "cooldown", int((NOW + 60) * 1000)),
        (replace(REPORT, state="disabled"), "cooldown", None),
        (replace(REPORT, last_error="HTTP 503", last_error_at=NOW - 60), "warn", None),
        (replace(REPORT, last_error="HTTP 503", last_error_at=NOW - 3600), "active", None),
        (replace(REPORT, token_expires_at=NOW + 3600), "token_expiring", None),
        (replace(REPORT, token_expires_at=None), "active", None),
    ],
)
def test_the_first_kind_that_fits_is_told(report: AccountReport, kind: str, ends_at: int | None) -> None:
    told = standing(report, NOW)
    assert (told.kind, told.cooldown_ends_at) == (kind, ends_at)
    assert told.last_error_code == (report.last_error or None)
    assert told.last_error_at == (int(report.last_error_at * 1000) if report.last_error else None)
