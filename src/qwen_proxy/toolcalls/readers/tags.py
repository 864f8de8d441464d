"""Calls written with a tag a parameter: `<function=NAME><parameter=KEY>` and `<invoke name="NAME">`. Pure.

A value may hold such tags itself. Its end is a closing tag with another parameter, or the end of the call, behind it;
tried first with those tags in it paired, then without.
"""

import re
from collections.abc import Iterator
from typing import ClassVar, Final

from qwen_proxy.toolcalls.prepare import Prepared, from_pairs
from qwen_proxy.toolcalls.readers.base import (
    MAX_CALL_CHARACTERS,
    MAX_TRIES,
    CallsRead,
    NotACall,
    Outcome,
    Written,
    best,
    is_valid,
)
from qwen_proxy.toolcalls.toolbox import OfferedTool, Toolbox

_LONGEST_CLOSING: Final = 24
_HEAD_CHARACTERS: Final = 1024  # within which a tool has to be named
_CLOSES: Final = re.compile(r"</(?:\w+:)?(?:function|invoke|tool_call|function_calls)>")
_BEHIND_CALL: Final = re.compile(r"\s*</(?:\w+:)?(?:tool_call|function_calls)>")
_OPENS_CDATA: Final = re.compile(r"\s*<!\[CDATA\[")
_CDATA: Final = re.compile(r"\s*<!\[CDATA\[(.*?)\]\]>", re.DOTALL)


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
        if before < _HEAD_CHARACTERS <= self._size and not self._names_a_tool():
            return NotACall("".join(self._pieces))
        whole = ""
        offset = self._size - len(window)
        for closing in _CLOSES.finditer(window):
            end = offset + closing.end()
            if end <= before or end < self._next_try:
                continue
            whole = whole or "".join(self._pieces)
            self._next_try = end + (end >> 1) if self._tried else end
            self._tried += 1
            if found := self._calls(whole[:end], whole):
                return found
        return None

    def _names_a_tool(self) -> bool:
        head = self.head.match("".join(self._pieces))
        return head is not None and self._toolbox.resolve(head[1]) is not None

    def finish(self) -> Outcome:
        whole = "".join(self._pieces)
        ends = [closing.end() for closing in _CLOSES.finditer(whole)][:MAX_TRIES]
        for end in ends:
            if found := self._calls(whole[:end], whole):
                return found
        calls = best([calls for end in (*ends[-1:], len(whole)) if (calls := self._made_out(whole[:end]))])
        return CallsRead(self.form, calls, whole, "") if calls else NotACall(whole)

    def _calls(self, text: str, whole: str) -> CallsRead | None:
        calls = self._made_out(text)
        if not is_valid(calls):
            return None
        behind = _BEHIND_CALL.match(whole, len(text))
        end = behind.end() if behind else len(text)
        return CallsRead(self.form, calls, whole[:end], whole[end:])

    def _made_out(self, text: str) -> tuple[Written, ...]:
        """The call that a text is, as far as it ends with one."""
        head = self.head.match(text)
        found = self._toolbox.resolve(head[1]) if head else None
        if head is None or found is None:
            return ()
        tool, renamed = found
        tries = [self._with(tool, renamed, text, head.end(), paired) for paired in (True, False)]
        return best([tried for tried in tries if tried])

    def _with(self, tool: OfferedTool, renamed: str, text: str, at: int, paired: bool) -> tuple[Written, ...]:
        pairs: list[tuple[str, str]] = []
        while opened := self.parameter.match(text, at):
            end = self._value_end(text, opened.end(), paired)
            if end is None:
                return ()
            pairs.append((opened[1], self._value(text[opened.end() : end[0]])))
            at = end[1]
        if not self.call_end.match(text, at):
            return ()
        prepared: Prepared = from_pairs(tool, pairs)
        repairs = (renamed, *prepared.repairs) if renamed else prepared.repairs
        return (Written(tool, prepared._replace(repairs=repairs)),)

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
    head = re.compile(r"\s*(?:<tool_call>\s*)?<function=\s*[\"']?([^>\"'\n]{1,128}?)[\"']?\s*>")
    parameter = re.compile(_SPACE + r"<parameter=\s*[\"']?([^>\"'\n]{1,128}?)[\"']?\s*>")
    value_end = re.compile(r"</parameter>")
    call_end = re.compile(r"\s*(?:</function>|</tool_call>)")
    strips_line_feeds = True


class InvokeReader(TagReader):
    """`<invoke name="NAME">`, with or without `<function_calls>` around it."""

    form: ClassVar[str] = "invoke"
    openings: ClassVar[tuple[str, ...]] = ("<invoke ", "<function_calls>", "<antml:invoke ", "<antml:function_calls>")
    head = re.compile(
        r"\s*(?:<tool_call>\s*)?(?:<(?:\w+:)?function_calls>\s*)?<(?:\w+:)?invoke\s+name=[\"']([^\"'\n]{1,128})[\"'][^>\n]*>"
    )
    parameter = re.compile(_SPACE + r"<(?:\w+:)?parameter\s+name=[\"']([^\"'\n]{1,128})[\"'][^>\n]*>")
    value_end = re.compile(r"</(?:\w+:)?parameter>")
    call_end = re.compile(r"\s*</(?:\w+:)?(?:invoke|function_calls|tool_call)>")
    strips_line_feeds = False
