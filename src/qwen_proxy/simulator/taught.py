"""Reads out of a prompt how it wants tool calls written, and which results it already holds.

Nothing here knows the wording: a *marker* is a line of punctuation, a word, a code of hexadecimal digits and perhaps a
name, such as `[[call 7f3a Write]]`. A worked example (a named marker, another one right below it, and later one
without a name, all with one code) tells which marker opens a call, opens a parameter, and ends a call.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

_CODE = r"(?P<nonce>[0-9a-f]{4,32})"
_NAME = r"(?:[ :]+(?P<name>[^\]\[\r\n]*[^\]\[\r\n\s:@>}%|]))?"
_SIGNS = r"[^\w\s`'\"]{1,4}"
_AFTER = re.compile(rf"^{_SIGNS} ?[A-Za-z_]+[ :]+{_CODE}{_NAME}[ ]?(?:{_SIGNS})?[ \t]*\r?$", re.MULTILINE)
_BEFORE = re.compile(rf"^{_SIGNS} ?{_CODE}[ :]+[A-Za-z_]+{_NAME}[ ]?(?:{_SIGNS})?[ \t]*\r?$", re.MULTILINE)
_NUMBERED = re.compile(r"#?(\d+)\b *(.*)")


class Marker(NamedTuple):
    """One marker line. template: the line with `{nonce}` and `{name}` in their places."""

    start: int
    end: int
    template: str
    nonce: str
    name: str | None


class Result(NamedTuple):
    """What a tool gave back, as the prompt tells it."""

    number: int
    name: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Taught:
    """The form of calls a prompt teaches. The templates have `{nonce}`, and the first two `{name}`."""

    nonce: str
    call: str
    arg: str
    end: str

    def opening(self, name: str) -> str:
        return self.call.replace("{nonce}", self.nonce).replace("{name}", name)

    def parameter(self, name: str) -> str:
        return self.arg.replace("{nonce}", self.nonce).replace("{name}", name)

    def ending(self) -> str:
        return self.end.replace("{nonce}", self.nonce)

    def body(self, arguments: Mapping[str, object], raw: Mapping[str, bool]) -> str:
        """The parameters of a call. A string goes raw unless `raw` says that its schema is none of a string."""
        lines: list[str] = []
        for key, value in arguments.items():
            lines.append(self.parameter(key))
            is_raw = isinstance(value, str) and raw.get(key, True)
            lines.append(value if is_raw and isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        return "".join(line + "\n" for line in lines)


def markers(prompt: str) -> list[Marker]:
    """Every line of the prompt that looks like a marker, in order."""
    found = [_marker(match) for pattern in (_AFTER, _BEFORE) for match in pattern.finditer(prompt)]
    return sorted(set(found))


def _marker(match: re.Match[str]) -> Marker:
    line, start = match[0], match.start()
    name = match["name"]
    if name is not None:
        at = match.start("name") - start
        line = line[:at] + "{name}" + line[at + len(name) :]
    at = match.start("nonce") - start
    line = line[:at] + "{nonce}" + line[at + len(match["nonce"]) :]
    return Marker(start, match.end(), line.rstrip(), match["nonce"], name)


def learn(prompt: str) -> Taught | None:
    """The form that a worked example in the prompt teaches; of several, the one whose code the prompt names last."""
    found: dict[str, Taught] = {}
    for taught in _examples(markers(prompt)):
        found.setdefault(taught.nonce, taught)
    return max(found.values(), key=lambda taught: prompt.rfind(taught.nonce), default=None)


def _examples(marks: list[Marker]) -> Iterator[Taught]:
    for index, (first, second) in enumerate(pairwise(marks)):
        is_pair = first.name is not None and second.name is not None and second.start == first.end + 1
        if not is_pair or first.nonce != second.nonce or first.template == second.template:
            continue
        for last in marks[index + 2 :]:
            if last.nonce == first.nonce and last.name is None:
                yield Taught(first.nonce, first.template, second.template, last.template)
                break


def results(prompt: str, taught: Taught, start: int = 0) -> list[Result]:
    """The results that stand in the prompt from `start` on: blocks whose marker has a number before the name."""
    marks = [mark for mark in markers(prompt) if mark.nonce == taught.nonce and mark.start >= start]
    found: list[Result] = []
    opened: tuple[Marker, re.Match[str]] | None = None
    for mark in marks:
        numbered = _NUMBERED.fullmatch(mark.name or "")
        if mark.template == taught.end and opened is not None:
            marker, number = opened
            text = prompt[marker.end + 1 : max(mark.start - 1, marker.end + 1)]
            found.append(Result(int(number[1]), number[2], text, marker.start, mark.end))
            opened = None
        elif numbered is not None and mark.template not in (taught.call, taught.arg) and opened is None:
            opened = mark, numbered
    return found


def calls_in(prompt: str, taught: Taught) -> list[tuple[int, int]]:
    """Where whole calls in the taught form stand in the prompt."""
    found: list[tuple[int, int]] = []
    start: int | None = None
    for mark in markers(prompt):
        if mark.nonce != taught.nonce:
            continue
        if mark.template == taught.call:
            start = mark.start
        elif mark.template == taught.end and start is not None:
            found.append((start, mark.end))
            start = None
    return found
