"""OpenAI's chat completions: `/v1/chat/completions`. Pure.

Shapes: OpenAI's API reference, as typed in the openai SDK 3.54. That does not type the deltas of a `custom` call, which
are those of a function's with `custom` and `input` in the places of `function` and `arguments`. Beside them:
`reasoning_content` (in deltas and messages, as DeepSeek and Qwen do), `annotations` in deltas (each with its `index`,
without which the SDK's accumulator can't join them), and `origin` in `usage`, which says whether the upstream's numbers
or a count made here are given.
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
    joined_logprobs,
)
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import ChatResult, total_usage
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols.base import ErrorReply, Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.limit_headers import openai_headers
from qwen_proxy.protocols.media_text import media_text
from qwen_proxy.protocols.openai_chat_body import decode, extra
from qwen_proxy.protocols.openai_chat_freeform import FreeformCalls
from qwen_proxy.protocols.openai_chat_reply import call, choice_json, citation, custom_call, head, usage_json
from qwen_proxy.protocols.openai_chat_request import choices, request
from qwen_proxy.protocols.openai_chat_tools import freeform
from qwen_proxy.protocols.openai_errors import error_body, error_reply

_json: Final = msgspec.json.encode

DONE: Final = b"data: [DONE]\n\n"


class ChatCall(Struct, frozen=True, kw_only=True):
    """A parsed request; fits `protocols.base.Call`. freeform: names of the tools whose input is a text."""

    request: ChatRequest
    stream: bool
    include_usage: bool
    choices: int
    ignored_fields: tuple[str, ...]
    freeform: frozenset[str] = frozenset()
    further: tuple[ChatRequest, ...] = ()
    needs_prompt_tokens: bool = False
    session: str = ""

    def encoder(self, facts: ReplyFacts, index: int) -> "ChunkEncoder":
        return ChunkEncoder(facts, index, include_usage=self.include_usage, freeform=self.freeform)

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        if not self.include_usage:
            return DONE
        opening = head(facts, "chat.completion.chunk")
        return b'data: %b,"choices":[],"usage":%b}\n\n' % (opening, usage_json(usage)) + DONE

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        told: list[bytes] = []
        usages: list[Usage] = []
        for index, result in enumerate(results):
            told.append(choice_json(index, result, self.freeform))
            if result.usage is not None:
                usages.append(result.usage)
        usage = usage_json(total_usage(usages)) if usages else b"null"
        return b'%b,"choices":[%b],"usage":%b}' % (head(facts, "chat.completion"), b",".join(told), usage)


class OpenAIChat:
    """Fits `protocols.base.ClientProtocol`."""

    request_id_header: ClassVar[str] = "x-request-id"
    stream_content_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    heartbeat: ClassVar[bytes] = b": keep-alive\n\n"

    def parse(self, incoming: Incoming, options: ParseOptions) -> ChatCall:
        body, ignored = decode(incoming.body)
        return ChatCall(
            request=request(body, extra(incoming.body, body, ignored)),
            stream=body.streamed,
            include_usage=body.includes_usage,
            choices=choices(body, options.max_choices),
            ignored_fields=ignored,
            freeform=freeform(body),
            session=body.session,
        )

    def error(self, error: ProxyError, request_id: str) -> ErrorReply:
        return error_reply(error, request_id)

    def limit_headers(self, facts: LimitFacts) -> tuple[tuple[str, str], ...]:
        return openai_headers(facts)


class ChunkEncoder:
    """Events of one choice to chunks. Neighbouring deltas of one kind in a batch become one chunk.

    A chunk is the stream's own head, the JSON of what is new, and the stream's own tail: nothing else is encoded.
    """

    __slots__ = (
        "_calls",
        "_end",
        "_field_tail",
        "_freeform",
        "_head",
        "_is_freeform",
        "_reasoning_head",
        "_request_id",
        "_sources",
        "_tail",
        "_text_head",
        "writers",
    )

    def __init__(
        self, facts: ReplyFacts, index: int, *, include_usage: bool, freeform: frozenset[str] = frozenset()
    ) -> None:
        self._head = b'data: %b,"choices":[{"index":%d,"delta":' % (head(facts, "chat.completion.chunk"), index)
        self._end = (b',"usage":null}' if include_usage else b"}") + b"\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null}]' + self._end
        self._text_head = self._head + b'{"content":'
        self._reasoning_head = self._head + b'{"reasoning_content":'
        self._field_tail = b"}" + self._tail
        self._request_id = facts.request_id
        self._calls = 0
        self._freeform = FreeformCalls(freeform) if freeform else None
        self._is_freeform = False  # the latest call
        self._sources = 0
        # A run is neighbouring events of one type; the key is that type.
        self.writers: Final[dict[type[ChatEvent], Callable[..., bytes]]] = {
            ReplyStart: self._nothing,
            ReasoningDelta: self._reasoning,
            TextDelta: self._text,
            ToolCallStart: self._call_starts,
            ToolArgumentsDelta: self._arguments,
            MediaOutput: self._media,
            SourcesFound: self._annotations,
            Usage: self._nothing,  # the trailer tells the sum over all choices
            Finish: self._finish,
        }

    def start(self) -> bytes:
        return self._chunk(b'{"role":"assistant","content":""}')

    def encode(self, batch: Batch) -> bytes:
        writers = self.writers
        if self._freeform is not None:
            batch = self._freeform.take(batch)
        if len(batch) == 1:
            event = batch[0]
            if type(event) is TextDelta and event.logprobs is None and event.text:  # a token: the usual case
                return self._text_head + _json(event.text) + self._field_tail
            return writers[type(event)](batch)
        return b"".join([writers[kind](run) for kind, run in groupby(batch, type)])

    def fail(self, error: ProxyError) -> bytes:
        """No `[DONE]` follows, so a client that knows no error chunks sees a stream that broke off."""
        return b"data: " + error_body(error, self._request_id) + b"\n\n"

    def _chunk(self, delta: bytes) -> bytes:
        return self._head + delta + self._tail

    def _nothing(self, _run: Iterable[ChatEvent]) -> bytes:
        return b""

    def _text(self, run: Iterable[TextDelta]) -> bytes:
        events = list(run)
        text = "".join([event.text for event in events])
        logprobs = [event.logprobs for event in events if event.logprobs is not None]
        if logprobs:
            told = _json({"content": joined_logprobs(logprobs), "refusal": None})
            return self._text_head + _json(text) + b'},"logprobs":' + told + b',"finish_reason":null}]' + self._end
        return self._text_head + _json(text) + self._field_tail if text else b""

    def _reasoning(self, run: Iterable[ReasoningDelta]) -> bytes:
        text = "".join([event.text for event in run])
        return self._reasoning_head + _json(text) + self._field_tail if text else b""

    def _call_starts(self, run: Iterable[ToolCallStart]) -> bytes:
        written = b""
        for event in run:
            self._is_freeform = self._freeform is not None and event.name in self._freeform.names
            begun = (custom_call if self._is_freeform else call)(event.call_id, event.name, "")
            written += self._chunk(_json({"tool_calls": [{"index": self._calls, **begun}]}))
            self._calls += 1
        return written

    def _arguments(self, run: Iterable[ToolArgumentsDelta]) -> bytes:
        text = "".join([event.text for event in run])
        told = {"custom": {"input": text}} if self._is_freeform else {"function": {"arguments": text}}
        return self._chunk(_json({"tool_calls": [{"index": self._calls - 1, **told}]}))

    def _media(self, run: Iterable[MediaOutput]) -> bytes:
        return self._text([TextDelta(media_text(event)) for event in run])

    def _annotations(self, run: Iterable[SourcesFound]) -> bytes:
        sources = [source for event in run for source in event.sources]
        annotations = [{"index": self._sources + i, **citation(source)} for i, source in enumerate(sources)]
        self._sources += len(sources)
        return self._chunk(_json({"annotations": annotations})) if sources else b""

    def _finish(self, run: Iterable[Finish]) -> bytes:
        (event,) = run
        return self._head + b'{},"logprobs":null,"finish_reason":%b}]' % _json(event.reason) + self._end
