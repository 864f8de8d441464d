"""Tools by the names that models write."""

import pytest

from qwen_proxy.chat.request import Tool
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.toolcalls.toolbox import MAX_TOOLS, OfferedTool, Toolbox
from tests.support.calls import TOOLBOX, object_schema


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Read", "Read"),
        ("read", "Read"),
        ("functions.Read", "Read"),
        ("tools/read", "Read"),
        ('"Read"', "Read"),
        ("listFiles", "list_files"),
        ("list-files", "list_files"),
        ("search_issues", "mcp__github__search_issues"),
        ("github.search_issues", "mcp__github__search_issues"),
        ("mcp__other__search_issues", "mcp__github__search_issues"),
        ("mcp__githb__search_isues", "mcp__github__search_issues"),
        ("list_file", "list_files"),
    ],
)
def test_a_name_is_resolved(written: str, name: str) -> None:
    found = TOOLBOX.resolve(written)
    assert found is not None
    assert (found[0].name, found[1]) == (name, "" if written == name else "name")


@pytest.mark.parametrize("written", ["", "Delete", "x" * 200, "R", "Reed", "???"])
def test_a_name_that_means_nothing_is_not_resolved(written: str) -> None:
    assert TOOLBOX.resolve(written) is None


def test_a_close_name_may_be_left_out() -> None:
    assert TOOLBOX.resolve("list_file", guess=False) is None
    assert TOOLBOX.resolve("listFiles", guess=False) is not None


def test_a_name_that_may_mean_two_tools_is_not_resolved() -> None:
    box = Toolbox([Tool("mcp__a__get"), Tool("mcp__b__get"), Tool("get_item"), Tool("getItem"), Tool("get_items")])
    assert box.resolve("get") is None
    assert box.resolve("GET_ITEM") is None
    assert box.resolve("get_itemz") is None


def test_of_two_tools_with_one_name_the_first_counts() -> None:
    box = Toolbox([Tool("a", parameters=object_schema(("x",))), Tool("a")])
    assert box.tools["a"].required == ("x",)


def test_hostile_tools_are_refused_by_name() -> None:
    deep: dict[str, object] = {}
    for _ in range(100):
        deep = {"items": deep}
    with pytest.raises(InvalidRequest, match=r"tools\[1\] \(`bad`\): its schema nests deeper"):
        Toolbox([Tool("a"), Tool("bad", parameters=deep)])
    with pytest.raises(InvalidRequest, match=f"at most {MAX_TOOLS}"):
        Toolbox([Tool(str(number)) for number in range(MAX_TOOLS + 1)])


def test_parameters_are_known_behind_a_reference() -> None:
    schema = {
        "$ref": "#/$defs/args",
        "$defs": {"args": object_schema(("a",), a={"$ref": "#/$defs/s"}), "s": {"type": "string"}},
    }
    tool = OfferedTool(Tool("t", parameters=schema))
    assert tool.required == ("a",)
    assert tool.parameters["a"].is_raw
    assert not tool.parameters["a"].streams
    assert tool.parameter_errors("a", 5)
    assert not tool.parameter_errors("a", "x")
    assert not tool.parameter_errors("unknown", 5)
    assert not tool.unchecked


def test_a_schema_with_odd_members_has_no_parameters() -> None:
    tool = OfferedTool(Tool("t", parameters={"properties": [], "required": "a"}))
    assert (tool.parameters, tool.required) == ({}, ())
    assert tool.unchecked


@pytest.mark.parametrize(
    ("schema", "is_raw", "streams"),
    [
        ({"type": "string"}, True, True),
        ({"type": ["string"]}, True, True),
        ({"type": "string", "enum": ["a"]}, True, False),
        ({"enum": ["a", "b"]}, True, False),
        ({"type": ["string", "null"]}, False, False),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, False, False),
        ({}, False, False),
        ({"type": "object"}, False, False),
    ],
)
def test_what_is_written_raw(schema: dict[str, object], is_raw: bool, streams: bool) -> None:
    parameter = OfferedTool(Tool("t", parameters=object_schema(a=schema))).parameters["a"]
    assert (parameter.is_raw, parameter.streams) == (is_raw, streams)
