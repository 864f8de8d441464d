"""What a migration would do with one account. Pure.

| found | kept here | what becomes of it |
|---|---|---|
| an account | none | added |
| an account | the same one | what is missing here is taken; what differs stays as it is here, or is taken where asked |
| a token | one that ends sooner, or none | taken when it is good for a while yet, and the password is the account's |
| a day of statistics | less of it | what is missing is added, so that a second time adds nothing |
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.model import Account, Credential, Origin
from qwen_proxy.config.lines import email_problem, password_problem, proxy_problem
from qwen_proxy.ground.redact import masked_email, redacted
from qwen_proxy.operations.migration.found import DayUsage, FoundAccount
from qwen_proxy.state.store import UsageCounts, UsageKey
from qwen_proxy.upstreams.qwen_web.headers import header_problem

LEAST_TOKEN_SECONDS: Final = 60.0  # a token that ends sooner is not worth keeping


class Fate(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    SKIPPED = "skipped"
    INVALID = "invalid"


class Row(Struct, frozen=True, kw_only=True):
    """what: "account", "key", "setting". name, says: fit to be shown."""

    what: str
    name: str
    fate: Fate
    says: str


class Kept(Struct, frozen=True):
    account: Account
    credential: Credential | None = None


class PlannedAccount(Struct, frozen=True, kw_only=True):
    """credential: a token to keep; None leaves what there is. is_new: it was not there when this was planned."""

    account: Account
    credential: Credential | None
    is_new: bool


class AccountStep(Struct, frozen=True, kw_only=True):
    """planned: None when the account itself stays as it is. usage: to be added."""

    row: Row
    planned: PlannedAccount | None = None
    usage: Mapping[UsageKey, UsageCounts] = {}


def usage_key(account_id: str, row: DayUsage) -> UsageKey:
    """Rows of the original know neither key nor model, which no row of ours lacks."""
    return UsageKey(starts_at=row.starts_at, key="", account=account_id, model="", feature=row.feature)


def plan_account(
    found: FoundAccount,
    kept: Kept | None,
    usage: Mapping[UsageKey, UsageCounts],
    *,
    now: float,
    overwrites: bool,
) -> AccountStep:
    """usage: what is kept by day. overwrites: what differs is taken."""
    id = found.email.lower()
    credential, of_token = _credential(id, found, now)
    if (problem := _problem(found, credential)) is not None:
        return AccountStep(row=_row(found, Fate.INVALID, [problem]))
    more = _usage(id, found, usage)
    if kept is None:
        account = Account(
            id=id, email=found.email, password=found.password, exit=found.proxy, origin=Origin.ADDED, added_at=now
        )
        notes = [
            "" if found.is_whole else "a part of it was lost",
            "with its password" if found.password else "without a password",
            of_token,
            f"through {redacted(found.proxy)}" if found.proxy else "",
            _of_usage(more),
        ]
        planned = PlannedAccount(account=account, credential=credential, is_new=True)
        return AccountStep(row=_row(found, Fate.ADDED, notes), planned=planned, usage=more)
    account, changed, stays = _filled(kept.account, found, overwrites)
    token = _token(credential, found, kept, account)
    if token is not None and token is credential:
        changed.append(of_token)
    planned = PlannedAccount(account=account, credential=token, is_new=False) if changed else None
    if more:
        changed.append(_of_usage(more))
    if changed:
        return AccountStep(row=_row(found, Fate.CHANGED, [*changed, *stays]), planned=planned, usage=more)
    return AccountStep(row=_row(found, Fate.SKIPPED, ["is here already", *stays]))


def _credential(id: str, found: FoundAccount, now: float) -> tuple[Credential | None, str]:
    """The token when it is worth keeping, and a clause on it."""
    if found.token is None:
        return None, "without a token"
    if header_problem(found.token.reveal()) is not None:
        return None, "its token can't be used"
    if found.token_ends_at is None:
        return None, "its token does not tell its end and is left out"
    ends = f"{datetime.fromtimestamp(found.token_ends_at, UTC):%Y-%m-%d}"
    if found.token_ends_at < now + LEAST_TOKEN_SECONDS:
        return None, f"its token ended on {ends}"
    credential = Credential(account_id=id, token=found.token, exit=found.proxy, expires_at=found.token_ends_at)
    return credential, f"its token is good until {ends}"


def _problem(found: FoundAccount, credential: Credential | None) -> str | None:
    if (problem := email_problem(found.email)) is not None:
        return f"its email {problem}"
    if found.proxy and (problem := proxy_problem(found.proxy)) is not None:
        return f"its proxy {problem}"
    if found.password is not None:
        problem = password_problem(found.password.reveal())
        return None if problem is None else f"its password {problem}"
    if credential is None:
        return "it has neither a password nor a token that is still good" + (
            "" if found.is_whole else ": they were lost"
        )
    return None


def _filled(account: Account, found: FoundAccount, overwrites: bool) -> tuple[Account, list[str], list[str]]:
    """The account with what is missing, or differs and is to be taken; clauses on what was taken and what was not."""
    changed: list[str] = []
    stays: list[str] = []
    if found.password is not None and found.password != account.password:
        if account.password is None or overwrites:
            account = replace(account, password=found.password)
            changed.append("its password")
        else:
            stays.append("its password here is another and stays")
    if found.proxy and found.proxy != account.exit:
        if not account.exit or overwrites:
            account = replace(account, exit=found.proxy)
            changed.append("its proxy")
        else:
            stays.append("its proxy here is another and stays")
    return account, changed, stays


def _token(credential: Credential | None, found: FoundAccount, kept: Kept, account: Account) -> Credential | None:
    """The token to give the account, when it is to get one: that which ends later, of those that are its password's."""
    known = kept.credential
    if account.password != kept.account.password and kept.account.password is not None:
        known = None
    if credential is None or (found.password is not None and found.password != account.password):
        return known
    return credential if known is None or (known.expires_at or 0.0) < (credential.expires_at or 0.0) else known


def _usage(id: str, found: FoundAccount, present: Mapping[UsageKey, UsageCounts]) -> dict[UsageKey, UsageCounts]:
    usage: dict[UsageKey, UsageCounts] = {}
    for row in found.usage:
        key = usage_key(id, row)
        wanted = UsageCounts(
            requests=row.requests, prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens
        )
        more = wanted.beyond(present.get(key, UsageCounts()))
        if more != UsageCounts():
            usage[key] = more
    return usage


def _of_usage(usage: Mapping[UsageKey, UsageCounts]) -> str:
    days = len({key.starts_at for key in usage})
    return f"{days} {'day' if days == 1 else 'days'} of statistics" if days else ""


def _row(found: FoundAccount, fate: Fate, clauses: Sequence[str]) -> Row:
    says = "; ".join(clause for clause in clauses if clause)
    return Row(what="account", name=masked_email(found.email), fate=fate, says=says)
