"""Tools as signatures: what is told of each parameter, in which tier, and how little a hostile schema gets."""

from typing import Any

import pytest

from qwen_proxy.chat.request import Tool
from qwen_proxy.ground.errors import UnsupportedParameter
from qwen_proxy.toolcalls.signature import BRIEF_BYTES, MAX_DEPTH, WHOLE_BYTES, Tier, describe, signature

Schema = dict[str, Any]


def told(properties: Schema, definitions: Schema | None = None, tier: Tier = Tier.WHOLE) -> str:
    """The lines of the parameters, without the brackets around them."""
    tool = Tool("T", "", {"type": "object", "properties": properties, "$defs": definitions or {}})
    text = signature(tool, tier)
    assert text.startswith("## T\nT(\n") and text.endswith("\n)")
    return text.removeprefix("## T\nT(\n").removesuffix("\n)")


def test_a_tool_is_told_with_its_description_and_a_line_a_parameter():
    properties = {
        "file_path": {"type": "string", "description": "The path.\nAbsolute.", "minLength": 1},
        "mode": {"enum": ["append", "replace"], "default": "replace"},
    }
    tool = Tool("Write", "Writes a file.\n\nKeeps\nlines.", {"properties": properties, "required": ["file_path"]})
    assert signature(tool, Tier.WHOLE) == (
        "## Write\nWrites a file.\n\nKeeps\nlines.\n\nWrite(\n"
        "  file_path: string, // The path. Absolute.; minLength 1\n"
        '  mode?: "append" | "replace", // default "replace"\n)'
    )


def test_a_tool_without_parameters():
    assert signature(Tool("Now"), Tier.WHOLE) == "## Now\nNow()"


TYPES: list[tuple[object, str]] = [
    ({"type": "integer"}, "integer"),
    ({"type": ["string", "null"]}, "string | null"),
    ({"type": "string", "nullable": True}, "string | null"),
    ({"const": 3}, "3"),
    ({"enum": ["a | b", 1, None]}, '"a | b" | 1 | null'),
    ({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "string"}]}, "string | integer"),
    ({"oneOf": [{"type": "string"}, {"type": "null"}]}, "string | null"),
    ({"allOf": [{"type": "object"}, {"type": ["string", "null"]}]}, "object & (string | null)"),
    ({"type": "array", "items": {"type": "string"}}, "string[]"),
    ({"items": {"type": ["string", "integer"]}}, "(string | integer)[]"),
    ({"items": {"enum": ["a | b"]}}, '("a | b")[]'),
    ({"items": {"allOf": [{"type": "a"}, {"type": "b"}]}}, "(a & b)[]"),
    ({"type": "array", "items": {"type": "array", "items": {"type": ["a", "b"]}}}, "(a | b)[][]"),
    ({"type": "array"}, "any[]"),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]}, "[string, number]"),
    ({"type": "object"}, "object"),
    ({"type": "object", "additionalProperties": {"type": "string"}}, "{[key: string]: string}"),
    ({"properties": {"x": {"type": "number"}, "y": {}}, "required": ["x"]}, "{x: number, y?: any}"),
    ({"properties": {"x": {"type": "number"}}, "anyOf": [{"required": ["x"]}]}, "{x?: number}"),
    ({"type": "array", "items": {"properties": {"x": {"type": ["a", "b"]}}}}, "{x?: a | b}[]"),
    ({}, "any"),
    (True, "any"),
    (False, "never"),
    ({"type": 3}, "any"),
    ({"type": [{}, "string"]}, "any | string"),
]


@pytest.mark.parametrize(("schema", "expected"), TYPES)
def test_types(schema: object, expected: str):
    assert told({"a": schema}) == f"  a?: {expected},"


def test_names_that_are_no_words_are_quoted():
    assert told({"a b": {"type": "string"}, "c-d": {}}) == '  "a b"?: string,\n  c-d?: any,'


def test_an_object_with_notes_has_lines_of_its_own():
    step = {"type": "object", "properties": {"text": {"type": "string", "description": "What"}, "n": {}}}
    inner = {"type": "array", "items": step, "minItems": 1}
    assert told({"steps": {"type": "object", "properties": {"all": inner}}}) == (
        "  steps?: {\n    all?: {\n      text?: string, // What\n      n?: any,\n    }[], // minItems 1\n  },"
    )


def test_bounds_defaults_and_examples_are_told():
    schema = {
        "type": "array",
        "items": {"type": "string", "pattern": r"^\w+$", "maxLength": 3},
        "uniqueItems": True,
        "maxItems": 2,
        "default": ["a"],
        "examples": [["b"], "c"],
        "format": "set",
        "minItems": False,
    }
    told_whole = told({"a": schema})
    assert told_whole == (
        "  a?: string[], // format set; maxItems 2; uniqueItems; each: maxLength 3, pattern ^\\w+$; "
        'default ["a"]; e.g. ["b"], "c"'
    )
    assert told({"a": schema}, tier=Tier.BRIEF) == told_whole.removesuffix('; e.g. ["b"], "c"')


def test_a_reference_is_inlined_once_and_named_then():
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/No~1de"}}, "description": "A node"}
    properties = {"a": {"$ref": "#/$defs/No~1de"}, "b": {"$ref": "#/$defs/No~1de", "description": "B"}}
    assert told(properties, {"No/de": node}) == (
        "  a?: {\n    next?: No~1de, // A node\n  } /* No~1de */, // A node\n  b?: No~1de, // B"
    )


def test_references_that_lead_nowhere_are_names():
    properties = {"a": {"$ref": "https://example.com/x"}, "b": {"$ref": "#/$defs/none"}, "c": {"$ref": "#"}}
    assert told(properties) == "  a?: x,\n  b?: none,\n  c?: {a?: x, b?: none, c?: #} /* # */,"


def test_the_whole_schema_may_be_a_reference():
    tool = Tool("T", "", {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"x": {"type": "string"}}}}})
    assert signature(tool, Tier.WHOLE) == "## T\nT(\n  x?: string,\n)"


def test_the_brief_tier_keeps_the_first_sentence_and_enums():
    properties = {"a": {"enum": ["x"], "description": "One, e.g.this. Two.", "default": "x"}, "b": {"description": ""}}
    tool = Tool("T", "Does it! Then more.", {"properties": properties})
    assert signature(tool, Tier.BRIEF) == (
        '## T\nDoes it!\n\nT(\n  a?: "x", // One, e.g.this.; default "x"\n  b?: any,\n)'
    )
    long = signature(Tool("T", "word " * 100), Tier.BRIEF)
    assert long.splitlines()[1] == ("word " * 100)[:239] + "…"


def test_depth_and_places_are_bounded():
    deep: Schema = {"type": "string"}
    for _ in range(MAX_DEPTH * 3):
        deep = {"type": "array", "items": deep}
    assert "any[]" in told({"a": deep})
    bomb: Schema = {"n0": {"type": "string"}}
    for level in range(1, 12):
        bomb[f"n{level}"] = {"anyOf": [{"type": "array", "items": {"$ref": f"#/$defs/n{level - 1}"}}] * 10}
    assert len(told({"a": {"$ref": "#/$defs/n11"}}, bomb)) < 1000
    wide = {f"p{i}": {"type": "string"} for i in range(20_000)}
    assert told(wide).endswith("p19999?: any,")


def test_the_tier_is_the_first_that_fits():
    short = describe([Tool("A", "Short."), Tool("B")])
    assert (short.tier, short.text) == (Tier.WHOLE, "## A\nShort.\n\nA()\n\n## B\nB()")
    assert short.size_bytes == len(short.text)
    long = describe([Tool("A", "Söme. " + "x" * WHOLE_BYTES)])
    assert (long.tier, long.text, long.size_bytes) == (Tier.BRIEF, "## A\nSöme.\n\nA()", 16)


def test_tools_that_fit_no_tier_are_refused_with_their_size():
    many = [Tool(f"tool_{i}", "One. Two.", {"properties": {"a": {"enum": ["x" * 100]}}}) for i in range(600)]
    with pytest.raises(UnsupportedParameter, match=f"600 tools take [0-9]+ bytes .* at most {BRIEF_BYTES}") as raised:
        describe(many)
    assert raised.value.param == "tools"
