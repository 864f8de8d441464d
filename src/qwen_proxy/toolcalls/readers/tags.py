"""Calls written with a tag a parameter: `<function=NAME><parameter=KEY>` and `<invoke name="NAME">`. Pure.

A value may hold such tags itself. Its end is a closing tag with another parameter, or the end of the call, behind it;
tried first with those tags in it paired, then without.
"""

import re
from collections.abc import Iterator
from typing import ClassVar, Final, NamedTuple

from qwen_proxy.chat.request import Tool
from qwen_proxy.toolcalls.prepare import Prepared, from_pairs
from qwen_proxy.toolcalls.readers.base import (
    MAX_CALL_CHARACTERS,
    MAX_TRIES,
    CallsRead,
    NotACall,
    Outcome,
    Written,
    unreadable,
)
from qwen_proxy.toolcalls.toolbox import OfferedTool, Toolbox

_LONGEST_CLOSING: Final = 24
_HEAD_CHARACTERS: Final = 1024  # within which a tool has to be named
_CLOSES: Final = re.compile(r"</(?:\w+:)?(?:function|invoke|tool_call|function_calls)>")
_BEHIND_CALL: Final = re.compile(r"\s*</(?:\w+:)?(?:tool_call|function_calls)>")
_OPENS_CDATA: Final = re.compile(r"\s*<!\[CDATA\[")
_CDATA: Final = re.compile(r"\s*<!\[CDATA\[(.*?)\]\]>", re.DOTALL)


class _Made(NamedTuple):
    """end: behind its closing tag."""

    call: Written
    end: int
    is_offered: bool


class TagReader:
    """`opening` is what was seen already. Subclasses say what their tags are."""

    form: ClassVar[str] = "tags"
    head: ClassVar[re.Pattern[str]]  # up to the first parameter; group 1: the tool
    parameter: ClassVar[re.Pattern[str]]  # group 1: the key
    value_end: ClassVar[re.Pattern[str]]
    call_end: ClassVar[re.Pattern[str]]
    strips_line_feeds: ClassVar[bool]

    def __init__(self, toolbox: Toolbox, opening: str) -> None:
        self._toolbox = toolbox
        self._pieces: list[str] = []
        self._size = 0
        self._tail = ""
        self._next_try = 0  # once the text is so long: a failed try puts it off, so that all of them stay linear
        self._tried = 0

    def feed(self, text: str) -> Outcome | None:
        self._pieces.append(text)
        window = self._tail + text
        self._tail = window[-_LONGEST_CLOSING:]
        before = self._size
        self._size += len(text)
        if before > MAX_CALL_CHARACTERS:
            return NotACall("".join(self._pieces))
        if before < _HEAD_CHARACTERS <= self._size and not self._has_head():
            return NotACall("".join(self._pieces))
        whole = ""
        offset = self._size - len(window)
        for closing in _CLOSES.finditer(window):
            end = offset + closing.end()
            if end <= before or end < self._next_try or end > MAX_CALL_CHARACTERS:
                continue
            whole = whole or "".join(self._pieces)
            self._next_try = end + (end >> 1) if self._tried else end
            self._tried += 1
            made = self._made_out(whole[:end], paired=True)
            if made is not None and not made.call.prepared.errors:
                return self._calls(made, whole)
        return None

    def _has_head(self) -> bool:
        return self.head.match("".join(self._pieces)) is not None

    def finish(self) -> Outcome:
        whole = "".join(self._pieces)
        head = self.head.match(whole)
        found = self._toolbox.resolve(head[1]) if head else None
        ends = [closing.end() for closing in _CLOSES.finditer(whole)]
        tries = [*ends[:MAX_TRIES], *ends[MAX_TRIES:][-MAX_TRIES:], len(whole)]
        made = [made for paired in (True, False) for end in tries if (made := self._made_out(whole[:end], paired))]
        best = next((made for made in made if not made.call.prepared.errors), next(iter(made), None))
        if found is None or len(whole) > MAX_CALL_CHARACTERS:
            return NotACall(whole, best.end if best else 0)
        if best is None:
            return CallsRead(self.form, unreadable(found[0]), whole, "", not ends)
        return self._calls(best, whole)

    def _calls(self, made: _Made, whole: str) -> Outcome:
        behind = _BEHIND_CALL.match(whole, made.end)
        end = behind.end() if behind else made.end
        if not made.is_offered:
            return NotACall(whole, end)
        return CallsRead(self.form, (made.call,), whole[:end], whole[end:])

    def _made_out(self, text: str, paired: bool) -> _Made | None:
        """The call that a text begins with, if it is all there. paired: tags within a value are."""
        head = self.head.match(text)
        if head is None:
            return None
        tool, renamed = self._toolbox.resolve(head[1]) or (None, "")
        pairs: list[tuple[str, str]] = []
        at = head.end()
        while opened := self.parameter.match(text, at):
            end = self._value_end(text, opened.end(), paired)
            if end is None:
                return None
            pairs.append((opened[1], self._value(text[opened.end() : end[0]])))
            at = end[1]
        ended = self.call_end.match(text, at)
        if ended is None:
            return None
        meant = tool or OfferedTool(Tool(head[1]))
        prepared: Prepared = from_pairs(meant, pairs)
        repairs = (renamed, *prepared.repairs) if renamed else prepared.repairs
        return _Made(Written(meant, prepared._replace(repairs=repairs)), ended.end(), tool is not None)

    def _value_end(self, text: str, at: int, paired: bool) -> tuple[int, int] | None:
        """Where a value ends, and where to go on."""
        if _OPENS_CDATA.match(text, at):
            data = _CDATA.match(text, at)
            return self._behind_cdata(text, data.end()) if data else None
        open_inside = 0
        for opens, start, end in self._tags(text, at):
            if opens:
                open_inside += paired
            elif open_inside:
                open_inside -= 1
            elif self.parameter.match(text, end) or self.call_end.match(text, end):
                return start, end
        return None

    def _behind_cdata(self, text: str, at: int) -> tuple[int, int] | None:
        while more := _CDATA.match(text, at):
            at = more.end()
        closed = re.compile(r"\s*" + self.value_end.pattern).match(text, at)
        return (at, closed.end()) if closed else None

    def _tags(self, text: str, at: int) -> Iterator[tuple[bool, int, int]]:
        """The parameter tags from a place on: whether one opens, its start, its end."""
        either = re.compile(f"(?P<opens>{self.parameter.pattern.removeprefix(_SPACE)})|{self.value_end.pattern}")
        for tag in either.finditer(text, at):
            yield tag["opens"] is not None, tag.start(), tag.end()

    def _value(self, text: str) -> str:
        if _CDATA.match(text):
            return "".join(piece[1] for piece in _CDATA.finditer(text))
        if self.strips_line_feeds:
            text = text.removeprefix("\r").removeprefix("\n").removesuffix("\n").removesuffix("\r")
        return text


_SPACE: Final = r"\s*"


class FunctionReader(TagReader):
    """`<function=NAME>`, with or without `<tool_call>` around it, as Qwen's coder models were taught."""

    form: ClassVar[str] = "function"
    openings: ClassVar[tuple[str, ...]] = ("<function=",)
    head = re.compile(r"\s*(?:<tool_call>\s*)*<function=\s*[\"']?([^>\"'\n]{1,128}?)[\"']?\s*>")
    parameter = re.compile(_SPACE + r"<parameter=\s*[\"']?([^>\"'\n]{1,128}?)[\"']?\s*>")
    value_end = re.compile(r"</parameter>")
    call_end = re.compile(r"\s*(?:</function>|</tool_call>)")
    strips_line_feeds = True


class InvokeReader(TagReader):
    """`<invoke name="NAME">`, with or without `<function_calls>` around it."""

    form: ClassVar[str] = "invoke"
    openings: ClassVar[tuple[str, ...]] = ("<invoke ", "<function_calls>", "<antml:invoke ", "<antml:function_calls>")
    head = re.compile(
        r"\s*(?:<tool_call>\s*)*(?:<(?:\w+:)?function_calls>\s*)?<(?:\w+:)?invoke\s+name=[\"']([^\"'\n]{1,128})[\"'][^>\n]*>"
    )
    parameter = re.compile(_SPACE + r"<(?:\w+:)?parameter\s+name=[\"']([^\"'\n]{1,128})[\"'][^>\n]*>")
    value_end = re.compile(r"</(?:\w+:)?parameter>")
    call_end = re.compile(r"\s*</(?:\w+:)?(?:invoke|function_calls|tool_call)>")
    strips_line_feeds = False
