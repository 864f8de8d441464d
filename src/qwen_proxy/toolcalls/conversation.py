"""A request with tools as one without: what a model without tools of its own is asked. Pure.

The order: the system texts at the beginning, the tools and the form, the history, the last message, the reminder. A
last message of the assistant's own, which is to be continued, stays the last.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec import Struct, structs

from qwen_proxy.chat.request import (
    AUTO,
    ChatRequest,
    Message,
    Part,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from qwen_proxy.toolcalls.form import MARKERS, Form
from qwen_proxy.toolcalls.history import RESULT_BYTES, retell
from qwen_proxy.toolcalls.prompt import draw_nonce, offered, teach
from qwen_proxy.toolcalls.signature import Described, describe
from qwen_proxy.toolcalls.teaching import retaught, unleaked
from qwen_proxy.toolcalls.toolbox import Toolbox

_NO_TOOLS: Final = Toolbox(())


class Compiled(Struct, frozen=True, kw_only=True):
    """What is made of a list of tools once, and remembered."""

    described: Described
    toolbox: Toolbox


OF_TOOLS: Final = frozenset((ToolCallPart, ToolResultPart))


class Told(Struct, frozen=True, kw_only=True):
    """The request without tools, and what was done. `compiled` is None where no tool may be called."""

    request: ChatRequest
    nonce: str
    compiled: Compiled | None
    trimmed_results: int
    hidden_images: int
    unpaired: int
    repeats_calls: bool


def compile_tools(tools: Sequence[Tool]) -> Compiled:
    """Raises InvalidRequest for hostile schemas, UnsupportedParameter for more than fits."""
    return Compiled(described=describe(tools), toolbox=Toolbox(tools))


def concerns_tools(request: ChatRequest) -> bool:
    """Whether anything has to be told in a request at all."""
    if offered(request):
        return True
    for message in request.messages:
        for part in message.parts:
            if type(part) in OF_TOOLS:
                return True
    return False


def tell(
    request: ChatRequest,
    *,
    compiled: Callable[[Sequence[Tool]], Compiled] = compile_tools,
    form: Form = MARKERS,
    result_bytes: int = RESULT_BYTES,
) -> Told:
    """Raises what `compiled` raises."""
    request = structs.replace(request, messages=tuple(_unleaked(message) for message in request.messages))
    tools = offered(request)
    known = compiled(tools) if tools else None
    toolbox = _NO_TOOLS if known is None else known.toolbox
    texts = [] if known is None else [known.described.text]
    nonce = draw_nonce(form, request, [*texts, *_texts(request.messages)])
    teaching = teach(request, form, nonce, None if known is None else known.described)
    messages = [_retaught(message, form, nonce, toolbox) for message in request.messages]
    start = next((i for i, message in enumerate(messages) if message.role is not Role.SYSTEM), len(messages))
    history = retell(messages[start:], form, nonce, toolbox, result_bytes=result_bytes)
    reminder = "\n".join(text for text in (teaching.reminder, history.hint, request.hint) if text)
    told = [*messages[:start], _system(teaching.system), *history.messages]
    if reminder:
        is_continued = request.messages[-1].role is Role.ASSISTANT and told[-1].role is Role.ASSISTANT
        told.insert(len(told) - is_continued, _system(reminder))
    return Told(
        request=structs.replace(
            request,
            messages=tuple(told),
            tools=(),
            tool_choice=AUTO,
            hint="",
            taught=frozenset(tool.name for tool in tools),
        ),
        nonce=nonce,
        compiled=known,
        trimmed_results=history.trimmed_results,
        hidden_images=history.hidden_images,
        unpaired=history.unpaired,
        repeats_calls=bool(history.hint),
    )


def hinted(request: ChatRequest) -> ChatRequest:
    """The request with its hint in a system message at its end, for who passes it on as it is."""
    return structs.replace(with_system(request, request.hint), hint="") if request.hint else request


def with_system(request: ChatRequest, text: str) -> ChatRequest:
    """The request with one more system message, the last but for an answer that is to be continued."""
    place = len(request.messages) - (request.messages[-1].role is Role.ASSISTANT)
    messages = (*request.messages[:place], _system(text), *request.messages[place:])
    return structs.replace(request, messages=messages)


def _system(text: str) -> Message:
    return Message(Role.SYSTEM, (TextPart(text),))


def _unleaked(message: Message) -> Message:
    if message.role is not Role.ASSISTANT:
        return message
    parts = (TextPart(unleaked(part.text)) if isinstance(part, TextPart) else part for part in message.parts)
    return Message(message.role, tuple(parts))


def _retaught(message: Message, form: Form, nonce: str, toolbox: Toolbox) -> Message:
    if message.role is not Role.SYSTEM:
        return message
    parts = (
        TextPart(retaught(part.text, form, nonce, toolbox)) if isinstance(part, TextPart) else part
        for part in message.parts
    )
    return Message(Role.SYSTEM, tuple(parts))


def _texts(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        for part in message.parts:
            yield from _texts_of(part)


def _texts_of(part: Part) -> Iterator[str]:
    match part:
        case TextPart(text):
            yield text
        case ToolCallPart(_, _, arguments):
            yield arguments
        case ToolResultPart(_, parts):
            yield from (inner.text for inner in parts if isinstance(inner, TextPart))
        case _:
            return
