"""Calls written as JSON, with or without marks around them. Pure.

| state   | sees                                          | becomes                                      |
|---------|-----------------------------------------------|----------------------------------------------|
| head    | the opening, blanks, `{` or `[`               | body                                         |
| head    | anything else                                 | text                                         |
| body    | the bracket that closes the first             | calls, text, or damaged if it is no JSON     |
| damaged | a closing mark behind which calls can be made out | calls                                    |

A JSON scanner finds the end, not a search for the closing mark: a value may hold one.
"""

import re
from typing import ClassVar, Final

from qwen_proxy.toolcalls.readers.base import (
    MAX_CALL_CHARACTERS,
    MAX_TRIES,
    CallsRead,
    NotACall,
    Outcome,
    Written,
    best,
    is_valid,
    unreadable,
)
from qwen_proxy.toolcalls.readers.shapes import FIRST_KEYS, NAMES, calls_in
from qwen_proxy.toolcalls.repair import CLOSED, QUOTES, repaired
from qwen_proxy.toolcalls.toolbox import OfferedTool, Toolbox
from qwen_proxy.toolcalls.values import NotJson, decode

BARE_CHARACTERS: Final = 8192  # after which a bare object has to have named an offered tool
_LONGEST_CLOSING: Final = 16
_OUTSIDE: Final = re.compile(r'["{}\[\]]')
_INSIDE: Final = re.compile(r'["\\]')
_COMMENTS: Final = r"(?:\s|(?://|#)[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*"
_OPEN_COMMENT: Final = r"(?://|#)[^\n]*\Z|/\Z|/\*(?:[^*]|\*(?!/))*\Z"
_FIRST_KEY: Final = re.compile(rf"""\s*[\[\s]*\{{{_COMMENTS}(?:["'“]?([\w$]+)|\Z|["'“]\Z|{_OPEN_COMMENT})""")
_NAMED: Final = re.compile(rf"""[{{,\s"'](?:{"|".join(NAMES)})["']?\s*:\s*["']([^"'\n]{{1,128}})["']""")
_DECORATION: Final = re.compile(r"\s*(?::\s*)?(?:`{3}\w*\s*)?")


class Extent:
    """Finds the end of a JSON object or array that comes in pieces."""

    def __init__(self) -> None:
        self.depth = 0
        self._in_string = False
        self._escaped = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the last bracket is missing."""
        return self.depth == 1 and not self._in_string

    def feed(self, piece: str) -> int:
        """The place behind the bracket that closes the first one; -1 if it is not in this piece."""
        at = 1 if self._escaped else 0
        self._escaped = False
        while found := (_INSIDE if self._in_string else _OUTSIDE).search(piece, at):
            at = found.end()
            mark = found[0]
            if mark == "\\":
                self._escaped = at == len(piece)
                at += 1
            elif mark == '"':
                self._in_string = not self._in_string
            elif mark in "{[":
                self.depth += 1
            else:
                self.depth -= 1
                if self.depth <= 0:
                    return at
        return -1


class JsonReader:
    """`opening`: what stands before the JSON, if anything; it was seen already. `closings`: what may stand behind."""

    form: ClassVar[str] = "json"
    closings: ClassVar[tuple[str, ...]] = ()
    separators: ClassVar[tuple[str, ...]] = ()  # of the closings, those that open the next call
    is_marked: ClassVar[bool] = True  # something before the JSON says that it is a call

    def __init__(self, toolbox: Toolbox, opening: str) -> None:
        self._toolbox = toolbox
        self._opening = opening
        self._head = ""
        self._pieces: list[str] = []
        self._size = 0
        self._extent: Extent | None = None
        self._is_damaged = False
        self._tail = ""
        self._tries: list[tuple[Written, ...]] = []
        self._start = 0  # of the JSON
        self._look = 0  # where to look for the next closing mark
        self._is_checked = self.is_marked

    def feed(self, text: str) -> Outcome | None:
        if self._extent is None:
            self._head += text
            return self._read_head()
        return self._read_body(text)

    def _read_head(self) -> Outcome | None:
        start = len(self._opening)
        found = _DECORATION.match(self._head, start)
        start = found.end() if found else start
        left = self._head[start:]
        if len(self._head) < 200 and (not left or (len(left) < 3 and not left.strip("`"))):
            return None
        first = _FIRST_KEY.match(self._head, start)
        if self._head[start : start + 1] not in ("{", "["):
            return self._text()
        if first is None or first.end() == len(self._head):
            if len(self._head) - start > 200 or (first is None and not _is_open(self._head[start:])):
                return self._text()
            return None
        if first[1] is None or first[1].lower() not in FIRST_KEYS:
            return self._text()
        self._extent = Extent()
        head, self._head = self._head, ""
        self._start = self._look = start
        self._pieces, self._size = [head[:start]], start
        return self._read_body(head[start:])

    def _read_body(self, piece: str) -> Outcome | None:
        if self._size > MAX_CALL_CHARACTERS:
            self._pieces.append(piece)
            return self._text()
        if not self._is_damaged and self._extent is not None:
            end = self._extent.feed(piece)
            if end >= 0:
                return self._bracket_closed(piece, end)
        self._pieces.append(piece)
        self._size += len(piece)
        if not self._is_checked and self._size >= BARE_CHARACTERS:
            self._is_checked = True
            if self._named("".join(self._pieces)) is None:
                return self._text()
        return self._search_closings(piece) if self._is_damaged else None

    def _bracket_closed(self, piece: str, end: int) -> Outcome | None:
        whole = "".join((*self._pieces, piece[:end]))
        if len(whole) > MAX_CALL_CHARACTERS:
            return NotACall(whole + piece[end:])
        try:
            decoded = decode(whole[self._start :])
        except NotJson:
            self._is_damaged = True
            self._pieces, self._size = [whole], len(whole)
            return self._read_body(piece[end:])
        calls = calls_in(decoded, self._toolbox)
        if not calls:
            return NotACall(whole + piece[end:], len(whole) if self._names(decoded.value) else 0)
        return CallsRead(self.form, calls, whole, piece[end:])

    def _search_closings(self, piece: str) -> Outcome | None:
        """Try each closing mark that came with a piece, until one makes valid calls of what is before it."""
        window = self._tail + piece
        self._tail = window[-_LONGEST_CLOSING:]
        if not any(mark in window for mark in self.closings):
            return None
        text = "".join(self._pieces)
        self._pieces = [text]
        while len(self._tries) < MAX_TRIES:
            places = [(at, mark) for mark in self.closings if (at := text.find(mark, self._look)) >= 0]
            if not places:
                break
            at, mark = min(places)
            self._look = at + len(mark)
            calls = self._made_out(text[self._start : at], ended=True)
            if is_valid(calls):
                end = at if mark in self.separators else self._look
                return CallsRead(self.form, calls, text[:end], text[end:])
            self._tries.append(calls)
        return None

    def _made_out(self, text: str, *, ended: bool) -> tuple[Written, ...]:
        """Nothing where a string was guessed to end and brackets were closed behind it: it may go on."""
        try:
            decoded = repaired(text, ended=ended)
        except NotJson:
            return ()
        return () if {QUOTES, CLOSED} <= set(decoded.repairs) else calls_in(decoded, self._toolbox)

    def finish(self) -> Outcome:
        """The text has ended: what is before the closing mark, or the whole, if it is not cut."""
        if self._extent is None or self._size > MAX_CALL_CHARACTERS:
            return self._text()
        text = "".join(self._pieces)
        found = None if self._is_damaged else self._search_closings(text)
        if found is not None:
            return found
        is_complete = self._extent.is_complete and text.rstrip().endswith("}")
        last = self._made_out(text[self._start :], ended=is_complete and not self._is_damaged)
        calls = best([tried for tried in (last, *self._tries) if tried])
        if not calls and (tool := self._named(text)):
            calls = unreadable(tool)
        if not calls:
            return self._text()
        is_cut = not is_valid(calls) and not text.rstrip().endswith(self.closings)
        return CallsRead(self.form, calls, text, "", is_cut)

    @staticmethod
    def _names(value: object) -> bool:
        return isinstance(value, dict) and any(name in value for name in NAMES)

    def _named(self, text: str) -> OfferedTool | None:
        """The offered tool that the beginning of an object names."""
        named = _NAMED.search(text, 0, BARE_CHARACTERS)
        found = self._toolbox.resolve(named[1]) if named else None
        return found[0] if found else None

    def _text(self) -> NotACall:
        return NotACall(self._head + "".join(self._pieces))


def _is_open(text: str) -> bool:
    """Whether an object may still begin with a key of a call: only brackets and blanks were seen."""
    return not text.strip("[{ \t\r\n")
