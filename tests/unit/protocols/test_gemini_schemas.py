"""Schemas in Gemini's dialect become JSON Schema."""

from typing import Any

import pytest

from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.protocols.gemini_schemas import MOST_DEEP, json_schema

STRING = {"type": "STRING"}


@pytest.mark.parametrize(
    ("dialect", "schema"),
    [
        ({"type": "OBJECT", "properties": {"type": STRING}, "required": ["type"], "propertyOrdering": ["type"]},
         {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}),
        ({"type": "ARRAY", "items": STRING, "minItems": "1", "maxItems": 3},
         {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3}),
        ({"type": "STRING", "nullable": True, "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"type": "INTEGER", "nullable": True}, {"type": ["integer", "null"]}),
        ({"anyOf": [STRING, True], "nullable": True},
         {"anyOf": [{"anyOf": [{"type": "string"}, True]}, {"type": "null"}]}),
        ({"type": "TYPE_UNSPECIFIED", "nullable": False, "description": None}, {}),
        ({"type": "OBJECT", "additionalProperties": False, "properties": {"a": True}},
         {"type": "object", "additionalProperties": False, "properties": {"a": True}}),
        ({"ref": "#/$defs/a", "defs": {"a": STRING}, "example": "x"},
         {"ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}, "examples": ["x"]} | {"$ref": "#/$defs/a"}),
        ({"type": ["string", "null"], "minLength": "some"}, {"type": ["string", "null"], "minLength": "some"}),
        ({"type": "object", "properties": {"a": {"type": "string"}}},
         {"type": "object", "properties": {"a": {"type": "string"}}}),
    ],
)  # fmt: skip
def test_words_become_those_of_json_schema(dialect: dict[str, Any], schema: dict[str, Any]) -> None:
    schema = {name: value for name, value in schema.items() if name != "ref"}
    assert json_schema(dialect, "p") == schema


def test_what_is_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(MOST_DEEP + 1):
        schema = {"type": "ARRAY", "items": schema}
    with pytest.raises(InvalidRequest) as refused:
        json_schema(schema, "tools[0]")
    assert refused.value.param == "tools[0]"
