"""Whatever is pasted as cookies is refused or fits one header line, and is sent as it was copied."""

import re

from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.accounts.cookies import CookieForm, WrongCookies, read_cookies
from qwen_proxy.upstreams.qwen_web.headers import header_problem

NAMES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, blacklist_characters=";="), min_size=1, max_size=9
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, blacklist_characters=";"), max_size=20).map(
    str.strip
)
COOKIES = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=6)
PIECES = st.sampled_from(
    ["curl ", "-H ", "-b ", "cookie: ", "'", '"', "$'", "\\", "^", '^"', "\n", "\r\n", "\t", "=", ";", ".qwen.ai\t"]
    + ["TRUE\t/\tFALSE\t0\t", "#HttpOnly_", "# HTTP Cookie File\n", 'System.Net.Cookie("', '", "', "`", "\\u000a", "é"]
)


def header_of(cookies: list[tuple[str, str]]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies)


@given(COOKIES)
def test_a_request_for_bash_gives_back_its_cookies(cookies: list[tuple[str, str]]) -> None:
    header = header_of(cookies)
    quoted = header.replace("'", "'\\''")
    found = read_cookies(f"curl 'https://chat.qwen.ai/' \\\n  -H 'cookie: {quoted}' \\\n  --compressed", 0.0)
    assert (found.form, found.header.reveal()) == (CookieForm.CURL, header)


@given(COOKIES)
def test_a_request_for_a_windows_prompt_gives_back_its_cookies(cookies: list[tuple[str, str]]) -> None:
    header = header_of(cookies)
    inner = re.sub(r"[^a-zA-Z0-9\s_\-:=+~'/.,?;()*`]", r"^\g<0>", header.replace("\\", "\\\\").replace('"', '\\"'))
    found = read_cookies(f'curl ^"https://chat.qwen.ai/^" ^\n  -H ^"cookie: {inner}^" ^\n  --compressed', 0.0)
    assert (found.form, found.header.reveal()) == (CookieForm.CURL, header)


@given(COOKIES)
def test_a_netscape_file_gives_back_its_cookies(cookies: list[tuple[str, str]]) -> None:
    lines = [f".qwen.ai\tTRUE\t/\tTRUE\t0\t{name}\t{value}\n" for name, value in cookies]
    found = read_cookies("# Netscape HTTP Cookie File\n" + "".join(lines), 0.0)
    assert (found.form, found.header.reveal()) == (CookieForm.NETSCAPE, header_of(list(dict(cookies).items())))


@given(st.lists(PIECES | st.text(max_size=4), max_size=40).map("".join))
def test_nothing_pasted_can_break_out_of_the_header(text: str) -> None:
    try:
        found = read_cookies(text, 0.0)
    except WrongCookies:
        return
    header = found.header.reveal()
    assert header and header_problem(header) is None
    assert [pair.partition("=")[0] for pair in header.split("; ")] == list(found.names)
