"""Schemas in Gemini's dialect, a part of OpenAPI's, as JSON Schema. Pure.

Types are in capitals, `nullable` is a word of its own, and sizes may be strings, as protobuf writes its long integers.
Source: the API reference's `Schema`, as typed in the google-genai SDK 3.4.
"""

from typing import Any, Final, cast

from qwen_proxy.ground.errors import InvalidRequest

MOST_DEEP: Final = 60

_SIZES: Final = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_SCHEMAS: Final = frozenset({"items", "additionalProperties"})
_LISTS: Final = frozenset({"anyOf", "prefixItems"})
_MAPS: Final = frozenset({"properties", "defs", "$defs"})
_NAMES: Final = {"defs": "$defs", "ref": "$ref", "example": "examples"}
_LEFT_OUT: Final = frozenset({"nullable", "propertyOrdering"})

Schema = dict[str, Any]  # JSON enters here


def json_schema(schema: Schema, param: str, depth: int = 0) -> Schema:
    """Raises InvalidRequest for one that is nested too deeply; what it does not know stays as it is."""
    if depth > MOST_DEEP:
        raise InvalidRequest(f"{param} is nested too deeply", param=param)
    made = {
        _NAMES.get(name, name): _value(name, value, param, depth)
        for name, value in schema.items()
        if name not in _LEFT_OUT and value is not None and not (name == "type" and value == "TYPE_UNSPECIFIED")
    }
    if schema.get("nullable") is True:
        return _nullable(made)
    return made


def _value(name: str, value: Any, param: str, depth: int) -> Any:
    if name == "type" and isinstance(value, str):
        return value.lower()
    if name == "example":
        return [value]
    if name in _SIZES and isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:18])
    if name in _SCHEMAS and isinstance(value, dict):
        return json_schema(cast("Schema", value), param, depth + 1)
    if name in _LISTS and isinstance(value, list):
        return [_inner(each, param, depth) for each in cast("list[Any]", value)]
    if name in _MAPS and isinstance(value, dict):
        return {key: _inner(each, param, depth) for key, each in cast("Schema", value).items()}
    return value


def _inner(value: Any, param: str, depth: int) -> Any:
    return json_schema(cast("Schema", value), param, depth + 1) if isinstance(value, dict) else value


def _nullable(schema: Schema) -> Schema:
    """`enum` has to allow for null too."""
    if not isinstance(schema.get("type"), str):
        return {"anyOf": [schema, {"type": "null"}]}
    made = schema | {"type": [schema["type"], "null"]}
    if isinstance(schema.get("enum"), list):
        made["enum"] = [*schema["enum"], None]
    return made
