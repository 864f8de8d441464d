"""Cookies as an owner pastes them, and the header that is sent."""

import re

import pytest

from qwen_proxy.accounts.cookies import CookieForm, PastedCookies, WrongCookies, read_cookies
from qwen_proxy.ground.secret import Secret

NOW = 1_800_000_000.0
FILE = f"""# Netscape HTTP Cookie File
# https://curl.se/docs/http-cookies.html

.qwen.ai\tTRUE\t/\tFALSE\t{NOW + 900:.0f}\tcna\tA+b/c==
#HttpOnly_chat.qwen.ai\tFALSE\t/\tTRUE\t{NOW + 800:.3f}\ttoken\teyJ.a.b
qwen.ai\tTRUE\t/api\tTRUE\t0\tssxmod_itna\t1-a,b "c"
chat.qwen.ai\tFALSE\t/\tTRUE\t0\tempty
.chat.qwen.ai\tFALSE\t/\tTRUE\t-1\t_bl_uid\tnew, and below
chat.qwen.ai\tFALSE\t/\tTRUE\t0\tempty\t
qwen.ai\tFALSE\t/\tFALSE\t0\thost_only\tcanary
.aliyun.com\tTRUE\t/\tFALSE\t0\tother\tcanary
evilchat.qwen.ai.example\tTRUE\t/\tFALSE\t0\tother\tcanary
chat.qwen.ai\tTRUE\t/auth\tFALSE\t0\tpath\tcanary
chat.qwen.ai\tTRUE\t/\tFALSE\t{NOW:.0f}\tended\tcanary
"""


def read(text: str) -> PastedCookies:
    return read_cookies(text, NOW)


def problem(text: str) -> str:
    with pytest.raises(WrongCookies) as caught:
        read_cookies(text, NOW)
    assert "canary" not in str(caught.value) and "canary" not in repr(caught.value.__cause__)
    return str(caught.value)


def test_a_netscape_file_gives_what_a_browser_would_send_to_the_site():
    found = read(FILE)
    assert found == PastedCookies(
        form=CookieForm.NETSCAPE,
        header=Secret('cna=A+b/c==; token=eyJ.a.b; ssxmod_itna=1-a,b "c"; empty=; _bl_uid=new, and below'),
        names=("cna", "token", "ssxmod_itna", "empty", "_bl_uid"),
        token=Secret("eyJ.a.b"),
        expires_at=NOW + 800,
        left_out=5,
    )
    assert "canary" not in found.header.reveal() and "eyJ" not in repr(found)


def test_a_netscape_file_is_known_without_its_first_line_and_with_other_line_ends():
    assert read("\ufeff" + FILE.partition("\n")[2].replace("\n", "\r\n")) == read(FILE)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("a=b; c=d", "a=b; c=d"),
        ("  Cookie: a=b;c=d ;; e=f=g;\r\n", "a=b; c=d; e=f=g"),
        ("cookie :a=b", "a=b"),
        ("POST /api/v2/chats/new HTTP/1.1\nHost: chat.qwen.ai\nCOOKIE: a=b\ncookie: c=d\nAccept: */*", "a=b; c=d"),
        ("cookie:\na=b; c=d\naccept:\n*/*", "a=b; c=d"),
        ('x=1 2, "3" \\4 5; y=', 'x=1 2, "3" \\4 5; y='),
    ],
)
def test_a_cookie_header_stays_as_it_is(text: str, header: str):
    found = read(text)
    assert (found.form, found.header.reveal(), found.expires_at, found.left_out) == (CookieForm.HEADER, header, None, 0)


@pytest.mark.parametrize(
    "text",
    [
        "curl 'https://chat.qwen.ai/api' \\\n -H 'accept: */*' \\\n -H 'Cookie: a=it'\\''s; token=T' --compressed",
        "$ curl 'https://chat.qwen.ai/' -b $'a=it\\u0027s; token=T' -d 'cookie: no=no'",
        'curl --url https://chat.qwen.ai/ --cookie "a=it\'s; token=T"',
        "curl 'chat.qwen.ai/api' -H'cookie: a=it'\\''s' -b'token=T'",
        "-H 'cookie: a=it'\\''s; token=T'",
        'CURL.EXE ^"https://chat.qwen.ai/^" ^\n -H ^"accept: */*^" ^\n --header ^"cookie: a=it\'s; token=T^"',
        "curl 'https://x.example/' -b 'a=canary' ;\ncurl 'https://chat.qwen.ai/' ;\n"
        "curl 'https://chat.qwen.ai/a' -b \"a=it's; token=T\" ;",
    ],
)
def test_a_copied_request_gives_its_cookies(text: str):
    found = read(text)
    assert (found.form, found.header.reveal()) == (CookieForm.CURL, "a=it's; token=T")
    assert (found.names, found.token) == (("a", "token"), Secret("T"))


def test_a_request_copied_as_powershell_gives_its_cookies():
    found = read(
        """$session.Cookies.Add((New-Object System.Net.Cookie("cna", "a b", "/", ".qwen.ai")))
        $session.Cookies.Add((New-Object System.Net.Cookie("other", "canary", "/", ".example.com")))
        $session.Cookies.Add((New-Object System.Net.Cookie("path", "canary", "/auth", "chat.qwen.ai")))
        Invoke-WebRequest -UseBasicParsing -Uri "https://chat.qwen.ai/api/v2/chats" `
        -Headers @{ "accept"="*/*"; "cookie"="c=d" }"""
    )
    assert found.form is CookieForm.POWERSHELL
    assert (found.header.reveal(), found.names, found.left_out) == ("cna=a b; c=d", ("cna", "c"), 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" \n", "there is nothing here; paste what a browser sends"),
        ("x" * (1024 * 1024 + 1), "more than 1048576 characters"),
        ("canary", "cookie 1 has no '='"),
        ("a=b; canary", "cookie 2 has no '='"),
        (" ; ; ", "there is no cookie in it"),
        ("Cookie:", "there is no cookie in it"),
        ("a=b\nc=canary", "a Cookie header is one line, and none of these 2 is one"),
        ("a=b; =canary", "cookie 2 has no name"),
        ("a=canaryé", "cookie 1 holds characters beyond ASCII"),
        ("a=canary\0", "cookie 1 holds a line break or another control character"),
        ("Set-Cookie: a=canary; Path=/", "cookie 1 holds a space, '=' or ';' where none may be"),
        (f"a={'canary' * 700}", "cookie 1 has more than 4096 characters"),
        ("; ".join(f"a{n}={'b' * 4000}" for n in range(5)), "a header of more than 16384 characters"),
        ("curl 'https://chat.qwen.ai/' -b 'a=canary", "a quote in it does not end"),
        ("curl 'https://canary.example/' -b 'a=b'", "the request goes to another site; copy one to chat.qwen.ai"),
        ("curl --url 'http://[canary' -b 'a=b'", "the request goes to another site"),
        ("curl 'https://chat.qwen.ai/' -H 'accept: canary' -H", "the request carries no cookies; sign in"),
        ("curl 'https://chat.qwen.ai/' -b canary.txt", "cookie 1 has no '='"),
        (r"curl 'https://chat.qwen.ai/' -b $'a=canary\r\nX-Evil: 1'", "cookie 1 holds a line break"),
        ("curl", "cookie 1 has no '='"),
        ("curl ", "the request carries no cookies"),
        ("Invoke-WebRequest -Uri x", "the command has no cookies of chat.qwen.ai"),
        ('System.Net.Cookie("a;b", "canary", "/", ".qwen.ai")', "cookie 1 holds a space, '=' or ';'"),
        ("# Netscape HTTP Cookie File\n", "no cookie of chat.qwen.ai (there is no cookie in it)"),
        ("# HTTP Cookie File\n.qwen.ai TRUE / FALSE 0 a canary", "line 2 is none of a Netscape cookie file"),
        ("token\tcanary\t.qwen.ai\t/\tSession\t9\t\t", "line 1 is none of a Netscape cookie file"),
        (".qwen.ai\tYES\t/\tFALSE\t0\ta\tcanary", "line 1 is none of a Netscape cookie file"),
        (".x.example\tTRUE\t/\tFALSE\t0\ta\tcanary", "(its 1 cookies are all of other sites); export them with"),
        (".qwen.ai\tTRUE\t/\tFALSE\t1700000000\ta\tcanary", "all cookies of chat.qwen.ai in the file have ended"),
        (".qwen.ai\tTRUE\t/\tFALSE\t0\ta\tcanary;b=c", "the cookie in line 1 holds a space, '=' or ';'"),
        (".qwen.ai\tTRUE\t/\tFALSE\t0\ta=b\tcanary", "the cookie in line 1 holds a space, '=' or ';'"),
        ("#HttpOnly_.qwen.ai\tTRUE\t/\tFALSE\t0\ta\tcanary\x0b", "the cookie in line 1 holds a line break"),
    ],
)
def test_what_can_not_be_sent_is_refused_with_what_would_be_right(text: str, said: str):
    assert re.search(re.escape(said), problem(text))


def test_a_token_without_a_value_is_none():
    assert read("token=; a=b").token is None
