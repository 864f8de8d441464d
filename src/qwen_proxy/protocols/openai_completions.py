"""OpenAI's older completions: `/v1/completions`. Pure.

Shapes: OpenAI's API reference, as typed in the openai SDK 3.54. The models behind this server chat: a prompt is asked
as what one user says, and the reply's text is the completion. Thinking and sources have no place in it. Of a list of
prompts each is asked for itself; the choices of prompt `i` are those from `i * n` on.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta, Raw, Struct

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
    Finish,
    FinishReason,
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
from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import ChatRequest, Message, Role, Sampling, TextPart
from qwen_proxy.chat.result import ChatResult, Said, usage_of_all
from qwen_proxy.ground.errors import InvalidRequest, ProxyError, UnsupportedParameter
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols import bodies
from qwen_proxy.protocols.base import ErrorReply, Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.limit_headers import openai_headers
from qwen_proxy.protocols.media_text import media_text
from qwen_proxy.protocols.openai_completions_logprobs import LogprobsPayload
from qwen_proxy.protocols.openai_errors import error_body, error_reply

_json: Final = msgspec.json.encode

DONE: Final = b"data: [DONE]\n\n"
MOST_PROMPTS: Final = 64
MOST_CHOICES: Final = 128  # of all prompts together
Positive = Annotated[int, Meta(ge=1)]


class StreamOptionsBody(Struct):
    include_usage: bool | None = None


class CompletionBody(Struct):
    """`prompt` is a text, or a list of texts, of tokens, or of lists of tokens."""

    prompt: str | list[Any]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptionsBody | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    stop: str | list[str] | None = None
    n: Positive | None = None
    best_of: Positive | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int, Meta(ge=0)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


_BODY: Final = msgspec.json.Decoder(CompletionBody)
# These are read into Sampling, but chat.qwen.ai takes none of them.
_WITHOUT_EFFECT: Final = frozenset({"temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"})
_FIELDS: Final = frozenset(CompletionBody.__struct_fields__)
_HONOURED: Final = _FIELDS - _WITHOUT_EFFECT


class CompletionCall(Struct, frozen=True, kw_only=True):
    """A parsed request; fits `protocols.base.Call`. echo: what completions begin with, by prompt; empty for nothing."""

    request: ChatRequest
    further: tuple[ChatRequest, ...]
    stream: bool
    include_usage: bool
    echo: tuple[str, ...]
    choices: int
    ignored_fields: tuple[str, ...]
    needs_prompt_tokens: bool = False
    session: str = ""

    def encoder(self, facts: ReplyFacts, index: int) -> "CompletionWriter":
        return CompletionWriter(facts, index, echo=self._echo(index), include_usage=self.include_usage)

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        if not self.include_usage:
            return DONE
        return b"data: " + _json(_head(facts) | {"choices": (), "usage": _usage(usage)}) + b"\n\n" + DONE

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        told = [_choice(index, result, self._echo(index)) for index, result in enumerate(results)]
        usage = usage_of_all([result.usage for result in results], self.choices)
        return _json(_head(facts) | {"choices": told, "usage": None if usage is None else _usage(usage)})

    def _echo(self, index: int) -> str:
        return self.echo[index // self.choices] if self.echo else ""


class OpenAICompletions:
    """Fits `protocols.base.ClientProtocol`."""

    request_id_header: ClassVar[str] = "x-request-id"
    stream_content_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    heartbeat: ClassVar[bytes] = b": keep-alive\n\n"

    def parse(self, incoming: Incoming, options: ParseOptions) -> CompletionCall:
        body, ignored = bodies.decode(incoming.body, _BODY, _HONOURED, "prompt")
        _refuse_unsupported(body)
        prompts = _prompts(body.prompt)
        first, *further = _requests(body, prompts, bodies.extra(incoming.body, _FIELDS))
        return CompletionCall(
            request=first,
            further=tuple(further),
            stream=body.stream is True,
            include_usage=body.stream_options is not None and body.stream_options.include_usage is True,
            echo=prompts if body.echo else (),
            choices=_choices(body, options.max_choices, len(prompts)),
            ignored_fields=ignored,
        )

    def error(self, error: ProxyError, request_id: str) -> ErrorReply:
        return error_reply(error, request_id)

    def limit_headers(self, facts: LimitFacts) -> tuple[tuple[str, str], ...]:
        return openai_headers(facts)


class CompletionWriter:
    """Events of one choice to chunks. Neighbouring deltas of one kind in a batch become one chunk."""

    def __init__(self, facts: ReplyFacts, index: int, *, echo: str, include_usage: bool) -> None:
        self._head = b'data: %b,"choices":[{"index":%d,"text":' % (_json(_head(facts))[:-1], index)
        self._end = b"}]" + (b',"usage":null' if include_usage else b"") + b"}\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null' + self._end
        self._echo = echo
        self._length = 0  # characters that were told
        self._request_id = facts.request_id
        # A run is neighbouring events of one type; the key is that type.
        self.writers: Final[dict[type[ChatEvent], Callable[..., bytes]]] = {
            ReplyStart: _nothing,
            ReasoningDelta: _nothing,
            TextDelta: self._said,
            ToolCallStart: _nothing,  # no tools can be offered in this protocol
            ToolArgumentsDelta: _nothing,
            MediaOutput: self._media,
            SourcesFound: _nothing,
            Usage: _nothing,  # the trailer tells the sum over all choices
            Finish: self._finish,
        }

    def start(self) -> bytes:
        return self._chunk(self._echo)

    def encode(self, batch: Batch) -> bytes:
        writers = self.writers
        if len(batch) == 1:
            return writers[type(batch[0])](batch)
        return b"".join([writers[kind](run) for kind, run in groupby(batch, type)])

    def fail(self, error: ProxyError) -> bytes:
        """No `[DONE]` follows."""
        return b"data: " + error_body(error, self._request_id) + b"\n\n"

    def _chunk(self, text: str) -> bytes:
        self._length += len(text)
        return self._head + _json(text) + self._tail if text else b""

    def _said(self, run: Iterable[TextDelta]) -> bytes:
        events = list(run)
        text = "".join([event.text for event in events])
        logprobs = joined_logprobs(event.logprobs for event in events)
        if logprobs is None:
            return self._chunk(text)
        told = LogprobsPayload()
        told.add(logprobs, self._length)
        self._length += len(text)
        return self._head + _json(text) + b',"logprobs":' + _json(told) + b',"finish_reason":null' + self._end

    def _media(self, run: Iterable[MediaOutput]) -> bytes:
        return self._chunk("".join([media_text(event) for event in run]))

    def _finish(self, run: Iterable[Finish]) -> bytes:
        (event,) = run
        return self._head + b'"","logprobs":null,"finish_reason":"%b"' % _FINISHED[event.reason].encode() + self._end


_FINISHED: Final = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "stop",
    FinishReason.CONTENT_FILTER: "content_filter",
}


def _nothing(_run: Iterable[ChatEvent]) -> bytes:
    return b""


def _prompts(prompt: str | list[Any]) -> tuple[str, ...]:
    if isinstance(prompt, str):
        return (prompt,)
    if any(not isinstance(each, str) for each in prompt):
        raise UnsupportedParameter("prompt: tokens are not taken; send the text that they stand for", param="prompt")
    if not prompt:
        raise InvalidRequest("prompt is an empty list; it has to be a text, or some texts", param="prompt")
    if len(prompt) > MOST_PROMPTS:
        raise InvalidRequest(
            f"prompt has {len(prompt)} texts; this server takes at most {MOST_PROMPTS} a request", param="prompt"
        )
    return tuple(prompt)


def _requests(body: CompletionBody, prompts: Sequence[str], extra: dict[str, Raw]) -> list[ChatRequest]:
    model, sampling = ModelName(body.model or ""), _sampling(body)
    return [
        ChatRequest(model=model, messages=(Message(Role.USER, (TextPart(prompt),)),), sampling=sampling, extra=extra)
        for prompt in prompts
    ]


def _refuse_unsupported(body: CompletionBody) -> None:
    if body.suffix:
        raise UnsupportedParameter(
            "suffix: the models here can't fill in a text between two others; leave it out", param="suffix"
        )
    if body.logprobs is not None and body.echo:
        raise UnsupportedParameter(
            "logprobs: those of the prompt's tokens, which echo asks for, are not known; leave echo out",
            param="logprobs",
        )
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise UnsupportedParameter(
            "best_of: nothing ranks completions here; leave it out, and set n to get all", param="best_of"
        )


def _sampling(body: CompletionBody) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        max_tokens=body.max_tokens,
        stop=bodies.checked_stops([body.stop] if isinstance(body.stop, str) else body.stop or [], "stop"),
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logprobs=body.logprobs is not None,
        top_logprobs=body.logprobs or None,
    )


def _choices(body: CompletionBody, most: int, prompts: int) -> int:
    wanted = body.n or 1
    if wanted > most:
        raise InvalidRequest(f"n is {wanted}; this server makes at most {most} choices of a prompt", param="n")
    if wanted * prompts > MOST_CHOICES:
        raise InvalidRequest(
            f"n is {wanted} for {prompts} prompts; this server makes at most {MOST_CHOICES} choices a request",
            param="n",
        )
    return wanted


def _head(facts: ReplyFacts) -> dict[str, object]:
    id = f"cmpl-{facts.reply_id}"
    return {"id": id, "object": "text_completion", "created": facts.created_at, "model": facts.model}


def _choice(index: int, result: ChatResult, echo: str) -> dict[str, object]:
    text = echo
    logprobs = LogprobsPayload()
    for part in result.parts:
        if isinstance(part, Said):
            if part.logprobs is not None:
                logprobs.add(part.logprobs, len(text))
            text += part.text
        elif isinstance(part, MediaOutput):
            text += media_text(part)
    told = None if result.logprobs is None else logprobs
    return {"index": index, "text": text, "logprobs": told, "finish_reason": _FINISHED[result.finish.reason]}


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "origin": usage.origin,
    }
