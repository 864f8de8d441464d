"""Whatever is pasted, every line is accounted for once, and no password is told."""

import re

from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.accounts.lines import read_lines

NAMES = st.text("abcXYZ09._-", min_size=1, max_size=8)
EMAILS = st.tuples(NAMES, NAMES).map("@".join)
PASSWORDS = st.text(st.characters(blacklist_characters="|\r\n", blacklist_categories=["Cs"]), min_size=1, max_size=20)
SCHEMES = st.sampled_from(["http", "https", "socks5", "socks5h"])
PROXIES = st.just("") | st.tuples(SCHEMES, st.text("abc.", min_size=1, max_size=8)).map("://".join)
PIECES = st.sampled_from(["\n", "\r", "\r\n", "|", ":", "@", "#", " ", "\t", "http://", "a@b:c", "a@b", "\ufeff", "\0"])


@given(EMAILS, PASSWORDS, PROXIES)
def test_what_is_written_is_what_is_read(email: str, password: str, proxy: str) -> None:
    line = f"{email}:{password}|{proxy}" if proxy else f"{email}:{password}"
    found = read_lines(f"\n{line}\n")
    kept = password if proxy else password.rstrip()
    if not kept:
        assert [bad.problem for bad in found.bad] == ["the password is missing"]
    else:
        (good,) = found.good
        assert (good.number, good.login.email, good.login.password.reveal()) == (2, email, kept)
        assert good.login.exit == proxy


@given(st.lists(PIECES | st.text(max_size=5), max_size=60).map("".join))
def test_every_line_is_in_one_place_and_none_breaks_the_reader(text: str) -> None:
    found = read_lines(text)
    numbers = sorted(line.number for line in (*found.good, *found.bad, *found.repeated))
    lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
    assert numbers == [n for n, line in enumerate(lines, 1) if line.strip() and not line.strip().startswith("#")]
    assert len({line.login.account_id for line in found.good}) == len(found.good)


@given(EMAILS, st.text("abcdefgh", min_size=5, max_size=9), st.sampled_from(["|x", "|ftp://h", "|http://", ":", "|"]))
def test_no_word_about_a_line_holds_its_password(email: str, secret: str, rest: str) -> None:
    password = f"<{secret}>"
    found = read_lines(f"{email}:{password}{rest}\n{email}:{password}\n{password}", {email.lower()})
    told = [line.sentence for line in (*found.bad, *found.repeated)] + [repr(found)]
    assert not any(password in sentence for sentence in told)
