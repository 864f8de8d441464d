"""Which reads of a raw value are followed by something for the client before the next one, and why others are not."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

from bench.toolbench.kit import BY_NAME, Arguments
from bench.toolbench.reading import reading
from qwen_proxy.chat.events import TextDelta
from qwen_proxy.simulator.taught import Taught

_TAIL_CHARACTERS = 400
# A line end with what may stand before a marker, and a marker's beginning; one within a line; an end nearly spelt.
_MAY_BECOME_A_MARKER = re.compile(
    r"(?:(?:\A|\r?\n)[ ]{0,3}[*_]{0,3}(?:\[[^\n]{0,160})?|\[(?:\[(?:[a-z]+(?:[ ][0-9a-f]{0,4})?)?)?|\r"
    r"|(?:\A|\n)\[{1,3}end[^\n]{0,20}\]\s*(?:\[[^\n]{0,160})?)\Z"
)


@dataclass(frozen=True)
class Silence:
    """Reads with bytes of a raw value. silent: those of the rest that nothing followed.

    followed: by an event before the next read. waiting: all that they brought of it may become a marker. lacking: held
    because another required parameter was still missing.
    """

    followed: int = 0
    waiting: int = 0
    lacking: int = 0
    silent: int = 0

    def __add__(self, other: "Silence") -> "Silence":
        return Silence(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def reads(self) -> int:
        return self.followed + self.waiting + self.lacking + self.silent


class _Value(NamedTuple):
    """Where a raw value stands in the text. lacks: another required parameter comes behind it."""

    start: int
    end: int
    lacks: bool


def silence(text: str, calls: Iterable[tuple[str, Arguments]], taught: Taught, pieces: Sequence[str]) -> Silence:
    """A clean text of calls in the taught form, read in these pieces."""
    values = list(_values(text, calls, taught))
    reader = reading(taught.nonce)
    found = Silence()
    start = 0
    for piece in pieces:
        end = start + len(piece)
        batch = reader.feed([TextDelta(piece)])
        touched = [value for value in values if value.start < end and value.end > start]
        if touched:
            found += _judged(bool(batch), text, touched, start, end)
        start = end
    return found


def _judged(is_followed: bool, text: str, touched: Sequence[_Value], start: int, end: int) -> Silence:
    if is_followed:
        return Silence(followed=1)
    told = [value for value in touched if max(start, value.start) < _tail(text, value, end)]
    if not told:
        return Silence(waiting=1)
    return Silence(lacking=1) if all(value.lacks for value in told) else Silence(silent=1)


def _tail(text: str, value: _Value, end: int) -> int:
    """Where the part begins that may still become a marker, of a value that is read up to there."""
    start = max(value.start, end - _TAIL_CHARACTERS)
    match = _MAY_BECOME_A_MARKER.search(text[start:end])
    return start + match.start() if match else end


def _values(text: str, calls: Iterable[tuple[str, Arguments]], taught: Taught) -> Iterator[_Value]:
    at = 0
    for name, arguments in calls:
        tool = BY_NAME[name]
        raw, missing = tool.raw(), set(tool.schema["required"])
        for key, value in arguments.items():
            marker = taught.parameter(key) + "\n"
            at = text.index(marker, at) + len(marker)
            missing.discard(key)
            if raw[key]:
                yield _Value(at, at + len(value), bool(missing))
                at += len(value)
