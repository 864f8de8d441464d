"""Structured output: finds in a prompt the JSON Schema an answer has to keep to, and makes a value that does."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from qwen_proxy.simulator.offers import json_object

Schema = Mapping[str, Any]

DEPTH = 12
"""Beyond it only what is required is filled, and a reference to itself ends."""

_NEAR = 300
_DEMAND = re.compile(
    r"(?:^|(?<=[.:!] ))(?:Reply|Respond|Answer|Return|Output|Give|Write|Produce)\b[^\n{]*\bJSON\b[^\n{]*", re.MULTILINE
)
_ONLY = re.compile(r"\b(?:only|alone|nothing (?:else|but)|exactly|bare|single)\b", re.IGNORECASE)
_OPENING = re.compile(r'\{\s*"|\{\s*\}')
_SCHEMA_KEYS: Final = ("type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "$schema", "items")
FORMATS: Final = {
    "date": "2026-11-24",
    "date-time": "2026-11-24T10:00:00Z",
    "time": "10:00:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "7f3a7f3a-7f3a-4f3a-8f3a-7f3a7f3a7f3a",
    "ipv4": "192.0.2.1",
}


def demanded(prompt: str) -> Schema | None:
    """The schema that the prompt demands; `{}` for any JSON object; None if it demands no JSON.

    It demands JSON with a sentence that begins with `Reply` or the like and speaks of JSON alone. The schema is the
    JSON object right behind such a sentence; the last one that has it counts.
    """
    found: Schema | None = None
    for sentence in _DEMAND.finditer(prompt):
        if _ONLY.search(sentence[0]) is not None:
            found = _schema(prompt, sentence.end()) or found or {}
    return found


def _schema(prompt: str, start: int) -> Schema:
    """The JSON object that begins within some 300 characters, if it reads as a schema; else an empty one."""
    opening = _OPENING.search(prompt, start, start + _NEAR)
    if opening is None:
        return {}
    try:
        value: object = json.JSONDecoder().raw_decode(prompt, opening.start())[0]
    except ValueError:
        return {}
    schema = json_object(value)
    return schema if any(key in schema for key in _SCHEMA_KEYS) else {}


def instance(schema: Schema, said: str = "simulated") -> object:
    """A value of the schema. Strings repeat what was said, where they may."""
    return _Maker(schema, said).value(schema, 0)


class _Maker:
    def __init__(self, root: Schema, said: str) -> None:
        self._root = root
        self._said = said

    def value(self, schema: Schema | bool, depth: int) -> object:
        if isinstance(schema, bool) or not schema:
            return self._said if depth else {"answer": self._said}
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        if "$ref" in schema:
            return self.value(self._resolved(str(schema["$ref"])), depth + 1) if depth < 4 * DEPTH else None
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self._either(schema[key], depth)
        if schema.get("allOf"):
            merged: dict[str, Any] = {}
            for part in schema["allOf"]:
                merged |= self._resolved(part["$ref"]) if "$ref" in part else part
            return self.value(merged | {key: value for key, value in schema.items() if key != "allOf"}, depth + 1)
        return self._of_type(schema, depth)

    def _either(self, choices: list[Schema], depth: int) -> object:
        """The first choice that is not null, unless it goes too deep."""
        real = [choice for choice in choices if choice.get("type") != "null"]
        if depth > DEPTH and len(real) < len(choices):
            return None
        return self.value((real or choices)[0], depth + 1)

    def _of_type(self, schema: Schema, depth: int) -> object:
        kind = _kind(schema)
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                count = max(int(schema.get("minItems", 1 if depth < DEPTH else 0)), 0)
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._text(schema)

    def _object(self, schema: Schema, depth: int) -> dict[str, object]:
        properties: Schema = schema.get("properties") or {}
        required: list[str] = schema.get("required") or []
        names = list(properties) if depth < DEPTH else [name for name in properties if name in required]
        made = {name: self.value(properties[name], depth + 1) for name in names}
        return made | {name: self._said for name in required if name not in made}

    def _text(self, schema: Schema) -> str:
        text = FORMATS.get(str(schema.get("format")), self._said)
        text += "." * (int(schema.get("minLength", 0)) - len(text))
        most = schema.get("maxLength")
        return text if most is None else text[: int(most)]

    def _resolved(self, reference: str) -> Schema:
        found: Any = self._root
        for key in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(key.replace("~1", "/").replace("~0", "~"), {}) if key else found
        return found


def _kind(schema: Schema) -> str:
    """The type, or the first of several that is not null."""
    told: object = schema.get("type", "object" if "properties" in schema else "string")
    kinds = [told] if isinstance(told, str) else msgspec.convert(told, list[str])
    return next((kind for kind in kinds if kind != "null"), "null")


def _number(schema: Schema, *, whole: bool) -> object:
    lowest: Any = schema.get("minimum", schema.get("exclusiveMinimum"))
    highest: Any = schema.get("maximum", schema.get("exclusiveMaximum"))
    value: float = 42
    if lowest is not None and value <= lowest:
        value = lowest + ("exclusiveMinimum" in schema)
    elif highest is not None and value >= highest:
        value = highest - ("exclusiveMaximum" in schema)
    step: Any = schema.get("multipleOf")
    if step:
        value = -(-value // step) * step
    return int(value) if whole or float(value).is_integer() else value
