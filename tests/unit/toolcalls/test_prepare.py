"""Arguments that a schema lets pass, out of what a model wrote."""

import pytest

from qwen_proxy.chat.request import Tool
from qwen_proxy.toolcalls.prepare import Prepared, from_pairs, from_value, parameter_value
from qwen_proxy.toolcalls.repair import repaired
from qwen_proxy.toolcalls.toolbox import OfferedTool
from tests.support.calls import TOOLBOX, object_schema

READ = TOOLBOX.tools["Read"]
NO_INTEGER = 'limit: "x" is not of type "integer"'
NO_PATH = '"file_path" is a required property'
MIXED = OfferedTool(
    Tool(
        "mixed",
        parameters=object_schema(
            maybe={"type": ["string", "null"]},
            kind={"type": "string", "enum": ["one", "two"]},
            tags={"type": "array", "items": {"type": "string"}},
            code={"type": "string", "pattern": "^x"},
        ),
    )
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"file_path": "a"}', Prepared('{"file_path": "a"}')),
        ('{"file_path": "a", "limit": "5"}', Prepared('{"file_path":"a","limit":5}', ("type",))),
        ('{"filepath": "a"}', Prepared('{"file_path":"a"}', ("key",))),
        ('"{\\"file_path\\": \\"a\\"}"', Prepared('{"file_path": "a"}', ("stringified",))),
        ('"a"', Prepared('"a"', (), ("the arguments are no object",))),
        ("[1]", Prepared("[1]", (), ("the arguments are no object",))),
        ("{}", Prepared("{}", (), ('"file_path" is a required property',))),
        ("null", Prepared("{}", (), ('"file_path" is a required property',))),
        ('{"limit": "x"}', Prepared('{"limit": "x"}', (), (NO_INTEGER, NO_PATH))),
    ],
)  # fmt: skip
def test_whole_arguments(text: str, expected: Prepared) -> None:
    prepared = from_value(READ, repaired(text))
    assert (prepared.arguments, prepared.repairs) == (expected.arguments, expected.repairs)
    assert set(prepared.errors) == set(expected.errors)


def test_pairs_take_the_first_of_equal_keys() -> None:
    assert from_pairs(READ, [("file_path", "a"), ("limit", "5"), ("file_path", "b")]) == Prepared(
        '{"file_path":"a","limit":5}', ("duplicate_key",)
    )


def test_pairs_with_a_misspelt_key() -> None:
    assert from_pairs(READ, [("filePath", "a")]) == Prepared('{"file_path":"a"}', ("key",))


def test_a_key_of_a_tool_that_takes_any_is_never_misspelt() -> None:
    tool = OfferedTool(Tool("t", parameters=object_schema(path={"type": "string"}) | {"additionalProperties": True}))
    assert from_pairs(tool, [("pathh", "a b")]) == Prepared('{"pathh":"a b"}', ("unquoted",))


@pytest.mark.parametrize(
    ("key", "text", "value", "repairs"),
    [
        ("maybe", "null", None, ()),
        ("maybe", '"x"', "x", ()),
        ("maybe", "x y", "x y", ("unquoted",)),
        ("maybe", "12", "12", ("type",)),
        ("maybe", '{"a": 1}', '{"a":1}', ("type",)),
        ("maybe", "'x'", "'x'", ("unquoted",)),
        ("kind", "one", "one", ()),
        ("kind", ' "ONE"\n', "one", ("enum",)),
        ("kind", "three", "three", ()),
        ("tags", '["a"]', ["a"], ()),
        ("tags", "a", ["a"], ("unquoted", "type")),
        ("tags", "['a',]", ["a"], ("quotes", "commas")),
        ("tags", '["a"] x', '["a"] x', ("unquoted",)),
        ("tags", "5", ["5"], ("type",)),
        ("code", "y", "y", ()),
        ("other", "{'a': 1}", {"a": 1}, ("quotes",)),
        ("other", "a, b", "a, b", ("unquoted",)),
    ],
)  # fmt: skip
def test_one_parameter(key: str, text: str, value: object, repairs: tuple[str, ...]) -> None:
    decoded = parameter_value(MIXED, key, text)
    assert (decoded.value, decoded.repairs) == (value, repairs)
