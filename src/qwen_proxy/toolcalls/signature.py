"""Tools as text: signatures like TypeScript's, a line a parameter. Pure.

    ## Write
    Writes a file.

    Write(
      file_path: string, // The absolute path; minLength 1
      mode?: "append" | "replace", // default "replace"
    )

A schema is the client's and may be hostile: depth and the number of places looked at are bounded, and what lies beyond
is `any`. A `$ref` is inlined where it comes first and named where it comes again, so no schema grows without end.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypeGuard

from msgspec import Struct

from qwen_proxy.chat.request import Tool
from qwen_proxy.ground.errors import UnsupportedParameter

WHOLE_BYTES: Final = 24 * 1024
BRIEF_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 16
MAX_PLACES: Final = 10_000  # of one tool's schema
BRIEF_CHARACTERS: Final = 240  # of a sentence in the brief text
BOUNDS: Final = (
    "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
    "format", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties",
)  # fmt: skip
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_$][\w$-]*")
_SENTENCE: Final = re.compile(r"(.+?[.!?])(?=\s|$)", re.DOTALL)


class Tier(StrEnum):
    """How much of the tools' own words is told."""

    WHOLE = "T0"
    BRIEF = "T1"  # of each description the first sentence; no examples


class Described(Struct, frozen=True):
    """`size_bytes` is the text's, in UTF-8."""

    text: str
    tier: Tier
    size_bytes: int


def describe(tools: Sequence[Tool]) -> Described:
    """The tools' text, in the first tier that it fits. Raises UnsupportedParameter when it fits none."""
    size_bytes = 0
    for tier, limit in ((Tier.WHOLE, WHOLE_BYTES), (Tier.BRIEF, BRIEF_BYTES)):
        text = "\n\n".join(signature(tool, tier) for tool in tools)
        size_bytes = len(text.encode(errors="surrogatepass"))
        if size_bytes <= limit:
            return Described(text, tier, size_bytes)
    raise UnsupportedParameter(
        f"tools: {len(tools)} tools take {size_bytes} bytes of the prompt with their descriptions cut to one sentence; "
        f"at most {BRIEF_BYTES} can be sent to this model. Offer fewer tools, or shorter schemas.",
        param="tools",
    )


def signature(tool: Tool, tier: Tier) -> str:
    told = tool.description.strip() if tier is Tier.WHOLE else _first_sentence(tool.description)
    head = f"## {tool.name}\n{told}\n\n" if told else f"## {tool.name}\n"
    writer = _Writer(tool.parameters or {}, tier)
    return f"{head}{tool.name}({writer.parameters()})"


class _Writer:
    """One tool's schema."""

    def __init__(self, root: Mapping[str, Any], tier: Tier) -> None:
        self._root = root
        self._tier = tier
        self._places = 0
        self._named: set[str] = set()

    def parameters(self) -> str:
        lines = list(self._members(self._resolved(self._root), 1))
        return "\n" + "".join(f"  {line}\n" for line in lines) if lines else ""

    def _members(self, schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        properties = schema.get("properties")
        required = _array(schema.get("required"))
        indent = "  " * depth
        for name, of in _object(properties).items():
            inner = self._type(of, depth + 1)
            shown = name if _PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False)
            notes = "; ".join(self._notes(of))
            line = f"{shown}{'' if name in required else '?'}: {inner},{' // ' + notes if notes else ''}"
            yield line.replace("\n", "\n" + indent) if depth == 1 else line

    # --- types

    def _type(self, schema: object, depth: int) -> str:
        """An expression of one line, or an object's of several, indented from its own start."""
        self._places += 1
        if schema is False:
            return "never"
        if not _is_object(schema) or depth > MAX_DEPTH or self._places > MAX_PLACES:
            return "any"
        if isinstance(pointer := schema.get("$ref"), str):
            return self._reference(pointer, depth)
        kinds = self._kinds(schema, depth)
        if schema.get("nullable") is True:
            kinds = [*kinds, "null"]
        return " | ".join(dict.fromkeys(kinds))

    def _reference(self, pointer: str, depth: int) -> str:
        name = pointer.rpartition("/")[2] or "root"
        target = self._at(pointer)
        if pointer in self._named or target is None:
            return name
        self._named.add(pointer)
        return f"{self._type(target, depth + 1)} /* {name} */"

    def _kinds(self, schema: Mapping[str, Any], depth: int) -> list[str]:
        """The members of a union."""
        if "const" in schema:
            return [_literal(schema["const"])]
        if values := _array(schema.get("enum")):
            return [_literal(value) for value in values]
        for keyword in ("anyOf", "oneOf"):
            if (choices := _array(schema.get(keyword))) and not _object(schema.get("properties")):
                return [self._type(choice, depth + 1) for choice in choices]
        if parts := _array(schema.get("allOf")):
            return [" & ".join(_in_brackets(self._type(part, depth + 1), "|") for part in parts)]
        said = schema.get("type") or ("object" if "properties" in schema else "array" if "items" in schema else "")
        kinds = _array(said) or [said]
        return [self._kind(kind, schema, depth) for kind in kinds]

    def _kind(self, kind: object, schema: Mapping[str, Any], depth: int) -> str:
        if kind == "array":
            return self._array_type(schema, depth)
        if kind == "object":
            return self._object_type(schema, depth)
        return kind if isinstance(kind, str) and kind else "any"

    def _array_type(self, schema: Mapping[str, Any], depth: int) -> str:
        if places := _array(schema.get("prefixItems")):
            return f"[{', '.join(self._type(place, depth + 1) for place in places)}]"
        return f"{_in_brackets(self._type(schema.get('items'), depth + 1), '|&')}[]"

    def _object_type(self, schema: Mapping[str, Any], depth: int) -> str:
        members = list(self._members(schema, depth + 1))
        if not members:
            values = schema.get("additionalProperties")
            return f"{{[key: string]: {self._type(values, depth + 1)}}}" if _is_object(values) else "object"
        if any("//" in line or "\n" in line for line in members):
            inner = "".join(f"  {line}\n".replace("\n", "\n  ").removesuffix("  ") for line in members)
            return f"{{\n{inner}}}"
        return f"{{{' '.join(members).removesuffix(',')}}}"

    # --- notes

    def _notes(self, schema: object) -> Iterator[str]:
        if not _is_object(schema):
            return
        brief = self._tier is Tier.BRIEF
        told = schema.get("description")
        schema = {**self._resolved(schema), **schema}
        told = told if isinstance(told, str) else schema.get("description")
        if isinstance(told, str) and (told := _first_sentence(told) if brief else " ".join(told.split())):
            yield told
        yield from self._bounds(schema)
        if bounds := ", ".join(self._bounds(_object(schema.get("items")))):
            yield f"each: {bounds}"
        if "default" in schema:
            yield f"default {_literal(schema['default'])}"
        if not brief and (examples := _array(schema.get("examples"))):
            yield f"e.g. {', '.join(_literal(example) for example in examples)}"

    def _bounds(self, schema: Mapping[str, Any]) -> Iterator[str]:
        for keyword in BOUNDS:
            if (value := schema.get(keyword)) is not None and value is not False:
                yield keyword if value is True else f"{keyword} {value if isinstance(value, str) else _literal(value)}"

    # --- references

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a schema that is nothing but a reference stands for; one step, which is what clients write."""
        pointer = schema.get("$ref")
        return schema if not isinstance(pointer, str) else self._at(pointer) or schema

    def _at(self, pointer: str) -> Mapping[str, Any] | None:
        if not pointer.startswith("#"):
            return None  # nothing is fetched
        place: object = self._root
        for step in pointer[1:].split("/")[1:]:
            place = _object(place).get(step.replace("~1", "/").replace("~0", "~"))
        return place if _is_object(place) else None


def _first_sentence(text: str) -> str:
    text = " ".join(text.split())
    found = _SENTENCE.match(text)
    text = found[1] if found else text
    return text if len(text) <= BRIEF_CHARACTERS else text[: BRIEF_CHARACTERS - 1] + "…"


def _in_brackets(expression: str, operators: str) -> str:
    """An expression that an operator stands in, outside of inner brackets, in brackets of its own."""
    depth = 0
    for index, character in enumerate(expression):
        if character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
        elif not depth and character in operators and expression[index - 1 : index + 2] == f" {character} ":
            return f"({expression})"
    return expression


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _object(value: object) -> dict[str, Any]:
    return value if _is_object(value) else {}


def _is_array(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _array(value: object) -> list[Any]:
    return value if _is_array(value) else []
