"""The original's data.json: in order, of older versions, and damaged in every way that was seen."""

import codecs
import json

import pytest

from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.data_json import MOST_PROBLEMS, read
from qwen_proxy.operations.migration.found import DayUsage, Found, FoundAccount, day_start
from tests.support.original import DAY, account, data_json, jwt

TODAY = 1_790_000_000 // 86400 * 86400
ALICE, BOB, CAROL = account("alice@example.com", "pw-a"), account("Bob@Example.com", "pw-b"), account("carol@x.example")
STATS = day_start("2026-09-21")


def emails(found: Found) -> list[str]:
    return [each.email for each in found.accounts]


def said(found: Found) -> str:
    return "\n".join(f"{problem.where}: {problem.says}" for problem in found.problems)


def test_a_file_in_order() -> None:
    found = read(data_json(ALICE, account("b@x.example", proxy="socks5://u:p@h:1")), "data.json", today=TODAY)
    assert found == Found(
        accounts=(
            FoundAccount(
                email="alice@example.com",
                password=Secret("pw-a"),
                token=Secret(jwt(1_900_000_000)),
                token_ends_at=1_900_000_000.0,
                usage=(DayUsage(starts_at=STATS or 0, feature="chat", prompt_tokens=1200, completion_tokens=340),),
                where="data.json, account 1",
            ),
            FoundAccount(
                email="b@x.example",
                password=Secret("pw"),
                token=Secret(jwt(1_900_000_000)),
                token_ends_at=1_900_000_000.0,
                proxy="socks5://u:p@h:1",
                usage=(DayUsage(starts_at=STATS or 0, feature="chat", prompt_tokens=1200, completion_tokens=340),),
                where="data.json, account 2",
            ),
        ),
        admin_key=Secret("sk-the-admins-key"),
        keys=(Secret("sk-a-users-key"),),
        settings={"CHAT_RETRY_COUNT": "3", "CHAT_RETRY_BACKOFF_MS": "250"},
    )


def test_an_old_file_lacks_most_and_calls_the_end_of_a_token_otherwise() -> None:
    old = {"accounts": [{"email": "a@x.example", "password": "p", "token": "", "expired": 5}]}
    found = read(json.dumps(old).encode(), "d", today=TODAY)
    assert found == Found(accounts=(FoundAccount(email="a@x.example", password=Secret("p"), where="d, account 1"),))


def test_one_stored_key_replaces_none() -> None:
    found = read(data_json(settings={"apiKeys": ["sk-only"], "chatRetryCount": None}), "d", today=TODAY)
    assert (found.admin_key, found.keys, found.settings) == (None, (), {})
    found = read(data_json(settings={"apiKeys": "sk-a,sk-b"}), "d", today=TODAY)
    assert found.keys == () and "apiKeys are no list" in said(found)


def test_counters_of_today_belong_to_the_day_the_file_was_written() -> None:
    today = {"chat": {"input": 5, "output": 6}, "cli": {"calls": 7, "input": 8, "output": 9}}
    found = read(data_json(account("a@x.example", stats=today, statsHistory={})), "d", today=TODAY)
    assert found.accounts[0].usage == (
        DayUsage(starts_at=TODAY, feature="chat", prompt_tokens=5, completion_tokens=6),
        DayUsage(starts_at=TODAY, feature="cli", requests=7, prompt_tokens=8, completion_tokens=9),
    )


def test_a_day_that_is_told_twice_counts_once() -> None:
    stats = {"chat": {"input": 9, "output": 1}}
    found = read(
        data_json(account("a@x.example", stats=stats, statsHistory={"2026-09-21": DAY})), "d", today=STATS or 0
    )
    (row,) = found.accounts[0].usage
    assert (row.prompt_tokens, row.completion_tokens) == (1200, 340)


@pytest.mark.parametrize(
    "history",
    [
        {"2026-13-45": DAY},
        {"yesterday": DAY},
        {"2026-09-21": None},
        {"2026-09-21": {"chat": {"input": -1}}},
        {"2026-09-21": {"chat": {"input": 1e300}}},
        {"2026-09-21": {"chat": {"input": "12"}}},
        {"2026-09-21": {"chat": {"input": True}}},
        [],
        "{",
        7,
    ],
)
def test_statistics_that_make_no_sense_are_told_of_and_the_account_is_there(history: object) -> None:
    found = read(data_json(account("a@x.example", statsHistory=history)), "d", today=TODAY)
    assert found.accounts[0].usage == ()
    assert said(found) == "d, account 1 (a***@x.example): a part of its statistics can't be read"


def test_fields_of_the_wrong_kind_are_told_of() -> None:
    odd = account("a@x.example", token=["x"], proxy={"a": 1}) | {"password": 123456}
    found = read(data_json(odd, {"password": "x"}, account("b@x.example") | {"email": 7}), "d", today=TODAY)
    (first, second) = found.accounts
    assert (first.password, first.token, first.proxy) == (Secret("123456"), None, "")
    assert second.email == "7"
    assert [problem.says for problem in found.problems] == [
        "its token can't be read",
        "its proxy can't be read",
        "an account without an email that can be read",
    ]


def test_what_is_no_list_of_accounts_is_said() -> None:
    assert "no list of accounts" in said(read(b'{"accounts": {}}', "d", today=TODAY))
    assert "no list of accounts" in said(read(b"{}", "d", today=TODAY))
    assert "account 1: it is no object" in said(read(b'{"accounts": [null]}', "d", today=TODAY))
    found = read(data_json(ALICE, defaultHeaders={"x": "y"}, defaultCookie="a=b"), "d", today=TODAY)
    assert "defaultHeaders" in said(found) and "defaultCookie" in said(found)


def test_a_password_in_another_alphabet_is_kept_and_broken_bytes_are_told_of() -> None:
    good = read(data_json(account("a@x.example", "пароль-密码")), "d", today=TODAY)
    assert good.accounts[0].password == Secret("пароль-密码") and not good.problems
    for indent in (2, None):
        broken = data_json(account("a@x.example", "caf\u00e9"), indent=indent).replace("é".encode(), b"\xe9")
        found = read(broken, "d", today=TODAY)
        assert found.accounts[0].password is None and "its password can't be read" in said(found)


# --- damaged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_marks_and_line_ends_do_not_matter(indent: int | None, line_end: bytes, mark: bytes) -> None:
    text = mark + data_json(ALICE, BOB, indent=indent).replace(b"\n", line_end)
    assert emails(read(text, "d", today=TODAY)) == ["alice@example.com", "Bob@Example.com"]
    assert emails(read(text[:-2], "d", today=TODAY)) == ["alice@example.com", "Bob@Example.com"]


def test_two_bytes_a_character() -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        text = data_json(ALICE).decode()
        found = read(("\ufeff" + text).encode(encoding), "d", today=TODAY)
        assert emails(found) == ["alice@example.com"] and not found.problems


def test_a_cut_file_gives_the_accounts_before_the_cut_and_what_was_whole_of_the_next() -> None:
    text = data_json(ALICE, BOB, CAROL)
    cut = text.index(b'"token"', text.index(b"Bob")) + 20
    found = read(text[:cut], "data.json", today=TODAY)
    alice, bob = found.accounts
    assert alice.is_whole and alice.token is not None and alice.usage
    assert (bob.email, bob.password, bob.token, bob.is_whole) == ("Bob@Example.com", Secret("pw-b"), None, False)
    bob_at = text.rindex(b"{", 0, text.index(b"Bob"))
    broken_at = text.index(b'"token"', text.index(b"Bob"))
    assert said(found).splitlines() == [
        "data.json: it is damaged (Input data was truncated); what could be found in it was taken",
        f"data.json, byte {bob_at}: the account breaks off at byte {text.index(b',', text.index(b'pw-b')) + 1}",
        f"data.json: {cut - broken_at} bytes from byte {broken_at} on can't be read",
    ]


def test_a_cut_right_behind_a_text_keeps_it_and_inside_a_number_drops_it() -> None:
    text = data_json(ALICE, indent=None)
    (found,) = read(text[: text.index(b"pw-a") + 5], "d", today=TODAY).accounts
    assert found.password == Secret("pw-a")
    (found,) = read(text[: text.index(b"pw-a") + 4], "d", today=TODAY).accounts
    assert found.password is None


def test_a_shorter_text_over_a_longer_one_gives_both() -> None:
    """Two writes at once: the newer, shorter text is followed by the end of the older, here from within Bob on."""
    old, new = data_json(ALICE, BOB, CAROL), data_json(ALICE)
    found = read(new + old[len(new) :], "d", today=TODAY)
    assert emails(found) == ["alice@example.com", "carol@x.example"]
    assert "trailing" in said(found) and f"bytes from byte {len(new)} on can't be read" in said(found)


def test_two_texts_one_behind_the_other_and_a_half_before() -> None:
    found = read(data_json(ALICE) + data_json(BOB, indent=None), "d", today=TODAY)
    assert emails(found) == ["alice@example.com", "Bob@Example.com"]
    for indent in (None, 2):
        half = data_json(ALICE, BOB, indent=indent)
        half = half[: half.index(b"pw-b") + 2]
        found = read(half + data_json(CAROL, indent=indent), "d", today=TODAY)
        assert emails(found) == ["alice@example.com", "Bob@Example.com", "carol@x.example"]
        assert [each.is_whole for each in found.accounts] == [True, False, True]


def test_garbage_before_between_and_behind() -> None:
    whole = data_json(ALICE, BOB)
    middle = whole.rindex(b"{", 0, whole.index(b"Bob"))
    text = b"\0" * 100 + whole[:middle] + b'"}]} \xff\xfe{{"' + whole[middle:] + b"\0" * 4096
    found = read(text, "d", today=TODAY)
    assert emails(found) == ["alice@example.com", "Bob@Example.com"]
    assert [each.is_whole for each in found.accounts] == [True, True]
    assert "100 bytes" not in said(found)  # the gap goes on to the first account
    assert "bytes from byte 0 on" in said(found)


def test_keys_and_settings_of_a_damaged_file_are_found() -> None:
    found = read(data_json(ALICE) + b"}", "d", today=TODAY)
    assert found.keys == (Secret("sk-a-users-key"),) and found.settings["CHAT_RETRY_COUNT"] == "3"


def test_what_is_no_json_after_all_is_left_out() -> None:
    text = data_json(account("a@x.example", "canary"), settings={}).replace(b"canary", rb"can\qary")
    (found,) = read(text, "d", today=TODAY).accounts
    assert found.password is None and found.token is not None
    found = read(data_json(ALICE).replace(b'"chatRetryCount": 3', b"3 3"), "d", today=TODAY)
    assert found.settings == {} and len(found.accounts) == 1


def test_an_email_may_stand_anywhere_in_its_account() -> None:
    late = {"stats": DAY, "statsHistory": {f"2026-0{n}-01": DAY for n in range(1, 10)}, "email": "late@x.example"}
    found = read(data_json(ALICE, {**late, "password": "pw"}) + b"]", "d", today=TODAY)
    assert emails(found) == ["alice@example.com", "late@x.example"]
    assert len(found.accounts[1].usage) == 9 + 1


def test_a_hands_last_comma_is_no_loss() -> None:
    text = b'{"accounts": [{"email": "a@x.example", "password": "pw",}]}'
    (found,) = read(text, "d", today=TODAY).accounts
    assert found.is_whole and found.password == Secret("pw")


def test_texts_that_look_like_structure_are_texts() -> None:
    tricky = account("a@x.example", 'p"{"email":"no@x.example","password":"x"}],\\')
    found = read(data_json(tricky, BOB) + b"]", "d", today=TODAY)
    assert emails(found) == ["a@x.example", "Bob@Example.com"]
    assert found.accounts[0].password == Secret('p"{"email":"no@x.example","password":"x"}],\\')


@pytest.mark.parametrize(
    "text", [b"", b"   ", b"null", b"\0" * 1000, b"<html>", b'"email"', b'{"email"', b'{"email": }', b'["email"]']
)
def test_nothing_to_find_is_nothing_found(text: bytes) -> None:
    found = read(text, "d", today=TODAY)
    assert found.accounts == () and "damaged" in said(found)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200_000,
        b'{"email":' * 50_000,
        b'{"email":"a@x.example","x":[' * 20_000,
        b"{ " * 30_000 + b'"email" ' * 100_000,
        b"{}" * 30_000 + b'"email" }' * 50_000,
        b'{"email": "' + b"\\" * 1_000_000,
        b'{"accounts":[' + b'{"a":' * 100_000,
    ],
)
@pytest.mark.timeout(20)
def test_hostile_files_take_bounded_time(text: bytes) -> None:
    found = read(text, "d", today=TODAY)
    assert len(found.problems) <= MOST_PROBLEMS + 1


def test_problems_name_no_secret() -> None:
    text = data_json(account("canary@example.com", "canary-pw", token="canary-token", statsHistory=7), BOB)
    for end in range(0, len(text), 7):
        assert "canary" not in said(read(text[:end], "d", today=TODAY))
