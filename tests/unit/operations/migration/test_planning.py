"""What becomes of keys and settings that were found."""

import pytest

from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.account_plan import Fate
from qwen_proxy.operations.migration.found import Found, FoundAccount
from qwen_proxy.operations.migration.planning import Plan, Present, plan

GOOD = Secret("sk-0123456789abcdef")


def rows(made: Plan) -> list[tuple[str, Fate, str]]:
    return [(row.name, row.fate, row.says) for row in made.rows]


def test_keys() -> None:
    found = Found(
        admin_key=Secret("sk-admin-0123456789"),
        keys=(GOOD, Secret("sk-known-0123456789"), Secret("sk-456789"), Secret("sk-short" + " "), Secret("ab")),
    )
    made = plan(found, Present(now=0.0, keys={Secret("sk-known-0123456789"): "is here already"}))
    assert made.keys == (GOOD,)
    assert rows(made) == [
        ("sk-…cdef", Fate.ADDED, "a regular key; only its digest is kept"),
        ("sk-…6789", Fate.SKIPPED, "is here already"),
        ("sk-…", Fate.INVALID, "it is a sample key from documentation; make a new one for who uses it"),
        ("sk-…", Fate.INVALID, "a key has 1 to 512 printable ASCII characters and no space"),
        ("…", Fate.INVALID, "it is shorter than 8 characters; make a new one for who uses it"),
        (
            "sk-…6789",
            Fate.SKIPPED,
            "the original's admin key; the one here is the first of API_KEY, or the generated one",
        ),
    ]


@pytest.mark.parametrize(
    ("name", "text", "now", "fate", "says"),
    [
        ("CHAT_RETRY_COUNT", "3", "1", Fate.CHANGED, "was 1; set at run time"),
        ("CHAT_RETRY_COUNT", "3", "3", Fate.SKIPPED, "it is so already"),
        ("OUTPUT_THINK", "TRUE", "true", Fate.SKIPPED, "it is so already"),
        ("CHAT_RETRY_COUNT", "many", "1", Fate.INVALID, "it should be a whole number from 0 to 10"),
        ("MODEL_MAP", "a=b", "", Fate.CHANGED, "was unset; set at run time"),
        ("SERVICE_PORT", "8080", "3000", Fate.SKIPPED, "it is read at the start only: put it into .env"),
        ("SERVICE_PORT", "3000", "3000", Fate.SKIPPED, "it is so already"),
        (
            "QWEN_EXTRA_HEADERS",
            '{"a": "canary"}',
            "***",
            Fate.SKIPPED,
            "it is read at the start only: put it into .env",
        ),
        ("PROXY_URL", "http://u:canary@h:1", "", Fate.SKIPPED, "it is read at the start only: put it into .env"),
    ],
)
def test_settings(name: str, text: str, now: str, fate: Fate, says: str) -> None:
    made = plan(Found(settings={name: text}), Present(now=0.0, settings={name: now}))
    (row,) = made.rows
    assert (row.fate, row.says) == (fate, says)
    assert made.settings == ({name: text} if fate is Fate.CHANGED else {})
    assert made.is_empty == (fate is not Fate.CHANGED)
    assert "canary" not in row.name


def test_a_plan_counts_what_becomes_of_what_was_found() -> None:
    found = Found(
        accounts=(FoundAccount(email="a@x.example", password=Secret("pw")), FoundAccount(email="b@x.example")),
        keys=(GOOD,),
    )
    made = plan(found, Present(now=0.0))
    assert (made.count(Fate.ADDED), made.count(Fate.INVALID), made.is_empty) == (2, 1, False)
    assert [planned.account.id for planned in made.accounts] == ["a@x.example"]
    assert plan(Found(), Present(now=0.0)).is_empty
