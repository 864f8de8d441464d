"""The simulated model gives the JSON that its prompt demands, valid by the schema, or bad JSON when told to."""

import json
from typing import Any

import jsonschema_rs
import pytest

from qwen_proxy.simulator.schemas import demanded, instance
from tests.unit.simulator.test_acting import answered

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 30}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMAS: list[dict[str, Any]] = [
    PERSON,
    {"type": "array", "items": {"$ref": "#/$defs/p"}, "minItems": 2, "$defs": {"p": PERSON}},
    {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"a": {"const": 7}}, "required": ["a", "b"]}]},
    {"allOf": [{"$ref": "#/definitions/x"}, {"required": ["n"]}], "definitions": {"x": {"properties": {"n": {}}}}},
    {"type": ["null", "string"], "format": "date-time"},
    {"type": "string", "minLength": 30, "maxLength": 31},
    {"type": "string", "maxLength": 2},
    {"type": "number", "exclusiveMinimum": 99.5},
    {"type": "integer", "exclusiveMaximum": 10, "multipleOf": 3},
    {"type": "object", "properties": {"on": {"type": "boolean"}, "kind": {"enum": ["b", "a"]}, "x": True}},
    {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "v": {"type": "null"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "all": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["v"],
            }
        },
    },
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_answer_keeps_to_the_schema(schema: dict[str, Any]) -> None:
    prompt = f"Reply with JSON only, by this schema:\n{json.dumps(schema, indent=1)}\n[[user e784]]\nWho is it?"
    value = json.loads(answered(prompt).text)
    jsonschema_rs.validate(schema, value)


def test_strings_repeat_what_was_said() -> None:
    assert instance(PERSON, "Ada") == {"name": "Ada", "age": 30}


def test_only_a_demand_makes_json() -> None:
    assert demanded("Explain what JSON is to me.") is None
    assert demanded("Reply with a single JSON object, nothing else.") == {}
    assert demanded("Write a parser of JSON.\nYou may want to return JSON alone, some day.") is None
    again = f"Reply with one JSON value alone:\n{json.dumps(PERSON)}\nWho?\nNo. Reply once more, with the JSON alone."
    assert demanded(again) == PERSON
    assert json.loads(answered("Reply with JSON only.\n[[user e784]]\nhello").text) == {"answer": "hello"}


@pytest.mark.parametrize("kind", ["fence", "prose", "cut", "comma", "quotes", "none", "invalid"])
def test_bad_json_comes_once(kind: str) -> None:
    seen = set[str]()
    prompt = f"Reply with JSON only.\n[[user e784]]\n[[sim json {PERSON_SAID}]] [[sim bad-json {kind} once]]"
    assert answered(prompt, seen).text != PERSON_SAID
    assert answered(prompt + "\n[[end e784]]\nThat was no JSON.", seen).text == PERSON_SAID


PERSON_SAID = '{"name": "Ada", "age": 3}'
