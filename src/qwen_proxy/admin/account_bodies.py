"""What the admin API tells of accounts and may be told. Never a password, a token, a cookie or a proxy's login."""

from collections.abc import Callable, Mapping
from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from qwen_proxy.accounts.model import Origin
from qwen_proxy.accounts.report import AccountReport, exit_name
from qwen_proxy.accounts.seats import Seat
from qwen_proxy.config.lines import email_problem, password_problem, proxy_problem
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.state.store import UsageCounts

MOST_LABELS: Final = 20
Weight = Annotated[float, Meta(gt=0, le=1000)]
Priority = Annotated[int, Meta(ge=-1000, le=1000)]
Note = Annotated[str, Meta(max_length=1000)]
Label = Annotated[str, Meta(min_length=1, max_length=50)]
Labels = Annotated[tuple[Label, ...], Meta(max_length=MOST_LABELS)]


class NewAccountBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """proxy: an URL; null for PROXY_URL, or none. cookies: pasted, see PUT .../cookies. password may be left out only
    where the cookies hold a token."""

    email: str
    password: str | None = None
    proxy: str | None = None
    cookies: str | None = None
    enabled: bool = True
    labels: Labels = ()
    weight: Weight = 1.0
    priority: Priority = 0
    note: Note = ""

    def __repr__(self) -> str:
        return "NewAccountBody(***)"


class AccountPatchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is. Another password drops the token."""

    password: str | UnsetType = UNSET
    proxy: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    weight: Weight | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    note: Note | UnsetType = UNSET

    def __repr__(self) -> str:
        return "AccountPatchBody(***)"


class PastedCookiesBody(Struct, frozen=True, forbid_unknown_fields=True):
    """cookies: a Cookie header, a Netscape cookie file, or a request to the site copied as cURL or PowerShell."""

    cookies: str

    def __repr__(self) -> str:
        return "PastedCookiesBody(***)"


class CookiesAgeBody(Struct, frozen=True, kw_only=True):
    """set_at: Unix seconds."""

    set_at: float
    age_seconds: float


class CookiesSetBody(Struct, frozen=True, kw_only=True):
    """form: how the text was read. expires_at: when the first of them ends, where the form says so.

    left_out: cookies of other sites, or that have ended. has_token: a token that still holds was there, and is used.
    """

    form: str
    names: tuple[str, ...]
    expires_at: float | None
    left_out: int
    has_token: bool


class UsageTodayBody(Struct, frozen=True, kw_only=True):
    """Since midnight UTC."""

    requests: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class AccountBody(Struct, frozen=True, kw_only=True):
    """proxy: its own, without user and password; null where it has none. Times are Unix seconds, 0: unknown."""

    id: str
    email: str
    proxy: str | None
    has_password: bool
    cookies: CookiesAgeBody | None
    enabled: bool
    labels: tuple[str, ...]
    weight: float
    priority: int
    note: str
    origin: Origin
    added_at: float
    health: AccountReport
    usage_today: UsageTodayBody


class AccountsBody(Struct, frozen=True, kw_only=True):
    """total: of those that were asked for. states: how many of all are in each state. next_after: null at the end."""

    accounts: tuple[AccountBody, ...]
    total: int
    states: dict[str, int]
    next_after: str | None


class AccountTestBody(Struct, frozen=True, kw_only=True):
    """reason, next_action: of a sign-in that failed; sentences."""

    signed_in: bool
    reason: str
    next_action: str
    took_seconds: float
    account: AccountBody


class AskedBody(Struct, frozen=True, kw_only=True):
    """asked: sign-ins that were put in the queue; their ends show in each account's health."""

    asked: int
    total: int


class AccountDeletedBody(Struct, frozen=True, kw_only=True):
    """note: for one that ACCOUNTS lists."""

    id: str
    note: str


def account_body(seat: Seat, report: AccountReport, usage: UsageCounts | None, now: float) -> AccountBody:
    account = seat.account
    usage = usage or UsageCounts()
    cookies = None
    if account.cookies is not None:
        age_seconds = max(0.0, now - account.cookies_at)
        cookies = CookiesAgeBody(set_at=account.cookies_at, age_seconds=round(age_seconds, 1))
    return AccountBody(
        id=account.id,
        email=account.email,
        proxy=exit_name(account.exit) if seat.has_own_exit else None,
        has_password=account.password is not None,
        cookies=cookies,
        enabled=account.enabled,
        labels=account.labels,
        weight=account.weight,
        priority=account.priority,
        note=account.note,
        origin=account.origin,
        added_at=account.added_at,
        health=report,
        usage_today=UsageTodayBody(
            requests=usage.requests,
            failures=usage.failures,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        ),
    )


_CHECKS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "email": email_problem,
    "password": password_problem,
    "proxy": proxy_problem,
}


def check_account(**given: str | UnsetType | None) -> None:
    """Of email, password and proxy, what is there. Raises InvalidRequest, which names the field and holds no value."""
    for name, value in given.items():
        if isinstance(value, str) and (problem := _CHECKS[name](value)) is not None:
            raise InvalidRequest(f"the {name} {problem}", param=name)
