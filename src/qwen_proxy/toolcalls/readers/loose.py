"""The taught form with its lines not kept to: markers nearly spelt, or not alone on their lines. Pure.

Only for a call that made no sense as it is taught, read in one piece.
"""

from collections.abc import Callable
from typing import NamedTuple

from qwen_proxy.toolcalls.markers import Markers


class LooseCall(NamedTuple):
    """end: where the call ends in the text; -1 if nothing ends it."""

    pairs: list[tuple[str, str]]
    end: int


def read_loosely(markers: Markers, text: str, is_parameter: Callable[[str], bool]) -> LooseCall:
    """The arguments in a text that begins behind the line that opened the call."""
    pairs: list[tuple[str, str]] = []
    key: str | None = None
    start = 0
    for at, behind, marker in markers.anywhere(text):
        if marker.kind == "arg" and not (is_parameter(marker.name) and marker.name not in {name for name, _ in pairs}):
            continue
        if key is not None:
            pairs.append((key, _value(text[start:at])))
        if marker.kind == "end":
            return LooseCall(pairs, behind)
        key, start = marker.name, behind
    return LooseCall(pairs, -1)


def _value(text: str) -> str:
    """Without the line feeds that belong to the markers, and blanks behind the first of them."""
    first, feed, rest = text.partition("\n")
    text = rest if feed and not first.strip() else text.lstrip(" ")
    text, feed, last = text.rpartition("\n")
    if not feed or last.strip(" \t"):
        text += feed + last
    return text.removesuffix("\r")
