"""Several sources that tell of the same accounts."""

import pytest
from msgspec.structs import replace

from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.found import (
    DayUsage,
    Found,
    FoundAccount,
    Problem,
    account_from,
    combined,
    day_start,
    loaded,
)

DAY = 86400


def day(number: int, tokens: int, feature: str = "chat") -> DayUsage:
    return DayUsage(starts_at=number * DAY, feature=feature, prompt_tokens=tokens, completion_tokens=1)


ALICE = FoundAccount(
    email="Alice@x.example",
    password=Secret("pw"),
    token=Secret("t1"),
    token_ends_at=100.0,
    usage=(day(1, 5), day(2, 5)),
    where="one",
)


def test_an_account_found_twice_is_one() -> None:
    again = FoundAccount(
        email="alice@X.example", proxy="http://h:1", usage=(day(2, 9), day(3, 9), day(3, 1, "cli")), where="two"
    )
    found = combined([Found(accounts=(ALICE,)), Found(accounts=(again,))])
    assert found.accounts == (
        replace(ALICE, proxy="http://h:1", usage=(day(1, 5), day(2, 9), day(3, 9), day(3, 1, "cli"))),
    )
    assert found.problems == ()


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (replace(ALICE, is_whole=False), replace(ALICE, token=Secret("t2"), token_ends_at=1.0), "t2"),
        (replace(ALICE, password=None), replace(ALICE, token=Secret("t2"), token_ends_at=1.0), "t2"),
        (ALICE, replace(ALICE, token=Secret("t2"), token_ends_at=200.0), "t2"),
        (ALICE, replace(ALICE, token=Secret("t2"), token_ends_at=100.0), "t1"),
        (replace(ALICE, token=None, token_ends_at=None), replace(ALICE, token=Secret("t2")), "t2"),
    ],
)
def test_the_better_of_two_counts(first: FoundAccount, second: FoundAccount, taken: str) -> None:
    (account,) = combined([Found(accounts=(first, second))]).accounts
    assert account.token == Secret(taken)


def test_two_passwords_are_told_of_and_the_account_written_later_counts() -> None:
    other = replace(ALICE, password=Secret("canary"), token_ends_at=50.0, where="two")
    found = combined([Found(accounts=(other, ALICE))])
    assert [account.password for account in found.accounts] == [Secret("pw")]
    assert found.problems == (Problem("two (Al***@x.example)", "its password is not the one at one, which is taken"),)


def test_keys_and_settings_of_the_first_source_that_has_them() -> None:
    one = Found(keys=(Secret("a"),), settings={"X": "1"}, problems=(Problem("one", "p"),))
    two = Found(admin_key=Secret("x"), keys=(Secret("b"), Secret("a")), settings={"X": "2", "Y": "3"})
    found = combined([one, two, Found(admin_key=Secret("y"))])
    assert (found.admin_key, found.keys) == (Secret("x"), (Secret("a"), Secret("b")))
    assert found.settings == {"X": "1", "Y": "3"}
    assert found.problems == (Problem("one", "p"),)
    assert combined([]) == Found()


def test_texts_of_json_are_read_as_redis_has_them() -> None:
    fields = {
        "email": " a@x.example ",
        "stats": '{"chat":{"input":0,"output":0}}',
        "statsHistory": '{"1970-01-02":{"chat":{"input":5,"output":1}}}',
        "proxy": "",
    }
    account, problems = account_from(fields, "Redis", today=0)
    assert account == FoundAccount(email="a@x.example", usage=(day(1, 5),), where="Redis")
    assert problems == []
    assert loaded("nonsense") is None and loaded('"\\ud800"') == "?" and loaded(7) == 7


def test_a_day() -> None:
    assert day_start("1970-01-02") == DAY
    assert day_start("2026-09-21") == 1_789_948_800
    assert day_start("2026-02-30") is None
    assert day_start("٢٠٢٦-٠٩-٢١") is None
    assert "alice" not in repr(ALICE).lower() and "pw" not in repr(ALICE)
