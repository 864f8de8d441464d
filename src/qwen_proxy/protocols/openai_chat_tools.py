"""The tools of a chat completions body in our words, and which of them may or has to be called. Pure."""

from collections.abc import Sequence

from qwen_proxy.chat.request import AUTO, Tool, ToolChoice, ToolChoiceKind
from qwen_proxy.ground.errors import InvalidRequest, UnsupportedParameter
from qwen_proxy.protocols.openai_chat_body import (
    ChatBody,
    CustomBody,
    FunctionBody,
    NamedBody,
    NamedToolBody,
    ToolBody,
)
from qwen_proxy.protocols.openai_freeform import PARAMETERS, described


def freeform(body: ChatBody) -> frozenset[str]:
    """The names of the tools whose input is a text."""
    if not body.tools:
        return frozenset()
    return frozenset(tool.custom.name for tool in body.tools if tool.type == "custom" and tool.custom is not None)


def tools(body: ChatBody) -> tuple[Tool, ...]:
    """Raises InvalidRequest, or UnsupportedParameter for a kind that is not offered here."""
    offered = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools or [])]
    offered += [_function(function) for function in body.functions or []]
    texts = freeform(body)
    for tool in offered:
        if tool.name in texts and tool.parameters is not PARAMETERS:
            raise InvalidRequest(
                f"tools: {tool.name[:64]!r} is a function and a custom tool; give each a name of its own", param="tools"
            )
    return tuple(offered)


def _tool(tool: ToolBody, path: str) -> Tool:
    if tool.type not in ("function", "custom"):
        raise UnsupportedParameter(
            f"tools of type {tool.type[:40]!r} are not supported; those of type 'function' and 'custom' are",
            param=f"{path}.type",
        )
    if tool.type == "function" and tool.function is not None:
        return _function(tool.function)
    if tool.type == "custom" and tool.custom is not None:
        return _custom(tool.custom, f"{path}.custom")
    raise InvalidRequest(f"`{path}.{tool.type}` is missing", param=f"{path}.{tool.type}")


def _function(function: FunctionBody) -> Tool:
    return Tool(function.name, function.description or "", function.parameters, function.strict is True)


def _custom(custom: CustomBody, path: str) -> Tool:
    wanted = custom.format
    if wanted is None or wanted.type == "text":
        return Tool(custom.name, described(custom.description), PARAMETERS)
    if wanted.type != "grammar":
        raise InvalidRequest(f"{path}.format.type must be 'text' or 'grammar'", param=f"{path}.format.type")
    if wanted.grammar is None:
        raise InvalidRequest(f"`{path}.format.grammar` is missing", param=f"{path}.format.grammar")
    grammar = wanted.grammar
    return Tool(custom.name, described(custom.description, grammar.syntax, grammar.definition), PARAMETERS)


def tool_choice(body: ChatBody, offered: Sequence[Tool]) -> ToolChoice:
    """offered: of `tools`. Raises InvalidRequest."""
    wish, param = (body.tool_choice, "tool_choice")
    if wish is None:
        wish, param = (body.function_call, "function_call")
    if wish is None:
        return AUTO
    if isinstance(wish, str):
        choice = ToolChoice(_choice_kind(wish, param))
    elif isinstance(wish, NamedBody):
        choice = ToolChoice(ToolChoiceKind.REQUIRED, (wish.name,))
    elif wish.type == "allowed_tools" and wish.allowed_tools is not None:
        names = [
            _named(tool, f"tool_choice.allowed_tools.tools[{i}]") for i, tool in enumerate(wish.allowed_tools.tools)
        ]
        kind = _choice_kind(wish.allowed_tools.mode, "tool_choice.allowed_tools.mode")
        if not names and kind is ToolChoiceKind.REQUIRED:
            param = "tool_choice.allowed_tools.tools"
            raise InvalidRequest(f"{param} is empty, and a call is required", param=param)
        # No names would mean that all may be called.
        choice = ToolChoice(kind if names else ToolChoiceKind.NONE, tuple(names))
    else:
        choice = ToolChoice(ToolChoiceKind.REQUIRED, (_named(wish, "tool_choice"),))
    return _checked_choice(choice, param, offered)


def _checked_choice(choice: ToolChoice, param: str, offered: Sequence[Tool]) -> ToolChoice:
    known = {tool.name for tool in offered}
    for name in choice.names:
        if name not in known:
            raise InvalidRequest(f"{param} names {name[:64]!r}, which is not among the tools", param=param)
    if choice.kind is ToolChoiceKind.REQUIRED and not known:
        raise InvalidRequest(f"{param} requires a call, but there are no tools", param=param)
    return choice


def _choice_kind(word: str, param: str) -> ToolChoiceKind:
    try:
        return ToolChoiceKind(word)
    except ValueError as error:
        raise InvalidRequest(f"{param} must be auto, none, required or name a function", param=param) from error


def _named(wish: NamedToolBody, param: str) -> str:
    if wish.type == "function" and wish.function is not None:
        return wish.function.name
    if wish.type == "custom" and wish.custom is not None:
        return wish.custom.name
    raise InvalidRequest(
        f'{param} must be {{"type": "function", "function": {{"name": ...}}}} here, or the same with "custom"',
        param=param,
    )
