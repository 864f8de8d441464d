"""The items of a conversation as messages. Pure.

| item | becomes |
|---|---|
| `message`, with or without `type` | a message; `developer` is SYSTEM |
| `reasoning` | reasoning of the assistant: ours from `encrypted_content`, else its text or summary |
| `function_call`, `custom_tool_call` | a call of the assistant |
| `function_call_output`, `custom_tool_call_output` | a result |
| `compaction` | what we wrote of a longer conversation; another server's can't be read |
| `additional_tools` | more tools (openai_responses_request) |
| `web_search_call` | nothing: what was found stands in the answer behind it |
| any other | nothing; it is kept, and named among what is ignored |

What the assistant did without a word of the user between is one message, and so are results one after the other.
"""

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from qwen_proxy.chat.request import (
    FilePart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from qwen_proxy.ground.errors import InvalidRequest, UnsupportedParameter
from qwen_proxy.protocols.openai_freeform import arguments_with
from qwen_proxy.protocols.openai_responses_body import ItemBody, LinkBody, PartBody, SummaryBody, part_of
from qwen_proxy.protocols.openai_responses_sealed import opened
from qwen_proxy.protocols.openai_responses_tools import Toolbox

T = TypeVar("T")
Numbered = tuple[str, ItemBody]  # an item, and its path for an error

_ROLES: Final = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}
_CONTENT: Final = msgspec.json.Decoder(str | list[PartBody])
_SUMMARY: Final = msgspec.json.Decoder(tuple[SummaryBody, ...])
_TEXT: Final = msgspec.json.Decoder(str)
_CALLS: Final = ("function_call", "custom_tool_call")
_RESULTS: Final = ("function_call_output", "custom_tool_call_output")
_SILENT: Final = ("additional_tools", "web_search_call")
_MAX_IGNORED: Final = 20
COMPACTED: Final = "What was said before, in short:\n\n"


def messages(items: Iterable[Numbered], box: Toolbox) -> tuple[Message, ...]:
    """Raises InvalidRequest."""
    said: list[Message] = []
    for path, item in items:
        message = _message(item, path, box)
        if message is not None and message.parts:
            if said and _continues(said[-1], message, item):
                message = Message(message.role, said.pop().parts + message.parts)
            said.append(message)
    return tuple(said)


def ignored(items: Iterable[Numbered]) -> tuple[str, ...]:
    """The kinds of items that say nothing to the model."""
    known = {"message", "reasoning", "compaction", *_CALLS, *_RESULTS, *_SILENT}
    kinds = (item.kind for _, item in items)
    return tuple(dict.fromkeys(f"input.{kind[:40]}" for kind in kinds if kind not in known))[:_MAX_IGNORED]


def _continues(last: Message, message: Message, item: ItemBody) -> bool:
    if last.role is not message.role:
        return False
    if message.role is Role.ASSISTANT:
        is_fresh = all(isinstance(part, ReasoningPart) for part in last.parts)
        return is_fresh or item.kind in _CALLS
    return item.kind in _RESULTS and all(isinstance(part, ToolResultPart) for part in last.parts)


def _message(item: ItemBody, path: str, box: Toolbox) -> Message | None:
    kind = item.kind
    if kind == "message":
        return _spoken(item, path)
    if kind == "reasoning":
        return Message(Role.ASSISTANT, tuple(_reasoning(item, path)))
    if kind in _CALLS:
        return Message(Role.ASSISTANT, (_call(item, path, box),))
    if kind in _RESULTS:
        return Message(Role.USER, (_result(item, path),))
    if kind == "compaction":
        return _compacted(item, path)
    return None


def _spoken(item: ItemBody, path: str) -> Message:
    role = _ROLES.get(item.role or "")
    if role is None:
        roles = "system, developer, user and assistant"
        raise InvalidRequest(f"unknown role {(item.role or '')[:40]!r}; the roles are {roles}", param=f"{path}.role")
    return Message(role, tuple(_parts(item, path)))


def _parts(item: ItemBody, path: str) -> Iterator[Part]:
    content = part_of(item.content, _CONTENT, f"{path}.content")
    if isinstance(content, str):
        yield from [TextPart(content)] if content else []
        return
    for i, part in enumerate(content):
        yield _part(part, f"{path}.content[{i}]")


def _part(part: PartBody, path: str) -> Part:
    match part.type:
        case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
            return TextPart(_given(part.text, path, "text"))
        case "refusal":
            return TextPart(_given(part.refusal, path, "refusal"))
        case "input_image":
            return _image(part, path)
        case "input_file":
            return _file(part, path)
        case "input_audio":
            audio = _given(part.input_audio, path, "input_audio")
            return FilePart("audio", f"data:audio/{audio.format};base64,{audio.data}", place=path)
        case kind:
            known = "input_text, input_image, input_file, input_audio, output_text and refusal"
            raise InvalidRequest(f"unknown content part {kind[:40]!r}; known are {known}", param=f"{path}.type")


def _image(part: PartBody, path: str) -> ImagePart:
    url = part.image_url.url if isinstance(part.image_url, LinkBody) else part.image_url
    if url is None and part.file_id is not None:
        raise _no_files(f"{path}.file_id", "image_url")
    return ImagePart(_address(url, path, "image_url"), _detail(part), path)


def _detail(part: PartBody) -> str:
    """`auto` is what nobody has to say; clients do, since the field has to be there."""
    return "" if part.detail in (None, "auto") else part.detail


def _file(part: PartBody, path: str) -> FilePart:
    url = part.file_data or part.file_url
    if url is None and part.file_id is not None:
        raise _no_files(f"{path}.file_id", "file_data")
    return FilePart("document", _address(url, path, "file_data"), part.filename or "", path)


def _address(url: str | None, path: str, field: str) -> str:
    url = _given(url, path, field)
    if not url.startswith(("https://", "http://", "data:")):
        raise InvalidRequest(f"`{path}.{field}` must be an http(s) URL or a data URI", param=f"{path}.{field}")
    return url


def _no_files(param: str, instead: str) -> UnsupportedParameter:
    return UnsupportedParameter(f"{param}: no files are kept here; send `{instead}`", param=param)


def _given(value: T | None, path: str, field: str) -> T:
    if value is None:
        raise InvalidRequest(f"`{path}.{field}` is missing", param=f"{path}.{field}")
    return value


def _reasoning(item: ItemBody, path: str) -> Iterator[Part]:
    text = opened(item.encrypted_content or "")
    if text is None and _is_given(item.content):
        text = "\n".join(part.text for part in _parts(item, path) if isinstance(part, TextPart))
    if not text and _is_given(item.summary):
        text = "\n\n".join(each.text for each in part_of(item.summary, _SUMMARY, f"{path}.summary"))
    if text:
        yield ReasoningPart(text, item.encrypted_content)


def _is_given(value: Raw) -> bool:
    """Clients that keep items as objects send all of their members back, also those that hold nothing."""
    return bytes(value) not in (b"", b"null")


def _call(item: ItemBody, path: str, box: Toolbox) -> ToolCallPart:
    name = box.known_as(_given(item.name, path, "name"), item.namespace)
    if item.kind == "custom_tool_call":
        text = part_of(item.input, _TEXT, f"{path}.input")
        return ToolCallPart(_given(item.call_id, path, "call_id"), name, arguments_with(text))
    arguments = part_of(item.arguments, _TEXT, f"{path}.arguments")
    return ToolCallPart(_given(item.call_id, path, "call_id"), name, arguments)


def _result(item: ItemBody, path: str) -> ToolResultPart:
    call_id = _given(item.call_id, path, "call_id")
    output = part_of(item.output, _CONTENT, f"{path}.output")
    if isinstance(output, str):
        return ToolResultPart(call_id, (TextPart(output),))
    return ToolResultPart(call_id, tuple(_inside(part, f"{path}.output[{i}]") for i, part in enumerate(output)))


def _inside(part: PartBody, path: str) -> TextPart | ImagePart:
    made = _part(part, path)
    if isinstance(made, TextPart | ImagePart):
        return made
    return TextPart(f"[a file was here that can't be shown: {part.filename or 'without a name'}]")


def _compacted(item: ItemBody, path: str) -> Message:
    text = opened(_given(item.encrypted_content, path, "encrypted_content"))
    if text is None:
        raise InvalidRequest(
            f"`{path}.encrypted_content` was not written by this server, or was changed",
            param=f"{path}.encrypted_content",
        )
    return Message(Role.USER, (TextPart(COMPACTED + text),))
