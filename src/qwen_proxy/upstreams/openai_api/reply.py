"""A streamed or whole answer of chat completions, decoded into our events. Pure.

| state | a chunk with content | finish_reason | `[DONE]` | the end of the body | an error object |
|---|---|---|---|---|---|
| open | its events | told | over | ReplyCut | raised |
| told | its events | told | over | over | raised |
| over | – | – | – | – | – |

Over: Usage (where one was told, with or without choices beside it, the last one counts), then Finish. A reply of
nothing is ReplyEmpty, unless its end says why: `length`, `content_filter`.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Raw

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
    Finish,
    FinishReason,
    MediaKind,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    Source,
    SourcesFound,
    TextDelta,
    Usage,
)
from qwen_proxy.ground.errors import ProxyError, ReplyCut, ReplyEmpty, UpstreamFailed, UpstreamProtocolError
from qwen_proxy.ground.sse import SseDecoder
from qwen_proxy.upstreams.openai_api.calls import CallStream
from qwen_proxy.upstreams.openai_api.errors import Judge, classify, classify_answer, error_in
from qwen_proxy.upstreams.openai_api.wire import (
    AnnotationBody,
    CallBody,
    ChoiceBody,
    DeltaBody,
    ImageBody,
    LogprobsBody,
    ReplyBody,
    UsageBody,
    decode_reply,
    text_of,
)

DONE: Final = b"[DONE]"
FINISHES: Final = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
BROKEN: Final = frozenset(("abort", "cancelled", "error"))  # a reply that ends so did not end well
EXPLAINED: Final = (FinishReason.LENGTH, FinishReason.CONTENT_FILTER)


def is_stream(first: bytes) -> bool:
    """Whether a body with these first bytes is to be read as events, whatever its headers say.

    Raises UpstreamProtocolError for a web page; what is left is an answer in one piece.
    """
    start = first.lstrip()[:1]
    if start == b"<":
        raise UpstreamProtocolError("a web page instead of a reply: is the base URL right?")
    return start != b"{"


class ReplyReader:
    """Feed it a stream's bytes in any portions, then `finish`; or `whole` once with a body that is no stream.

    A batch may be empty. `failure`: why the reply is none, once that is known; what came before it is still in the
    batch. `is_over`: there is nothing more to read. new_id: for calls that have no id. model: as it was asked for, for
    errors. judge: what an error object means.
    """

    __slots__ = (
        "_calls",
        "_cited",
        "_finish",
        "_frames",
        "_has_spoken",
        "_has_started",
        "_has_thought",
        "_judge",
        "_logprobs",
        "_model",
        "_new_id",
        "_usage",
        "failure",
        "is_over",
    )

    def __init__(self, model: str, new_id: Callable[[], str], judge: Judge = classify) -> None:
        self._model = model
        self._judge = judge
        self._frames = SseDecoder()
        self._new_id = new_id
        self._calls: CallStream | None = None  # from the first call on
        self._has_started = False
        self._has_spoken = False
        self._has_thought = False
        self._finish: FinishReason | None = None
        self._usage: Usage | None = None
        self._logprobs: list[Raw] = []  # of tokens whose text has not come: pieces of one character
        self._cited: set[str] = set()
        self.failure: ProxyError | None = None
        self.is_over = False

    def feed(self, chunk: bytes) -> Batch:
        """In order. Nothing is read behind `[DONE]`."""
        batch: Batch = []
        try:
            for payload in self._frames.feed(chunk):
                if self.is_over:
                    break
                self._payload(payload, batch)
        except ProxyError as error:
            self._fail(error)
        return batch

    def finish(self, *, is_clean: bool = True) -> Batch:
        """The body has ended. is_clean: it did not break off."""
        batch: Batch = []
        try:
            for payload in self._frames.finish():
                if not self.is_over:
                    self._payload(payload, batch)
            if not self.is_over:
                self._end_of_body(batch, is_clean)
        except ProxyError as error:
            self._fail(error)
        return batch

    def whole(self, body: bytes) -> Batch:
        """An answer in one piece, from a server that does not stream."""
        batch: Batch = []
        try:
            reply = self._take(body, batch)
            if not reply.choices:
                raise UpstreamProtocolError("an answer without choices")
            self._end(batch)
        except ProxyError as error:
            self._fail(error)
        return batch

    def refused(self, status: int, body: bytes, retry_after: str | None) -> ProxyError:
        """What an answer with a failing status means."""
        return classify_answer(status, body, self._model, retry_after, self._judge)

    def _fail(self, error: ProxyError) -> None:
        self.failure = error
        self.is_over = True

    def _payload(self, payload: bytes, batch: Batch) -> None:
        if payload == DONE:
            self._end(batch)
        elif payload.strip():
            self._take(payload, batch)

    def _end_of_body(self, batch: Batch, is_clean: bool) -> None:
        if (error := error_in(self._frames.stray)) is not None:
            raise self._judge(error, self._model)
        if self._finish is not None:
            self._end(batch)
        elif self._has_started or not is_clean:
            raise ReplyCut
        elif self._frames.stray.strip():
            raise UpstreamProtocolError("an answer that is no stream of events")
        else:
            raise ReplyEmpty("nothing")

    def _take(self, payload: bytes, batch: Batch) -> ReplyBody:
        try:
            reply = decode_reply(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamProtocolError("a chunk of no known shape") from error
        if reply.error and reply.error != b"null":
            raise self._judge(error_in(payload), self._model)
        if not self._has_started:
            self._has_started = True
            batch.append(ReplyStart(reply.id or ""))
        if reply.choices:
            self._choice(reply.choices[0], batch)
        if reply.usage is not None:
            self._usage = _usage(reply.usage) or self._usage
        return reply

    def _choice(self, choice: ChoiceBody, batch: Batch) -> None:
        """Most hold nothing but a text: that costs no call of a function."""
        if choice.logprobs is not None:
            self._keep_logprobs(choice.logprobs)
        delta = choice.delta or choice.message
        if delta is not None:
            if thought := delta.reasoning_content or delta.reasoning:
                self._has_thought = True
                self._logprobs.clear()  # of what is thought: our events have no place for them
                self._put(ReasoningDelta(thought), batch)
            content = delta.content
            if text := (content if content is None or isinstance(content, str) else text_of(content)) or delta.refusal:
                self._has_spoken = True
                event = TextDelta(text, self._taken_logprobs() if self._logprobs else None)
                if self._calls is None:
                    batch.append(event)
                else:
                    self._calls.put(event, batch)
            if delta.images or delta.annotations or delta.tool_calls or delta.function_call is not None:
                self._beside_text(delta, batch)
        if choice.finish_reason:
            self._told(choice.finish_reason)

    def _told(self, reason: str) -> None:
        if reason in BROKEN:
            raise UpstreamFailed(f"finish_reason {reason}")
        self._finish = FINISHES.get(reason, FinishReason.STOP)

    def _put(self, event: ChatEvent, batch: Batch) -> None:
        if self._calls is None:
            batch.append(event)
        else:
            self._calls.put(event, batch)

    def _beside_text(self, delta: DeltaBody, batch: Batch) -> None:
        if delta.images:
            self._images(delta.images, batch)
        if delta.annotations:
            self._sources(delta.annotations, batch)
        calls = delta.tool_calls
        if not calls and delta.function_call is not None:
            calls = [CallBody(index=0, function=delta.function_call)]
        if calls:
            if self._calls is None:
                self._calls = CallStream(self._new_id)
            self._calls.take(calls, batch)

    def _images(self, images: Iterable[ImageBody], batch: Batch) -> None:
        for image in images:
            url = image.image_url and image.image_url.url
            if url and url.startswith(("https://", "http://", "data:image/")):
                self._has_spoken = True
                self._put(MediaOutput(MediaKind.IMAGE, url), batch)

    def _sources(self, annotations: Iterable[AnnotationBody], batch: Batch) -> None:
        cited = [each.url_citation for each in annotations if each.url_citation is not None]
        found = {
            each.url: Source(each.url, each.title or "", each.content or "")
            for each in cited
            if each.url and each.url not in self._cited
        }
        if found:
            self._cited.update(found)
            self._put(SourcesFound(tuple(found.values())), batch)

    def _keep_logprobs(self, logprobs: LogprobsBody) -> None:
        self._logprobs += logprobs.content or ()

    def _taken_logprobs(self) -> Raw:
        taken = Raw(b"[" + b",".join(bytes(each) for each in self._logprobs) + b"]")
        self._logprobs.clear()
        return taken

    def _end(self, batch: Batch) -> None:
        self.is_over = True
        if self._calls is not None:
            self._calls.finish(batch)
        reason = self._finish or FinishReason.STOP
        if reason not in EXPLAINED:
            if self._calls is not None:
                reason = FinishReason.TOOL_CALLS
            elif not self._has_spoken:
                raise ReplyEmpty("thinking_only" if self._has_thought else "nothing")
        if self._usage is not None:
            batch.append(self._usage)
        batch.append(Finish(reason))


def _usage(body: UsageBody) -> Usage | None:
    """None for one that says nothing, as servers send before they know."""
    if not body.prompt_tokens and not body.completion_tokens:
        return None
    prompt, completion = body.prompt_tokens_details, body.completion_tokens_details
    return Usage(
        prompt_tokens=body.prompt_tokens or 0,
        completion_tokens=body.completion_tokens or 0,
        reasoning_tokens=(completion and completion.reasoning_tokens) or 0,
        cached_tokens=(prompt and prompt.cached_tokens) or 0,
    )
