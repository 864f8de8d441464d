"""What becomes of an account that was found."""

import pytest
from msgspec.structs import replace

from qwen_proxy.accounts.model import Account, Credential, Origin
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.account_plan import (
    AccountStep,
    Fate,
    Kept,
    PlannedAccount,
    plan_account,
    usage_key,
)
from qwen_proxy.operations.migration.found import DayUsage, FoundAccount
from qwen_proxy.state.store import UsageCounts, UsageKey

NOW = 1_800_000_000.0
LATER = NOW + 86400
FOUND = FoundAccount(
    email="Alice@x.example", password=Secret("pw"), token=Secret("token"), token_ends_at=LATER, proxy="http://u:p@h:1"
)
ADDED = Account(
    id="alice@x.example",
    email="Alice@x.example",
    password=Secret("pw"),
    exit="http://u:p@h:1",
    origin=Origin.ADDED,
    added_at=NOW,
)
TOKEN = Credential(account_id="alice@x.example", token=Secret("token"), exit="http://u:p@h:1", expires_at=LATER)


def step(
    found: FoundAccount,
    kept: Kept | None = None,
    usage: dict[UsageKey, UsageCounts] | None = None,
    *,
    overwrites: bool = False,
) -> AccountStep:
    return plan_account(found, kept, usage or {}, now=NOW, overwrites=overwrites)


def test_a_new_account_is_added_with_all_that_was_found() -> None:
    made = step(FOUND)
    assert made.planned == PlannedAccount(account=ADDED, credential=TOKEN, is_new=True)
    assert (made.row.name, made.row.fate) == ("Al***@x.example", Fate.ADDED)
    assert made.row.says == "with its password; its token is good until 2027-01-16; through http://***@h:1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"token": None, "token_ends_at": None}, "without a token"),
        ({"token_ends_at": NOW + 59}, "its token ended on 2027-01-15"),
        ({"token_ends_at": None}, "its token does not tell its end and is left out"),
        ({"token": Secret("a\nb")}, "its token can't be used"),
        ({"token": None, "is_whole": False}, "a part of it was lost"),
    ],
)
def test_a_token_that_is_of_no_use_is_left_out(change: dict[str, object], says: str) -> None:
    made = step(replace(FOUND, **change))
    assert made.planned == PlannedAccount(account=ADDED, credential=None, is_new=True)
    assert says in made.row.says


def test_a_token_alone_is_an_account() -> None:
    made = step(replace(FOUND, password=None))
    assert made.planned is not None and made.planned.credential == TOKEN and made.planned.account.password is None
    assert "without a password" in made.row.says


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"email": "nobody"}, "its email has no name, no '@' or no host"),
        ({"password": Secret("x" * 2000)}, "its password has more than 1024 characters"),
        ({"proxy": "ftp://canary"}, "its proxy must begin with http://, https://, socks5:// or socks5h://"),
        ({"password": None, "token": None}, "it has neither a password nor a token that is still good"),
        (
            {"password": None, "token_ends_at": 5.0, "is_whole": False},
            "it has neither a password nor a token that is still good: they were lost",
        ),
    ],
)
def test_what_can_be_no_account_is_refused(change: dict[str, object], says: str) -> None:
    made = step(replace(FOUND, usage=(DayUsage(starts_at=0, feature="chat", prompt_tokens=1),), **change))
    assert (made.row.fate, made.row.says) == (Fate.INVALID, says)
    assert made.planned is None and not made.usage


def test_the_same_account_is_left_alone() -> None:
    for kept in (Kept(ADDED, TOKEN), Kept(ADDED, replace(TOKEN, token=Secret("newer"), expires_at=LATER + 1))):
        for overwrites in (False, True):
            made = step(FOUND, kept, overwrites=overwrites)
            assert (made.planned, made.row.fate, made.row.says) == (None, Fate.SKIPPED, "is here already")


def test_what_is_missing_is_taken() -> None:
    bare = replace(ADDED, password=None, exit="", labels=("team",))
    made = step(FOUND, Kept(bare))
    assert made.planned == PlannedAccount(account=replace(ADDED, labels=("team",)), credential=TOKEN, is_new=False)
    assert (made.row.fate, made.row.says) == (
        Fate.CHANGED,
        "its password; its proxy; its token is good until 2027-01-16",
    )


def test_what_differs_stays_unless_it_is_to_be_overwritten() -> None:
    other = replace(ADDED, password=Secret("newer"), exit="http://other:1")
    known = replace(TOKEN, token=Secret("newer"), expires_at=LATER + 5)
    made = step(FOUND, Kept(other, known))
    assert (made.planned, made.row.fate) == (None, Fate.SKIPPED)
    assert made.row.says == (
        "is here already; its password here is another and stays; its proxy here is another and stays"
    )
    made = step(FOUND, Kept(other, known), overwrites=True)
    assert made.planned == PlannedAccount(account=ADDED, credential=TOKEN, is_new=False)
    made = step(replace(FOUND, token=None), Kept(other, known), overwrites=True)
    assert made.planned == PlannedAccount(account=ADDED, credential=None, is_new=False)


def test_a_token_of_another_password_is_not_taken() -> None:
    other = replace(ADDED, password=Secret("newer"))
    assert step(FOUND, Kept(other)).planned is None


@pytest.mark.parametrize(
    ("ours", "taken"), [(None, "token"), (LATER - 1, "token"), (LATER, "ours"), (LATER + 1, "ours")]
)
def test_the_token_that_ends_later_counts(ours: float | None, taken: str) -> None:
    known = None if ours is None else replace(TOKEN, token=Secret("ours"), expires_at=ours)
    made = step(FOUND, Kept(ADDED, known))
    assert (made.planned is not None) == (taken == "token")
    made = step(FOUND, Kept(replace(ADDED, password=None), known))
    assert made.planned is not None and made.planned.credential is not None
    assert made.planned.credential.token == Secret(taken)


def test_statistics_are_added_once() -> None:
    found = replace(
        FOUND,
        usage=(
            DayUsage(starts_at=0, feature="chat", prompt_tokens=10, completion_tokens=20),
            DayUsage(starts_at=86400, feature="chat", prompt_tokens=1),
            DayUsage(starts_at=86400, feature="cli", requests=3),
        ),
    )
    first = step(found)
    key = UsageKey(starts_at=86400, key="", account="alice@x.example", model="", feature="cli")
    assert len(first.usage) == 3 and first.usage[key] == UsageCounts(requests=3)
    assert first.row.says.endswith("2 days of statistics")
    again = step(found, Kept(ADDED, TOKEN), dict(first.usage))
    assert (again.row.fate, dict(again.usage), again.planned) == (Fate.SKIPPED, {}, None)
    more = replace(found, usage=(replace(found.usage[0], completion_tokens=25), *found.usage[1:]))
    grown = step(more, Kept(ADDED, TOKEN), dict(first.usage))
    assert dict(grown.usage) == {usage_key("alice@x.example", found.usage[0]): UsageCounts(completion_tokens=5)}
    assert (grown.row.fate, grown.row.says, grown.planned) == (Fate.CHANGED, "1 day of statistics", None)
