from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, Struct

from qwen_proxy.admin.reading import Nothing, read_body, read_query
from qwen_proxy.ground.errors import InvalidRequest


class Body(Struct, forbid_unknown_fields=True):
    name: str = "nobody"
    count: Annotated[int, Meta(ge=1)] = 1
    more: msgspec.Raw = msgspec.Raw()


class Query(Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=100)] = 50
    is_live: bool = False


def refusal(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read_body(Body, body)
    return caught.value


def test_a_body_is_read_and_may_be_left_out_where_its_fields_may() -> None:
    assert read_body(Body, b'{"name": "a", "count": 2}') == Body("a", 2)
    assert read_body(Body, b" \n") == read_body(Body, b"{}") == Body()
    assert read_body(Nothing, b"") == Nothing()


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b'{"count": "2"}', "count", "expected `integer`, got `string`"),
        (b'{"count": 0}', "count", ">= 1"),
        (b'{"nome": "a"}', "nome", "there is no `nome` here"),
        (b"[]", None, "the request body: expected `object`"),
        (b"{", None, "no valid JSON"),
        (b'{"name": "\\ud800"}', None, "no valid JSON"),
        (b'{"name": "\xff"}', None, "no valid JSON"),
        (b"name=a&count=2", None, "no valid JSON"),
        (b'{"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "nested too deeply"),
    ],
)
def test_a_wrong_body_is_refused_by_the_name_of_its_field(body: bytes, param: str | None, says: str) -> None:
    error = refusal(body)
    assert error.param == param and says in str(error)


def test_a_query_is_read_from_text() -> None:
    assert read_query(Query, {"limit": "7", "is_live": "true"}) == Query(7, True)
    assert read_query(Query, {}) == Query()


@pytest.mark.parametrize(
    ("query", "param"), [({"limit": "many"}, "limit"), ({"limit": "1000"}, "limit"), ({"page": "2"}, "page")]
)
def test_a_wrong_query_is_refused_by_the_name_of_its_parameter(query: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_query(Query, query)
    assert caught.value.param == param
