"""What keeps a text from being an address of the right kind. Pure."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")


def url_problem(text: str, schemes: Sequence[str]) -> str | None:
    """What keeps `text` from being an absolute URL of one of these schemes, as the rest of a sentence about it that
    holds no part of it; None when nothing does."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "has a host or a port that can't be read"
    if parts.scheme not in schemes:
        *others, last = (f"{scheme}://" for scheme in schemes)
        return f"must begin with {', '.join(others)} or {last}"
    if not parts.hostname or port == 0:
        return "has no host"
    if not text.isascii() or any(character <= " " for character in text):
        return "holds a space or a character that is not ASCII"
    return None
