"""One account as an operator writes it: `email:password` or `email:password|proxy`. Pure.

Source: upstream protocol §10.6. The first `|` splits off the proxy, the first `:` the password, so a password may hold
`:` but no `|`.
"""

from typing import Final

from msgspec import Struct

from qwen_proxy.config.addresses import PROXY_SCHEMES, url_problem
from qwen_proxy.ground.redact import masked_email, redacted
from qwen_proxy.ground.secret import Secret

FORM: Final = "email:password or email:password|proxy"
MOST_EMAIL_CHARS: Final = 320
MOST_PASSWORD_CHARS: Final = 1024
MOST_PROXY_CHARS: Final = 2048


class AccountLine(Struct, frozen=True, kw_only=True):
    """`exit` is a proxy URL, empty when the line has none."""

    email: str
    password: Secret
    exit: str = ""

    @property
    def account_id(self) -> str:
        return self.email.lower()

    def __repr__(self) -> str:
        return f"AccountLine({masked_email(self.email)!r}, exit={redacted(self.exit)!r})"


class WrongLine(ValueError):
    """The message says what is wrong and holds no part of the line. `email`: empty when that is not what is there."""

    def __init__(self, problem: str, email: str = "") -> None:
        super().__init__(problem)
        self.email = email


def is_blank(line: str) -> bool:
    """Whether it holds no account at all: nothing, or a comment."""
    return not line.strip() or line.lstrip().startswith("#")


def read_account_line(line: str) -> AccountLine:
    """Raises WrongLine."""
    login, _, proxy = line.strip().partition("|")
    email, colon, password = login.partition(":")
    email, proxy = email.strip(), proxy.strip()
    if not colon:
        raise WrongLine(f"there is no ':' between email and password; a line is {FORM}")
    if (problem := email_problem(email)) is not None:
        raise WrongLine(f"the email, which is what stands before the first ':', {problem}")
    if (problem := password_problem(password)) is not None:
        raise WrongLine(f"the password {problem}", email)
    if proxy and (problem := proxy_problem(proxy)) is not None:
        raise WrongLine(f"the proxy {problem}", email)
    return AccountLine(email=email, password=Secret(password), exit=proxy)


def email_problem(email: str) -> str | None:
    """What keeps it from being one, as the rest of a sentence without a part of it; so the two below."""
    name, _, host = email.rpartition("@")
    if not email:
        return "is missing"
    if not name or not host:
        return "has no name, no '@' or no host"
    if not email.isprintable() or any(character.isspace() for character in email):
        return "holds a space or an unprintable character"
    return None if len(email) <= MOST_EMAIL_CHARS else f"has more than {MOST_EMAIL_CHARS} characters"


def password_problem(password: str) -> str | None:
    if not password:
        return "is missing"
    if any("\ud800" <= character <= "\udfff" for character in password):
        return "holds bytes that are no text in UTF-8"
    return None if len(password) <= MOST_PASSWORD_CHARS else f"has more than {MOST_PASSWORD_CHARS} characters"


def proxy_problem(proxy: str) -> str | None:
    if len(proxy) > MOST_PROXY_CHARS:
        return f"has more than {MOST_PROXY_CHARS} characters"
    return url_problem(proxy, PROXY_SCHEMES)
