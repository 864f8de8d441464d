"""What was found of the original's data, whatever it was found in. Pure."""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.ground.redact import masked_email
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.store import DAY_SECONDS
from qwen_proxy.upstreams.qwen_web.token import token_end
from qwen_proxy.upstreams.qwen_web.wire import is_array, is_object, loads, members

EPOCH: Final = date(1970, 1, 1).toordinal()
UNREADABLE: Final = "\ufffd"  # what stands for bytes that are no UTF-8
MOST_COUNT: Final = 2**53  # JavaScript's largest whole number

_DAY: Final = re.compile(r"[12]\d{3}-\d{2}-\d{2}", re.ASCII)


class SourceUnreadable(Exception):
    """A source can't be read at all. The sentence holds no secret."""


class DayUsage(Struct, frozen=True, kw_only=True, order=True):
    """feature: "chat" or "cli", of which the original counts the requests of the second only."""

    starts_at: int
    feature: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class FoundAccount(Struct, frozen=True, kw_only=True):
    """token_ends_at: the token's own claim, None when it makes none. proxy: as it stands there, empty for none.

    is_whole False: the place it was found at is damaged behind what was read.
    """

    email: str
    password: Secret | None = None
    token: Secret | None = None
    token_ends_at: float | None = None
    proxy: str = ""
    usage: tuple[DayUsage, ...] = ()
    where: str = ""
    is_whole: bool = True

    def __repr__(self) -> str:
        return f"FoundAccount({masked_email(self.email)!r}, where={self.where!r})"


class Problem(Struct, frozen=True):
    """Something that could not be read, in a sentence without secrets."""

    where: str
    says: str


class Found(Struct, frozen=True, kw_only=True):
    """keys: the regular ones. settings: by the name of the variable, as text. problems: what could not be read."""

    accounts: tuple[FoundAccount, ...] = ()
    admin_key: Secret | None = None
    keys: tuple[Secret, ...] = ()
    settings: Mapping[str, str] = {}
    problems: tuple[Problem, ...] = ()


def combined(sources: Sequence[Found]) -> Found:
    """One of several; where they differ the first that has something wins."""
    accounts: list[FoundAccount] = []
    problems: list[Problem] = []
    settings: dict[str, str] = {}
    for source in sources:
        accounts += source.accounts
        problems += source.problems
        settings = {**source.settings, **settings}
    united, differing = _united(accounts)
    keys = dict.fromkeys(key for source in sources for key in source.keys)
    return Found(
        accounts=tuple(united),
        admin_key=next((source.admin_key for source in sources if source.admin_key), None),
        keys=tuple(keys),
        settings=settings,
        problems=(*problems, *differing),
    )


def account_from(
    fields: Mapping[str, object], where: str, *, today: int, is_whole: bool = True
) -> tuple[FoundAccount | None, list[Problem]]:
    """An account from its fields as the original names them, and what of it could not be read.

    None when there is no email. today: the day (its start, Unix seconds) that the counters `stats` belong to.
    """
    email = _text(fields.get("email")).strip()
    if not email or UNREADABLE in email:
        return None, [Problem(where, "an account without an email that can be read")]
    name = f"{where} ({masked_email(email)})"
    problems: list[Problem] = []
    texts: dict[str, str] = {}
    for field in ("password", "token", "proxy"):
        texts[field] = _text(value := fields.get(field))
        if not isinstance(value, (str, int, type(None))) or UNREADABLE in texts[field]:
            texts[field] = ""
            problems.append(Problem(name, f"its {field} can't be read"))
    password, token, proxy = texts["password"], texts["token"], texts["proxy"]
    usage, is_readable = _usage(fields, today)
    if not is_readable:
        problems.append(Problem(name, "a part of its statistics can't be read"))
    account = FoundAccount(
        email=email,
        password=Secret(password) if password else None,
        token=Secret(token) if token else None,
        token_ends_at=token_end(token),
        proxy=proxy.strip(),
        usage=usage,
        where=where,
        is_whole=is_whole,
    )
    return account, problems


def settings_from(fields: Mapping[str, object], where: str) -> Found:
    """The original's stored settings (upstream protocol §10.7); its keys count only where there are several."""
    problems: list[Problem] = []
    settings: dict[str, str] = {}
    for field, name in (("chatRetryCount", "CHAT_RETRY_COUNT"), ("chatRetryBackoffMs", "CHAT_RETRY_BACKOFF_MS")):
        if text := _text(fields.get(field)).strip():
            settings[name] = text
    listed = fields.get("apiKeys")
    keys: list[Secret] = []
    if is_array(listed):
        keys = [Secret(key.strip()) for key in listed if isinstance(key, str) and key.strip()]
    elif listed is not None:
        problems.append(Problem(where, "its apiKeys are no list"))
    is_in_force = len(keys) > 1
    return Found(
        admin_key=keys[0] if is_in_force else None,
        keys=tuple(keys[1:]) if is_in_force else (),
        settings=settings,
        problems=tuple(problems),
    )


def day_start(text: str) -> int | None:
    """Unix seconds at which the day `2026-09-21` begins in UTC; the original's days are those of its own clock."""
    if not _DAY.fullmatch(text):
        return None
    try:
        return (date.fromisoformat(text).toordinal() - EPOCH) * DAY_SECONDS
    except ValueError:
        return None


def loaded(text: object) -> object:
    """A JSON text's value; what is no text is given back. None for what can't be read."""
    if not isinstance(text, str):
        return text
    try:
        return loads(text.encode("utf-8", "replace"))
    except ValueError:
        return None


def _text(value: object) -> str:
    """Numbers are texts that a hand forgot to quote."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _usage(fields: Mapping[str, object], today: int) -> tuple[tuple[DayUsage, ...], bool]:
    """By day and feature; whether all of it could be read."""
    rows: dict[tuple[int, str], DayUsage] = {}
    days: list[tuple[int | None, object]] = []
    history, stats = loaded(fields.get("statsHistory")), loaded(fields.get("stats"))
    if is_object(history):
        days += [(day_start(day), counts) for day, counts in history.items()]
    if is_object(stats):
        days.append((today, stats))
    is_readable = all(
        given is None or is_object(value)
        for given, value in ((fields.get("statsHistory"), history), (fields.get("stats"), stats))
    )
    for day, counts in days:
        if day is None or not is_object(counts):
            is_readable = False
            continue
        for feature in ("chat", "cli"):
            row = _row(day, feature, members(counts.get(feature)))
            if row is None:
                is_readable = False
            elif row.requests or row.prompt_tokens or row.completion_tokens:
                rows[day, feature] = _larger(rows.get((day, feature)), row)
    return tuple(sorted(rows.values())), is_readable


def _row(day: int, feature: str, counts: Mapping[str, object]) -> DayUsage | None:
    numbers = [_count(counts.get(name)) for name in ("calls", "input", "output")]
    if None in numbers:
        return None
    requests, prompt, completion = (number or 0 for number in numbers)
    return DayUsage(
        starts_at=day, feature=feature, requests=requests, prompt_tokens=prompt, completion_tokens=completion
    )


def _count(value: object) -> int | None:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < MOST_COUNT:
        return None
    return int(value)


def _larger(one: DayUsage | None, other: DayUsage) -> DayUsage:
    if one is None:
        return other
    return replace(
        one,
        requests=max(one.requests, other.requests),
        prompt_tokens=max(one.prompt_tokens, other.prompt_tokens),
        completion_tokens=max(one.completion_tokens, other.completion_tokens),
    )


def _united(accounts: Sequence[FoundAccount]) -> tuple[list[FoundAccount], list[Problem]]:
    """One of all that have the same email."""
    united: dict[str, FoundAccount] = {}
    problems: list[Problem] = []
    for account in accounts:
        id = account.email.lower()
        if (known := united.get(id)) is None:
            united[id] = account
            continue
        better, other = (account, known) if _worth(account) > _worth(known) else (known, account)
        if better.password and other.password and better.password != other.password:
            where = f"{other.where} ({masked_email(other.email)})"
            problems.append(Problem(where, f"its password is not the one at {better.where}, which is taken"))
        united[id] = replace(
            better,
            password=better.password or other.password,
            proxy=better.proxy or other.proxy,
            token=better.token or other.token,
            token_ends_at=better.token_ends_at if better.token else other.token_ends_at,
            usage=_united_usage(better.usage, other.usage),
        )
    return list(united.values()), problems


def _worth(account: FoundAccount) -> tuple[bool, bool, float]:
    """Whole before broken, with a password before without, then the token that ends later: it was written later."""
    return account.is_whole, account.password is not None, account.token_ends_at or 0.0


def _united_usage(one: tuple[DayUsage, ...], other: tuple[DayUsage, ...]) -> tuple[DayUsage, ...]:
    rows: dict[tuple[int, str], DayUsage] = {}
    for row in (*one, *other):
        rows[row.starts_at, row.feature] = _larger(rows.get((row.starts_at, row.feature)), row)
    return tuple(sorted(rows.values()))
