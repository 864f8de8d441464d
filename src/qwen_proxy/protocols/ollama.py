"""Ollama's API: `/api/chat`, `/api/generate`, `/api/tags`, `/api/show`. Pure.

Shapes: Ollama's API reference (docs/api.md of its repository), as typed in the ollama SDK 0.6. A stream is lines of
JSON, and is what a client gets unless it says `"stream": false`; its last line has `done`, the reason and the numbers.
A call's arguments are an object and come whole; calls have no ids, and a result names its tool. An error is a sentence
in `error`, in the middle of a stream too. Durations are nanoseconds.

A request without a message, or without a prompt, only loads a model there: it is answered at once.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
)
from qwen_proxy.chat.models import Mode, ModelName, suffix_of
from qwen_proxy.chat.request import (
    ChatRequest,
    ImagePart,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningPart,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from qwen_proxy.chat.result import Called, ChatResult, Reasoned
from qwen_proxy.ground.errors import InvalidRequest, ProxyError, UnsupportedParameter
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols import bodies
from qwen_proxy.protocols.base import ErrorReply, Incoming, ListedModel, ParseOptions, ReplyFacts
from qwen_proxy.protocols.failures import failure_headers, without_details
from qwen_proxy.protocols.limit_headers import openai_headers, timestamp
from qwen_proxy.protocols.openai_errors import INTERNAL, terms_of
from qwen_proxy.protocols.openai_media_text import media_text
from qwen_proxy.protocols.unnamed_calls import CallNames

_json: Final = msgspec.json.encode

VERSION_BODY: Final = _json({"version": __version__})
NOTHING_RUNS_BODY: Final = _json({"models": []})
NOTHING_USED: Final = Usage(prompt_tokens=0, completion_tokens=0)
MOST_MESSAGES: Final = 10_000


# --- shapes ------------------------------------------------------------------------------------------------


class CalledBody(Struct):
    name: str
    arguments: dict[str, Any] = {}  # JSON enters here


class CallBody(Struct):
    function: CalledBody
    id: str = ""


class MessageBody(Struct):
    """`name` is how older clients spell `tool_name`."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[CallBody] | None = None
    tool_name: str | None = None
    name: str | None = None
    tool_call_id: str | None = None


class FunctionBody(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None  # a JSON Schema: JSON enters here


class ToolBody(Struct):
    function: FunctionBody
    type: str = "function"


class OptionsBody(Struct):
    num_predict: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class OptionNamesBody(Struct):
    options: dict[str, Raw] = {}


class AskedBody(Struct):
    """What both routes take. `keep_alive` is for those that keep models in memory."""

    model: str | None = None
    stream: bool | None = None
    format: str | dict[str, Any] | None = None  # a JSON Schema: JSON enters here
    options: OptionsBody | None = None
    think: bool | str | None = None
    keep_alive: Raw = Raw()
    logprobs: bool | None = None
    top_logprobs: int | None = None


class ChatBody(AskedBody):
    messages: list[MessageBody] | None = None
    tools: list[ToolBody] | None = None


class GenerateBody(AskedBody):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    images: list[str] | None = None
    raw: bool | None = None


class ShowBody(Struct):
    """`name` is how older clients spell `model`."""

    model: str | None = None
    name: str | None = None


_CHAT: Final = msgspec.json.Decoder(ChatBody)
_GENERATE: Final = msgspec.json.Decoder(GenerateBody)
_SHOW: Final = msgspec.json.Decoder(ShowBody)
_OPTION_NAMES: Final = msgspec.json.Decoder(OptionNamesBody)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_HONOURED: Final = frozenset({*ChatBody.__struct_fields__, *GenerateBody.__struct_fields__})
# The only options that have an effect: chat.qwen.ai takes none of the others.
_HONOURED_OPTIONS: Final = frozenset({"num_predict", "stop"})


# --- the request -------------------------------------------------------------------------------------------


def _chat_request(body: ChatBody) -> ChatRequest:
    tools = tuple(
        Tool(tool.function.name, tool.function.description or "", tool.function.parameters) for tool in body.tools or ()
    )
    return _request(body, tuple(_messages(body.messages or ())), tools)


def _generate_request(body: GenerateBody) -> ChatRequest:
    if body.suffix:
        raise UnsupportedParameter(
            "suffix: the models here can't fill in a text between two others; leave it out", param="suffix"
        )
    if body.raw:
        raise UnsupportedParameter(
            "raw: the models here take conversations, not texts in a template of their own; leave it out", param="raw"
        )
    asked: list[Part] = [*_images(body.images, ""), *([TextPart(body.prompt)] if body.prompt else [])]
    if not asked:
        return _request(body, ())
    said = [Message(Role.SYSTEM, (TextPart(body.system),))] if body.system else []
    return _request(body, (*said, Message(Role.USER, tuple(asked))))


def _request(body: AskedBody, messages: tuple[Message, ...], tools: tuple[Tool, ...] = ()) -> ChatRequest:
    """Without a message, one that asks for no token."""
    if body.logprobs or body.top_logprobs:
        raise UnsupportedParameter("logprobs: no log probabilities are given here; leave it out", param="logprobs")
    sampling = _sampling(body.options or OptionsBody())
    return ChatRequest(
        model=ModelName((body.model or "").removesuffix(":latest")),
        messages=messages or (Message(Role.USER, (TextPart(""),)),),
        tools=tools,
        sampling=sampling if messages else Sampling(max_tokens=0),
        reasoning=_reasoning(body.think),
        output=_output(body.format),
    )


def _sampling(read: OptionsBody) -> Sampling:
    """A `num_predict` below one is no limit. Raises InvalidRequest."""
    stops = [read.stop] if isinstance(read.stop, str) else read.stop or []
    return Sampling(
        temperature=read.temperature,
        top_p=read.top_p,
        top_k=read.top_k,
        max_tokens=read.num_predict if read.num_predict is not None and read.num_predict > 0 else None,
        stop=bodies.checked_stops(stops, "options.stop"),
        seed=read.seed,
        presence_penalty=read.presence_penalty,
        frequency_penalty=read.frequency_penalty,
    )


def _reasoning(think: bool | str | None) -> Reasoning:
    if isinstance(think, str):
        return Reasoning(enabled=think not in ("", "none", "false"), effort=think or None)
    return Reasoning(enabled=think)


def _output(format: str | dict[str, Any] | None) -> OutputFormat | None:
    if isinstance(format, dict):
        return OutputFormat(schema=format, strict=True)
    if format not in (None, "", "json"):
        raise InvalidRequest("format must be 'json' or a JSON Schema", param="format")
    return OutputFormat() if format else None


def _messages(messages: Sequence[MessageBody]) -> Iterator[Message]:
    if len(messages) > MOST_MESSAGES:
        raise InvalidRequest(f"messages: at most {MOST_MESSAGES} are taken", param="messages")
    names = CallNames()
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        text = (TextPart(message.content),) if message.content else ()
        match message.role:
            case "system" | "developer":
                yield Message(Role.SYSTEM, text)
            case "user":
                yield Message(Role.USER, (*_images(message.images, f"{path}."), *text))
            case "assistant":
                yield Message(Role.ASSISTANT, tuple(_assistant(message, names)))
            case "tool":
                inner = (*text, *_images(message.images, f"{path}."))
                yield Message(Role.USER, (ToolResultPart(_answered(message, names), inner),))
            case role:
                raise InvalidRequest(
                    f"unknown role {role[:40]!r}; the roles are system, user, assistant and tool", param=f"{path}.role"
                )


def _assistant(message: MessageBody, names: CallNames) -> Iterator[Part]:
    if message.thinking:
        yield ReasoningPart(message.thinking)
    if message.content:
        yield TextPart(message.content)
    for call in message.tool_calls or ():
        name = call.function.name
        yield ToolCallPart(names.called(name, call.id), name, _json(call.function.arguments).decode())


def _answered(message: MessageBody, names: CallNames) -> str:
    return names.answered(message.tool_name or message.name or "", message.tool_call_id or "") or "call"


def _images(images: Sequence[str] | None, path: str) -> Iterator[ImagePart]:
    """They come as Base64 without a word of what they are: their first bytes tell."""
    for i, image in enumerate(images or ()):
        if image.startswith("data:"):
            yield ImagePart(image)
            continue
        try:
            first = base64.b64decode(image[:24], validate=True)
        except (binascii.Error, ValueError) as error:
            param = f"{path}images[{i}]"
            raise InvalidRequest(f"{param} must be a picture in Base64", param=param) from error
        kind = next((kind for mark, kind in _PICTURES if mark in first[:12]), "png")
        yield ImagePart(f"data:image/{kind};base64,{image}")


_PICTURES: Final = ((b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"WEBP", "webp"), (b"BM", "bmp"))


# --- the reply ---------------------------------------------------------------------------------------------


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
        text = "".join([event.text for event in run])
        return self._closed() + (self._piece(text) if text else b"")

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
        body, ignored = bodies.decode(incoming.body, _CHAT, _HONOURED)
        ignored += _options_without_effect(incoming.body)
        return _parsed(body, _chat_request(body), ignored, options, is_load=not body.messages)


class OllamaGenerate(Ollama):
    """Fits `protocols.base.ClientProtocol`."""

    stream_content_type: ClassVar[str] = "application/x-ndjson"
    heartbeat: ClassVar[bytes] = b'{"response":"","done":false}\n'

    def parse(self, incoming: Incoming, options: ParseOptions) -> OllamaCall:
        body, ignored = bodies.decode(incoming.body, _GENERATE, _HONOURED, "prompt")
        ignored += _options_without_effect(incoming.body)
        is_load = not body.prompt and not body.images
        return _parsed(body, _generate_request(body), ignored, options, is_load=is_load)


def _options_without_effect(body: bytes) -> tuple[str, ...]:
    named = bodies.read(Raw(body), _OPTION_NAMES)
    names = [] if named is None else [name for name in named.options if name not in _HONOURED_OPTIONS]
    return tuple(f"options.{name}" for name in names if bodies.is_plain_name(name))


def _parsed(
    body: AskedBody, request: ChatRequest, ignored: tuple[str, ...], options: ParseOptions, *, is_load: bool
) -> OllamaCall:
    bodies.refuse_ignored(ignored, options)
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
        body, _ = bodies.decode(incoming.body, _SHOW, frozenset(), "model")
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
