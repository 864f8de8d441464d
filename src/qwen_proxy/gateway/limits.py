"""`stop` and `max_tokens`, kept here because chat.qwen.ai knows neither. Pure.

Both act on visible text alone, and the outcome depends on that text alone: never on where deltas or batches end.

- **stop**: the reply ends as soon as some sequence is complete (of several ending there, the longest); what stood
  before it is kept. Held back is only what may still become one.
- **max_tokens**: text is counted in *segments*. One ends before whitespace that follows something else, or after 64
  characters. The first N tokens are kept, and the reply ends with LENGTH if text follows. Text passes at once as long
  as what is uncounted has no more bytes than tokens are left, since a token is at least one byte; else the open
  segment waits until it is whole.

Whichever comes first in the text decides; where N tokens end right before a stop sequence, that is STOP. What ends a
run of text (reasoning, a call, a picture, the reply) ends its segment too, and what was held back passes before it.
"""

import re
from collections.abc import Sequence
from typing import Final

from qwen_proxy.chat.counting import TokenCounter
from qwen_proxy.chat.events import (
    Batch,
    Finish,
    FinishReason,
    MediaOutput,
    ReasoningDelta,
    TextDelta,
    ToolCallStart,
    Usage,
)

SEGMENT_CHARACTERS: Final = 64
_SEGMENT: Final = re.compile(r"\s*\S*")
_ENDS_TEXT: Final = (ReasoningDelta, ToolCallStart, MediaOutput, Usage, Finish)


class Limiter:
    """One reply's events, cut. `done` once a limit has ended it: what comes later is dropped, so stop reading."""

    def __init__(self, stop: Sequence[str], max_tokens: int | None, counter: TokenCounter) -> None:
        self.done = False
        self._scanner = StopScanner(stop)
        self._budget = None if max_tokens is None else TokenBudget(max_tokens, counter)

    def apply(self, batch: Batch) -> Batch:
        kept: Batch = []
        for event in batch:
            if self.done:
                break
            if isinstance(event, TextDelta):
                text, found = self._scanner.feed(event.text)
                self._pass(text, kept, whole=found is not None)
                if found is not None:
                    self._end(kept, Finish(FinishReason.STOP, found))
            else:
                if isinstance(event, _ENDS_TEXT):
                    self._pass(self._scanner.release(), kept, whole=True)
                if not self.done:
                    kept.append(event)
        return kept

    def _pass(self, text: str, kept: Batch, *, whole: bool) -> None:
        """Let text through as far as the budget reaches. `whole`: no more of its segment will follow."""
        if self._budget is not None:
            text = self._budget.spend(text, whole=whole)
        if text:
            kept.append(TextDelta(text))
        if self._budget is not None and self._budget.exceeded:
            self._end(kept, Finish(FinishReason.LENGTH))

    def _end(self, kept: Batch, finish: Finish) -> None:
        if not self.done:
            self.done = True
            kept.append(finish)


class StopScanner:
    """Looks for stop sequences in text that comes in pieces."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""

    def feed(self, piece: str) -> tuple[str, str | None]:
        """The text that may pass, and the sequence that was found behind it, if one was."""
        if not self._stop:
            return piece, None
        text = self._held + piece
        held, end, found = 0, len(text) + 1, None
        for stop in self._stop:
            if (start := text.find(stop)) >= 0:
                if (start + len(stop), -len(stop)) < (end, -len(found or "")):
                    end, found = start + len(stop), stop
            elif stop[0] in text:
                held = max(held, _overlap(text, stop))
        if found is not None:
            return text[: end - len(found)], found
        self._held = text[len(text) - held :] if held else ""
        return text[: len(text) - held], None

    def release(self) -> str:
        """What was held back, once it is sure that none of it becomes a sequence."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many of the text's last characters are a proper beginning of `stop`."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(text[start:]):
            return len(text) - start
        start = text.find(stop[0], start + 1)
    return 0


class TokenBudget:
    """Counts text that comes in pieces, as late as it can. `exceeded` once there is text beyond the budget."""

    def __init__(self, tokens: int, counter: TokenCounter) -> None:
        self.exceeded = False
        self._left = tokens
        self._counter = counter
        # What is uncounted, from the start of a segment: texts whose last segment is whole, then the open one's pieces.
        self._whole: list[str] = []
        self._pieces: list[str] = []
        self._uncounted_bytes = 0
        self._passed = 0  # how many characters of it have passed already

    def spend(self, piece: str, *, whole: bool) -> str:
        """The text that may pass now. `whole`: the segment ends with this piece."""
        self._pieces.append(piece)
        if whole:
            self._whole.append("".join(self._pieces))
            self._pieces = []
        self._uncounted_bytes += _size(piece)
        if self._uncounted_bytes > self._left:
            return self._count()
        self._passed += len(piece)
        return piece

    def _count(self) -> str:
        last = "".join(self._pieces)
        text = "".join((*self._whole, last))
        start, passed = 0, self._passed
        for segment in [*(s for part in self._whole for s in segments(part, whole=True)), *segments(last, whole=False)]:
            used = self._counter.count(segment)
            if used > self._left:
                self.exceeded = True
                return text[passed : start + len(self._counter.cut(segment, self._left))]
            self._left -= used
            start += len(segment)
        rest = text[start:]
        self._whole, self._pieces, self._uncounted_bytes = [], [rest], _size(rest)
        self.exceeded = self._left == 0 and rest != ""
        end = len(text) if self._uncounted_bytes <= self._left else max(start, passed)
        self._passed = end - start
        return text[passed:end]


def segments(text: str, *, whole: bool) -> list[str]:
    """The text's segments; without what is at its end and may still grow, unless it is `whole`."""
    found: list[str] = []
    start = 0
    while start < len(text):
        match = _SEGMENT.match(text, start, start + SEGMENT_CHARACTERS)
        end = match.end() if match else len(text)
        if not whole and end == len(text) and end - start < SEGMENT_CHARACTERS:
            break
        found.append(text[start:end])
        start = end
    return found


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
