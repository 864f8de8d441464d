"""The tools of `/v1/responses` as ours, and the way back to what a client calls them. Pure.

| a client's tool | what the model is offered | how its call comes back |
|---|---|---|
| `function` | the same | `function_call` |
| `custom` (freeform) | a function with one string, `input` | `custom_tool_call`, with that string |
| `namespace` | each of its tools, by its own name where no other has it | the same, with `namespace` |
| `web_search...` | nothing: the model's own search is switched on | `web_search_call`, and citations in the text |
| any other | nothing: it is named among what is ignored | |
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct

from qwen_proxy.chat.request import AUTO, Tool, ToolChoice, ToolChoiceKind
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.protocols.openai_freeform import PARAMETERS, described
from qwen_proxy.protocols.openai_responses_body import AllowedBody, ToolBody, ToolChoiceBody

_MAX_IGNORED: Final = 20
_SEARCH: Final = "web_search"


class Origin(Struct, frozen=True):
    """What the client calls one of our tools. is_custom: its input is a text of any form."""

    name: str
    namespace: str | None = None
    is_custom: bool = False


class Toolbox(Struct, frozen=True):
    """origins: by the name that the model knows. searches: whether the client offers a search of the web.

    ignored: kinds of tools that are not offered.
    """

    tools: tuple[Tool, ...] = ()
    origins: dict[str, Origin] = {}
    searches: bool = False
    ignored: tuple[str, ...] = ()

    def known_as(self, name: str, namespace: str | None) -> str:
        """What the model knows a tool by that the client calls so; its own name where it is not offered any more."""
        origins = self.origins.items()
        exact = (known for known, origin in origins if (origin.name, origin.namespace) == (name, namespace))
        return next(exact, name)

    def origin(self, known: str) -> Origin:
        return self.origins.get(known) or Origin(known)


def toolbox(tools: Sequence[tuple[str, ToolBody]]) -> Toolbox:
    """From tools, each with its path for an error. Raises InvalidRequest."""
    flat = [each for path, tool in tools for each in _flattened(tool, path)]
    names = Counter(origin.name for origin, _ in flat)
    ours: dict[str, Tool] = {}
    origins: dict[str, Origin] = {}
    for origin, tool in flat:
        known = origin.name
        if names[known] > 1 and origin.namespace is not None:
            known = f"{origin.namespace}__{origin.name}"
        ours[known] = Tool(known, _description(tool), _parameters(tool), tool.strict is True)
        origins[known] = origin
    kinds = [tool.type for _, tool in tools]
    return Toolbox(
        tools=tuple(ours.values()),
        origins=origins,
        searches=any(tool.type.startswith(_SEARCH) and tool.external_web_access is not False for _, tool in tools),
        ignored=tuple(_ignored(kinds)),
    )


def _flattened(tool: ToolBody, path: str, namespace: str | None = None) -> Iterator[tuple[Origin, ToolBody]]:
    if tool.type in ("function", "custom"):
        yield Origin(_named(tool, path), namespace, tool.type == "custom"), tool
    elif tool.type == "namespace" and namespace is None:
        for i, inner in enumerate(tool.tools or []):
            yield from _flattened(inner, f"{path}.tools[{i}]", _named(tool, path))


def _named(tool: ToolBody, path: str) -> str:
    if not tool.name:
        raise InvalidRequest(f"`{path}.name` is missing", param=f"{path}.name")
    return tool.name


def _description(tool: ToolBody) -> str:
    if tool.type == "custom" and tool.format is not None:
        return described(tool.description, tool.format.syntax, tool.format.definition)
    return (tool.description or "").strip()


def _parameters(tool: ToolBody) -> dict[str, Any] | None:
    return PARAMETERS if tool.type == "custom" else tool.parameters


def _ignored(kinds: Iterable[str]) -> list[str]:
    others = (kind for kind in kinds if kind not in ("function", "custom", "namespace"))
    found = dict.fromkeys(f"tools.{kind[:40]}" for kind in others if not kind.startswith(_SEARCH))
    return list(found)[:_MAX_IGNORED]


def tool_choice(wish: str | ToolChoiceBody | None, box: Toolbox) -> ToolChoice:
    """Raises InvalidRequest. A choice of a kind of tool that is not offered here leaves it to the model."""
    if wish is None:
        return AUTO
    if isinstance(wish, str):
        return _checked(_kind(wish, "tool_choice"), (), box)
    if wish.type == "allowed_tools":
        functions = tuple(_functions(wish.tools or [], "tool_choice.tools"))
        kind = _kind(wish.mode or "auto", "tool_choice.mode")
        if not functions and kind is ToolChoiceKind.REQUIRED and not searches(wish, box):
            raise InvalidRequest(
                "tool_choice.tools has none that can be called, and a call is required", param="tool_choice.tools"
            )
        if not functions:  # no names would mean that all may be called
            kind = ToolChoiceKind.NONE
        return _checked(kind, tuple(_known(box, each, f"tool_choice.tools[{i}]") for i, each in functions), box)
    if wish.type in ("function", "custom"):
        return ToolChoice(ToolChoiceKind.REQUIRED, (_known(box, wish, "tool_choice"),))
    return AUTO


def searches(wish: str | ToolChoiceBody | None, box: Toolbox) -> bool:
    """Whether the model may search the web."""
    if isinstance(wish, ToolChoiceBody) and wish.type == "allowed_tools":
        return box.searches and any(tool.type.startswith(_SEARCH) for tool in wish.tools or ())
    return box.searches and wish != ToolChoiceKind.NONE


def _functions(tools: Sequence[AllowedBody], path: str) -> Iterator[tuple[int, AllowedBody]]:
    for i, tool in enumerate(tools):
        if tool.type in ("function", "custom"):
            if not tool.name:
                raise InvalidRequest(f"`{path}[{i}].name` is missing", param=f"{path}[{i}].name")
            yield i, tool


def _known(box: Toolbox, wish: AllowedBody, param: str) -> str:
    known = box.known_as(wish.name or "", wish.namespace)
    if known not in box.origins:
        raise InvalidRequest(f"{param} names {known[:64]!r}, which is not among the tools", param=param)
    return known


def _kind(word: str, param: str) -> ToolChoiceKind:
    try:
        return ToolChoiceKind(word)
    except ValueError as error:
        raise InvalidRequest(f"{param} must be auto, none, required or name a tool", param=param) from error


def _checked(kind: ToolChoiceKind, names: tuple[str, ...], box: Toolbox) -> ToolChoice:
    if kind is ToolChoiceKind.REQUIRED and not box.tools:
        raise InvalidRequest("tool_choice requires a call, but there are no tools to call", param="tool_choice")
    return ToolChoice(kind, names)
