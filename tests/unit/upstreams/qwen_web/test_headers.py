"""The ordinary headers, and the owner's credentials in them."""

import pytest

from qwen_proxy.accounts.model import Credential
from qwen_proxy.ground.errors import CredentialRejected
from qwen_proxy.ground.secret import Secret
from qwen_proxy.upstreams.qwen_web.headers import (
    MAX_REMEMBERED,
    HeaderOptions,
    WebHeaders,
    cookie_header,
    credential_headers,
    header_problem,
    javascript_date,
)

NOW = 1_790_021_615.9  # 2026-09-21T20:13:35Z


def credential(token: str = "TOKEN", cookies: str | None = None, account_id: str = "a@x") -> Credential:
    return Credential(account_id=account_id, token=Secret(token), cookies=None if cookies is None else Secret(cookies))


def test_a_completion_has_the_whole_set() -> None:
    headers = WebHeaders("http://127.0.0.1:8000/qwen", HeaderOptions(extra=(("bx-v", "2.5.36"),)))
    assert headers.of_completion(credential(), chat_id="c1", now=NOW, request_id="r1") == {
        "Accept": "application/json",
        "Accept-Language": "en-US,en;q=0.9",
        "Authorization": "Bearer TOKEN",
        "Content-Type": "application/json",
        "Cookie": "token=TOKEN",
        "Origin": "http://127.0.0.1:8000",
        "Referer": "http://127.0.0.1:8000/qwen/c/c1",
        "Sec-Fetch-Dest": "empty",
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "same-origin",
        "User-Agent": HeaderOptions().user_agent,
        "X-Accel-Buffering": "no",
        "bx-v": "2.5.36",
        "sec-ch-ua": '"Chromium";v="149", "Google Chrome";v="149", "Not_A Brand";v="24"',
        "sec-ch-ua-mobile": "?0",
        "sec-ch-ua-platform": '"Windows"',
        "source": "web",
        "timezone": "Tue Sep 22 2026 04:13:35 GMT+0800",
        "version": "0.2.91",
        "x-request-id": "r1",
    }


def test_a_call_without_a_credential_proves_nothing() -> None:
    headers = WebHeaders("https://h", HeaderOptions()).of_call(None, page="/auth", now=NOW, request_id="r")
    assert not {"Authorization", "Cookie"} & headers.keys()
    assert (headers["Accept"], headers["Referer"]) == ("application/json, text/plain, */*", "https://h/auth")


def test_a_new_token_takes_the_place_of_the_old_one() -> None:
    headers = WebHeaders("https://h", HeaderOptions())
    for token in ("one", "one", "two"):
        made = headers.of_call(credential(token), page="/", now=NOW, request_id="r")
        assert made["Authorization"] == f"Bearer {token}"
        made["Authorization"] = "changed"


def test_what_is_remembered_is_bounded() -> None:
    headers = WebHeaders("https://h", HeaderOptions())
    for number in range(MAX_REMEMBERED + 2):
        made = headers.of_call(credential(f"t{number}", account_id=f"{number}"), page="/", now=NOW, request_id="r")
        assert made["Authorization"] == f"Bearer t{number}"


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ("cookie+bearer", {"Authorization": "Bearer T", "Cookie": "token=T; a=1"}),
        ("cookie", {"Cookie": "token=T; a=1"}),
        ("bearer", {"Authorization": "Bearer T", "Cookie": "a=1"}),
    ],
)
def test_where_the_token_stands(places: str, expected: dict[str, str]) -> None:
    assert credential_headers(credential("T", "a=1"), places) == expected


def test_a_bearer_without_cookies() -> None:
    assert credential_headers(credential("T"), "bearer") == {"Authorization": "Bearer T"}


@pytest.mark.parametrize(
    ("cookies", "line"),
    [
        (None, "token=T"),
        ("", "token=T"),
        ("a=1; b=2", "token=T; a=1; b=2"),
        ("a=1; token=old; b=2", "a=1; token=T; b=2"),
        ("a=1;token=old;;b=x=y; token=older", "a=1; token=T; b=x=y"),
        ("mytoken=1", "token=T; mytoken=1"),
    ],
)
def test_the_owners_cookies_stay_as_they_are(cookies: str | None, line: str) -> None:
    assert cookie_header("T", cookies) == line


@pytest.mark.parametrize(("token", "cookies"), [("t\u00f6ken", None), ("t\r\nx: y", None), ("T", "a=\u00fc")])
def test_what_can_not_stand_in_a_header_is_not_sent(token: str, cookies: str | None) -> None:
    with pytest.raises(CredentialRejected):
        credential_headers(credential(token, cookies), "cookie+bearer")


def test_header_problems_are_told() -> None:
    assert header_problem("plain") is None
    assert "ASCII" in (header_problem("\u4e2d") or "")
    assert "control" in (header_problem("a\nb") or "")


@pytest.mark.parametrize(
    ("minutes", "date"),
    [
        (0, "Mon Sep 21 2026 20:13:35 GMT+0000"),
        (-210, "Mon Sep 21 2026 16:43:35 GMT-0330"),
        (345, "Tue Sep 22 2026 01:58:35 GMT+0545"),
    ],
)
def test_dates_as_javascript_writes_them(minutes: int, date: str) -> None:
    assert javascript_date(NOW, minutes) == date


@pytest.mark.parametrize(
    ("user_agent", "platform"),
    [
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Chrome/150.0.0.0", '"macOS"'),
        ("Mozilla/5.0 (X11; Linux x86_64) Chrome/150.0.0.0", '"Linux"'),
        ("Chrome/150.0", '"Unknown"'),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", None),
    ],
)
def test_client_hints_agree_with_the_user_agent(user_agent: str, platform: str | None) -> None:
    headers = WebHeaders("https://h", HeaderOptions(user_agent=user_agent))
    made = headers.of_call(None, page="/", now=NOW, request_id="r")
    assert made.get("sec-ch-ua-platform") == platform
    assert ("150" in made.get("sec-ch-ua", "")) == (platform is not None)
