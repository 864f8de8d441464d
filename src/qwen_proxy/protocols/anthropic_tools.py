"""The tools of a Messages body that are offered to the model, and how it is to choose among them. Pure.

A tool is offered where it stands in `tools` and is not deferred. What changes that, in the order of the messages:

| block | where | what it does |
|---|---|---|
| `tool_addition` | a `system` message | offers a deferred or removed tool, or one that it defines itself |
| `tool_removal` | a `system` message | no longer offers it |
| `tool_reference` | a result of a tool | offers a deferred tool that the client's own search has found |

Anthropic's own tool search loads deferred tools by itself; here that is done by offering them all from the beginning.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Raw, Struct

from qwen_proxy.chat.request import AUTO, Tool, ToolChoice, ToolChoiceKind
from qwen_proxy.ground.errors import InvalidRequest, UnsupportedParameter
from qwen_proxy.protocols.anthropic_body import BlockBody, MessageBody, MessagesBody, ToolBody, ToolChoiceBody

Schema = dict[str, object]

_SEARCH: Final = "web_search"
_FINDER: Final = "tool_search_tool_"


class Offer(Struct, frozen=True):
    """searches: the body has Anthropic's own search of the web among its tools."""

    tools: tuple[Tool, ...]
    searches: bool = False


def offer(body: MessagesBody) -> Offer:
    """Raises InvalidRequest; UnsupportedParameter for a tool that Anthropic itself would run."""
    declared = body.tools or []
    kinds = [tool.type or "custom" for tool in declared]
    loads_all = any(kind.startswith(_FINDER) for kind in kinds)
    known: dict[str, Tool] = {}
    offered: dict[str, Tool] = {}
    for i, tool in enumerate(declared):
        if _is_ours(tool):
            continue
        read = _tool(tool, f"tools[{i}]")
        known[read.name] = read
        if loads_all or not tool.defer_loading:
            offered[read.name] = read
    for i, message in enumerate(body.messages):
        _apply(message, f"messages[{i}]", known, offered)
    return Offer(tuple(offered.values()), any(kind.startswith(_SEARCH) for kind in kinds))


def choice(wish: ToolChoiceBody | None, offer: Offer) -> ToolChoice:
    """Raises InvalidRequest."""
    if wish is None:
        return AUTO
    match wish.type:
        case "auto":
            return AUTO
        case "none":
            return ToolChoice(ToolChoiceKind.NONE)
        case "any" if not offer.tools:
            raise InvalidRequest("tool_choice requires a call, but there are no tools", param="tool_choice")
        case "any":
            return ToolChoice(ToolChoiceKind.REQUIRED)
        case "tool":
            return ToolChoice(ToolChoiceKind.REQUIRED, (_chosen(wish.name, offer),))
        case _:
            raise InvalidRequest("tool_choice.type must be auto, any, tool or none", param="tool_choice.type")


def _chosen(name: str | None, offer: Offer) -> str:
    if name is None:
        raise InvalidRequest("`tool_choice.name` is missing", param="tool_choice.name")
    if all(tool.name != name for tool in offer.tools):
        raise InvalidRequest(
            f"tool_choice names {name[:64]!r}, which is not among the tools that are offered", param="tool_choice.name"
        )
    return name


def _is_ours(tool: ToolBody) -> bool:
    """Whether the client's body names it for Anthropic to run, and it is done here in another way."""
    return tool.type is not None and tool.type.startswith((_SEARCH, _FINDER))


def _tool(tool: ToolBody, path: str) -> Tool:
    kind = tool.type or "custom"
    if kind != "custom":
        return _typed(tool, kind, path)
    if tool.name is None:
        raise InvalidRequest(f"`{path}.name` is missing", param=f"{path}.name")
    return Tool(tool.name, tool.description or "", tool.input_schema, tool.strict is True)


def _typed(tool: ToolBody, kind: str, path: str) -> Tool:
    """Tools whose type stands for a schema, and which the client runs."""
    for prefix, typed in _CLIENT_TOOLS.items():
        if kind.startswith(prefix):
            return Tool(tool.name or typed.name, typed.description, typed.parameters)
    raise UnsupportedParameter(
        f"tools of type {kind[:60]!r} are not supported; a tool with an input_schema is", param=f"{path}.type"
    )


def _apply(message: MessageBody, path: str, known: dict[str, Tool], offered: dict[str, Tool]) -> None:
    if not isinstance(message.content, list):
        return
    for i, block in enumerate(message.content):
        place = f"{path}.content[{i}]"
        if message.role == "system" and block.type in ("tool_addition", "tool_removal"):
            _change(block, place, known, offered)
        elif block.type == "tool_result":
            for name in _references(block.content):
                if name in known:
                    offered[name] = known[name]


def _change(block: BlockBody, path: str, known: dict[str, Tool], offered: dict[str, Tool]) -> None:
    change = block.tool
    if change is not None and change.type == "tool_definition" and change.definition is not None:
        read = _tool(change.definition, f"{path}.tool.definition")
        known[read.name] = read
        name = read.name
    elif change is not None and change.type == "tool_reference" and change.name is not None:
        name = change.name
    else:
        raise InvalidRequest(f"{path}.tool must be a tool_reference or a tool_definition", param=f"{path}.tool")
    if block.type == "tool_removal":
        offered.pop(name, None)
    elif name in known:
        offered[name] = known[name]
    else:
        raise InvalidRequest(f"{path}.tool names {name[:64]!r}, which is not among the tools", param=f"{path}.tool")


def _references(content: str | list[BlockBody] | dict[str, Raw] | None) -> Iterator[str]:
    if isinstance(content, list):
        for block in content:
            if block.type == "tool_reference" and block.tool_name:
                yield block.tool_name


def _object(required: Sequence[str], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


_STRING: Final[Schema] = {"type": "string"}
_INTEGER: Final[Schema] = {"type": "integer"}
_RANGE: Final[Schema] = {"type": "array", "items": _INTEGER, "minItems": 2, "maxItems": 2}


def _command(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


# Source: Anthropic's pages on the bash, text editor and memory tools, each under "parameters" or "commands".
_CLIENT_TOOLS: Final[dict[str, Tool]] = {
    "bash_": Tool(
        "bash",
        "Runs commands in a shell that lives as long as the conversation. `restart` begins a new one.",
        _object((), command=_STRING, restart={"type": "boolean"}),
    ),
    "text_editor_": Tool(
        "str_replace_based_edit_tool",
        "Shows, creates and edits files. view: a file, or `view_range` of its lines ([first, last], -1 is the end), or "
        "a folder. create: with `file_text`. str_replace: `old_str`, which must occur exactly once, by `new_str`. "
        "insert: `insert_text` behind the line `insert_line` (0: before the first).",
        _object(
            ("command", "path"),
            command=_command("view", "create", "str_replace", "insert"),
            path=_STRING,
            view_range=_RANGE,
            file_text=_STRING,
            old_str=_STRING,
            new_str=_STRING,
            insert_line=_INTEGER,
            insert_text=_STRING,
        ),
    ),
    "memory_": Tool(
        "memory",
        "Keeps notes in files under /memories, over conversations. Look there first. Commands: view, create, "
        "str_replace, insert, delete and rename (`old_path` to `new_path`).",
        _object(
            ("command",),
            command=_command("view", "create", "str_replace", "insert", "delete", "rename"),
            path=_STRING,
            view_range=_RANGE,
            file_text=_STRING,
            old_str=_STRING,
            new_str=_STRING,
            insert_line=_INTEGER,
            insert_text=_STRING,
            old_path=_STRING,
            new_path=_STRING,
        ),
    ),
}
