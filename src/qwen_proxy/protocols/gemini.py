"""Gemini's API: `/v1beta/models/{model}:generateContent`, `:streamGenerateContent`, `:countTokens`. Pure.

Shapes: the API reference, as typed in the google-genai SDK 3.4. A stream is server-sent events with `?alt=sse`, else an
array that grows; comments, and a `[DONE]`, break the SDK, so there are none. A call's `args` is one object and comes
whole. A failure in the middle of a stream has to begin with `data: {"error":`, else the SDK does not see it.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Raw, Struct

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
    Finish,
    FinishReason,
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
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import Called, ChatResult, Reasoned, total_usage
from qwen_proxy.ground.errors import InvalidRequest, ProxyError, UnsupportedParameter
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols import bodies
from qwen_proxy.protocols.base import ErrorReply, Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.gemini_body import COUNT, GenerateBody, GenerationBody, decoded, in_camel_case
from qwen_proxy.protocols.gemini_errors import error_body, error_reply
from qwen_proxy.protocols.gemini_logprobs import LogprobsTeller
from qwen_proxy.protocols.gemini_request import request
from qwen_proxy.protocols.limit_headers import openai_headers
from qwen_proxy.protocols.media_text import media_text

_json: Final = msgspec.json.encode
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


class GenerateCall(Struct, frozen=True, kw_only=True):
    """A parsed request; fits `protocols.base.Call`. is_array: a stream is an array that grows."""

    request: ChatRequest
    stream: bool
    is_array: bool
    shows_thoughts: bool
    choices: int
    ignored_fields: tuple[str, ...]
    further: tuple[ChatRequest, ...] = ()
    needs_prompt_tokens: bool = False
    session: str = ""

    def encoder(self, facts: ReplyFacts, index: int) -> "ChunkWriter":
        return ChunkWriter(facts, index, is_array=self.is_array, shows_thoughts=self.shows_thoughts)

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        """The sum over several candidates; of one, its end has told it."""
        if self.is_array:
            return b"]"
        return b"" if self.choices == 1 else b"data: " + _json({"usageMetadata": _usage(usage)} | _tail(facts)) + _GAP

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        told = [_candidate(result, index, self.shows_thoughts) for index, result in enumerate(results)]
        usages = [result.usage for result in results if result.usage is not None]
        usage = {"usageMetadata": _usage(total_usage(usages))} if usages else {}
        return _json({"candidates": told} | usage | _tail(facts))


_GAP: Final = b"\n\n"


class ChunkWriter:
    """Events of one candidate to chunks. A call is written when it is whole: by what comes behind it."""

    def __init__(self, facts: ReplyFacts, index: int, *, is_array: bool, shows_thoughts: bool) -> None:
        self._index = index
        self._is_array = is_array
        self._shows_thoughts = shows_thoughts
        self._tail = b"," + _json(_tail(facts))[1:]
        self._request_id = facts.request_id
        self._has_begun = False
        self._open: tuple[str, str] | None = None  # a call's id and name
        self._arguments: list[str] = []
        self._is_malformed = False
        self._sources: list[Source] = []
        self._queries: list[str] = []
        self._usage: dict[str, object] = {}
        self._logprobs = LogprobsTeller()
        # A run is neighbouring events of one type; the key is that type.
        self.writers: Final[dict[type[ChatEvent], Callable[..., bytes]]] = {
            ReplyStart: self._nothing,
            ReasoningDelta: self._thought,
            TextDelta: self._text,
            ToolCallStart: self._call_starts,
            ToolArgumentsDelta: self._more,
            MediaOutput: self._media,
            SourcesFound: self._found,
            Usage: self._used,
            Finish: self._finish,
        }

    def start(self) -> bytes:
        return b""

    def encode(self, batch: Batch) -> bytes:
        writers = self.writers
        if len(batch) == 1:
            return writers[type(batch[0])](batch)
        return b"".join([writers[kind](run) for kind, run in groupby(batch, type)])

    def fail(self, error: ProxyError) -> bytes:
        body = error_body(error, self._request_id)
        return self._framed(body) + (b"]" if self._is_array else b"")

    def _framed(self, body: bytes) -> bytes:
        if not self._is_array:
            return b"data: " + body + _GAP
        opened = b",\n" if self._has_begun else b"["
        self._has_begun = True
        return opened + body

    def _chunk(self, candidate: dict[str, object], more: dict[str, object] | None = None) -> bytes:
        return self._framed(_json({"candidates": [candidate]} | (more or {}))[:-1] + self._tail)

    def _part(self, part: dict[str, object], more: dict[str, object] | None = None) -> bytes:
        return self._chunk({"content": {"role": "model", "parts": [part]}, "index": self._index} | (more or {}))

    def _nothing(self, _run: Iterable[ChatEvent]) -> bytes:
        return b""

    def _text(self, run: Iterable[TextDelta]) -> bytes:
        events = list(run)
        text = "".join([event.text for event in events])
        known = self._logprobs.result(joined_logprobs(event.logprobs for event in events))
        return self._closed() + (self._part({"text": text}, known) if text or known else b"")

    def _thought(self, run: Iterable[ReasoningDelta]) -> bytes:
        text = "".join([event.text for event in run])
        closed = self._closed()  # first, since the first chunk opens an array
        return closed + (self._part({"text": text, "thought": True}) if text and self._shows_thoughts else b"")

    def _media(self, run: Iterable[MediaOutput]) -> bytes:
        return self._closed() + self._part({"text": "".join([media_text(event) for event in run])})

    def _call_starts(self, run: Iterable[ToolCallStart]) -> bytes:
        written = b""
        for event in run:
            written += self._closed()
            self._open = (event.call_id, event.name)
        return written

    def _more(self, run: Iterable[ToolArgumentsDelta]) -> bytes:
        self._arguments += [event.text for event in run]
        return b""

    def _closed(self) -> bytes:
        if self._open is None:
            return b""
        part = _call(Called(*self._open, "".join(self._arguments)))
        self._open = None
        self._arguments.clear()
        if part is None:
            self._is_malformed = True
            return b""
        return self._part(part)

    def _found(self, run: Iterable[SourcesFound]) -> bytes:
        for event in run:
            self._sources += event.sources
            self._queries += event.queries
        return b""

    def _used(self, run: Iterable[Usage]) -> bytes:
        (event,) = run
        self._usage = {"usageMetadata": _usage(event)}
        return b""

    def _finish(self, run: Iterable[Finish]) -> bytes:
        (event,) = run
        closed = self._closed()
        end = _end(event, self._sources, self._queries, is_malformed=self._is_malformed)
        # A content without a part would make the SDK's chat forget the whole turn.
        candidate: dict[str, object] = {"content": {"role": "model", "parts": [{"text": ""}]}, "index": self._index}
        return closed + self._chunk(candidate | end | self._logprobs.average(), self._usage)


def _candidate(result: ChatResult, index: int, shows_thoughts: bool) -> dict[str, object]:
    parts: list[dict[str, object]] = []
    is_malformed = False
    for part in result.parts:
        match part:
            case Called():
                call = _call(part)
                is_malformed = is_malformed or call is None
                parts += [call] if call is not None else []
            case Reasoned(text):
                thought: dict[str, object] = {"text": text, "thought": True}
                parts += [thought] if shows_thoughts else []
            case MediaOutput():
                parts.append({"text": media_text(part)})
            case _:
                parts.append({"text": part.text})
    end = _end(result.finish, result.sources, result.queries, is_malformed=is_malformed)
    teller = LogprobsTeller()
    known = teller.result(result.logprobs) | teller.average()
    return {"content": {"role": "model", "parts": parts}, "index": index} | end | known


def _call(called: Called) -> dict[str, object] | None:
    """None where the arguments are no object, as those of a call that was cut short."""
    args = bodies.read(Raw(called.arguments.encode()), _OBJECT) if called.arguments else {}
    if args is None:
        return None
    return {"functionCall": {"id": called.call_id, "name": called.name, "args": args}}


def _end(finish: Finish, sources: Sequence[Source], queries: Sequence[str], *, is_malformed: bool) -> dict[str, object]:
    """A call that can't be told is left out, and is why the reply ended, unless it was cut."""
    is_cut = finish.reason is FinishReason.LENGTH
    reason = "MALFORMED_FUNCTION_CALL" if is_malformed and not is_cut else _REASONS[finish.reason]
    found: dict[str, object] = {}
    if sources:
        found["groundingChunks"] = [{"web": {"uri": each.url, "title": each.title or each.url}} for each in sources]
    if queries:
        found["webSearchQueries"] = queries
    return {"finishReason": reason, **({"groundingMetadata": found} if found else {})}


_REASONS: Final = {
    FinishReason.STOP: "STOP",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.TOOL_CALLS: "STOP",
    FinishReason.CONTENT_FILTER: "SAFETY",
}


def _usage(usage: Usage) -> dict[str, object]:
    """Thoughts are counted apart from the candidates' tokens."""
    told: dict[str, object] = {
        "promptTokenCount": usage.prompt_tokens,
        "candidatesTokenCount": usage.completion_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.reasoning_tokens:
        told["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.cached_tokens:
        told["cachedContentTokenCount"] = usage.cached_tokens
    return told


def _tail(facts: ReplyFacts) -> dict[str, object]:
    return {"modelVersion": facts.model, "responseId": facts.reply_id}


# --- the protocol ------------------------------------------------------------------------------------------


class Gemini:
    """What all routes of this API have in common; fits `protocols.base.Dialect`."""

    request_id_header: ClassVar[str] = "x-request-id"

    def error(self, error: ProxyError, request_id: str) -> ErrorReply:
        return error_reply(error, request_id)

    def limit_headers(self, facts: LimitFacts) -> tuple[tuple[str, str], ...]:
        """Google's API has none of its own; OpenAI's are the most widely read."""
        return openai_headers(facts)


class GeminiGenerate(Gemini):
    """`:generateContent`, whose replies are whole; fits `protocols.base.ClientProtocol`."""

    stream_content_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    heartbeat: ClassVar[bytes] = b""
    _streams: ClassVar[bool] = False
    _is_array: ClassVar[bool] = False

    def parse(self, incoming: Incoming, options: ParseOptions) -> GenerateCall:
        body, ignored = decoded(incoming.body)
        wishes = body.generation_config or GenerationBody()
        thinking = wishes.thinking_config
        return GenerateCall(
            request=request(body, incoming.variables.get("model", "")),
            stream=self._streams,
            is_array=self._is_array,
            shows_thoughts=thinking is not None and thinking.include_thoughts is True,
            choices=_candidates(wishes.candidate_count or 1, options.max_choices, is_array=self._is_array),
            ignored_fields=ignored,
        )


def _candidates(wanted: int, most: int, *, is_array: bool) -> int:
    param = "generationConfig.candidateCount"
    if wanted > most:
        raise InvalidRequest(f"{param} is {wanted}; this server makes at most {most} a request", param=param)
    if wanted > 1 and is_array:
        raise UnsupportedParameter(
            f"{param}: several candidates are streamed as events only; ask with ?alt=sse", param=param
        )
    return wanted


class GeminiEvents(GeminiGenerate):
    """`:streamGenerateContent?alt=sse`."""

    _streams: ClassVar[bool] = True


class GeminiArray(GeminiGenerate):
    """`:streamGenerateContent` without `alt=sse`: an array of JSON, an element a chunk."""

    stream_content_type: ClassVar[str] = "application/json; charset=utf-8"
    _streams: ClassVar[bool] = True
    _is_array: ClassVar[bool] = True


class GeminiCount(Gemini):
    """`:countTokens`; fits `protocols.base.CountProtocol`."""

    def parse(self, incoming: Incoming, options: ParseOptions) -> ChatRequest:
        body, _ = bodies.decode(in_camel_case(incoming.body), COUNT, frozenset(), "contents")
        asked = body.generate_content_request
        if asked is None:
            if body.contents is None:
                raise InvalidRequest("`contents` is missing", param="contents")
            asked = GenerateBody(contents=body.contents)
        return request(asked, incoming.variables.get("model", ""))

    def result(self, prompt_tokens: int) -> bytes:
        return _json({"totalTokens": prompt_tokens})
