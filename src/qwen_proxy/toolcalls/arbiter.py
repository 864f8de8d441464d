"""Goes through an answer's text line by line and says where a call begins, and in which form. Pure.

| line start                                   | becomes                                                            |
|----------------------------------------------|--------------------------------------------------------------------|
| a taught opening, exact                      | a call, anywhere                                                   |
| a taught opening, nonce one edit away        | a call outside fences, if the tool is offered                      |
| a foreign opening                            | a call outside fences, quotations and examples                     |
| `{` or `[`                                   | a bare call at the start of the answer, or right behind a call     |
| a fence around one of these                  | that call; a foreign one only if the answer begins so              |
| an end marker, or what a call left over      | nothing                                                            |
| a result's marker                            | the end of what is read: the model plays on by itself              |
| `Tool X does not exists`                     | nothing, noted: the site took a call for itself                    |
| anything else                                | text                                                               |

A line is held back only while it can still be one of these. Fences are tracked on released text alone.
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from qwen_proxy.toolcalls.markers import LINE_CHARACTERS, Markers, Opening
from qwen_proxy.toolcalls.toolbox import Toolbox

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*?)\s*")
_FENCE_BEGINS: Final = re.compile(r" {0,3}(?:`{1,2}|~{1,2}|`{3,}[^`]*|~{3,}.*)")
_INTERCEPTED: Final = re.compile(r"Tool \S{1,128} does not exists\.?\r?")
_INTERCEPTED_BEGINS: Final = re.compile(r"Tool \S{0,128}(?: (?P<rest>.{0,20}))?")
_DEBRIS: Final = re.compile(
    r"(?:[\s}\]);,>]|</(?:\w+:)?(?:tool_calls?|function_calls|function|invoke|parameter)>"
    r"|\[/TOOL[ _]CALLS?\]|`{3,}(?=\s|$))+",
    re.IGNORECASE,
)
_CLOSINGS: Final = (
    *("</tool_call>", "</tool_calls>", "</function_calls>", "</function>", "</invoke>", "</parameter>"),
    *("[/tool call]", "[/tool_call]", "[/tool calls]", "[/tool_calls]", "```"),
)
_RESULTS: Final = (
    "[[result ",
    "<tool_response>",
    "<tool_result",
    "<function_results>",
    "<function_result",
    "[tool result]",
)
_BARE: Final = re.compile(r"\{|\[\s*(?=\{|$)")
_EXAMPLE: Final = re.compile(r"\s{0,3}<(/?)(example|pre|code|blockquote|samp|xmp|details)\b", re.IGNORECASE)
_EXAMPLES: Final = ("<example", "<pre", "<code", "<blockquote", "<samp", "<xmp", "<details")


_HALF_OPENING: Final = "<tool_call>"


class Kind(Enum):
    TAUGHT = "taught"
    SWALLOWED = "swallowed"  # a parameter's line, without the call's before it
    FOREIGN = "foreign"
    RESULT = "result"


class Begun(NamedTuple):
    """taught: what a taught opening says. form, opening: a foreign one's. fence: the line that stands before it.

    is_doubtful: it stands right under a line that closes a fence, or opens one.
    """

    kind: Kind
    taught: Opening | None = None
    form: str = ""
    opening: str = ""
    fence: str = ""
    is_doubtful: bool = False


class Found(NamedTuple):
    """text: what may pass. begun: what begins behind it. rest: that, with its opening line if it is foreign.

    debris: what was left out.
    """

    text: str
    begun: Begun | None = None
    rest: str = ""
    debris: str = ""


class _Held(Enum):
    HELD = "held"


class _Dropped(NamedTuple):
    size: int
    intercepted: bool = False


_Judgement = Begun | _Held | _Dropped | None


class Arbiter:
    """behind_call: a call was read, so that only further ones count. intercepted: how often the site took one.

    openings: how foreign calls begin (in lower case), each with its form's name; `bare` is not among them.
    """

    def __init__(self, markers: Markers, toolbox: Toolbox, openings: Mapping[str, str], *, bare: bool) -> None:
        self.behind_call = False
        self.intercepted = 0
        self._markers = markers
        self._toolbox = toolbox
        self._openings = openings
        self._bare = bare
        self._held = ""
        self._at_line_start = True
        self._has_feed = False  # what is held begins with the line feed before the line
        self._is_begin = True  # nothing but blanks so far, or since a call
        self._fence = ""
        self._examples = 0
        self._block = ""  # the nonce of a shown call that is not ours
        self._is_under_fence = False  # a fence was closed on the last line, if it was not opened
        self._skips = False
        self._owed = ""  # the line feed before what began last, if that was no call

    def resume(self) -> None:
        """Go on behind a call."""
        self._held, self._at_line_start, self._has_feed = "", True, False
        self.behind_call = self._is_begin = True
        self._fence, self._examples, self._block, self._is_under_fence = "", 0, "", False

    def skip(self, text: str, opaque: int) -> str:
        """Go on with a text that something begins which was no call after all; so much of it passes unseen.

        What may pass at once comes back.
        """
        self._held, self._at_line_start, self._has_feed = "", not opaque, False
        if opaque:
            for line in text[:opaque].split("\n")[:-1]:
                self._release(line, whole=True)
            self._is_begin = self._is_under_fence = False
        else:
            self._skips = True
        return self._owed + text[:opaque]

    def feed(self, text: str, *, ended: bool = False) -> Found:
        """ended: no more will come, so that nothing is held any longer."""
        buffer = self._held + text
        self._held = ""
        passed: list[str] = []
        debris: list[str] = []
        at = 0
        while at < len(buffer):
            if not self._at_line_start:
                end = buffer.find("\n", at)
                passed.append(buffer[at : end if end >= 0 else len(buffer)])
                if end < 0:
                    break
                at, self._at_line_start, self._has_feed = end, True, True
            line_at = at + self._has_feed
            end = buffer.find("\n", line_at)
            whole = end >= 0 or ended
            line = buffer[line_at : end if end >= 0 else len(buffer)]
            judged = self._judge(line, whole, buffer, end, ended)
            if judged is _Held.HELD:
                self._held = buffer[at:]
                break
            if isinstance(judged, Begun):
                self._owed = buffer[at:line_at]
                start = _line_end(buffer, line_at) if judged.fence else line_at
                if judged.kind in (Kind.TAUGHT, Kind.RESULT):
                    start = _line_end(buffer, start)
                return Found("".join(passed), judged, buffer[start:], "".join(debris))
            if isinstance(judged, _Dropped):
                self.intercepted += judged.intercepted
                debris.append(line[: judged.size])
                at = line_at + judged.size
                if judged.size == len(line) and end >= 0:
                    at += not self._has_feed
                else:
                    self._has_feed = False
                continue
            if not self.behind_call or line.strip():
                passed.append(buffer[at:line_at])
            self._release(line, whole)
            at, self._at_line_start = line_at, False
            if end == line_at:
                continue
        return Found("".join(passed), None, "", "".join(debris))

    def _release(self, line: str, whole: bool) -> None:
        """A line becomes text."""
        self._skips = False
        if line.strip():
            self._is_begin = False
        if whole and len(line) <= self._markers.limit and self._markers.lead[0] in line:
            if self._block and self._markers.ends(line, self._block):
                self._block = ""
            else:
                self._block = self._block or self._markers.foreign_nonce(line)
        self._is_under_fence = False
        fence = _FENCE.fullmatch(line) if whole and len(line) <= LINE_CHARACTERS else None
        if self._fence:
            if fence and fence[1].startswith(self._fence) and not fence[2]:
                self._fence, self._is_under_fence = "", True
        elif fence and not (fence[1][0] == "`" and "`" in fence[2]):
            self._fence = fence[1]
        elif example := _EXAMPLE.match(line[:LINE_CHARACTERS]):
            self._examples = max(0, self._examples + (-1 if example[1] else 1))
            if f"</{example[2]}" in line[example.end() : LINE_CHARACTERS] and not example[1]:
                self._examples -= 1

    def _judge(self, line: str, whole: bool, buffer: str, end: int, ended: bool) -> _Judgement:
        if self._skips:
            return None
        if self.behind_call and self._is_begin and (judged := self._left_over(line, whole)):
            return judged
        start = line.lstrip(" ")[:1]
        if not start:
            return _Held.HELD if not whole and len(line) <= 3 else None
        if start == self._markers.lead[0] and (judged := self._taught(line, whole)):
            return judged
        if start in "*_" and (judged := self._decorated(line, whole)):
            return judged
        if start in "`~" and not self._fence:
            return self._fenced(line, whole, buffer, end, ended)
        if start in "`~":
            return _Held.HELD if not whole and _may_be_fence(line) else None
        if self._in_example:
            return self._closes_example(line, whole)
        return self._foreign(line, whole)

    def _left_over(self, line: str, whole: bool) -> _Judgement:
        found = _DEBRIS.match(line)
        rest = line[found.end() :] if found else line
        if not whole and line.endswith("`"):
            return _Held.HELD
        if rest and len(rest) < 20 and any(closing.startswith(rest.lower()) for closing in _CLOSINGS):
            return _Dropped(len(line)) if whole else _Held.HELD
        return _Dropped(found.end()) if found else None

    def _taught(self, line: str, whole: bool) -> _Judgement:
        if not whole:
            return _Held.HELD if self._markers.may_be(line) else None
        if len(line) > self._markers.limit:
            return None
        opening = self._markers.opening(line)
        if opening is not None:
            if opening.is_exact or (not self._in_example and self._toolbox.resolve(opening.name, guess=False)):
                return Begun(Kind.TAUGHT, opening)
            return None
        marker = self._markers.exact.marker(line)
        if marker is not None and marker.kind == "arg" and not self.behind_call:
            return Begun(Kind.SWALLOWED)
        if marker is not None and marker.kind == "result":
            return Begun(Kind.RESULT)
        if (marker and marker.kind == "end") or (self.behind_call and self._markers.is_near_end(line)):
            return _Dropped(len(line))
        return None

    def _decorated(self, line: str, whole: bool) -> _Judgement:
        """A marker in bold."""
        first = line.lstrip(" ").lstrip("*_")[:1]
        if not first:
            return _Held.HELD if not whole and len(line) <= 6 else None
        if first != self._markers.lead[0]:
            return None
        judged = self._taught(line, whole)
        return judged if judged is _Held.HELD or (isinstance(judged, Begun) and judged.kind is Kind.TAUGHT) else None

    @property
    def _in_example(self) -> bool:
        return bool(self._fence or self._examples or self._block)

    def _fenced(self, line: str, whole: bool, buffer: str, end: int, ended: bool) -> _Judgement:
        """A fence that may open around a call: the line behind it decides."""
        if not whole:
            return _Held.HELD if _may_be_fence(line) else None
        if len(line) > LINE_CHARACTERS or not _FENCE.fullmatch(line) or end < 0:
            return None
        behind = buffer[end + 1 :].partition("\n")
        inner, inner_whole = behind[0], bool(behind[1]) or ended
        if not inner:
            return None if inner_whole else _Held.HELD
        fence = line + "\n"
        judged = self._taught(inner, inner_whole) if inner[0] == self._markers.lead[0] else None
        if judged is _Held.HELD:
            return judged
        if isinstance(judged, Begun) and judged.kind is Kind.TAUGHT:
            return judged._replace(fence=fence)
        if not self._is_begin or self._examples or self._block:
            return None
        judged = self._foreign(inner, inner_whole)
        if isinstance(judged, Begun) and judged.kind is Kind.FOREIGN:
            return judged._replace(fence=fence)
        return judged if judged is _Held.HELD else None

    def _closes_example(self, line: str, whole: bool) -> _Judgement:
        """Within an example, or a fence: a line that may close the example is held."""
        if whole or len(line) >= LINE_CHARACTERS:
            return None
        lower = line.lower()
        may_close = any(name.startswith(lower.replace("/", "")) for name in _EXAMPLES) or _EXAMPLE.match(line)
        return _Held.HELD if may_close else None

    def _foreign(self, line: str, whole: bool) -> _Judgement:
        lower = line[:LINE_CHARACTERS].lower()
        for opening, form in self._openings.items():
            if lower.startswith(opening):
                return Begun(Kind.FOREIGN, None, form, line[: len(opening)], is_doubtful=self._is_under_fence)
        if self._is_begin and _HALF_OPENING in self._openings and (half := _half_opening(lower)):
            is_sure = half.endswith(">")
            return Begun(Kind.FOREIGN, None, self._openings[_HALF_OPENING], half) if is_sure else _Held.HELD
        if self._bare and self._is_begin and (bare := _BARE.match(line)):
            is_sure = whole or bare.end() < len(line) or line[0] == "{"
            return Begun(Kind.FOREIGN, None, "bare") if is_sure else _Held.HELD
        if self.behind_call and lower.startswith(_RESULTS):
            return Begun(Kind.RESULT)
        if _INTERCEPTED.fullmatch(line) and whole:
            return _Dropped(len(line), intercepted=True)
        if whole:
            return None
        beginnings = (*self._openings, *_EXAMPLES, *(_RESULTS if self.behind_call else ()))
        if any(beginning.startswith(lower) for beginning in beginnings) or _may_be_intercepted(line):
            return _Held.HELD
        return _Held.HELD if len(line) < LINE_CHARACTERS and _EXAMPLE.match(line) else None


def _half_opening(line: str) -> str:
    """The end of an opening whose beginning was swallowed, as a line begins with it, or is the beginning of it."""
    for start in range(1, len(_HALF_OPENING) - 4):
        half = _HALF_OPENING[start:]
        if line.startswith(half) or half.startswith(line):
            return half if line.startswith(half) else line
    return ""


def _line_end(buffer: str, at: int) -> int:
    end = buffer.find("\n", at)
    return end + 1 if end >= 0 else len(buffer)


def _may_be_fence(line: str) -> bool:
    return len(line) <= LINE_CHARACTERS and _FENCE_BEGINS.fullmatch(line) is not None


def _may_be_intercepted(line: str) -> bool:
    if "Tool ".startswith(line):
        return True
    found = _INTERCEPTED_BEGINS.fullmatch(line)
    return found is not None and (found["rest"] is None or "does not exists.".startswith(found["rest"].rstrip("\r")))
