from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from qwen_proxy.ground.shapes import shape_refusal


class Inner(Struct, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1, le=20)] = 1


class Outer(Struct, forbid_unknown_fields=True):
    name: str
    word: Literal["x", "y"] = "x"
    inner: Inner | None = None
    list: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        ("{}", "`name` is missing", "name"),
        ('{"name": 1}', "name: expected `string`, got `integer`", "name"),
        ('{"name": "a", "age": 1}', "there is no `age` here", "age"),
        ('{"name": "a", "inner": {"size": 1}}', "there is no `inner.size` here", "inner.size"),
        ('{"name": "a", "list": [{}, {"count": 99}]}', "list[1].count: expected `integer` <= 20", "list[1].count"),
        ('{"name": "a", "word": "z"}', "word: invalid enum value 'z'", "word"),
        ("[]", "the request body: expected `object`, got `array`", None),
    ],
)
def test_a_refusal_names_the_field_in_the_clients_terms(body: str, says: str, param: str | None) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=Outer)
    refusal = shape_refusal(str(caught.value))
    assert (str(refusal), refusal.param) == (says, param)


def test_a_name_that_goes_on_and_on_is_cut() -> None:
    refusal = shape_refusal(f"Object contains unknown field `{'x' * 5000}`")
    assert len(str(refusal)) < 200


def test_what_it_is_of_can_be_said() -> None:
    assert str(shape_refusal("Expected `object`, got `array`", "the query")).startswith("the query: ")


@pytest.mark.parametrize(
    ("message", "says", "param"),
    [
        ("Expected `str`, got `null`", "input[0].content: expected `string`, got `null`", "input[0].content"),
        (
            "Expected `str`, got `int` - at `$[1].text`",
            "input[0].content[1].text: expected `string`, got `integer`",
            "input[0].content[1].text",
        ),
        ("Object missing required field `type` - at `$[1]`", "`input[0].content[1].type` is missing", None),
        ("Object missing required field `type`", "`input[0].content.type` is missing", None),
    ],
)
def test_a_part_of_a_document_is_named_by_its_whole_path(message: str, says: str, param: str | None) -> None:
    refusal = shape_refusal(message, at="input[0].content")
    assert (str(refusal), refusal.param) == (says, param or says.split("`")[1])
