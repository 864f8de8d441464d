"""What a caller of the admin API sends, as Structs: strictly, so that a misspelt field is told, not ignored. Pure."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.ground.shapes import shape_refusal

S = TypeVar("S", bound=Struct)


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No body, or no query."""


def read_body(kind: type[S], body: bytes) -> S:
    """A body may be left out when all its fields may. Raises InvalidRequest, which names the field."""
    try:
        return msgspec.json.decode(body if body.strip() else b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise shape_refusal(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the request body is no valid JSON in UTF-8 ({error})") from error
    except RecursionError as error:
        raise InvalidRequest("the request body is nested too deeply") from error


def read_query(kind: type[S], query: Mapping[str, str]) -> S:
    """Numbers and booleans are read from their text. Raises InvalidRequest, which names the parameter."""
    try:
        return msgspec.convert(dict(query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise shape_refusal(str(error), "the query") from error
