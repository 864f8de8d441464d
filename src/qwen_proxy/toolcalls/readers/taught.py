"""The form that is taught (form.py), read as it comes. Pure.

| state      | sees                           | becomes                                                    |
|------------|--------------------------------|------------------------------------------------------------|
| line start | a marker with the nonce, alone | `ArgumentOpened`, or `CallEnded`                           |
| line start | what may become one            | held, up to `Markers.limit`                                |
| line start | an end marker nearly spelt     | held while only blanks follow; an end if a call or nothing does |
| anywhere   | anything else                  | `ArgumentText`                                             |

Text before the first `ArgumentOpened` is the call's body, which has no business there and may tell the arguments
nevertheless.
"""

from typing import NamedTuple

from qwen_proxy.toolcalls.markers import Marker, Markers, Spelled


class ArgumentOpened(NamedTuple):
    name: str


class ArgumentText(NamedTuple):
    text: str


class CallEnded(NamedTuple):
    """how: empty for an end marker; `half_end`, `near_end`, `missing_end` (another call begins) or `loose_markers`
    (readers/inline_ends.py) for what passes as one; `cut` for none.

    behind_line: the line before the end is whole.
    """

    how: str
    behind_line: bool = True


TaughtEvent = ArgumentOpened | ArgumentText | CallEnded
CUT = "cut"
MISSING = "missing_end"
LOOSE = "loose_markers"


class TaughtReader:
    """One call, from behind the line that opened it. Once `rest` is not None it is over, and that is what follows.

    has_cr: the last marker line ended in CR LF, so the line feed that belongs to the next one brings a CR too. held:
    what may be a marker, or what belongs to one, also once the text has broken off.
    """

    def __init__(self, markers: Markers, spelled: Spelled) -> None:
        self.rest: str | None = None
        self.has_cr = False
        self.held = ""
        self._markers = markers
        self._spelled = spelled
        self._lead = "\n" + markers.lead
        self._is_line_start = True  # what is held, or comes next, stands at the start of a line

    def feed(self, text: str) -> list[TaughtEvent]:
        """What the text adds. All but what may be a marker is told at once."""
        buffer = self.held + text
        if not self._is_line_start and not self.has_cr and self._lead[:2] not in buffer and buffer[-1] != "\n":
            self.held = ""
            return [ArgumentText(buffer)]  # the usual case, in the middle of a value
        events: list[TaughtEvent] = []
        told = look = 0
        while True:
            cut, line_at = self._candidate(buffer, told, look)
            if line_at < 0:
                break
            end = buffer.find("\n", line_at)
            if end < 0:
                if self._markers.may_be(buffer[line_at : line_at + self._markers.limit + 1]):
                    break
            elif end - line_at <= self._markers.limit:
                line = buffer[line_at:end]
                if marker := self._marker(line):
                    _tell(events, buffer[told:cut])
                    if marker.kind == "arg":
                        events.append(ArgumentOpened(marker.name))
                        told = look = end + 1
                        self._is_line_start, self.has_cr = True, line.endswith("\r")
                        continue
                    ends = marker.kind == "end"
                    return self._over(events, "" if ends else MISSING, buffer[end + 1 if ends else line_at :])
                if self._markers.is_near_end(line):
                    follows, at = self._behind_near_end(buffer, end + 1)
                    if follows is None:
                        break
                    if follows:
                        _tell(events, buffer[told:cut])
                        return self._over(events, "near_end", buffer[at:])
            look, self._is_line_start = line_at, False
        _tell(events, buffer[told:cut])
        self.held = buffer[cut:]
        return events

    def finish(self) -> list[TaughtEvent]:
        """The text has ended within the call."""
        events = self.feed("\n") if self._marker(self.held.rpartition("\n")[2]) else []
        if self.rest is not None:
            return events
        held, self.rest = self.held, ""
        before, feed, last = held.rstrip().rpartition("\n")
        if self._markers.is_half_end(last) or (feed and self._markers.is_near_end(last)):
            # What is held before the last line only looked like an end: a value may hold such a line.
            _tell(events, before.removesuffix("\r") if self.has_cr else before)
            return [*events, CallEnded("half_end" if self._markers.is_half_end(last) else "near_end")]
        line, _, behind = held.removeprefix("\r").removeprefix("\n").partition("\n")
        if self._markers.is_near_end(line):
            return self._over([], "near_end", behind)
        return [*events, CallEnded(CUT, behind_line=held.startswith(("\n", "\r\n")))]

    def _over(self, events: list[TaughtEvent], how: str, rest: str) -> list[TaughtEvent]:
        self.rest = rest
        return [*events, CallEnded(how)]

    def _candidate(self, buffer: str, told: int, look: int) -> tuple[int, int]:
        """The next line start that may be a marker's: where text before it ends, and where it begins (-1: not here).

        Without one, what is behind the first number may still become the beginning of one.
        """
        lead = self._lead[1:]
        if self._is_line_start:
            if lead.startswith(buffer[told : told + len(lead)]):
                return told, told if len(buffer) - told >= len(lead) else -1
            self._is_line_start = False
        at = buffer.find(self._lead, look)
        line_at = at + 1 if at >= 0 else -1
        if at < 0:
            at = len(buffer)
            for size in range(min(len(self._lead) - 1, at - look), 0, -1):
                if buffer.endswith(self._lead[:size]):
                    at -= size
                    break
        if self.has_cr and at > told and buffer[at - 1] == "\r":
            at -= 1
        return at, line_at

    def _marker(self, line: str) -> Marker | None:
        """A marker in the call's own spelling, or rightly spelt."""
        return self._spelled.marker(line) or self._markers.exact.marker(line)

    def _behind_near_end(self, buffer: str, at: int) -> tuple[bool | None, int]:
        """Whether a call, or its result, follows behind blanks, and where. None: it is not to be seen yet."""
        start = at + len(buffer[at:]) - len(buffer[at:].lstrip())
        if start - at > self._markers.limit:
            return False, start
        end = buffer.find("\n", start)
        line = buffer[start : end if end >= 0 else len(buffer)]
        if end < 0:
            return (None if not line or (line[0] == self._lead[1] and self._markers.may_be(line)) else False), start
        marker = self._marker(line)
        return (marker is not None and marker.kind in ("call", "result")), start


def _tell(events: list[TaughtEvent], text: str) -> None:
    if text:
        events.append(ArgumentText(text))
