"""The tools of a request, compiled once: names as models write them, parameters, validators. Pure; may be cached."""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from qwen_proxy.chat.request import Tool
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.toolcalls import schemas
from qwen_proxy.toolcalls.schemas import Compiled, Schema

MAX_TOOLS: Final = 1024
MAX_NAME_CHARACTERS: Final = 128
_PREFIXES: Final = re.compile(r"^(?:functions?|tools?|default_api|mcp)[.:/]+", re.IGNORECASE)
_NOT_WORD: Final = re.compile(r"[^0-9a-z]+")
_QUOTES: Final = " \t\"'`*"
_PLAIN_KEYWORDS: Final = frozenset(
    ("type", "properties", "required", "additionalProperties", "$schema", "$id", "title", "description")
    + ("$defs", "definitions", "examples", "$comment")
)


class Parameter(NamedTuple):
    """is_raw: its value is written as it is, since it can only be a string. streams: and any string is valid."""

    name: str
    schema: object
    types: frozenset[str]
    is_raw: bool
    streams: bool


class OfferedTool:
    """One tool. `root` is its schema, an empty object where the client gave none.

    is_plain: arguments are valid if each value is and all that are required are there; nothing concerns the whole.
    """

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.name = tool.name
        self.strict = tool.strict
        self.root: Schema = tool.parameters or {}
        schemas.measured(self.root)
        top = schemas.resolved(self.root, self.root)
        properties: object = top.get("properties")
        self.parameters = {
            name: _parameter(name, schema, self.root)
            for name, schema in (cast(Schema, properties) if isinstance(properties, dict) else {}).items()
        }
        required: object = top.get("required")
        self.required = tuple(str(name) for name in cast(list[object], required)) if isinstance(required, list) else ()
        extra: object = top.get("additionalProperties")
        self.takes_others = bool(extra) or "patternProperties" in top
        self.is_plain = _PLAIN_KEYWORDS.issuperset(self.root)
        self._compiled: Compiled | None = None
        self._of_parameters: dict[str, Callable[[object], tuple[str, ...]]] = {}

    @property
    def unchecked(self) -> str:
        """Why arguments are not validated; empty if they are."""
        return self._check.unchecked

    def errors(self, arguments: dict[str, Any]) -> tuple[str, ...]:
        """What is wrong with whole arguments, as validation says it."""
        return self._check.errors(arguments)

    def parameter_errors(self, name: str, value: object) -> tuple[str, ...]:
        """What is wrong with the value of one parameter; nothing for one that the schema does not name."""
        if name not in self.parameters:
            return ()
        if name not in self._of_parameters:
            alone: Schema = {"properties": {name: self.parameters[name].schema}}
            definitions = {key: self.root[key] for key in ("$defs", "definitions") if key in self.root}
            self._of_parameters[name] = schemas.compiled(alone | definitions).errors
        return self._of_parameters[name]({name: value})

    @property
    def _check(self) -> Compiled:
        if self._compiled is None:
            self._compiled = schemas.compiled(self.root)
        return self._compiled


def _parameter(name: str, schema: object, root: Schema) -> Parameter:
    types = schemas.types_of(schema, root)
    is_raw = types == frozenset({"string"})
    return Parameter(name, schema, types, is_raw, is_raw and schemas.is_free_text(schema))


class Toolbox:
    """All tools that may be called. Raises InvalidRequest for schemas and names beyond what honest ones need."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        if len(tools) > MAX_TOOLS:
            raise InvalidRequest(f"tools: at most {MAX_TOOLS} are taken", param="tools")
        self.tools: dict[str, OfferedTool] = {}
        for index, tool in enumerate(tools):
            try:
                self.tools.setdefault(tool.name, OfferedTool(tool))
            except schemas.Refused as problem:
                raise InvalidRequest(f"tools[{index}] (`{tool.name[:64]}`): {problem}", param="tools") from problem
        self._plain: dict[str, list[str]] = {}
        for name in self.tools:
            self._plain.setdefault(plain(name), []).append(name)
            if name.startswith("mcp__"):
                self._plain.setdefault(plain(name.rpartition("__")[2]), []).append(name)
        names = [*self.tools, *(key for tool in self.tools.values() for key in tool.parameters)]
        self.longest_name = max(map(len, names), default=0)

    def resolve(self, written: str, *, guess: bool = True) -> tuple[OfferedTool, str] | None:
        """The tool that a model means, and the repair that it took (empty if it was spelt right).

        Tried in turn: as it stands; without quotes and prefixes such as `functions.`; without regard to case and to
        what is no letter or digit; the last part of an `mcp__server__tool` name, if only one tool ends so; with `guess`
        (which is dear) one close match, if there is only one.
        """
        if tool := self.tools.get(written):
            return tool, ""
        if len(written) > MAX_NAME_CHARACTERS:
            return None
        name = _PREFIXES.sub("", written.strip(_QUOTES))
        if tool := self.tools.get(name):
            return tool, "name"
        for candidate in (name, name.rpartition("__")[2], name.rpartition(".")[2]):
            found = self._plain.get(plain(candidate), ())
            if len(found) == 1:
                return self.tools[found[0]], "name"
        if not guess:
            return None
        close = difflib.get_close_matches(plain(name), self._plain, n=2, cutoff=0.85)
        if len(close) == 1 and len(self._plain[close[0]]) == 1 and len(name) >= 4:
            return self.tools[self._plain[close[0]][0]], "name"
        return None


def plain(name: str) -> str:
    """A name without case and punctuation."""
    return _NOT_WORD.sub("", name.lower()) or name
