"""Calls that an answer consists of, in a code fence: no call if anything but calls follows. Pure."""

import re
from typing import Final

from qwen_proxy.toolcalls.readers.base import CallsRead, NotACall, Outcome, Reader

_MAX_BEHIND: Final = 1024
_CLOSING: Final = re.compile(r"(?:\s|[}\];]|</?\w+>?)*(?:`{3,}|~{3,})?\s*")
_PARTIAL: Final = re.compile(r"(?:\s|[}\];]|</?\w*>?)*(?:`{1,2}|~{1,2})?")


class FencedReader:
    """`fence` is the line that opens it, with its line feed; `openings` is how another call may begin behind it."""

    def __init__(self, inner: Reader, fence: str, openings: tuple[str, ...]) -> None:
        self._inner = inner
        self._fence = fence
        self._openings = openings
        self._found: CallsRead | None = None
        self._behind = ""

    def feed(self, text: str) -> Outcome | None:
        if self._found is None:
            outcome = self._inner.feed(text)
            return None if outcome is None else self._of(outcome)
        self._behind += text
        return self._judged()

    def finish(self) -> Outcome:
        if self._found is None:
            outcome = self._of(self._inner.finish())
            if outcome is not None:
                return outcome
        found = self._found
        if found is None or not (_CLOSING.fullmatch(self._behind) or _PARTIAL.fullmatch(self._behind)):
            return self._text()
        return CallsRead(found.form, found.calls, self._fence + found.text + self._behind, "")

    def _of(self, outcome: Outcome) -> Outcome | None:
        if isinstance(outcome, NotACall):
            return NotACall(self._fence + outcome.text, outcome.opaque and outcome.opaque + len(self._fence))
        self._found, self._behind = outcome, outcome.rest
        return self._judged()

    def _judged(self) -> Outcome | None:
        """What follows the calls: nothing yet, another call, or prose, which makes all of it text."""
        closing = _CLOSING.match(self._behind)
        rest = self._behind[closing.end() :] if closing else self._behind
        if self._found is None or not rest:
            return self._text() if len(self._behind) > _MAX_BEHIND else None
        if any(opening.startswith(rest.lower()) for opening in self._openings) or _PARTIAL.fullmatch(self._behind):
            return None
        if rest.lower().startswith(self._openings):
            before = self._behind[: len(self._behind) - len(rest)]
            return CallsRead(self._found.form, self._found.calls, self._fence + self._found.text + before, rest)
        return self._text()

    def _text(self) -> NotACall:
        block = self._fence + (self._found.text if self._found else "")
        return NotACall(block + self._behind, len(block))
