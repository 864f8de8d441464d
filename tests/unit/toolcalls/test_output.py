"""JSON demanded of a model that knows no formats."""

from typing import Any

import pytest

from qwen_proxy.chat.request import OutputFormat
from qwen_proxy.ground.errors import InvalidRequest, UnsupportedParameter
from qwen_proxy.toolcalls.output import JsonPrefix, OutputCheck, hint

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
OF_SCHEMA = OutputCheck(OutputFormat(schema=SCHEMA))
ANY = OutputCheck(OutputFormat())


@pytest.mark.parametrize(
    ("text", "expected", "repairs"),
    [
        ('{"a":1}', '{"a":1}', ()),
        (' \n{ "a" : 1 }\n', '{ "a" : 1 }', ()),
        ('```json\n{"a":1}\n```', '{"a":1}', ("debris",)),
        ('Here it is:\n```json\n{"a":1}\n```\nAnything else?', '{"a":1}', ("prose",)),
        ('Sure! {"a": 1} Done.', '{"a": 1}', ("prose",)),
        ("{'a': 1,}", '{"a":1}', ("quotes", "commas")),
        ('{"a": "1"}', '{"a":1}', ("type",)),
        ('{"a":1', '{"a":1}', ("closed",)),
        ('{"a":1} [[1]][[2]]', '{"a":1}', ("prose",)),
        ('Found: {"a":1}\n[[12]]\n', '{"a":1}', ("prose",)),
        ('```json\n{"a":1}\n``` [[1]]', '{"a":1}', ("prose",)),
    ],
)
def test_what_is_meant_is_found(text: str, expected: str, repairs: tuple[str, ...]):
    fitted = OF_SCHEMA.fit(text)
    assert (fitted.text, fitted.repairs, fitted.errors) == (expected, repairs, ())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "it is empty"),
        ('{"a":"x"}', 'a: "x" is not of type "integer"'),
        ("[1]", '[1] is not of type "object"'),
        ("I can not do that.", "it is not JSON"),
        ('Look: {"b": 1} and {"c": 2}', "it is not JSON"),
        ('See {"b": 1} here', '"a" is a required property'),
        ('{"b": 1} or [{"a": 1} or {"a" }', "it is not JSON"),
        ('{"a": 1} {"a": 2}', "it is not JSON"),
    ],
)
def test_what_is_not_valid_is_refused_with_its_errors(text: str, error: str):
    assert any(error in told for told in OF_SCHEMA.fit(text).errors)


def test_an_array_that_looks_like_a_mark_of_a_source_is_one():
    assert OutputCheck(OutputFormat(schema={"type": "array"})).fit("[[1]]").text == "[[1]]"


def test_without_a_schema_any_object_will_do():
    assert ANY.fit('{"x": [1]}').errors == ()
    assert ANY.fit("[1]").errors == ("it is not a JSON object",)


def test_the_model_is_told_the_schema_and_what_was_wrong():
    assert OF_SCHEMA.instruction(has_tools=False).startswith("Reply with one JSON value alone")
    assert OF_SCHEMA.instruction(has_tools=False).endswith('"additionalProperties": false}')
    assert "tools" in ANY.instruction(has_tools=True) and "\n" not in ANY.instruction(has_tools=True)
    assert hint(("one", "two")).splitlines()[1:3] == ["- one", "- two"]


def test_schemas_beyond_all_bounds_are_refused():
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"items": deep}
    with pytest.raises(InvalidRequest, match="nests deeper"):
        OutputCheck(OutputFormat(schema=deep))
    with pytest.raises(UnsupportedParameter, match="more than 65536 bytes"):
        OutputCheck(OutputFormat(schema={"description": "x" * 70_000}))


def test_a_schema_that_can_not_be_checked_is_refused_only_where_the_schema_was_promised():
    uncheckable: dict[str, Any] = {"$ref": "https://example.com/elsewhere"}
    with pytest.raises(UnsupportedParameter, match="can't be checked"):
        OutputCheck(OutputFormat(schema=uncheckable, strict=True))
    assert OutputCheck(OutputFormat(schema=uncheckable)).fit("[1]").errors == ()


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (['{"a', '": "}', '\\"', ']"}', " more {"], '{"a": "}\\"]"}'),
        (["Here: ", "[1, {", "}]", "x"], "[1, {}]"),
        (['{"a": "\\', '"}', '"}x'], '{"a": "\\"}"}'),
        (['{"a": \\n ', "}"], '{"a": \\n }'),
        (["nothing"], ""),
    ],
)
def test_a_value_is_let_through_as_it_comes(pieces: list[str], expected: str):
    prefix = JsonPrefix()
    assert "".join(prefix.feed(piece) for piece in pieces) == expected
    assert prefix.has_ended == bool(expected)
