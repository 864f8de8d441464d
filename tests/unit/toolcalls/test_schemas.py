"""What schemas say, and that none of them makes a check slow or fail."""

import pytest

from qwen_proxy.toolcalls import schemas
from qwen_proxy.toolcalls.schemas import MAX_SCHEMA_DEPTH, MAX_SCHEMA_NODES, Refused, Schema, compiled, types_of

EMPTY: Schema = {}
NAMES = ("string", "integer", "number", "boolean", "array", "object", "null")


def nested(levels: int) -> Schema:
    schema: Schema = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def test_an_honest_schema_passes() -> None:
    schemas.measured(nested(10) | {"enum": [1, [2]]})


def test_too_deep_a_schema_is_refused() -> None:
    with pytest.raises(Refused, match=f"deeper than {MAX_SCHEMA_DEPTH}"):
        schemas.measured(nested(MAX_SCHEMA_DEPTH))


def test_too_large_a_schema_is_refused() -> None:
    with pytest.raises(Refused, match=f"more than {MAX_SCHEMA_NODES}"):
        schemas.measured({"enum": list(range(MAX_SCHEMA_NODES))})


def test_errors_name_their_place() -> None:
    schema = {"properties": {"a": {"items": {"type": "integer"}}}, "required": ["b"]}
    assert set(compiled(schema).errors({"a": ["x"]})) == {
        'a.0: "x" is not of type "integer"',
        '"b" is a required property',
    }
    assert compiled(schema).errors({"a": [1], "b": 2}) == ()


def test_at_most_eight_errors_of_bounded_length_are_told() -> None:
    errors = compiled({"items": {"const": "x" * 1000}}).errors(list(range(100)))
    assert len(errors) == 8
    assert all(len(error) <= 300 for error in errors)


def test_a_pattern_is_matched_in_linear_time() -> None:
    schema = compiled({"pattern": "^(a+)+$"})
    assert schema.errors("a" * 100_000) == ()
    assert schema.errors("a" * 50_000 + "b")


def test_a_pattern_that_no_linear_engine_has_is_left_out() -> None:
    checked = compiled(
        {"type": "string", "pattern": "(?=a)b", "patternProperties": {"x(?=y)": {}}, "enum": ["q", ["z"]]}
    )
    assert checked.unchecked == ""
    assert checked.errors("q") == ()
    assert checked.errors(1)


@pytest.mark.parametrize("schema", [{"type": "foo"}, {"$ref": "http://example.com/x"}, {"$ref": "#/$defs/none"}])
def test_what_is_no_schema_leaves_its_tool_unchecked(schema: Schema) -> None:
    checked = compiled(schema)
    assert checked.unchecked
    assert checked.errors(object()) == ()


def test_an_unknown_dialect_is_read_as_the_newest() -> None:
    assert compiled({"$schema": "http://example.com/own", "type": "string"}).errors(1)


def test_a_bomb_of_references_is_not_checked() -> None:
    steps = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)}
    assert "too long" in compiled({"$defs": steps | {"a40": {}}, "$ref": "#/$defs/a0"}).unchecked


def test_a_reference_to_itself_is_not_checked() -> None:
    assert "too long" in compiled({"$ref": "#"}).unchecked


def test_a_recursive_schema_is_checked_as_deep_as_time_allows() -> None:
    anything = {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/a"}}, {"items": {"$ref": "#/$defs/a"}}]}
    checked = compiled({"$defs": {"a": anything | {"type": ["array", "integer"]}}, "$ref": "#/$defs/a"})
    shallow: object = "x"
    for _ in range(3):
        shallow = [shallow]
    assert checked.errors(shallow)
    for _ in range(40):
        shallow = [shallow]
    assert checked.errors(shallow) == ()


def test_a_plainly_recursive_schema_is_checked() -> None:
    assert compiled({"properties": {"next": {"$ref": "#"}}, "type": "object"}).errors({"next": {"next": 1}})


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"enum": ["a", 1, None, True, 1.5, [1], EMPTY]}, set(NAMES)),
        ({"const": 1}, {"integer"}),
        ({"anyOf": [{"type": "string"}, {"oneOf": [{"type": "null"}]}]}, {"string", "null"}),
        ({"allOf": [{"type": ["string", "null"]}, {"type": "string"}]}, {"string"}),
        ({"properties": EMPTY}, {"object"}),
        ({"items": EMPTY}, {"array"}),
        (EMPTY, set(NAMES)),
        (True, set(NAMES)),
        ({"$ref": "#/$defs/a~1b/0"}, {"integer"}),
        ({"$ref": "#/$defs/loop"}, set(NAMES)),
        ({"$ref": "#/$defs/a~1b/x"}, set(NAMES)),
        ({"$ref": "other.json"}, set(NAMES)),
    ],
)
def test_types(schema: object, expected: set[str]) -> None:
    root: Schema = {"$defs": {"a/b": [{"type": "integer"}], "loop": {"$ref": "#/$defs/loop"}}}
    assert types_of(schema, root) == expected


def test_types_of_alternatives_nested_without_end_are_all() -> None:
    schema: Schema = {"type": "string"}
    for _ in range(20):
        schema = {"anyOf": [schema]}
    assert types_of(schema, {}) == set(NAMES)


def test_free_text_has_no_constraint() -> None:
    assert schemas.is_free_text({"type": "string", "description": "x"})
    assert not schemas.is_free_text({"type": "string", "maxLength": 3})
    assert not schemas.is_free_text(True)
