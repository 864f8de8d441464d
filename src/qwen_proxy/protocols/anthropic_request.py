"""A Messages body in our words. Pure.

What is wrong is refused by the field's path as the client wrote it, such as `messages[0].content[1].text`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from qwen_proxy.chat.models import ModelName, Variant
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
from qwen_proxy.ground.errors import InvalidRequest, ThreadNotFound, UnsupportedParameter
from qwen_proxy.protocols.anthropic_body import (
    BlockBody,
    FormatBody,
    MessageBody,
    MessagesBody,
    SourceBody,
    ThreadBody,
)
from qwen_proxy.protocols.anthropic_tools import choice, offer
from qwen_proxy.protocols.bodies import checked_stops

Blocks = str | Sequence[BlockBody] | None

# Claude Code's first system block, which changes from request to request and says nothing to a model.
BILLING: Final = "x-anthropic-billing-header:"


def request(body: MessagesBody) -> ChatRequest:
    """Raises InvalidRequest, ThreadNotFound, or UnsupportedParameter for what is legal and can't be done here."""
    _refuse_threads(body.thread)
    if body.mcp_servers:
        raise UnsupportedParameter("mcp_servers: this server calls no MCP servers; leave it out", param="mcp_servers")
    offered = offer(body)
    messages = (*_system(body.system), *_messages(body.messages))
    if not body.messages or not messages:
        raise InvalidRequest("messages: at least one message is required", param="messages")
    wish = body.tool_choice
    return ChatRequest(
        model=ModelName(body.model or "", Variant(search=offered.searches)),
        messages=messages,
        tools=offered.tools,
        tool_choice=choice(wish, offered),
        parallel_tool_calls=wish is None or wish.disable_parallel_tool_use is not True,
        sampling=Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            max_tokens=body.max_tokens,
            stop=checked_stops(body.stop_sequences or [], "stop_sequences"),
        ),
        reasoning=_reasoning(body),
        output=_output(body),
    )


def _refuse_threads(thread: ThreadBody | None) -> None:
    """The SDKs go on without threads when they are told so in this way (`protocols.anthropic_errors`)."""
    if thread is None:
        return
    if thread.type == "continue":
        raise ThreadNotFound(thread.previous_message_id or "")
    raise UnsupportedParameter(
        "thread: this server keeps no message threads; send the whole conversation in messages", param="thread"
    )


def _reasoning(body: MessagesBody) -> Reasoning:
    effort = body.output_config.effort if body.output_config is not None else None
    for message in body.messages:
        if message.role == "system" and message.output_config is not None and message.output_config.effort:
            effort = message.output_config.effort
    thinking = body.thinking
    if thinking is None:
        return Reasoning(effort=effort)
    if thinking.type not in _THINKS:
        known = ", ".join(_THINKS)
        raise InvalidRequest(f"thinking.type must be one of {known}", param="thinking.type")
    return Reasoning(enabled=_THINKS[thinking.type], budget_tokens=thinking.budget_tokens, effort=effort)


_THINKS: Final = {"enabled": True, "adaptive": True, "between_tools": True, "disabled": False}


def _output(body: MessagesBody) -> OutputFormat | None:
    config = body.output_config.format if body.output_config is not None else None
    if config is not None:
        return _format(config, "output_config.format")
    return None if body.output_format is None else _format(body.output_format, "output_format")


def _format(format: FormatBody, param: str) -> OutputFormat:
    if format.type != "json_schema":
        raise InvalidRequest(f"{param}.type must be 'json_schema'", param=f"{param}.type")
    if format.schema is None:
        raise InvalidRequest(f"`{param}.schema` is missing", param=f"{param}.schema")
    return OutputFormat(schema=format.schema, strict=True)


# --- messages ----------------------------------------------------------------------------------------------


def _system(system: str | list[BlockBody] | None) -> Iterator[Message]:
    blocks = _blocks(system)
    if blocks and (blocks[0].text or "").startswith(BILLING):
        blocks = blocks[1:]
    if parts := tuple(_texts(blocks, "system")):
        yield Message(Role.SYSTEM, parts)


def _messages(messages: Sequence[MessageBody]) -> Iterator[Message]:
    last_user = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        match message.role:
            case "user":
                if message.content is None:
                    raise InvalidRequest(f"`{path}.content` must be a string or an array", param=f"{path}.content")
                yield Message(Role.USER, tuple(_user_parts(message.content, path)))
            case "assistant":
                yield Message(Role.ASSISTANT, tuple(_assistant_parts(message.content, path)))
            case "system":
                is_over = message.clear_at == "next_user_message" and i < last_user
                parts = tuple(_texts(_without_changes(message.content), f"{path}.content"))
                if parts and not is_over:
                    yield Message(Role.SYSTEM, parts)
            case role:
                raise InvalidRequest(
                    f"{path}.role: unknown role {role[:40]!r}; the roles are user, assistant and system",
                    param=f"{path}.role",
                )


def _blocks(content: Blocks) -> Sequence[BlockBody]:
    if isinstance(content, str):
        return (BlockBody(type="text", text=content),)
    return content or ()


def _without_changes(content: Blocks) -> list[BlockBody]:
    """`anthropic_tools` has seen to the others."""
    return [block for block in _blocks(content) if block.type not in ("tool_addition", "tool_removal")]


def _texts(blocks: Sequence[BlockBody], path: str) -> Iterator[TextPart]:
    for i, block in enumerate(blocks):
        if block.type != "text":
            raise _unknown(block, f"{path}[{i}]", ("text",))
        yield from _text(block, f"{path}[{i}]")


def _user_parts(content: Blocks, path: str) -> Iterator[Part]:
    for i, block in enumerate(_blocks(content)):
        place = f"{path}.content[{i}]"
        reader = _USER.get(block.type)
        if reader is not None:
            yield from reader(block, place)
        elif block.text is not None:
            yield TextPart(block.text)
        else:
            raise _unknown(block, place, tuple(_USER))


def _assistant_parts(content: Blocks, path: str) -> Iterator[Part]:
    """Blocks of Anthropic's own tools, and any that are new, are a model's doings that a client hands back: what they
    say stands in the text too, and a conversation must not end because of them."""
    for i, block in enumerate(_blocks(content)):
        if (reader := _ASSISTANT.get(block.type)) is not None:
            yield from reader(block, f"{path}.content[{i}]")


def _unknown(block: BlockBody, path: str, known: Sequence[str]) -> InvalidRequest:
    names = ", ".join(known)
    return InvalidRequest(
        f"{path}.type: unknown content block {block.type[:40]!r}; known here are {names}", param=f"{path}.type"
    )


def _missing(path: str, field: str) -> InvalidRequest:
    return InvalidRequest(f"`{path}.{field}` is missing", param=f"{path}.{field}")


def _text(block: BlockBody, path: str) -> Iterator[TextPart]:
    if block.text is None:
        raise _missing(path, "text")
    if block.text:
        yield TextPart(block.text)


def _image(block: BlockBody, path: str) -> Iterator[ImagePart]:
    yield ImagePart(_url(_source(block, path), f"{path}.source", "image/png"), place=path)


def _document(block: BlockBody, path: str) -> Iterator[Part]:
    source = _source(block, path)
    if source.type == "text":
        yield TextPart(_titled(block, source.data or ""))
    elif source.type == "content":
        if title := _titled(block, ""):
            yield TextPart(title)
        for i, inner in enumerate(_blocks(source.content)):
            yield from _inner(inner, f"{path}.source.content[{i}]")
    else:
        yield FilePart("document", _url(source, f"{path}.source", "application/pdf"), block.title or "", path)


def _inner(block: BlockBody, path: str) -> Iterator[TextPart | ImagePart]:
    if block.type == "image":
        return _image(block, path)
    if block.type == "text":
        return _text(block, path)
    raise _unknown(block, path, ("text", "image"))


def _titled(block: BlockBody, text: str) -> str:
    return "\n".join(each for each in (block.title, block.context, text) if each)


def _source(block: BlockBody, path: str) -> SourceBody:
    if not isinstance(block.source, SourceBody):
        raise _missing(path, "source")
    return block.source


def _url(source: SourceBody, path: str, default_type: str) -> str:
    match source.type:
        case "base64":
            if source.data is None:
                raise _missing(path, "data")
            return f"data:{source.media_type or default_type};base64,{source.data}"
        case "url":
            if source.url is None or not source.url.startswith(("https://", "http://", "data:")):
                raise InvalidRequest(f"`{path}.url` must be an http(s) URL", param=f"{path}.url")
            return source.url
        case "file":
            raise UnsupportedParameter(
                f"{path}.file_id: no files are kept here; send the content itself as base64", param=f"{path}.file_id"
            )
        case kind:
            raise InvalidRequest(f"{path}.type: unknown source {kind[:40]!r}", param=f"{path}.type")


def _search_result(block: BlockBody, path: str) -> Iterator[TextPart]:
    said = [block.title or "", block.source if isinstance(block.source, str) else ""]
    content = block.content if isinstance(block.content, list) else []
    yield TextPart("\n".join(each for each in [*said, *(inner.text or "" for inner in content)] if each))


def _tool_result(block: BlockBody, path: str) -> Iterator[ToolResultPart]:
    if not block.tool_use_id:
        raise _missing(path, "tool_use_id")
    content = block.content if not isinstance(block.content, dict) else None
    parts: list[TextPart | ImagePart] = []
    for i, inner in enumerate(_blocks(content)):
        for part in _result_parts(inner, f"{path}.content[{i}]"):
            parts.append(part if isinstance(part, TextPart | ImagePart) else TextPart(_unread(inner)))
    yield ToolResultPart(block.tool_use_id, tuple(parts), block.is_error is True)


def _result_parts(block: BlockBody, path: str) -> Iterator[Part]:
    """What a tool gave never ends a conversation: of what can't be read, it is said that it was there."""
    if block.type == "tool_reference":
        yield TextPart(f"The tool {block.tool_name} can be called now.")
    elif block.type in ("text", "image", "document", "search_result") and not _is_kept_elsewhere(block):
        yield from _USER[block.type](block, path)
    else:
        yield TextPart(block.text or _unread(block))


def _is_kept_elsewhere(block: BlockBody) -> bool:
    return isinstance(block.source, SourceBody) and block.source.type == "file"


def _unread(block: BlockBody) -> str:
    return f"[{block.type[:40]} {block.title or ''}".rstrip() + ": not shown]"


def _thinking(block: BlockBody, path: str) -> Iterator[ReasoningPart]:
    """Anybody's signature is taken: nothing depends on it."""
    if block.thinking:
        yield ReasoningPart(block.thinking, block.signature)


def _tool_use(block: BlockBody, path: str) -> Iterator[ToolCallPart]:
    if not block.id or not block.name:
        raise _missing(path, "name" if block.id else "id")
    arguments = bytes(block.input).decode() or "{}"
    if not arguments.startswith("{"):
        raise InvalidRequest(f"{path}.input must be an object", param=f"{path}.input")
    yield ToolCallPart(block.id, block.name, arguments)


def _compaction(block: BlockBody, path: str) -> Iterator[TextPart]:
    """What Anthropic made of a conversation's beginning, which is no longer sent."""
    if isinstance(block.content, str) and block.content:
        yield TextPart(block.content)


_USER: Final[dict[str, Callable[[BlockBody, str], Iterator[Part]]]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "tool_result": _tool_result,
}
_ASSISTANT: Final[dict[str, Callable[[BlockBody, str], Iterator[Part]]]] = {
    "text": _text,
    "thinking": _thinking,
    "tool_use": _tool_use,
    "compaction": _compaction,
}
