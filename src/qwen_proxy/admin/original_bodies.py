"""The shapes of the original project's admin routes, field by field. Source: upstream protocol §10.2, §10.5.

What is unknown in a body is ignored, as there. Passwords, tokens and keys are masked.
"""

from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType, field

HIDDEN: Final = "••••••••"
CLI_QUOTA: Final = 2000


class VerifyBody(Struct, frozen=True, rename="camel"):
    api_key: str = ""

    def __repr__(self) -> str:
        return "VerifyBody(***)"


class VerifiedBody(Struct, frozen=True, rename="camel", omit_defaults=True):
    """isAdmin: only with status 200."""

    status: int
    message: str
    is_admin: bool | UnsetType = UNSET


# --- accounts ----------------------------------------------------------------------------------------------


class PageQuery(Struct, frozen=True, rename="camel"):
    page: Annotated[int, Meta(ge=1)] = 1
    page_size: Annotated[int, Meta(ge=1, le=10_000)] = 1000


class AccountRow(Struct, frozen=True, kw_only=True):
    """password, token: hidden, or empty where there is none. expires: Unix seconds. proxy: without its login."""

    email: str
    password: str
    token: str
    expires: int | None
    proxy: str | None


class AccountPage(Struct, frozen=True, kw_only=True, rename="camel"):
    total: int
    page: int
    page_size: int
    data: tuple[AccountRow, ...]


class SetAccountBody(Struct, frozen=True):
    email: str = ""
    password: str = ""
    proxy: str | None = None

    def __repr__(self) -> str:
        return "SetAccountBody(***)"


class EmailBody(Struct, frozen=True):
    email: str = ""


class SetProxyBody(Struct, frozen=True):
    email: str = ""
    proxy: str | None = None


class SetAccountsBody(Struct, frozen=True):
    """accounts: one a line, see the routes of batches. async: answer at once, and let the caller ask how far it is."""

    accounts: str = ""
    is_async: bool = field(name="async", default=False)

    def __repr__(self) -> str:
        return "SetAccountsBody(***)"


class ThresholdBody(Struct, frozen=True, rename="camel"):
    threshold_hours: Annotated[float, Meta(ge=0)] = 24


class MessageBody(Struct, frozen=True):
    message: str


class AccountMessageBody(Struct, frozen=True):
    message: str
    email: str


class ProxyMessageBody(Struct, frozen=True):
    message: str
    email: str
    proxy: str | None


class RefreshedBody(Struct, frozen=True, rename="camel"):
    """refreshedCount: how many are being signed in anew, each in its turn; their ends show in their health."""

    message: str
    refreshed_count: int
    threshold_hours: float


class AllRefreshedBody(Struct, frozen=True, rename="camel"):
    message: str
    refreshed_count: int
    total_accounts: int


# --- statistics --------------------------------------------------------------------------------------------


class TokenStats(Struct, frozen=True):
    input: int = 0
    output: int = 0


class CliStats(Struct, frozen=True):
    calls: int = 0
    input: int = 0
    output: int = 0


class DayStats(Struct, frozen=True):
    """Days are UTC's here."""

    chat: TokenStats = TokenStats()
    cli: CliStats = CliStats()


class StandingBody(Struct, frozen=True, kw_only=True, rename="camel"):
    """kind: "cooldown", "warn", "token_expiring" or "active", the first that fits. Times are milliseconds."""

    kind: str
    cooldown_ends_at: int | None
    last_error_at: int | None
    last_error_code: str | None
    cli_unavailable_reason: str | None = None


class AccountStats(Struct, frozen=True, kw_only=True, rename="camel"):
    email: str
    stats: DayStats
    status: StandingBody
    cli_request_number: int = 0
    cli_quota_limit: int = CLI_QUOTA


class AccountStatsBody(Struct, frozen=True, rename="camel"):
    accounts: tuple[AccountStats, ...]
    cli_quota_limit: int = CLI_QUOTA


class AccountHistory(Struct, frozen=True):
    """history: by day, such as "2026-09-21"."""

    email: str
    history: dict[str, DayStats]


class StatsHistoryBody(Struct, frozen=True):
    today: str
    accounts: tuple[AccountHistory, ...]


class ArchivedBody(Struct, frozen=True, rename="camel"):
    ok: bool
    archived_at: str
    message: str


# --- settings ----------------------------------------------------------------------------------------------


class SettingsView(Struct, frozen=True, kw_only=True, rename="camel"):
    """adminKey, regularKeys: their hints, such as "sk-…a1b2"; deleteRegularKey takes these too."""

    admin_key: str | None
    regular_keys: tuple[str, ...]
    default_headers: None = None
    default_cookie: None = None
    auto_refresh: bool
    auto_refresh_interval: int
    batch_login_concurrency: int
    out_think: bool
    legacy_reasoning_in_content: bool
    search_info_mode: str
    simple_model_map: bool
    chat_retry_count: int
    chat_retry_backoff_ms: int


class GivenKeyBody(Struct, frozen=True, rename="camel"):
    api_key: str = ""

    def __repr__(self) -> str:
        return "GivenKeyBody(***)"


class PersistedBody(Struct, frozen=True):
    message: str
    persisted: bool = True


class AutoRefreshBody(Struct, frozen=True, rename="camel"):
    auto_refresh: bool
    auto_refresh_interval: int | UnsetType = UNSET


class ConcurrencyBody(Struct, frozen=True, rename="camel"):
    batch_login_concurrency: int


class OutThinkBody(Struct, frozen=True, rename="camel"):
    out_think: bool


class LegacyReasoningBody(Struct, frozen=True, rename="camel"):
    legacy_reasoning_in_content: bool


class SearchInfoBody(Struct, frozen=True, rename="camel"):
    search_info_mode: str


class SimpleModelMapBody(Struct, frozen=True, rename="camel"):
    simple_model_map: bool


class RetryBody(Struct, frozen=True, rename="camel"):
    chat_retry_count: int | UnsetType = UNSET
    chat_retry_backoff_ms: int | UnsetType = UNSET


class StatusBody(Struct, frozen=True):
    status: bool
    message: str


class RetryStatusBody(Struct, frozen=True):
    status: bool
    message: str
    persisted: bool
