"""The ordinary headers of the site's own web page, and the owner's credentials. Pure. Source: upstream protocol §9.

One coherent desktop Chrome: the brands follow from the user agent. No anti-bot cookie or device header is made here;
cookies are sent as the account's owner copied them from a browser, only `token=` is replaced by the current token.
"""

import re
from datetime import datetime, timedelta, timezone
from typing import Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from qwen_proxy.accounts.model import Credential
from qwen_proxy.ground.errors import CredentialRejected

MAX_REMEMBERED: Final = 1024
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
PLATFORMS: Final = (("Windows", "Windows"), ("Macintosh", "macOS"), ("Linux", "Linux"))
DEFAULT_USER_AGENT: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Safari/537.36"
)
JSON_OR_TEXT: Final = "application/json, text/plain, */*"


class HeaderOptions(Struct, frozen=True, kw_only=True):
    """`version` is the front end's; `credentials` which of the two places the token stands in (§9.2)."""

    user_agent: str = DEFAULT_USER_AGENT
    version: str = "0.2.91"
    accept_language: str = "en-US,en;q=0.9"
    utc_offset_minutes: int = 480
    credentials: Literal["cookie+bearer", "cookie", "bearer"] = "cookie+bearer"
    extra: tuple[tuple[str, str], ...] = ()


class WebHeaders:
    """Makes the headers of a call; what is constant for a credential is made once."""

    def __init__(self, base_url: str, options: HeaderOptions) -> None:
        self._options = options
        self._base_url = base_url
        self._constant = _constant(base_url, options)
        self._second = -1
        self._date_then = ""
        self._remembered: dict[str, tuple[Credential, dict[str, str]]] = {}

    def of_call(self, credential: Credential | None, *, page: str, now: float, request_id: str) -> dict[str, str]:
        """For any call but a completion. `page` is the path that a browser would be on, `now` Unix seconds.

        Raises CredentialRejected for a token or cookies that can't stand in a header.
        """
        headers = (self._constant if credential is None else self._of_credential(credential)).copy()
        headers["Referer"] = self._base_url + page
        headers["timezone"] = self._date(int(now))
        headers["x-request-id"] = request_id
        return headers

    def of_completion(self, credential: Credential, *, chat_id: str, now: float, request_id: str) -> dict[str, str]:
        """For a completion: the front end asks for JSON here although a stream comes (§9.1)."""
        headers = self.of_call(credential, page=f"/c/{chat_id}", now=now, request_id=request_id)
        headers["Accept"] = "application/json"
        headers["X-Accel-Buffering"] = "no"
        return headers

    def _date(self, second: int) -> str:
        if second != self._second:
            self._second, self._date_then = second, javascript_date(second, self._options.utc_offset_minutes)
        return self._date_then

    def _of_credential(self, credential: Credential) -> dict[str, str]:
        """The constant headers and the credential's."""
        known = self._remembered.get(credential.account_id)
        if known is not None and (known[0] is credential or known[0] == credential):
            return known[1]
        headers = self._constant | credential_headers(credential, self._options.credentials)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[credential.account_id] = (credential, headers)
        return headers


def credential_headers(credential: Credential, places: str) -> dict[str, str]:
    token = credential.token.reveal()
    cookies = None if credential.cookies is None else credential.cookies.reveal()
    if header_problem(token) is not None or header_problem(cookies or "") is not None:
        raise CredentialRejected
    headers = {"Authorization": f"Bearer {token}"} if "bearer" in places else {}
    if "cookie" in places:
        headers["Cookie"] = cookie_header(token, cookies)
    elif cookies is not None:
        headers["Cookie"] = cookies
    return headers


def header_problem(value: str) -> str | None:
    """Why a pasted token or cookie line can't stand in a header, None if it can."""
    if not value.isascii():
        return "it holds characters beyond ASCII"
    return None if value.isprintable() else "it holds a line break or another control character"


def cookie_header(token: str, cookies: str | None) -> str:
    """The owner's cookies in their order, with `token=` replaced, or added in front."""
    pairs = [pair.strip() for pair in (cookies or "").split(";")]
    kept = [pair for pair in pairs if pair and pair.partition("=")[0].strip() != "token"]
    position = next((index for index, pair in enumerate(pairs) if pair.partition("=")[0].strip() == "token"), 0)
    kept.insert(len([pair for pair in pairs[:position] if pair]), f"token={token}")
    return "; ".join(kept)


def javascript_date(now: float, utc_offset_minutes: int) -> str:
    """`Tue Sep 22 2026 04:13:35 GMT+0800`: no zone name, since it may not be ASCII (§9.1)."""
    there = datetime.fromtimestamp(now, timezone(timedelta(minutes=utc_offset_minutes)))
    sign, minutes = "-" if utc_offset_minutes < 0 else "+", abs(utc_offset_minutes)
    day = f"{DAYS[there.weekday()]} {MONTHS[there.month - 1]} {there.day:02} {there.year}"
    return f"{day} {there:%H:%M:%S} GMT{sign}{minutes // 60:02}{minutes % 60:02}"


def _constant(base_url: str, options: HeaderOptions) -> dict[str, str]:
    parts = urlsplit(base_url)
    return (
        {
            "User-Agent": options.user_agent,
            "Accept-Language": options.accept_language,
            "Origin": f"{parts.scheme}://{parts.netloc}",
            "Accept": JSON_OR_TEXT,
            "Content-Type": "application/json",
            "Sec-Fetch-Dest": "empty",
            "Sec-Fetch-Mode": "cors",
            "Sec-Fetch-Site": "same-origin",
            "source": "web",
            "version": options.version,
        }
        | _brands(options.user_agent)
        | dict(options.extra)
    )


def _brands(user_agent: str) -> dict[str, str]:
    """The client hints that go with a Chrome's user agent; none for another browser."""
    major = re.search(r"Chrome/([0-9]+)", user_agent)
    if major is None:
        return {}
    platform = next((name for mark, name in PLATFORMS if mark in user_agent), "Unknown")
    brands = f'"Chromium";v="{major[1]}", "Google Chrome";v="{major[1]}", "Not_A Brand";v="24"'
    return {"sec-ch-ua": brands, "sec-ch-ua-mobile": "?0", "sec-ch-ua-platform": f'"{platform}"'}
