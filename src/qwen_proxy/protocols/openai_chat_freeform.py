"""Calls of freeform tools, as `/v1/chat/completions` tells them: with their text, not with the JSON around it. Pure."""

from qwen_proxy.chat.events import Batch, ToolArgumentsDelta, ToolCallStart
from qwen_proxy.protocols.openai_freeform import FreeformInput


class FreeformCalls:
    """Takes a reply's events in order. names: of the tools whose input is a text."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self._open: FreeformInput | None = None

    def take(self, batch: Batch) -> Batch:
        """The same events, but the arguments of these tools' calls are pieces of their text by now."""
        taken: Batch = []
        for event in batch:
            if self._open is None:
                taken.append(event)
            elif isinstance(event, ToolArgumentsDelta):
                _put(self._open.feed(event.text), taken)
                continue
            else:  # which ends the call
                _put(self._open.rest(), taken)
                self._open = None
                taken.append(event)
            if isinstance(event, ToolCallStart) and event.name in self.names:
                self._open = FreeformInput()
        return taken


def _put(text: str, taken: Batch) -> None:
    if text:
        taken.append(ToolArgumentsDelta(text))
