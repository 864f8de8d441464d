"""A reply's events as those of `/v1/responses`. Pure.

| event | goes into | else closes what is open, and opens |
|---|---|---|
| ReasoningDelta | reasoning | reasoning |
| TextDelta, MediaOutput | a message | a message |
| ToolCallStart | – | a call |
| SourcesFound | a search, or a message | a search |
| Finish | – | nothing: it ends the response |

Sources are cited by the open message, else by the next one; when none comes, by an empty one at the end. A search that
only an open message tells of has its item behind that message. An item's id is made of the reply's and of the item's
place, so whoever has it knows the response that it belongs to.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Final, assert_never

import msgspec

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
    Finish,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    Source,
    SourcesFound,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
    joined_logprobs,
)
from qwen_proxy.chat.result import Called, ChatResult, Reasoned, Said
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.protocols.base import ReplyFacts
from qwen_proxy.protocols.media_text import media_text
from qwen_proxy.protocols.openai_responses_output import (
    CANCELLED,
    IN_PROGRESS,
    QUEUED,
    Outcome,
    Wishes,
    error_event,
    failed,
    outcome_of,
    response,
)
from qwen_proxy.protocols.openai_responses_tools import Toolbox
from qwen_proxy.protocols.openai_responses_writers import (
    CallWriter,
    FreeformWriter,
    ItemWriter,
    MessageWriter,
    ReasoningWriter,
    SearchWriter,
    SummaryWriter,
    Writer,
)

_json: Final = msgspec.json.encode


class ResponseEncoder:
    """Fits `protocols.base.EventEncoder`.

    last: the response as the latest event that tells it whole has it; it is the final one once it is over.
    """

    def __init__(self, facts: ReplyFacts, wishes: Wishes, toolbox: Toolbox, *, is_queued: bool = False) -> None:
        self._facts = facts
        self._wishes = wishes
        self._toolbox = toolbox
        self._is_queued = is_queued
        self._writer = Writer()
        self._open: ItemWriter | None = None
        self._items: list[bytes] = []
        self._sources: list[Source] = []
        self._has_searched = False
        self._late: SourcesFound | None = None  # found in the open message
        self._usage: Usage | None = None
        self._has_begun = False
        self.last = b""
        self.outcome = IN_PROGRESS
        # A run is neighbouring events of one type; the key is that type.
        self.writers: Final[dict[type[ChatEvent], Callable[..., bytes]]] = {
            ReplyStart: self._nothing,
            ReasoningDelta: self._reasoning,
            TextDelta: self._text,
            ToolCallStart: self._calls,
            ToolArgumentsDelta: self._arguments,
            MediaOutput: self._media,
            SourcesFound: self._found,
            Usage: self._used,
            Finish: self._finish,
        }

    @property
    def items(self) -> tuple[bytes, ...]:
        """Those that are done."""
        return tuple(self._items)

    @property
    def last_number(self) -> int:
        """Of the latest event; -1 before the first."""
        return self._writer.next - 1

    @property
    def is_over(self) -> bool:
        return self.outcome.status not in ("queued", "in_progress")

    def start(self) -> bytes:
        self._writer.next = 0
        opening = self._told(b"response.created", QUEUED if self._is_queued else IN_PROGRESS)
        if self._is_queued:
            opening += self._told(b"response.queued", QUEUED)
        return opening + self._told(b"response.in_progress", IN_PROGRESS)

    def encode(self, batch: Batch) -> bytes:
        self._has_begun = True
        writers = self.writers
        if len(batch) == 1:
            return writers[type(batch[0])](batch)
        return b"".join([writers[kind](run) for kind, run in groupby(batch, type)])

    def fail(self, error: ProxyError) -> bytes:
        """The SDK does not raise on `error`; others do not read on behind it: so both are told.

        What came before, when nothing had: a response has to be created before it can fail.
        """
        opening = b"" if self._has_begun else self.start()
        request_id = self._facts.request_id
        members = _json(error_event(error, request_id))[1:-1]
        told = self._writer.event(b"error", members)
        return opening + told + self._ended(b"response.failed", failed(error, request_id))

    def cancel(self) -> bytes:
        """The client wants no more of it. There is no event of that name: it is an incomplete one's."""
        opening = b"" if self._has_begun else self.start()
        return opening + self._ended(b"response.incomplete", CANCELLED)

    def _ended(self, kind: bytes, outcome: Outcome) -> bytes:
        """With what is still open, as far as it has come."""
        if self._open is not None:
            self._items.append(_json(self._open.item("incomplete")))
            self._open = None
        return self._told(kind, outcome)

    def _told(self, kind: bytes, outcome: Outcome) -> bytes:
        self.outcome = outcome
        self.last = response(self._facts, self._wishes, outcome, self._items, self._usage)
        return self._writer.event(kind, b'"response":' + self.last)

    def _opened(self, item: ItemWriter) -> bytes:
        closing = self._close("completed")
        self._open = item
        return closing + item.added()

    def _close(self, status: str) -> bytes:
        if self._open is None:
            return b""
        told, item = self._open.done(status)
        self._items.append(item)
        self._open = None
        if self._late is not None:
            search = SearchWriter(*self._place("ws"), self._late, self._wishes)
            self._late = None
            told += search.added()
            searched, item = search.done("completed")
            self._items.append(item)
            told += searched
        return told

    def _place(self, prefix: str) -> tuple[Writer, str, int]:
        """For the next item. Whatever is open closes first, so it counts."""
        index = len(self._items)
        if self._open is not None:
            index += 1 if self._late is None else 2
        return self._writer, f"{prefix}_{self._facts.reply_id}{index:04x}", index

    # --- the events

    def _nothing(self, _run: Iterable[ChatEvent]) -> bytes:
        return b""

    def _reasoning(self, run: Iterable[ReasoningDelta]) -> bytes:
        text = "".join([event.text for event in run])
        if not text:
            return b""
        opening = b""
        if not isinstance(self._open, ReasoningWriter):
            writer = SummaryWriter if self._wishes.summarises else ReasoningWriter
            opening = self._opened(writer(*self._place("rs"), self._wishes))
        assert self._open is not None
        return opening + self._open.write(text)

    def _text(self, run: Iterable[TextDelta]) -> bytes:
        events = list(run)
        text = "".join([event.text for event in events])
        logprobs = joined_logprobs(event.logprobs for event in events)
        if not text and logprobs is None:
            return b""
        message, opening = self._message()
        return opening + (message.write(text) if logprobs is None else message.write_known(text, logprobs))

    def _message(self) -> tuple[MessageWriter, bytes]:
        """The one that is open, or a new one, and what opens it."""
        if isinstance(self._open, MessageWriter):
            return self._open, b""
        message = MessageWriter(*self._place("msg"))
        opening = self._opened(message) + message.cite(self._sources)
        self._sources.clear()
        return message, opening

    def _media(self, run: Iterable[MediaOutput]) -> bytes:
        return self._text([TextDelta(media_text(event)) for event in run])

    def _found(self, run: Iterable[SourcesFound]) -> bytes:
        events = list(run)
        found = SourcesFound(
            tuple(source for event in events for source in event.sources),
            tuple(query for event in events for query in event.queries),
        )
        if not found.sources and not found.queries:
            return b""
        if isinstance(self._open, MessageWriter):
            self._late = self._found_late(found)
            return self._open.cite(found.sources)
        self._sources += found.sources
        self._has_searched = True
        if isinstance(self._open, SearchWriter):
            self._open.find(found)
            return b""
        return self._opened(SearchWriter(*self._place("ws"), found, self._wishes))

    def _found_late(self, found: SourcesFound) -> SourcesFound | None:
        """More results of a search that has its item are no search of their own."""
        late = self._late
        if late is not None:
            return SourcesFound(late.sources + found.sources, late.queries + found.queries)
        is_more = self._has_searched and not found.queries
        self._has_searched = True
        return None if is_more else found

    def _calls(self, run: Iterable[ToolCallStart]) -> bytes:
        return b"".join([self._call(event) for event in run])

    def _call(self, event: ToolCallStart) -> bytes:
        origin = self._toolbox.origin(event.name)
        kind, prefix = (FreeformWriter, "ctc") if origin.is_custom else (CallWriter, "fc")
        return self._opened(kind(*self._place(prefix), event.call_id, origin))

    def _arguments(self, run: Iterable[ToolArgumentsDelta]) -> bytes:
        assert self._open is not None  # the grammar of events has it so
        text = "".join([event.text for event in run])
        return self._open.write(text) if text else b""

    def _used(self, run: Iterable[Usage]) -> bytes:
        (self._usage,) = run
        return b""

    def _finish(self, run: Iterable[Finish]) -> bytes:
        (event,) = run
        outcome = outcome_of(event)
        closing = self._close(outcome.status)
        if self._sources:
            closing += self._message()[1] + self._close(outcome.status)
        kind = b"response.completed" if outcome.status == "completed" else b"response.incomplete"
        return closing + self._told(kind, outcome)


def replayed(result: ChatResult) -> Batch:
    """A reply that was folded, as events again: so that it is written by the same hand as one that is streamed."""
    events: Batch = [ReplyStart()]
    sources = SourcesFound(result.sources, result.queries)
    for part in result.parts:
        match part:
            case Said(text, logprobs):
                events += [sources, TextDelta(text, logprobs)]
                sources = SourcesFound(())
            case Reasoned(text):
                events.append(ReasoningDelta(text))
            case Called(call_id, name, arguments):
                events += [ToolCallStart(call_id, name), ToolArgumentsDelta(arguments)]
            case MediaOutput():
                events.append(part)
            case _:
                assert_never(part)
    events.append(sources)
    events += [] if result.usage is None else [result.usage]
    return [*events, result.finish]
