"""Cookies as an account's owner copied them from a browser, turned into the Cookie header that is sent. Pure.

| pasted | known by |
|---|---|
| a request copied as cURL (for bash or a Windows prompt) or as PowerShell | its first word, or the cookies it makes |
| a Netscape cookie file | its first line, or lines of seven fields with tabs between |
| a Cookie header, with its name or without | anything else |

Names and values stay as they are, in their order (upstream protocol §9.3: nothing is made up or mended). What could not
stand in one header line is refused. No error quotes what was pasted.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from qwen_proxy.accounts.shells import Unclosed, powershell_cookies, powershell_headers, words
from qwen_proxy.ground.secret import Secret

SITE: Final = "chat.qwen.ai"
PARENT: Final = "qwen.ai"
API: Final = "/api/"
FORMS: Final = (
    f"paste what a browser sends to {SITE}: a Cookie header (name=value; name=value), a Netscape cookie file, or a "
    "request copied as cURL"
)
MOST_TEXT_CHARS: Final = 1024 * 1024
MOST_HEADER_CHARS: Final = 16 * 1024
MOST_COOKIE_CHARS: Final = 4096  # what browsers take for name and value together

_COMMAND: Final = re.compile(r"\s*(?:\$\s+)?(?:curl(?:\.exe)?\s|(?:-H|-b|--header|--cookie)[\s'\"$])", re.IGNORECASE)
_POWERSHELL: Final = re.compile(r"System\.Net\.Cookie\(|^[ \t]*Invoke-(?:WebRequest|RestMethod)\s", re.MULTILINE)
_NETSCAPE: Final = re.compile(r"\s*#\s*(?:Netscape )?HTTP Cookie File|(?:[^\t\r\n]*\t){5}", re.IGNORECASE)
_HEADER_NAME: Final = re.compile(r"[ \t]*cookie[ \t]*:", re.IGNORECASE)
_HTTP_ONLY: Final = "#HttpOnly_"
_CURL: Final = re.compile(r"curl(?:\.exe)?", re.IGNORECASE)


class CookieForm(StrEnum):
    HEADER = "header"
    NETSCAPE = "netscape"
    CURL = "curl"
    POWERSHELL = "powershell"


class WrongCookies(ValueError):
    """The message says what is wrong or would be right; it holds no part of what was pasted."""


class PastedCookies(Struct, frozen=True, kw_only=True):
    """header: the value of the header to send. names: of the cookies in it, in order.

    token: the value of the cookie `token`, the credential of whoever copied this; None when it is not among them.
    expires_at: when the first of them ends, Unix seconds; None when the form does not say. left_out: how many were of
    other sites, of other paths, or have ended.
    """

    form: CookieForm
    header: Secret
    names: tuple[str, ...]
    token: Secret | None = None
    expires_at: float | None = None
    left_out: int = 0


class _Cookie(Struct, frozen=True):
    """ends_at: None when it ends with the browser, or when that is not known."""

    name: str
    value: str
    ends_at: float | None = None


def read_cookies(text: str, now: float) -> PastedCookies:
    """now: Unix seconds, to leave out what has ended. Raises WrongCookies."""
    if len(text) > MOST_TEXT_CHARS:
        raise WrongCookies(f"this has more than {MOST_TEXT_CHARS} characters; {FORMS}")
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise WrongCookies(f"there is nothing here; {FORMS}")
    if _COMMAND.match(text):
        return _result(CookieForm.CURL, _of_command(text))
    if _POWERSHELL.search(text):
        return _of_powershell(text)
    if _NETSCAPE.match(text) or any(_NETSCAPE.match(line) for line in text.splitlines()):
        return _of_file(text, now)
    return _result(CookieForm.HEADER, _of_headers(text))


def _result(form: CookieForm, cookies: Sequence[_Cookie], left_out: int = 0) -> PastedCookies:
    header = "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies)
    if len(header) > MOST_HEADER_CHARS:
        raise WrongCookies(
            f"the cookies make a header of more than {MOST_HEADER_CHARS} characters, which no site takes"
        )
    return PastedCookies(
        form=form,
        header=Secret(header),
        names=tuple(cookie.name for cookie in cookies),
        token=next((Secret(cookie.value) for cookie in cookies if cookie.name == "token" and cookie.value), None),
        expires_at=min((cookie.ends_at for cookie in cookies if cookie.ends_at is not None), default=None),
        left_out=left_out,
    )


def _checked(cookie: _Cookie, where: str) -> _Cookie:
    problem = None
    if not cookie.name:
        problem = "has no name"
    elif not (cookie.name + cookie.value).isascii():
        problem = "holds characters beyond ASCII"
    elif not (cookie.name + cookie.value).isprintable():
        problem = "holds a line break or another control character"
    elif " " in cookie.name or set(";=") & set(cookie.name) or ";" in cookie.value:
        problem = "holds a space, '=' or ';' where none may be"
    elif len(cookie.name) + len(cookie.value) > MOST_COOKIE_CHARS:
        problem = f"has more than {MOST_COOKIE_CHARS} characters"
    if problem is not None:
        raise WrongCookies(f"{where} {problem}; {FORMS}")
    return cookie


# --- a Cookie header ---------------------------------------------------------------------------------------


def _of_headers(text: str) -> list[_Cookie]:
    """The Cookie lines of a request's headers; or one line, which is a header's value."""
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    values: list[str] = []
    for index, line in enumerate(lines):
        if (name := _HEADER_NAME.match(line)) is not None:
            # Some developer tools copy name and value as two lines.
            values.append(line[name.end() :] or "".join(lines[index + 1 : index + 2]))
    if not values:
        if len(lines) > 1:
            raise WrongCookies(f"a Cookie header is one line, and none of these {len(lines)} is one; {FORMS}")
        values = lines
    return _of_header("; ".join(values))


def _of_header(value: str) -> list[_Cookie]:
    cookies: list[_Cookie] = []
    pairs = [pair.strip(" ") for pair in value.split(";")]
    for number, pair in enumerate((pair for pair in pairs if pair), 1):
        name, equals, content = pair.partition("=")
        if not equals:
            raise WrongCookies(f"cookie {number} has no '='; {FORMS}")
        cookies.append(_checked(_Cookie(name.rstrip(" "), content.lstrip(" ")), f"cookie {number}"))
    if not cookies:
        raise WrongCookies(f"there is no cookie in it; {FORMS}")
    return cookies


# --- a command ---------------------------------------------------------------------------------------------


def _of_command(text: str) -> list[_Cookie]:
    """Of the first request to the site that carries cookies: browsers also copy all requests of a page at once."""
    try:
        found = words(text.strip().removeprefix("$ "))
    except Unclosed as error:
        raise WrongCookies("the command is not whole: a quote in it does not end; copy it again") from error
    requests: list[list[str]] = [[]]
    for word in found:
        if _CURL.fullmatch(word):
            requests.append([])
        else:
            requests[-1].append(word)
    requests = [request for request in requests if request]
    ours = [request for request in requests if _goes_to_site(request)]
    if requests and not ours:
        raise WrongCookies(f"the request goes to another site; copy one to {SITE}")
    value = next((cookies for request in ours if (cookies := _cookie_value(request))), None)
    if value is None:
        raise WrongCookies(f"the request carries no cookies; sign in to {SITE} in the browser, then copy one")
    return _of_header(value)


def _goes_to_site(request: Sequence[str]) -> bool:
    """One without an address is believed."""
    hosts = [_host(word) for word in request[:1] if not word.startswith("-")]
    hosts += [_host(word) for option, word in pairwise(request) if option == "--url"]
    return all(host == SITE for host in hosts)


def _host(url: str) -> str:
    try:
        return urlsplit(url if "://" in url else f"https://{url}").hostname or ""
    except ValueError:
        return ""


def _cookie_value(request: Sequence[str]) -> str:
    values: list[str] = []
    rest = iter(request)
    for word in rest:
        if word in ("-b", "--cookie"):
            values.append(next(rest, ""))
        elif word in ("-H", "--header") or word.startswith("-H"):
            line = word[2:] if word.startswith("-H") and word != "-H" else next(rest, "")
            if (name := _HEADER_NAME.match(line)) is not None:
                values.append(line[name.end() :])
        elif word.startswith("-b"):
            values.append(word[2:])
    return "; ".join(value for value in values if value.strip())


def _of_powershell(text: str) -> PastedCookies:
    made = powershell_cookies(text)
    ours = [(name, value) for name, value, path, domain in made if _is_sent(domain, path, includes_hosts=True)]
    cookies = [_checked(_Cookie(name, value), f"cookie {number}") for number, (name, value) in enumerate(ours, 1)]
    for header in powershell_headers(text):
        cookies += _of_header(header)
    if not cookies:
        raise WrongCookies(f"the command has no cookies of {SITE}; sign in there in the browser, then copy a request")
    return _result(CookieForm.POWERSHELL, cookies, len(made) - len(ours))


# --- a Netscape cookie file --------------------------------------------------------------------------------


def _of_file(text: str, now: float) -> PastedCookies:
    """Fields: domain, whether its hosts are meant too, path, whether over TLS only, end, name, value."""
    kept: dict[tuple[str, str, str], _Cookie] = {}  # a later line for the same cookie takes its place
    ended = elsewhere = 0
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = line.removeprefix(_HTTP_ONLY)
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) == 6:  # some programs leave out an empty value with its tab
            fields.append("")
        if len(fields) != 7 or fields[1].upper() not in ("TRUE", "FALSE"):
            raise WrongCookies(
                f"line {number} is none of a Netscape cookie file: seven fields with tabs between, the second TRUE or "
                "FALSE; take the file itself, since a terminal turns tabs into spaces"
            )
        domain, includes_hosts, path, _, end, name, value = fields
        ends_at = float(end) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", end) and float(end) > 0 else None
        if not _is_sent(domain, path, includes_hosts=includes_hosts.upper() == "TRUE"):
            elsewhere += 1
        elif ends_at is not None and ends_at <= now:
            ended += 1
        else:
            kept[domain.lower(), path, name] = _checked(_Cookie(name, value, ends_at), f"the cookie in line {number}")
    if not kept:
        raise WrongCookies(_nothing_kept(ended, elsewhere))
    return _result(CookieForm.NETSCAPE, list(kept.values()), ended + elsewhere)


def _nothing_kept(ended: int, elsewhere: int) -> str:
    if ended:
        return f"all cookies of {SITE} in the file have ended; sign in there in the browser, then export them again"
    found = f"its {elsewhere} cookies are all of other sites" if elsewhere else "there is no cookie in it"
    return f"the file has no cookie of {SITE} ({found}); export them with {SITE} open"


def _is_sent(domain: str, path: str, *, includes_hosts: bool) -> bool:
    """Whether a browser sends such a cookie to the site's API (RFC 6265 §5.1.3, 5.1.4)."""
    host = domain.lower().removeprefix(".")
    includes_hosts = includes_hosts or domain.startswith(".")
    is_path_ours = API.startswith(path if path.endswith("/") else f"{path}/")
    return (host == SITE or (host == PARENT and includes_hosts)) and is_path_ours
