"""What a client sends to Ollama's routes: the shapes, bytes to them, and them in our words. Pure.

Shapes: Ollama's API reference (docs/api.md of its repository), as typed in the ollama SDK 0.6. `null` means absent.
A request without a message, or without a prompt, only loads a model there: it asks for no token here.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from qwen_proxy.chat.models import ModelName
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
from qwen_proxy.ground.errors import InvalidRequest, UnsupportedParameter
from qwen_proxy.protocols import bodies
from qwen_proxy.protocols.unnamed_calls import CallNames

_json: Final = msgspec.json.encode

MOST_MESSAGES: Final = 10_000


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
    """The raw ones are not ours: a backend may know them."""

    num_predict: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    min_p: Raw = Raw()
    typical_p: Raw = Raw()
    repeat_last_n: Raw = Raw()
    repeat_penalty: Raw = Raw()


class OptionNamesBody(Struct):
    options: dict[str, Raw] = {}


class AskedBody(Struct):
    """What both routes take. `keep_alive` is for those that keep models in memory; `top_logprobs` goes with `logprobs`
    only."""

    model: str | None = None
    stream: bool | None = None
    format: str | dict[str, Any] | None = None  # a JSON Schema: JSON enters here
    options: OptionsBody | None = None
    think: bool | str | None = None
    keep_alive: Raw = Raw()
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


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


CHAT: Final = msgspec.json.Decoder(ChatBody)
GENERATE: Final = msgspec.json.Decoder(GenerateBody)
SHOW: Final = msgspec.json.Decoder(ShowBody)
_OPTION_NAMES: Final = msgspec.json.Decoder(OptionNamesBody)
HONOURED: Final = frozenset({*ChatBody.__struct_fields__, *GenerateBody.__struct_fields__} - {"keep_alive"})
# The only options that have an effect: chat.qwen.ai takes none of the others.
_HONOURED_OPTIONS: Final = frozenset({"num_predict", "stop"})


def without_effect(body: bytes, read: AskedBody) -> tuple[str, ...]:
    """What has none besides the fields that nobody here knows. `read`: what was read of `body`."""
    named = bodies.read(Raw(bodies.whole_characters(body)), _OPTION_NAMES)
    names = [] if named is None else [name for name in named.options if name not in _HONOURED_OPTIONS]
    options = tuple(f"options.{name}" for name in names if bodies.is_plain_name(name))
    return (*options, "top_logprobs") if read.top_logprobs and not read.logprobs else options


def chat_request(body: ChatBody) -> ChatRequest:
    tools = tuple(
        Tool(tool.function.name, tool.function.description or "", tool.function.parameters) for tool in body.tools or ()
    )
    return _request(body, tuple(_messages(body.messages or ())), tools)


def generate_request(body: GenerateBody) -> ChatRequest:
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
    sampling = _sampling(body)
    return ChatRequest(
        model=ModelName((body.model or "").removesuffix(":latest")),
        messages=messages or (Message(Role.USER, (TextPart(""),)),),
        tools=tools,
        sampling=sampling if messages else Sampling(max_tokens=0),
        reasoning=_reasoning(body.think),
        output=_output(body.format),
        extra=_extra(body.options or OptionsBody()),
    )


def _sampling(body: AskedBody) -> Sampling:
    """A `num_predict` below one is no limit. Raises InvalidRequest."""
    read = body.options or OptionsBody()
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
        logprobs=body.logprobs is True,
        top_logprobs=(body.top_logprobs or None) if body.logprobs else None,
    )


def _extra(read: OptionsBody) -> dict[str, Raw]:
    """In the words of servers that run models themselves: llama.cpp's are Ollama's, vLLM's differ in one."""
    values = ((name, getattr(read, option)) for name, option in _HANDED_ON)
    return {name: value for name, value in values if value and bytes(value) != b"null"}


_HANDED_ON: Final = (
    *((name, name) for name in ("min_p", "typical_p", "repeat_last_n", "repeat_penalty")),
    ("repetition_penalty", "repeat_penalty"),
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
        place = f"{path}images[{i}]"
        if image.startswith("data:"):
            yield ImagePart(image, place=place)
            continue
        try:
            first = base64.b64decode(image[:24], validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest(f"{place} must be a picture in Base64", param=place) from error
        kind = next((kind for mark, kind in _PICTURES if mark in first[:12]), "png")
        yield ImagePart(f"data:image/{kind};base64,{image}", place=place)


_PICTURES: Final = ((b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"WEBP", "webp"), (b"BM", "bmp"))
