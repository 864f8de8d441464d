"""Markdown made of what others wrote: titles and addresses that must not break out of their place. Pure."""

import re
from typing import Final

_SPACE: Final = re.compile(r"[\s\x00-\x1f\x7f\x85\u2028\u2029]+")
_LABEL: Final = re.compile(r"[\\|\[\]`<>*_]")
_TARGET: Final = re.compile(r"[\s\x00-\x1f\x7f()<>|\[\]\\\"'`]")


def label(text: str) -> str:
    """Text for inside of `[...]` or a table's cell: one line, its marks escaped."""
    return _LABEL.sub(r"\\\g<0>", _SPACE.sub(" ", text).strip())


def target(url: str) -> str:
    """An address for inside of `(...)`: what could end it is percent-encoded."""
    return _TARGET.sub(_percent, url)


def link(text: str, url: str) -> str:
    """A link; only its text where the address is no http(s) one (`javascript:` must not become clickable)."""
    if not url.lower().startswith(("https://", "http://")):
        return label(text)
    return f"[{label(text)}]({target(url)})"


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode())
