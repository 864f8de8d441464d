"""A call of the taught form whose end marker shares its line with something else, found as its values are told. Pure.

Once a call streams it can't be read again loosely (readers/loose.py): what stood before the marker is with the client.
So from such a marker on nothing is told until it is known what it was.

| the marker stands                        | and is the end if                                             |
|------------------------------------------|---------------------------------------------------------------|
| behind the value, on its line            | nothing but blanks follows                                    |
| first on its line, up to three blanks in | anything follows, up to 8 KiB: citations, prose, bold's signs |

That is until the text ends, or another call begins. A marker alone on its line shows that all before it was text. Where
the beginning of an argument shares its line too nothing is guessed.
"""

from typing import Final

from qwen_proxy.toolcalls.markers import Markers, Spelled
from qwen_proxy.toolcalls.readers.taught import (
    CUT,
    LOOSE,
    MISSING,
    ArgumentOpened,
    ArgumentText,
    CallEnded,
    TaughtEvent,
    TaughtReader,
)

HELD_CHARACTERS: Final = 8192
_INDENT: Final = 3
_SIGNS: Final = "*_"
_INDENTING: Final = (" ", *_SIGNS)
_BLANKS: Final = " \t\r\n\f\v"


# What is told of the line that comes: nothing, and a value begins with it; nothing but blanks; or more.
_BEGINS, _BLANK, _TEXT = range(3)


class InlineEnds:
    """One call, from behind the line that opened it. Once `rest` is not None it is over, and that is what follows."""

    def __init__(self, markers: Markers, spelling: str) -> None:
        self.rest: str | None = None
        spelled = markers.exact if spelling == markers.nonce else Spelled(markers.form, spelling)
        self._reader = TaughtReader(markers, spelled)
        self._end = spelled.end
        self._argument = spelled.argument
        self._lead = markers.lead
        self._signs = frozenset((*_INDENTING, *markers.lead))
        self._waits = self._signs.union(_BLANKS)
        self._blanks = markers.limit  # how many may stand behind a marker that shares its line with a value
        self._is_value = False
        self._looks = True
        self._held = ""
        self._behind = 0  # where in what is held the marker ends that it begins with; 0 if there is none as yet
        self._is_first = False  # that marker, on its line
        self._line = _BEGINS

    def feed(self, text: str) -> list[TaughtEvent]:
        """What the text adds. All but what may be a marker, or follow one, is told at once."""
        events = self._reader.feed(text)
        if len(events) == 1 and self._is_value and not self._behind:
            event = events[0]
            if isinstance(event, ArgumentText) and self._lead not in (text := self._held + event.text):
                if self._held:
                    return self._without_marker(text)
                if text[-1] not in self._waits:
                    self._line = _TEXT
                    return events  # the usual case, in the middle of a value
                if self._line == _TEXT and text[-1] not in self._lead and "\n" not in text:
                    return events
                return self._without_marker(text)
        told = self._passed(events)
        if self._reader.held and not self._behind:
            self._tell(told, self._released())  # no marker goes on in the next line
        return told

    def _without_marker(self, text: str) -> list[TaughtEvent]:
        """A value's text that holds none; one may begin with its end, unless the next line has begun already."""
        last, begin = text[-1], len(text)
        is_indented = last == " " and len(text) > _INDENT and "\n" not in text[-_INDENT - 1 :]
        if last in self._signs and not is_indented and not self._reader.held:
            begin = self._tail(text, 0)
        self._held = text[begin:]
        text = text[:begin]
        self._note(text)
        return [ArgumentText(text)] if text else []

    def finish(self) -> list[TaughtEvent]:
        """The text has ended within the call."""
        return self._passed(self._reader.finish())

    def _passed(self, events: list[TaughtEvent]) -> list[TaughtEvent]:
        told: list[TaughtEvent] = []
        for event in events:
            if isinstance(event, ArgumentText):
                self._tell(told, self._text(event.text) if self._is_value else event.text)
            elif isinstance(event, ArgumentOpened):
                self._tell(told, self._released())
                self._is_value, self._line = True, _BEGINS
                told.append(event)
            else:
                self._over(told, event)
        return told

    def _over(self, told: list[TaughtEvent], event: CallEnded) -> None:
        behind = self._reader.rest or ""
        if event.how == MISSING:
            behind = "\n" + behind
        elif event.how == CUT and self._is_value:
            held = self._held
            text = self._text(self._reader.held)
            if self._behind:
                self._tell(told, text)
            else:
                self._held = held  # what was left is told no more than it was before
        if self._behind and event.how in (CUT, MISSING):
            self.rest = self._held[self._behind :].lstrip(_SIGNS) + behind
            told.append(CallEnded(LOOSE))
            return
        self._tell(told, self._released())
        self.rest = self._reader.rest
        told.append(event)

    def _tell(self, told: list[TaughtEvent], text: str) -> None:
        if text:
            self._note(text)
            told.append(ArgumentText(text))

    def _note(self, text: str) -> None:
        feed = text.rfind("\n")
        if text[feed + 1 :].strip(_BLANKS):
            self._line = _TEXT
        elif feed >= 0 or (text and self._line == _BEGINS):
            self._line = _BLANK

    def _released(self) -> str:
        held, self._held, self._behind = self._held, "", 0
        return held

    def _text(self, text: str) -> str:
        """What of a value is to be told now."""
        buffer, behind, look = self._held + text, self._behind, 0
        begin = 0 if behind else len(buffer)
        while self._looks:
            if not behind:
                begin, behind = self._find(buffer, look)
            if not behind or self._may_end(buffer, behind):
                break
            look, behind, begin = behind, 0, len(buffer)
        self._held, self._behind = buffer[begin:], behind - begin if behind else 0
        return buffer[:begin]

    def _may_end(self, buffer: str, behind: int) -> bool:
        size = len(buffer) - behind
        if not self._is_first:
            return size <= self._blanks and not buffer[behind:].strip(_BLANKS)
        self._looks = size <= HELD_CHARACTERS
        return self._looks

    def _find(self, buffer: str, look: int) -> tuple[int, int]:
        """The next end marker: where what belongs to it begins, and where it ends.

        Without one (the second number is 0), where the beginning of one may stand.
        """
        while True:
            at = buffer.find(self._end, look)
            if buffer.find(self._argument, look, at if at >= 0 else len(buffer)) >= 0:
                self._looks = False
                return len(buffer), 0
            if at < 0:
                return self._tail(buffer, look), 0
            look = at + len(self._end)
            begin = self._line_begin(buffer, at)
            self._is_first = begin >= 0
            if self._is_first:
                return begin, look
            line = buffer[buffer.rfind("\n", 0, at) + 1 : at]
            if line.strip(_BLANKS) or (self._line == _TEXT and "\n" not in buffer[:at]):
                return at, look

    def _line_begin(self, buffer: str, at: int) -> int:
        """Where the line feed stands that belongs to a marker at that place; -1 if it is not first on its line."""
        start = at
        while start > 0 and at - start < _INDENT and buffer[start - 1] in _SIGNS:
            start -= 1
        signs = start
        while start > 0 and signs - start < _INDENT and buffer[start - 1] == " ":
            start -= 1
        if start == 0:
            return 0 if self._line == _BEGINS else -1
        if buffer[start - 1] != "\n":
            return -1
        has_cr = self._reader.has_cr and buffer[start - 2 : start - 1] == "\r"
        return start - 2 if has_cr else start - 1

    def _tail(self, buffer: str, look: int) -> int:
        """Where at the end of the buffer something begins that may become a marker."""
        at = buffer.find(self._lead[0], max(look, len(buffer) - max(len(self._end), len(self._argument)) + 1))
        while at >= 0 and not (self._end.startswith(buffer[at:]) or self._argument.startswith(buffer[at:])):
            at = buffer.find(self._lead[0], at + 1)
        if at < 0:
            at = len(buffer)
            if buffer[-1:] not in _INDENTING:
                return at
        begin = self._line_begin(buffer, at)
        return begin if begin >= look else at
