"""Usage and health in the words of the original project. Source: upstream protocol §10.5. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from qwen_proxy.accounts.report import AccountReport
from qwen_proxy.admin.original_bodies import AccountHistory, CliStats, DayStats, StandingBody, TokenStats
from qwen_proxy.state.store import UsageCounts, UsageKey

HISTORY_DAYS: Final = 90
WARN_SECONDS: Final = 15 * 60.0
ENDS_SOON_SECONDS: Final = 24 * 3600.0
USABLE: Final = frozenset({"ready", "busy", "signing_in"})
CLI: Final = "cli"  # the feature that imported statistics of the Qwen Code service have


def day_of(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def day_stats(rows: Iterable[tuple[UsageKey, UsageCounts]]) -> DayStats:
    """Of one account and one day."""
    chat, cli = UsageCounts(), UsageCounts()
    for key, counts in rows:
        if key.feature == CLI:
            cli += counts
        else:
            chat += counts
    return DayStats(
        chat=TokenStats(chat.prompt_tokens, chat.completion_tokens),
        cli=CliStats(cli.requests, cli.prompt_tokens, cli.completion_tokens),
    )


def histories(rows: Mapping[UsageKey, UsageCounts], emails: Mapping[str, str]) -> tuple[AccountHistory, ...]:
    """Of these accounts (id -> email), also of those that were not used; rows: by day."""
    found: dict[str, dict[str, list[tuple[UsageKey, UsageCounts]]]] = {id: {} for id in emails}
    for key, counts in rows.items():
        if key.account in found:
            found[key.account].setdefault(day_of(key.starts_at), []).append((key, counts))
    return tuple(
        AccountHistory(email=emails[id], history={day: day_stats(of_day) for day, of_day in sorted(days.items())})
        for id, days in found.items()
    )


def standing(report: AccountReport, now: float) -> StandingBody:
    """What can't be taken now cools down there, whatever keeps it; `next_action` of our own routes says more."""
    if report.state not in USABLE:
        kind = "cooldown"
    elif report.last_error_at and now - report.last_error_at < WARN_SECONDS:
        kind = "warn"
    elif report.token_expires_at is not None and report.token_expires_at - now < ENDS_SOON_SECONDS:
        kind = "token_expiring"
    else:
        kind = "active"
    return StandingBody(
        kind=kind,
        cooldown_ends_at=None if report.until is None or kind != "cooldown" else int(report.until * 1000),
        last_error_at=int(report.last_error_at * 1000) if report.last_error_at else None,
        last_error_code=report.last_error or None,
    )
