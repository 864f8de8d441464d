"""The original's data.json, damaged anywhere: what stands whole before the damage is found, and nothing ever breaks."""

import json

from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.data_json import read
from qwen_proxy.operations.migration.found import Found, combined
from tests.support.original import account, data_json

SMALL = [
    account("alice@example.com", "p,w:|{}[]"),
    account("bob@example.com", 'quo"te\\', proxy="http://u:p@h:1", statsHistory={}),
    account("carol@example.com", "пароль", stats=None),
]


def logins(found: Found) -> dict[str, Secret | None]:
    return {each.email: each.password for each in found.accounts}


def ends(text: bytes) -> list[int]:
    """Behind the last byte of each account."""
    found: list[int] = []
    decoder = json.JSONDecoder()
    whole = text.decode()
    for each in SMALL:
        start = whole.rindex("{", 0, whole.index(str(each["email"])))
        _, end = decoder.raw_decode(whole, start)
        found.append(len(whole[:end].encode()))
    return found


def test_cut_at_every_byte_no_whole_account_is_lost() -> None:
    for indent in (None, 2):
        text = data_json(*SMALL, indent=indent)
        behind = ends(text)
        for cut in range(len(text)):
            found = read(text[:cut], "d", today=0)
            whole = {each.email: each.password for each in found.accounts if each.is_whole}
            expected = [each for each, end in zip(SMALL, behind, strict=True) if end <= cut]
            assert whole == {str(each["email"]): Secret(str(each["password"])) for each in expected}, cut
            assert len(found.accounts) <= len(expected) + 1
            if cut < len(text) - 1:
                assert found.problems


def test_cut_at_every_byte_from_the_front_no_whole_account_is_lost() -> None:
    text = data_json(*SMALL, indent=None)
    behind = ends(text)
    starts = [text.rindex(b"{", 0, text.index(str(each["email"]).encode())) for each in SMALL]
    for cut in range(1, len(text)):
        found = logins(read(text[cut:], "d", today=0))
        expected = [each for each, start in zip(SMALL, starts, strict=True) if start >= cut]
        assert {str(each["email"]) for each in expected} <= found.keys(), cut
        assert len(found) <= len(expected) + 1 or cut > behind[-1]


@given(st.data(), st.binary(max_size=60))
def test_other_bytes_anywhere_harm_only_what_they_hit(data: st.DataObject, garbage: bytes) -> None:
    """Bytes that open no text of their own: a lone quote may turn text and structure around up to the next line."""
    garbage = garbage.replace(b'"', b"").replace(b"\\", b"")
    text = data_json(*SMALL, indent=2)
    at = data.draw(st.integers(0, len(text)))
    removed = data.draw(st.integers(0, 200))
    found = read(text[:at] + garbage + text[at + removed :], "d", today=0)
    for each, end in zip(SMALL, ends(text), strict=True):
        start = text.rindex(b"{", 0, text.index(str(each["email"]).encode()))
        if end <= at or start >= at + removed + 1:
            assert logins(found).get(str(each["email"])) == Secret(str(each["password"]))


@given(
    st.binary(max_size=400), st.lists(st.sampled_from([b'"email"', b'{"email":"a@b"', b"}", b"{", b'"', b",", b":"]))
)
def test_no_bytes_are_too_odd(noise: bytes, tokens: list[bytes]) -> None:
    for text in (noise, b"".join(tokens), noise.join(tokens)):
        assert isinstance(combined([read(text, "d", today=0)]), Found)
