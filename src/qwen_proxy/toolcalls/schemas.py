"""What a tool's schema says: which JSON types a place may hold, and a validator that no schema can make slow. Pure.

Schemas are hostile input. One that is too deep or too large is refused; one that can't be checked in bounded time, or
not at all, leaves its tool unchecked: the client sees what the model wrote.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple, cast

import jsonschema_rs

MAX_SCHEMA_DEPTH: Final = 64
MAX_SCHEMA_NODES: Final = 20_000
MAX_CHECKS: Final = 50_000  # places of the schema, references followed, that one value may be held against
MAX_ERRORS: Final = 8
MAX_ERROR_CHARACTERS: Final = 300
MAX_REFERENCES: Final = 8
_LINEAR: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)
_ALL_TYPES: Final = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})
_TYPE_NAMES: Final[dict[type, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}
_SAME_PLACE: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})
_CONSTRAINTS: Final = frozenset(
    {"enum", "const", "pattern", "minLength", "maxLength", "format", "not", "allOf", "if", "then", "else", "$ref"}
)

Schema = dict[str, Any]  # JSON enters here


class Refused(Exception):
    """The schema is deeper or larger than any honest one; the text says what the limit is."""


class Compiled(NamedTuple):
    """errors: what is wrong with a value, empty if nothing. unchecked: why there is no check, empty if there is one."""

    errors: Callable[[object], tuple[str, ...]]
    unchecked: str


def measured(schema: Schema) -> None:
    """Raises Refused if the schema is too deep or too large."""
    level: list[object] = [schema]
    nodes = 0
    for _ in range(MAX_SCHEMA_DEPTH):
        nodes += len(level)
        if nodes > MAX_SCHEMA_NODES:
            raise Refused(f"its schema has more than {MAX_SCHEMA_NODES} parts")
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise Refused(f"its schema nests deeper than {MAX_SCHEMA_DEPTH} levels")


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(cast(dict[str, object], node).values())
    return list(cast(list[object], node)) if isinstance(node, list) else []


def compiled(schema: Schema) -> Compiled:
    """The check of values against a schema that `measured` let pass."""
    try:
        checks, recursive = _cost(schema)
    except _TooDear:
        return Compiled(_no_errors, "it would take too long to check")
    schema = {key: value for key, value in schema.items() if key != "$schema"}
    unchecked = ""
    for candidate in (schema, _without_patterns(schema)):
        try:
            validator = jsonschema_rs.validator_for(
                candidate, pattern_options=_LINEAR, offline=True, validate_formats=False
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            unchecked = str(error).partition("\n")[0][:MAX_ERROR_CHARACTERS]
            continue
        return Compiled(_Check(validator, _depth_limit(checks, recursive)).errors, "")
    return Compiled(_no_errors, unchecked)


def _no_errors(value: object) -> tuple[str, ...]:
    return ()


class _Check:
    def __init__(self, validator: jsonschema_rs.Validator, depth: int) -> None:
        self._validator = validator
        self._depth = depth

    def errors(self, value: object) -> tuple[str, ...]:
        """What is wrong, each with its place; nothing for a value nested so deeply that a check may take too long."""
        if depth_of(value, self._depth) > self._depth or self._validator.is_valid(value):
            return ()
        found = islice(self._validator.iter_errors(value), MAX_ERRORS)
        return tuple(_told(list(error.instance_path), error.message) for error in found)


def _told(path: list[str | int], message: str) -> str:
    where = ".".join(str(step) for step in path)
    return f"{where}: {message}"[:MAX_ERROR_CHARACTERS] if where else message[:MAX_ERROR_CHARACTERS]


def depth_of(value: object, limit: int) -> int:
    """How deep arrays and objects nest, counted up to one more than `limit`."""
    depth, level = 0, [value]
    while depth <= limit:
        level = [child for node in level for child in _children(node)]
        if not level:
            return depth
        depth += 1
    return depth


class _TooDear(Exception):
    pass


def _cost(schema: Schema) -> tuple[int, int]:
    """How many places one value may be held against, references followed; and how many references lead back.

    Raises _TooDear beyond MAX_CHECKS, or if a reference leads back without going into the value.
    """
    places = recursive = 0
    todo: list[tuple[object, frozenset[str], frozenset[str]]] = [(schema, frozenset(), frozenset())]
    while todo:
        node, above, here = todo.pop()
        places += 1
        if places > MAX_CHECKS:
            raise _TooDear
        if isinstance(node, list):
            todo.extend((child, above, here) for child in cast(list[object], node))
        if not isinstance(node, dict):
            continue
        for key, child in cast(Schema, node).items():
            if key in ("$ref", "$dynamicRef") and isinstance(child, str):
                if child in here:
                    raise _TooDear
                if child in above:
                    recursive += 1
                else:
                    todo.append((_target(schema, child), above | {child}, here | {child}))
            elif key in _SAME_PLACE:
                todo.append((child, above, here))
            elif key not in ("$defs", "definitions"):
                todo.append((child, above, frozenset()))
    return places, recursive


def _depth_limit(places: int, recursive: int) -> int:
    """How deep a value may nest so that all its checks stay below about MAX_CHECKS, doubling at each level at worst."""
    if recursive < 2:
        return MAX_SCHEMA_DEPTH
    depth, product = 0, places
    while product < MAX_CHECKS * 4:
        product *= recursive
        depth += 1
    return depth


def _target(root: Schema, reference: str) -> object:
    """What a reference within the schema points to; None if there is nothing, or it points elsewhere."""
    node: object = cast(object, root)
    if reference == "#":
        return node
    if not reference.startswith("#/"):
        return None
    for step in reference[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = cast(Schema, node).get(name)
        elif isinstance(node, list) and name.isdecimal() and int(name) < len(cast(list[object], node)):
            node = cast(list[object], node)[int(name)]
        else:
            return None
    return node


def _without_patterns(node: Any) -> Any:  # any JSON
    """The schema without regular expressions: a linear engine can't have lookarounds and the like."""
    if isinstance(node, dict):
        kept = cast(Schema, node).items()
        return {
            key: _without_patterns(value)
            for key, value in kept
            if not (key == "pattern" and isinstance(value, str)) and key != "patternProperties"
        }
    return [_without_patterns(item) for item in cast(list[object], node)] if isinstance(node, list) else node


def resolved(schema: object, root: Schema) -> Schema:
    """The schema with a reference at its top followed (up to 8 in a row); empty for what is no schema object."""
    for _ in range(MAX_REFERENCES):
        if not isinstance(schema, dict):
            return {}
        node = cast(Schema, schema)
        if not isinstance(reference := node.get("$ref"), str):
            return node
        schema = _target(root, reference)
    return {}


def alternatives(schema: Schema) -> Iterator[object]:
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list):
            yield from cast(list[object], options)


def types_of(schema: object, root: Schema, depth: int = 0) -> frozenset[str]:
    """The JSON types that the schema lets a value have; all of them where it does not say."""
    node = resolved(schema, root)
    declared = node.get("type")
    if isinstance(declared, str):
        return frozenset({declared})
    if isinstance(declared, list):
        return frozenset(str(name) for name in cast(list[object], declared))
    if isinstance(values := node.get("enum"), list) and values:
        return frozenset(_TYPE_NAMES[type(value)] for value in cast(list[object], values))
    if "const" in node:
        return frozenset({_TYPE_NAMES[type(node["const"])]})
    if depth < MAX_REFERENCES:
        if options := list(alternatives(node)):
            return frozenset(name for option in options for name in types_of(option, root, depth + 1))
        if isinstance(parts := node.get("allOf"), list) and parts:
            found = [types_of(part, root, depth + 1) for part in cast(list[object], parts)]
            return _ALL_TYPES.intersection(*found)
    if "properties" in node:
        return frozenset({"object"})
    return frozenset({"array"}) if "items" in node else _ALL_TYPES


def is_free_text(schema: object) -> bool:
    """Whether any string will do, so that one may be passed on before its end is seen."""
    return isinstance(schema, dict) and not _CONSTRAINTS & cast(Schema, schema).keys()
