"""A chat completions body in our words. Pure.

What is wrong is refused by the field's path as the client wrote it, such as `messages[0].content[1].text`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec import Raw

from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import (
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningPart,
    Role,
    Sampling,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from qwen_proxy.ground.errors import InvalidRequest, UnsupportedParameter
from qwen_proxy.protocols.bodies import checked_stops
from qwen_proxy.protocols.openai_chat_body import (
    ChatBody,
    FormatBody,
    LinkBody,
    MessageBody,
    PartBody,
    ToolCallBody,
    flag,
)
from qwen_proxy.protocols.openai_chat_tools import tool_choice, tools
from qwen_proxy.protocols.openai_freeform import arguments_with

_UNSAID: Final = Reasoning()
_ROLES: Final = {
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
}


def request(body: ChatBody, extra: dict[str, Raw]) -> ChatRequest:
    """extra: what an upstream of the same protocol may know.

    Raises InvalidRequest, or UnsupportedParameter for what is legal and can't be done here."""
    _refuse_unsupported(body)
    offered = tools(body) if body.tools or body.functions else ()
    return ChatRequest(
        model=ModelName(body.model or ""),
        messages=tuple([_message(message, place) for place, message in enumerate(body.messages)]),
        tools=offered,
        tool_choice=tool_choice(body, offered),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        sampling=Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            stop=() if body.stop is None else _stops(body.stop),
            seed=body.seed,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            top_k=body.top_k,
            logprobs=body.logprobs is True,
            top_logprobs=body.top_logprobs or None,
        ),
        reasoning=_reasoning(body),
        output=_output(body.response_format),
        extra=extra,
    )


def choices(body: ChatBody, most: int) -> int:
    wanted = body.n or 1
    if wanted > most:
        raise InvalidRequest(f"n is {wanted}; this server makes at most {most} choices a request", param="n")
    return wanted


def _stops(given: str | list[str]) -> tuple[str, ...]:
    return checked_stops([given] if isinstance(given, str) else given, "stop")


def _refuse_unsupported(body: ChatBody) -> None:
    if body.modalities is not None and body.modalities != ["text"]:
        raise UnsupportedParameter("modalities: only ['text'] is supported", param="modalities")
    if body.audio is not None:
        raise UnsupportedParameter("audio: replies are text only; leave it out", param="audio")


def _output(wanted: FormatBody | None) -> OutputFormat | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return OutputFormat()
    if wanted.type != "json_schema":
        raise InvalidRequest(
            "response_format.type must be 'text', 'json_object' or 'json_schema'", param="response_format.type"
        )
    given = wanted.json_schema
    if given is None or given.schema is None:
        raise InvalidRequest("`response_format.json_schema.schema` is missing", param="response_format.json_schema")
    return OutputFormat(
        schema=given.schema, name=given.name, description=given.description or "", strict=given.strict is True
    )


def _reasoning(body: ChatBody) -> Reasoning:
    if body.enable_thinking is None and body.reasoning_effort is None and body.thinking_budget is None:
        return _UNSAID
    enabled = flag(body.enable_thinking, "enable_thinking")
    if enabled is None and body.reasoning_effort is not None:
        enabled = body.reasoning_effort not in ("none", "minimal")
    return Reasoning(enabled=enabled, budget_tokens=body.thinking_budget, effort=body.reasoning_effort)


# --- messages ----------------------------------------------------------------------------------------------


def _message(message: MessageBody, place: int) -> Message:
    """place: among the messages, from 0."""
    content, role = message.content, _ROLES.get(message.role)
    if role is None or not isinstance(content, str) or (role is Role.ASSISTANT and _does_more(message)):
        return _composed(message, f"messages[{place}]")
    return Message(role, (TextPart(content),) if content else ())  # the usual one: a text, and nothing else


def _does_more(message: MessageBody) -> bool:
    """Whether an assistant's message has other parts than its content."""
    return bool(message.reasoning_content or message.refusal or message.function_call or message.tool_calls)


def _composed(message: MessageBody, path: str) -> Message:
    match message.role:
        case "user":
            if message.content is None:
                raise InvalidRequest(f"`{path}.content` must be a string or an array", param=f"{path}.content")
            return Message(Role.USER, _parts(message.content, path))
        case "assistant":
            return Message(Role.ASSISTANT, _assistant_parts(message, path))
        case "system" | "developer":
            return Message(Role.SYSTEM, _parts(message.content, path))
        case "tool" | "function":
            return Message(Role.USER, (_tool_result(message, path),))
        case role:
            raise InvalidRequest(
                f"unknown role {role[:40]!r}; the roles are system, developer, user, assistant and tool",
                param=f"{path}.role",
            )


def _assistant_parts(message: MessageBody, path: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    if message.reasoning_content:
        parts.append(ReasoningPart(message.reasoning_content))
    parts += _parts(message.content, path)
    if message.refusal:
        parts.append(TextPart(message.refusal))
    if message.function_call is not None:
        called = message.function_call
        parts.append(ToolCallPart(called.name, called.name, called.arguments))
    parts += [_call(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or [])]
    return tuple(parts)


def _call(call: ToolCallBody, path: str) -> ToolCallPart:
    if call.type == "function" and call.function is not None:
        return ToolCallPart(call.id, call.function.name, call.function.arguments)
    if call.type == "custom" and call.custom is not None:
        return ToolCallPart(call.id, call.custom.name, arguments_with(call.custom.input))
    raise InvalidRequest(
        f"{path} must be of type 'function', with a `function`, or of type 'custom', with a `custom`", param=path
    )


def _tool_result(message: MessageBody, path: str) -> ToolResultPart:
    """A result names its call by id; the deprecated role `function` names the function."""
    param = f"{path}.tool_call_id" if message.role == "tool" else f"{path}.name"
    call_id = message.tool_call_id if message.role == "tool" else message.name
    if not call_id:
        raise InvalidRequest(f"`{param}` is missing: a result names its call", param=param)
    return ToolResultPart(call_id, tuple(_result_parts(message.content, path)))


def _result_parts(content: str | list[PartBody] | None, path: str) -> Iterator[TextPart | ImagePart]:
    for i, part in enumerate(_parts(content, path)):
        if not isinstance(part, TextPart | ImagePart):
            param = f"{path}.content[{i}].type"
            raise InvalidRequest("a tool's result may hold text and images", param=param)
        yield part


def _parts(content: str | Sequence[PartBody] | None, path: str) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    return tuple(_part(part, f"{path}.content[{i}]") for i, part in enumerate(content or ()))


def _part(part: PartBody, path: str) -> Part:
    reader = _READERS.get(part.type)
    if reader is None:
        known = ", ".join(_READERS)
        raise InvalidRequest(f"unknown content part {part.type[:40]!r}; known are {known}", param=f"{path}.type")
    return reader(part, path)


def _missing(path: str, field: str) -> InvalidRequest:
    return InvalidRequest(f"`{path}.{field}` is missing", param=f"{path}.{field}")


def _text(part: PartBody, path: str) -> Part:
    if part.text is None:
        raise _missing(path, "text")
    return TextPart(part.text)


def _refusal(part: PartBody, path: str) -> Part:
    if part.refusal is None:
        raise _missing(path, "refusal")
    return TextPart(part.refusal)


def _image(part: PartBody, path: str) -> Part:
    detail = part.image_url.detail if isinstance(part.image_url, LinkBody) else None
    return ImagePart(_url((part.image_url, part.image, part.url), path, "image_url"), detail or "", path)


def _video(part: PartBody, path: str) -> Part:
    spellings = (part.video_url, part.video, part.input_video, part.url)
    return FilePart("video", _url(spellings, path, part.type), place=path)


def _audio(part: PartBody, path: str) -> Part:
    if part.input_audio is None:
        raise _missing(path, "input_audio")
    return FilePart("audio", f"data:audio/{part.input_audio.format};base64,{part.input_audio.data}", place=path)


def _file(part: PartBody, path: str) -> Part:
    if part.file is None:
        raise _missing(path, "file")
    if part.file.file_data is None and part.file.file_id is not None:
        param = f"{path}.file.file_id"
        raise UnsupportedParameter(f"{param}: no files are kept here; send `file_data`", param=param)
    return FilePart("document", _url((part.file.file_data,), path, "file.file_data"), part.file.filename or "", path)


def _url(spellings: Sequence[str | LinkBody | None], path: str, field: str) -> str:
    """The first that is given. `field` is what to send, for the error."""
    for given in spellings:
        url = given.url or given.video_url if isinstance(given, LinkBody) else given
        if url is None:
            continue
        if not url.startswith(("https://", "http://", "data:")):
            raise InvalidRequest(f"`{path}.{field}` must be an http(s) URL or a data URI", param=f"{path}.{field}")
        return url
    raise _missing(path, field)


_READERS: Final[dict[str, Callable[[PartBody, str], Part]]] = {
    "text": _text,
    "image_url": _image,
    "image": _image,
    "input_audio": _audio,
    "file": _file,
    "video": _video,
    "video_url": _video,
    "input_video": _video,
    "refusal": _refusal,
}
