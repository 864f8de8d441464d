"""One item of a response's output while it is open, as the events that tell of it. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from qwen_proxy.chat.events import Source, SourcesFound, joined_logprobs
from qwen_proxy.protocols.openai_freeform import FreeformInput
from qwen_proxy.protocols.openai_responses_output import (
    Wishes,
    citation,
    logprobs_told,
    message_item,
    reasoning_item,
    reasoning_part,
    search_item,
    summary_part,
    text_part,
)
from qwen_proxy.protocols.openai_responses_tools import Origin

_json: Final = msgspec.json.encode


class Writer:
    """Writes events, each with its name, its type and its number."""

    def __init__(self) -> None:
        self.next = 0

    def event(self, kind: bytes, members: bytes) -> bytes:
        """members: what stands behind `type`, without braces."""
        number = self.next
        self.next = number + 1
        return b'event: %b\ndata: {"type":"%b",%b,"sequence_number":%d}\n\n' % (kind, kind, members, number)


class ItemWriter(ABC):
    """`added` opens the item, `write` adds to it, `done` closes it. What is not said here is said by each kind.

    place: `item_id` and `output_index`, as most events have them.
    """

    def __init__(self, writer: Writer, id: str, index: int) -> None:
        self.id = id
        self._writer = writer
        self._index = index
        self._place = _json({"item_id": id, "output_index": index})[1:-1]
        self._pieces: list[str] = []

    def added(self) -> bytes:
        return self._whole(b"response.output_item.added", _json(self.item("in_progress"))) + self.begin()

    def done(self, status: str) -> tuple[bytes, bytes]:
        """The events that close it, and the item as it stays."""
        ending = self.finish()
        item = _json(self.item(status))
        return ending + self._whole(b"response.output_item.done", item), item

    def write(self, text: str) -> bytes:
        return self._delta(text, self.more)

    def _delta(self, text: str, more: bytes) -> bytes:
        self._pieces.append(text)
        return self._writer.event(self.delta_kind, self._place + self.where + b',"delta":' + _json(text) + more)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def _tell(self, kind: bytes, **members: object) -> bytes:
        return self._writer.event(kind, self._place + self.where + b"," + _json(members)[1:-1])

    def _whole(self, kind: bytes, item: bytes) -> bytes:
        return self._writer.event(kind, b'"output_index":%d,"item":%b' % (self._index, item))

    # --- what each kind has of its own; where, more: members of a delta besides its place and its text

    delta_kind = b""
    where = b""
    more = b""

    @abstractmethod
    def item(self, status: str) -> dict[str, object]:
        """As it stands now."""
        ...

    def begin(self) -> bytes:
        """What opens its part, where it has parts."""
        return b""

    @abstractmethod
    def finish(self) -> bytes:
        """What closes its part."""
        ...


class MessageWriter(ItemWriter):
    delta_kind = b"response.output_text.delta"
    where = b',"content_index":0'
    more = b',"logprobs":[]'

    def __init__(self, writer: Writer, id: str, index: int) -> None:
        super().__init__(writer, id, index)
        self._citations: list[dict[str, object]] = []
        self._logprobs: list[Raw] = []
        self._has_begun = False

    def begin(self) -> bytes:
        self._has_begun = True
        return self._tell(b"response.content_part.added", part=text_part("", ()))

    def cite(self, sources: Sequence[Source]) -> bytes:
        told = b""
        for source in sources:
            cited = citation(source)
            place = len(self._citations)
            told += self._tell(b"response.output_text.annotation.added", annotation_index=place, annotation=cited)
            self._citations.append(cited)
        return told

    def write_known(self, text: str, logprobs: Raw) -> bytes:
        """`write`, with the log probabilities of the text's tokens."""
        told = logprobs_told(logprobs)
        self._logprobs.append(told)
        return self._delta(text, b',"logprobs":' + bytes(told))

    def finish(self) -> bytes:
        part = self._part()
        told = self._tell(b"response.output_text.done", text=part["text"], logprobs=part["logprobs"])
        return told + self._tell(b"response.content_part.done", part=part)

    def item(self, status: str) -> dict[str, object]:
        return message_item(self.id, status, [self._part()] if self._has_begun else ())

    def _part(self) -> dict[str, object]:
        return text_part(self.text, self._citations, joined_logprobs(self._logprobs))


class ReasoningWriter(ItemWriter):
    """Thinking as the item's content."""

    delta_kind = b"response.reasoning_text.delta"
    where = b',"content_index":0'

    def __init__(self, writer: Writer, id: str, index: int, wishes: Wishes) -> None:
        super().__init__(writer, id, index)
        self._wishes = wishes

    def begin(self) -> bytes:
        return self._tell(b"response.content_part.added", part=reasoning_part(""))

    def finish(self) -> bytes:
        text = self.text
        told = self._tell(b"response.reasoning_text.done", text=text)
        return told + self._tell(b"response.content_part.done", part=reasoning_part(text))

    def item(self, status: str) -> dict[str, object]:
        return reasoning_item(self.id, status, self.text, self._wishes)


class SummaryWriter(ReasoningWriter):
    """Thinking as the summary that the client has asked for."""

    delta_kind = b"response.reasoning_summary_text.delta"
    where = b',"summary_index":0'

    def begin(self) -> bytes:
        return self._tell(b"response.reasoning_summary_part.added", part=summary_part(""))

    def finish(self) -> bytes:
        text = self.text
        told = self._tell(b"response.reasoning_summary_text.done", text=text)
        return told + self._tell(b"response.reasoning_summary_part.done", part=summary_part(text))


class SearchWriter(ItemWriter):
    """A search of the web. The upstream tells what it searches for and what it has found, and not when it begins or
    ends: it is over when something else begins."""

    def __init__(self, writer: Writer, id: str, index: int, found: SourcesFound, wishes: Wishes) -> None:
        super().__init__(writer, id, index)
        self._found = found
        self._tells_sources = wishes.tells_sources

    def find(self, more: SourcesFound) -> None:
        self._found = SourcesFound(self._found.sources + more.sources, self._found.queries + more.queries)

    def begin(self) -> bytes:
        begun = self._writer.event(b"response.web_search_call.in_progress", self._place)
        return begun + self._writer.event(b"response.web_search_call.searching", self._place)

    def finish(self) -> bytes:
        return self._writer.event(b"response.web_search_call.completed", self._place)

    def done(self, status: str) -> tuple[bytes, bytes]:
        """However the response ends."""
        return super().done("completed")

    def item(self, status: str) -> dict[str, object]:
        sources = self._found.sources if self._tells_sources and status == "completed" else None
        return search_item(self.id, status, self._found.queries, sources)


class CallWriter(ItemWriter):
    """A call of a function."""

    delta_kind = b"response.function_call_arguments.delta"

    def __init__(self, writer: Writer, id: str, index: int, call_id: str, origin: Origin) -> None:
        super().__init__(writer, id, index)
        self._called: dict[str, object] = {"call_id": call_id, "name": origin.name}
        if origin.namespace is not None:
            self._called["namespace"] = origin.namespace

    def finish(self) -> bytes:
        return self._tell(b"response.function_call_arguments.done", arguments=self.text, name=self._called["name"])

    def item(self, status: str) -> dict[str, object]:
        return {"id": self.id, "type": "function_call", "status": status, **self._called, "arguments": self.text}


class FreeformWriter(CallWriter):
    """A call of a tool whose input is a text: what comes is JSON around it."""

    delta_kind = b"response.custom_tool_call_input.delta"

    def __init__(self, writer: Writer, id: str, index: int, call_id: str, origin: Origin) -> None:
        super().__init__(writer, id, index, call_id, origin)
        self._input = FreeformInput()

    def write(self, text: str) -> bytes:
        known = self._input.feed(text)
        return super().write(known) if known else b""

    def finish(self) -> bytes:
        """What could not be given out before goes out first."""
        rest = self._input.rest()
        told = super().write(rest) if rest else b""
        return told + self._tell(b"response.custom_tool_call_input.done", input=self.text)

    def item(self, status: str) -> dict[str, object]:
        return {"id": self.id, "type": "custom_tool_call", "status": status, **self._called, "input": self.text}
