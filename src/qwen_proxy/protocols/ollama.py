"""Ollama's API: `/api/chat`, `/api/generate`, `/api/tags`, `/api/show`. Pure.

Shapes: Ollama's API reference (docs/api.md of its repository), as typed in the ollama SDK 0.6. A stream is lines of
JSON, and is what a client gets unless it says `"stream": false`; its last line has `done`, the reason and the numbers.
A call's arguments are an object and come whole; calls have no ids, and a result names its tool. An error is a sentence
in `error`, in the middle of a stream too. Durations are nanoseconds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Raw, Struct

from qwen_proxy import __version__
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
from qwen_proxy.chat.models import Mode, suffix_of
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import Called, ChatResult, Reasoned
from qwen_proxy.ground.errors import InvalidRequest, ProxyError
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols import bodies
from qwen_proxy.protocols.base import ErrorReply, Incoming, ListedModel, ParseOptions, ReplyFacts
from qwen_proxy.protocols.failures import failure_headers, without_details
from qwen_proxy.protocols.limit_headers import openai_headers, timestamp
from qwen_proxy.protocols.media_text import media_text
from qwen_proxy.protocols.ollama_request import (
    CHAT,
    GENERATE,
    HONOURED,
    SHOW,
    AskedBody,
    GenerateBody,
    chat_request,
    generate_request,
    without_effect,
)
from qwen_proxy.protocols.openai_errors import INTERNAL, terms_of

_json: Final = msgspec.json.encode
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])

VERSION_BODY: Final = _json({"version": __version__})
NOTHING_RUNS_BODY: Final = _json({"models": []})
NOTHING_USED: Final = Usage(prompt_tokens=0, completion_tokens=0)


class Manner(Struct, frozen=True, kw_only=True):
    """How the client wants the reply. is_generate: it has asked `/api/generate`. is_load: it has asked nothing."""

    is_generate: bool
    is_load: bool
    shows_thinking: bool

    def piece(self, text: str, thinking: str = "", calls: Sequence[object] = ()) -> dict[str, object]:
        """Where a line, or a whole reply, has what the model said."""
        if self.is_generate:
            return {"response": text, "thinking": thinking} if thinking else {"response": text}
        message: dict[str, object] = {"role": "assistant", "content": text}
        if thinking:
            message["thinking"] = thinking
        if calls:
            message["tool_calls"] = calls
        return {"message": message}


class OllamaCall(Struct, frozen=True, kw_only=True):
    """A parsed request; fits `protocols.base.Call`."""

    request: ChatRequest
    stream: bool
    manner: Manner
    ignored_fields: tuple[str, ...]
    choices: int = 1
    further: tuple[ChatRequest, ...] = ()
    needs_prompt_tokens: bool = False
    session: str = ""

    def encoder(self, facts: ReplyFacts, index: int) -> "LineWriter":
        return LineWriter(facts, self.manner)

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        return b""

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        (result,) = results
        text = thinking = ""
        calls: list[object] = []
        for part in result.parts:
            match part:
                case Called():
                    call = _call(part)
                    calls += [call] if call is not None else []
                    text += "" if call is not None else _broken(part)
                case Reasoned(thought):
                    thinking += thought if self.manner.shows_thinking else ""
                case MediaOutput():
                    text += media_text(part)
                case _:
                    text += part.text
        total = facts.elapsed_seconds()
        return _json(
            _head(facts)
            | self.manner.piece(text, thinking, calls)
            | _logprobs(result.logprobs)
            | _end(result.finish, self.manner)
            | _numbers(result.usage or NOTHING_USED, 0, total)
        )


class LineWriter:
    """Events of a reply to lines. A call is written when it is whole: by what comes behind it."""

    def __init__(self, facts: ReplyFacts, manner: Manner) -> None:
        self._facts = facts
        self._manner = manner
        self._head = _json(_head(facts))[:-1] + b","
        self._open: tuple[str, str] | None = None  # a call's id and name
        self._arguments: list[str] = []
        self._usage = NOTHING_USED
        self._began: float | None = None
        # A run is neighbouring events of one type; the key is that type.
        self.writers: Final[dict[type[ChatEvent], Callable[..., bytes]]] = {
            ReplyStart: self._nothing,
            ReasoningDelta: self._thinking,
            TextDelta: self._text,
            ToolCallStart: self._call_starts,
            ToolArgumentsDelta: self._more,
            MediaOutput: self._media,
            SourcesFound: self._nothing,
            Usage: self._used,
            Finish: self._finish,
        }

    def start(self) -> bytes:
        return b""

    def encode(self, batch: Batch) -> bytes:
        if self._began is None:
            self._began = self._facts.elapsed_seconds()
        writers = self.writers
        if len(batch) == 1:
            return writers[type(batch[0])](batch)
        return b"".join([writers[kind](run) for kind, run in groupby(batch, type)])

    def fail(self, error: ProxyError) -> bytes:
        """No line with `done` follows."""
        return error_body(error, self._facts.request_id) + b"\n"

    def _line(self, fields: dict[str, object]) -> bytes:
        return self._head + _json(fields)[1:] + b"\n"

    def _piece(self, text: str, thinking: str = "", calls: Sequence[object] = ()) -> bytes:
        return self._line(self._manner.piece(text, thinking, calls) | {"done": False})

    def _nothing(self, _run: Iterable[ChatEvent]) -> bytes:
        return b""

    def _text(self, run: Iterable[TextDelta]) -> bytes:
        events = list(run)
        text = "".join([event.text for event in events])
        logprobs = _logprobs(joined_logprobs(event.logprobs for event in events))
        if not text and not logprobs:
            return self._closed()
        return self._closed() + self._line(self._manner.piece(text) | logprobs | {"done": False})

    def _thinking(self, run: Iterable[ReasoningDelta]) -> bytes:
        text = "".join([event.text for event in run])
        return self._closed() + (self._piece("", text) if text and self._manner.shows_thinking else b"")

    def _media(self, run: Iterable[MediaOutput]) -> bytes:
        return self._closed() + self._piece("".join([media_text(event) for event in run]))

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
        called = Called(*self._open, "".join(self._arguments))
        self._open = None
        self._arguments.clear()
        call = _call(called)
        return self._piece(_broken(called)) if call is None else self._piece("", calls=[call])

    def _used(self, run: Iterable[Usage]) -> bytes:
        (self._usage,) = run
        return b""

    def _finish(self, run: Iterable[Finish]) -> bytes:
        (event,) = run
        numbers = _numbers(self._usage, self._began or 0, self._facts.elapsed_seconds())
        return self._closed() + self._line(self._manner.piece("") | _end(event, self._manner) | numbers)


def _head(facts: ReplyFacts) -> dict[str, object]:
    return {"model": facts.model, "created_at": timestamp(facts.created_at)}


def _logprobs(told: Raw | None) -> dict[str, object]:
    """Ollama has them in OpenAI's shape."""
    return {} if told is None else {"logprobs": told}


def _end(finish: Finish, manner: Manner) -> dict[str, object]:
    reason = "length" if finish.reason is FinishReason.LENGTH else "stop"
    return {"done": True, "done_reason": "load" if manner.is_load else reason}


def _numbers(usage: Usage, began: float, ended: float) -> dict[str, object]:
    """The prompt's duration is the time until the reply began: what lies in it is not told apart upstream."""
    return {
        "total_duration": int(ended * 1e9),
        "load_duration": 0,
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": int(began * 1e9),
        "eval_count": usage.completion_tokens,
        "eval_duration": int((ended - began) * 1e9),
    }


def _call(called: Called) -> dict[str, object] | None:
    """None where the arguments are no object, as those of a call that was cut short."""
    arguments = bodies.read(Raw(called.arguments.encode()), _OBJECT) if called.arguments else {}
    if arguments is None:
        return None
    return {"id": called.call_id, "function": {"name": called.name, "arguments": arguments}}


def _broken(called: Called) -> str:
    """A call that can't be told as one is text, as it is in Ollama itself."""
    return f"{called.name}({called.arguments}"


# --- the protocol ------------------------------------------------------------------------------------------


class Ollama:
    """What all routes of this API have in common; fits `protocols.base.Dialect`."""

    request_id_header: ClassVar[str] = "x-request-id"

    def error(self, error: ProxyError, request_id: str) -> ErrorReply:
        return ErrorReply(
            status=terms_of(error).status, body=error_body(error, request_id), headers=failure_headers(error)
        )

    def limit_headers(self, facts: LimitFacts) -> tuple[tuple[str, str], ...]:
        """Ollama has no limits and no headers for any; OpenAI's are the most widely read."""
        return openai_headers(facts)


def error_body(error: ProxyError, request_id: str) -> bytes:
    return _json({"error": without_details(request_id) if terms_of(error) is INTERNAL else str(error)})


class OllamaChat(Ollama):
    """Fits `protocols.base.ClientProtocol`."""

    stream_content_type: ClassVar[str] = "application/x-ndjson"
    heartbeat: ClassVar[bytes] = b'{"message":{"role":"assistant","content":""},"done":false}\n'

    def parse(self, incoming: Incoming, options: ParseOptions) -> OllamaCall:
        body, ignored = bodies.decode(incoming.body, CHAT, HONOURED)
        ignored += without_effect(incoming.body, body)
        return _parsed(body, chat_request(body), ignored, is_load=not body.messages)


class OllamaGenerate(Ollama):
    """Fits `protocols.base.ClientProtocol`."""

    stream_content_type: ClassVar[str] = "application/x-ndjson"
    heartbeat: ClassVar[bytes] = b'{"response":"","done":false}\n'

    def parse(self, incoming: Incoming, options: ParseOptions) -> OllamaCall:
        body, ignored = bodies.decode(incoming.body, GENERATE, HONOURED, "prompt")
        ignored += without_effect(incoming.body, body)
        is_load = not body.prompt and not body.images
        return _parsed(body, generate_request(body), ignored, is_load=is_load)


def _parsed(body: AskedBody, request: ChatRequest, ignored: tuple[str, ...], *, is_load: bool) -> OllamaCall:
    return OllamaCall(
        request=request,
        stream=body.stream is not False,
        manner=Manner(
            is_generate=isinstance(body, GenerateBody),
            is_load=is_load,
            shows_thinking=request.reasoning.enabled is not False,
        ),
        ignored_fields=ignored,
    )


class OllamaModels(Ollama):
    """Fits `protocols.base.ModelsProtocol` and `ShowProtocol`: `/api/tags` and `/api/show`."""

    def all(self, models: Sequence[ListedModel], query: Mapping[str, str]) -> bytes:
        return _json({"models": [_tag(model) for model in models]})

    def asked(self, incoming: Incoming) -> str:
        body, _ = bodies.decode(incoming.body, SHOW, frozenset(), "model")
        name = body.model or body.name
        if not name:
            raise InvalidRequest("`model` is missing", param="model")
        return name.removesuffix(":latest")

    def one(self, model: ListedModel) -> bytes:
        listed = model.model
        context = {} if listed.context_tokens is None else {"qwen.context_length": listed.context_tokens}
        can = {
            "completion": model.variant.mode is Mode.CHAT,
            "tools": model.variant.mode is Mode.CHAT,
            "thinking": listed.thinks,
            "vision": listed.sees_images,
        }
        shown = {
            "license": "",
            "modelfile": "",
            "parameters": "",
            "template": "",
            "modified_at": timestamp(listed.created_at),
            "details": _details(model),
            "model_info": {"general.architecture": "qwen", "general.basename": listed.id} | context,
            "capabilities": [word for word, is_so in can.items() if is_so],
        }
        return _json(shown)


def _tag(model: ListedModel) -> dict[str, object]:
    """There are no files: their size is 0, and their digest one of the name."""
    return {
        "name": model.id,
        "model": model.id,
        "modified_at": timestamp(model.model.created_at),
        "size": 0,
        "digest": sha256(f"{model.backend}/{model.model.id}{suffix_of(model.variant)}".encode()).hexdigest(),
        "details": _details(model),
    }


def _details(model: ListedModel) -> dict[str, object]:
    return {
        "parent_model": "",
        "format": "",
        "family": "qwen",
        "families": ["qwen"],
        "parameter_size": "",
        "quantization_level": "",
    }
