"""Anthropic's Messages: `/v1/messages` and `/v1/messages/count_tokens`. Pure.

Shapes: Anthropic's API reference, as typed in the anthropic SDK 2.12; its accumulator throws on any other order:

    message_start (content_block_start content_block_delta* content_block_stop)* message_delta message_stop

| block | opened by | deltas | closed by |
|---|---|---|---|
| thinking | reasoning | thinking_delta (none where the client wants it omitted) | signature_delta, then stop |
| text | text, a picture | text_delta | stop |
| tool_use | the start of a call | input_json_delta | stop |
| server_tool_use, web_search_tool_result | sources, where the client asked for `web_search` | – | stop, at once |
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import ClassVar, Final

import msgspec
from msgspec import Struct

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
    Finish,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    SourcesFound,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
)
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import Called, ChatResult, Reasoned
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols import anthropic_blocks as blocks
from qwen_proxy.protocols.anthropic_body import MessagesBody, decode
from qwen_proxy.protocols.anthropic_errors import error_body, error_reply
from qwen_proxy.protocols.anthropic_request import request
from qwen_proxy.protocols.base import ErrorReply, Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.bodies import refuse_ignored
from qwen_proxy.protocols.limit_headers import anthropic_headers
from qwen_proxy.protocols.media_text import media_text

_json: Final = msgspec.json.encode

MESSAGE_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
NOTHING_USED: Final = Usage(prompt_tokens=0, completion_tokens=0)


class Manner(Struct, frozen=True, kw_only=True):
    """How the client wants the blocks.

    shows_thinking: false for who has switched thinking off, though some models think all the same. omits_thinking: its
    blocks are there, with a signature and without a text. searches: sources are told as Anthropic's search does.
    is_single: the text is one block, which the client reads as JSON.
    """

    shows_thinking: bool = True
    omits_thinking: bool = False
    searches: bool = False
    is_single: bool = False


class MessagesCall(Struct, frozen=True, kw_only=True):
    """A parsed request; fits `protocols.base.Call`."""

    request: ChatRequest
    stream: bool
    manner: Manner
    ignored_fields: tuple[str, ...]
    session: str
    further: tuple[ChatRequest, ...] = ()
    choices: int = 1

    @property
    def needs_prompt_tokens(self) -> bool:
        """A stream tells them at its beginning."""
        return self.stream

    def encoder(self, facts: ReplyFacts, index: int) -> "EventWriter":
        return EventWriter(facts, self.manner)

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        return MESSAGE_STOP

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        (result,) = results
        manner = self.manner
        parts = [part for part in result.parts if manner.shows_thinking or not isinstance(part, Reasoned)]
        sources = result.sources if manner.searches else ()
        content = blocks.blocks(
            parts,
            sources,
            _search_id(facts, 0),
            queries=result.queries,
            is_omitted=manner.omits_thinking,
            is_single=manner.is_single,
        )
        end = blocks.stopped(result.finish, has_calls=any(isinstance(part, Called) for part in parts))
        used = blocks.usage(result.usage or NOTHING_USED, 1 if sources else 0)
        return _json(_message(facts, content) | end | {"usage": used})


class Anthropic:
    """What all routes of this API have in common; fits `protocols.base.Dialect`."""

    request_id_header: ClassVar[str] = "request-id"

    def error(self, error: ProxyError, request_id: str) -> ErrorReply:
        return error_reply(error, request_id)

    def limit_headers(self, facts: LimitFacts) -> tuple[tuple[str, str], ...]:
        return anthropic_headers(facts)


class AnthropicMessages(Anthropic):
    """Fits `protocols.base.ClientProtocol`."""

    stream_content_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    heartbeat: ClassVar[bytes] = b'event: ping\ndata: {"type":"ping"}\n\n'

    def parse(self, incoming: Incoming, options: ParseOptions) -> MessagesCall:
        body, ignored = decode(incoming.body)
        asked = request(body)
        return MessagesCall(
            request=asked,
            stream=body.stream is True,
            manner=_manner(body, asked),
            ignored_fields=ignored,
            session=body.session,
        )


class AnthropicCount(Anthropic):
    """Fits `protocols.base.CountProtocol`."""

    def parse(self, incoming: Incoming, options: ParseOptions) -> ChatRequest:
        body, ignored = decode(incoming.body)
        refuse_ignored(ignored, options)
        return request(body)

    def result(self, prompt_tokens: int) -> bytes:
        return _json({"input_tokens": prompt_tokens})


class EventWriter:
    """Events of a reply to Anthropic's. Neighbouring deltas of one kind in a batch become one."""

    def __init__(self, facts: ReplyFacts, manner: Manner) -> None:
        self._facts = facts
        self._manner = manner
        self._index = -1  # of the last block that was opened
        self._open = ""  # its type, while it is open
        self._delta_head = b""
        self._signer = blocks.Signer()
        self._usage = NOTHING_USED
        self._has_calls = self._has_text = False
        self._searches = 0
        self._queries: list[str] = []  # of the search whose results are to come
        # A run is neighbouring events of one type; the key is that type.
        self.writers: Final[dict[type[ChatEvent], Callable[..., bytes]]] = {
            ReplyStart: self._nothing,
            ReasoningDelta: self._thinking,
            TextDelta: self._text,
            ToolCallStart: self._call_starts,
            ToolArgumentsDelta: self._arguments,
            MediaOutput: self._media,
            SourcesFound: self._sources,
            Usage: self._used,
            Finish: self._finish,
        }

    def start(self) -> bytes:
        end = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
        prompt_tokens = self._facts.prompt_tokens or 0
        usage = blocks.usage(Usage(prompt_tokens=prompt_tokens, completion_tokens=0), 0)
        return _event("message_start", {"message": _message(self._facts, []) | end | {"usage": usage}})

    def encode(self, batch: Batch) -> bytes:
        writers = self.writers
        if len(batch) == 1:
            return writers[type(batch[0])](batch)
        return b"".join([writers[kind](run) for kind, run in groupby(batch, type)])

    def fail(self, error: ProxyError) -> bytes:
        """No `message_stop` follows."""
        return b"event: error\ndata: " + error_body(error, self._facts.request_id) + b"\n\n"

    # --- blocks --------------------------------------------------------------------------------------------

    def _begin(self, block: blocks.Block, delta: bytes = b"") -> bytes:
        """`delta` is what a delta of the block has before its piece of text."""
        closed = self._close()
        self._index += 1
        self._open = str(block["type"])
        self._delta_head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{%b' % (
            self._index,
            delta,
        )
        return closed + _event("content_block_start", {"index": self._index, "content_block": block})

    def _delta(self, text: str) -> bytes:
        return self._delta_head + _json(text) + b"}}\n\n"

    def _close(self) -> bytes:
        if not self._open:
            return b""
        signed = b""
        if self._open == "thinking":
            signature = {"type": "signature_delta", "signature": self._signer.signature()}
            signed = _event("content_block_delta", {"index": self._index, "delta": signature})
        self._open = ""
        return signed + _event("content_block_stop", {"index": self._index})

    # --- events --------------------------------------------------------------------------------------------

    def _nothing(self, _run: Iterable[ChatEvent]) -> bytes:
        return b""

    def _text(self, run: Iterable[TextDelta]) -> bytes:
        text = "".join([event.text for event in run])
        if not text:
            return b""
        if self._open == "text":
            return self._delta(text)
        self._has_text = True
        return self._begin(blocks.text(""), b'"type":"text_delta","text":') + self._delta(text)

    def _thinking(self, run: Iterable[ReasoningDelta]) -> bytes:
        text = "".join([event.text for event in run])
        if not text or not self._manner.shows_thinking or (self._manner.is_single and self._has_text):
            return b""
        opened = b""
        if self._open != "thinking":
            block: blocks.Block = {"type": "thinking", "thinking": "", "signature": ""}
            opened = self._begin(block, b'"type":"thinking_delta","thinking":')
            self._signer = blocks.Signer()
        self._signer.add(text)
        return opened if self._manner.omits_thinking else opened + self._delta(text)

    def _call_starts(self, run: Iterable[ToolCallStart]) -> bytes:
        written = b""
        for event in run:
            call = blocks.tool_use(Called(event.call_id, event.name, "{}"))
            written += self._begin(call, b'"type":"input_json_delta","partial_json":')
            self._has_calls = True
        return written

    def _arguments(self, run: Iterable[ToolArgumentsDelta]) -> bytes:
        text = "".join([event.text for event in run])
        return self._delta(text) if text else b""

    def _media(self, run: Iterable[MediaOutput]) -> bytes:
        return self._text([TextDelta(media_text(event)) for event in run])

    def _sources(self, run: Iterable[SourcesFound]) -> bytes:
        events = list(run)
        sources = [source for event in events for source in event.sources]
        self._queries += [query for event in events for query in event.queries]
        if not sources or not self._manner.searches or (self._manner.is_single and self._has_text):
            return b""
        query = blocks.searched_for(self._queries)
        self._queries.clear()
        use, found = blocks.search(sources, _search_id(self._facts, self._searches), {})
        self._searches += 1
        written = self._begin(use, b'"type":"input_json_delta","partial_json":')
        if query:
            written += self._delta(_json(query).decode())
        return written + self._begin(found) + self._close()

    def _used(self, run: Iterable[Usage]) -> bytes:
        (self._usage,) = run
        return b""

    def _finish(self, run: Iterable[Finish]) -> bytes:
        (event,) = run
        end = blocks.stopped(event, has_calls=self._has_calls)
        usage = blocks.usage(self._usage, self._searches)
        return self._close() + _event("message_delta", {"delta": end, "usage": usage})


def _manner(body: MessagesBody, asked: ChatRequest) -> Manner:
    thinking = body.thinking
    return Manner(
        shows_thinking=asked.reasoning.enabled is not False,
        omits_thinking=thinking is not None and thinking.display == "omitted",
        searches=asked.model.variant.search,
        is_single=asked.output is not None,
    )


def _message(facts: ReplyFacts, content: Sequence[blocks.Block]) -> dict[str, object]:
    id = f"msg_{facts.reply_id}"
    return {"id": id, "type": "message", "role": "assistant", "model": facts.model, "content": content}


def _search_id(facts: ReplyFacts, number: int) -> str:
    return f"srvtoolu_{facts.reply_id}{number}"


def _event(name: str, fields: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _json({"type": name, **fields}))
