"""The legal order of a reply's events.

| state   | ReplyStart | part, sources | ToolArgumentsDelta | Usage  | Finish |
|---------|------------|---------------|--------------------|--------|--------|
| before  | open       | –             | –                  | –      | –      |
| open    | –          | open          | if a call is open  | used   | over   |
| used    | –          | –             | –                  | –      | over   |
| over    | –          | –             | –                  | –      | –      |
"""

from collections.abc import Iterable

from qwen_proxy.chat.events import ChatEvent, Finish, ReplyStart, ToolArgumentsDelta, ToolCallStart, Usage


class IllegalOrder(Exception):
    """An event came where none of its kind may come: a bug of the one who made it."""


class Grammar:
    """Feed events in order; raises IllegalOrder at the first that is out of place."""

    def __init__(self) -> None:
        self._state = "before"
        self._call_open = False

    def feed(self, events: Iterable[ChatEvent]) -> None:
        for event in events:
            self._one(event)

    def finish(self) -> None:
        """The reply has ended: it must have had its Finish."""
        if self._state != "over":
            raise IllegalOrder(f"the reply ended in state {self._state!r}, without a Finish")

    def _one(self, event: ChatEvent) -> None:
        state = self._state
        kind = type(event).__name__
        if state == "over" or (state == "before") != isinstance(event, ReplyStart):
            raise IllegalOrder(f"{kind} in state {state!r}")
        if isinstance(event, ReplyStart):
            self._state = "open"
        elif isinstance(event, Finish):
            self._state = "over"
        elif state == "used":
            raise IllegalOrder(f"{kind} behind Usage")
        elif isinstance(event, Usage):
            self._state = "used"
        elif isinstance(event, ToolArgumentsDelta):
            if not self._call_open:
                raise IllegalOrder("ToolArgumentsDelta without an open call")
        else:
            self._call_open = isinstance(event, ToolCallStart)
