"""The tools that the corpus offers, and arguments for them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.toolbench import payloads
from bench.toolbench.payloads import Chance

Arguments = dict[str, Any]
STRING = {"type": "string"}
STRINGS = {"type": "array", "items": STRING}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


@dataclass(frozen=True)
class ToolKind:
    """A tool; `make` draws arguments. texts: the parameters that hold any text, raw in the taught form."""

    name: str
    schema: dict[str, Any]
    make: Callable[[Chance, tuple[str, ...]], Arguments]

    def raw(self) -> dict[str, bool]:
        """Which parameters are strings by their schema."""
        return {name: schema.get("type") == "string" for name, schema in self.schema.get("properties", {}).items()}


def _write(chance: Chance, without: tuple[str, ...]) -> Arguments:
    return {"file_path": payloads.path(chance), "content": payloads.text(chance, without)}


def _edit(chance: Chance, without: tuple[str, ...]) -> Arguments:
    made: Arguments = {"file_path": payloads.path(chance)}
    made |= {"old_string": payloads.text(chance, without), "new_string": payloads.text(chance, without)}
    return made | ({"replace_all": chance.random() < 0.5} if chance.random() < 0.5 else {})


def _bash(chance: Chance, without: tuple[str, ...]) -> Arguments:
    made: Arguments = {"command": payloads.text(chance, without) or "ls"}
    return made | ({"timeout": chance.randrange(1, 600_000)} if chance.random() < 0.5 else {})


def _search(chance: Chance, without: tuple[str, ...]) -> Arguments:
    filters: Arguments = {"languages": ["py", "rs"][: chance.randrange(3)], "deep": chance.random() < 0.5}
    filters |= {"ratio": chance.randrange(100) / 8, "note": payloads.line(chance)}
    kind = chance.choice(("exact", "regex", "Fuzzy"))
    return {"query": payloads.line(chance), "kind": kind, "limit": chance.randrange(1, 99), "filters": filters}


def _nested(chance: Chance, without: tuple[str, ...]) -> Arguments:
    inner: Arguments = {"url": "https://example.com/a?b=c&d", "body": payloads.text(chance, without), "tries": None}
    return {"name": chance.choice(("web_fetch", "Write")), "arguments": inner}


def _files(chance: Chance, without: tuple[str, ...]) -> Arguments:
    files: list[Arguments] = [{"path": payloads.path(chance)} for _ in range(chance.randrange(1, 4))]
    files[0] |= {"lines": [1, chance.randrange(2, 500)]}
    return {"files": files}


def _commands(chance: Chance, without: tuple[str, ...]) -> Arguments:
    if chance.random() < 0.3:
        return {"commands": [chance.choice(("make all", "ls -la", "git status", "Echo it."))]}
    return {"commands": [payloads.text(chance, without) or "ls" for _ in range(chance.randrange(1, 4))]}


def _flags(chance: Chance, without: tuple[str, ...]) -> Arguments:
    made: Arguments = {"enabled": chance.random() < 0.5, "level": chance.randrange(-9, 99)}
    return made | {"tags": ["a", "b c", 'd"e'][: chance.randrange(4)], "note": payloads.text(chance, without)}


def _nothing(chance: Chance, without: tuple[str, ...]) -> Arguments:
    return {}


KIT = (
    ToolKind("Write", _object(("file_path", "content"), file_path=STRING, content=STRING), _write),
    ToolKind(
        "Edit",
        _object(
            ("file_path", "old_string", "new_string"),
            file_path=STRING, old_string=STRING, new_string=STRING, replace_all={"type": "boolean", "default": False},
        ),
        _edit,
    ),
    ToolKind("Bash", _object(("command",), command=STRING, timeout={"type": "integer", "minimum": 0}), _bash),
    ToolKind(
        "search_code",
        _object(
            ("query", "kind", "filters"),
            query=STRING, kind={"type": "string", "enum": ["exact", "regex", "Fuzzy"]}, limit={"type": "integer"},
            filters=_object(
                ("languages",),
                languages=STRINGS, deep={"type": "boolean"}, ratio={"type": "number"}, note=STRING,
            ),
        ),
        _search,
    ),
    ToolKind("tool_call", _object(("name", "arguments"), name=STRING, arguments={"type": "object"}), _nested),
    ToolKind(
        "read_files",
        _object(
            ("files",),
            files={
                "type": "array", "minItems": 1,
                "items": _object(("path",), path=STRING, lines={"type": "array", "items": {"type": "integer"}}),
            },
        ),
        _files,
    ),
    ToolKind("run_commands", _object(("commands",), commands=STRINGS), _commands),
    ToolKind(
        "mcp__flags__set",
        _object(
            ("enabled", "level"),
            enabled={"type": "boolean"}, level={"type": "integer"}, tags=STRINGS, note=STRING,
        ),
        _flags,
    ),
    ToolKind("list_tasks", _object(), _nothing),
)  # fmt: skip
BY_NAME = {tool.name: tool for tool in KIT}
