"""Values made to fit their schemas."""

from typing import Any

import pytest

from qwen_proxy.toolcalls.coercion import Coercion, close_key
from qwen_proxy.toolcalls.schemas import Schema
from tests.support.calls import object_schema

S = {"type": "string"}
I = {"type": "integer"}  # noqa: E741
N = {"type": "number"}
B = {"type": "boolean"}


@pytest.mark.parametrize(
    ("value", "schema", "expected", "reasons"),
    [
        ("5", I, 5, ["type"]),
        ("1_000", I, 1000, ["type"]),
        ("5.0", I, 5, ["type"]),
        (5.0, I, 5.0, []),
        ("5.5", I, "5.5", []),
        ("1.5", N, 1.5, ["type"]),
        ("7", N, 7, ["type"]),
        ("many", N, "many", []),
        ("True", B, True, ["type"]),
        ("no", B, False, ["type"]),
        ("maybe", B, "maybe", []),
        (1, B, True, ["type"]),
        (2, B, 2, []),
        (5, S, "5", ["type"]),
        (True, S, "true", ["type"]),
        ({"a": 1}, S, '{"a":1}', ["type"]),
        (float("inf"), S, float("inf"), []),
        (None, S, None, []),
        ("none", {"type": ["integer", "null"]}, None, ["type"]),
        (None, {"type": "null"}, None, []),
        ('["a"]', {"type": "array", "items": S}, ["a"], ["type"]),
        ("a", {"type": "array", "items": S}, ["a"], ["type"]),
        ("a", {"type": "array"}, ["a"], ["type"]),
        (3, {"type": "array", "items": S}, 3, []),
        (None, {"type": "array", "items": S}, None, []),
        ("{'a': 1}", {"type": "object"}, {"a": 1}, ["type"]),
        (["5"], {"type": "array", "items": I}, [5], ["type"]),
        (["5"], {"type": "array"}, ["5"], []),
        (["5"], {"anyOf": [{"type": "array", "items": I}, {"type": "null"}]}, [5], ["type"]),
        ("READ_only", {"enum": ["read-only", "write"]}, "read-only", ["enum"]),
        ("write", {"enum": ["read-only", "write"]}, "write", []),
        ("other", {"enum": ["read-only", 5]}, "other", []),
        ({"a": 1}, {"type": "object"}, {"a": 1}, []),
        ({"filepath": "x"}, object_schema(file_path=S), {"file_path": "x"}, ["key"]),
        ({"fil_path": "x"}, object_schema(file_path=S), {"file_path": "x"}, ["key"]),
        ({"path_": "x", "path": "y"}, object_schema(path=S), {"path_": "x", "path": "y"}, []),
        ({"filepath": "x"}, object_schema(file_path=S) | {"additionalProperties": True}, {"filepath": "x"}, []),
        ({"a": None}, object_schema(a=S), {}, ["null"]),
        ({"a": None}, object_schema(("a",), a=S), {"a": None}, []),
        ({"a": None}, object_schema(a={"type": ["string", "null"]}), {"a": None}, []),
        ({"a": "5", "z": "5"}, object_schema(a=I), {"a": 5, "z": "5"}, ["type"]),
        ({"a": {"b": ["1"]}}, object_schema(a=object_schema(b={"items": I})), {"a": {"b": [1]}}, ["type"]),
        ({"a": "5"}, object_schema(a=I) | {"required": "a"}, {"a": 5}, ["type"]),
    ],
)
def test_coercion(value: Any, schema: Schema, expected: Any, reasons: list[str]) -> None:
    coercion = Coercion(schema)
    fitted = coercion.value(value, schema)
    assert (fitted, type(fitted)) == (expected, type(expected))
    assert coercion.reasons == reasons


def test_values_nested_too_deeply_are_left() -> None:
    value: Any = "5"
    for _ in range(20):
        value = [value]
    schema: Schema = {"type": ["array", "integer"], "items": {"$ref": "#"}}
    assert Coercion(schema).value(value, schema) == value


def test_guesses_and_items_are_bounded() -> None:
    schema = object_schema(file_path=S, items={"type": "array", "items": I})
    many = {f"wrong{number}": 1 for number in range(40)} | {"filepath": "x", "items": ["5"] * 10_001}
    assert Coercion(schema).value(many, schema) == many


def test_a_key_that_may_mean_two_is_left() -> None:
    assert close_key("file_pat", ["file_path", "file_patt"]) is None
    assert close_key("x" * 100, ["x"]) is None
    assert close_key("new", ["old"]) is None
