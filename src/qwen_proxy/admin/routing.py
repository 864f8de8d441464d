"""A route of the admin API: a function from Structs to a Struct. What goes over HTTP, and the OpenAPI document, follow
from its types."""

import typing
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET, Struct
from msgspec.structs import asdict

from qwen_proxy.admin.audit import Author
from qwen_proxy.admin.reading import read_body, read_query
from qwen_proxy.serving.endpoint import Access, Exchange, Handler, incoming

Q = TypeVar("Q", bound=Struct)
B = TypeVar("B", bound=Struct)
A = TypeVar("A", bound=Struct | None)

JSON: Final = "application/json"
_ENCODER: Final = msgspec.json.Encoder()


class Call(Struct, Generic[Q, B], frozen=True, kw_only=True):
    """One call as its route's function sees it. path: what stands for the names in the route's path."""

    by: Author
    path: Mapping[str, str]
    query: Q
    body: B
    exchange: Exchange


class AdminRoute(Struct, frozen=True, kw_only=True):
    """query, body, answer: Structs; None where there is none. `answer` is None too where `media_type` is not JSON.

    tag: under which heading the document has it. path: `{name}` stands for a part without a slash.
    """

    method: str
    path: str
    summary: str
    tag: str
    access: Access
    status: int
    query: type[Struct]
    body: type[Struct]
    answer: type[Struct] | None
    media_type: str
    serve: Handler


def route(
    method: str,
    path: str,
    summary: str,
    function: Callable[[Call[Q, B]], Awaitable[A]],
    *,
    tag: str,
    status: int = 200,
    access: Access = Access.ADMIN,
) -> AdminRoute:
    """The types are those in the function's own signature: `async def f(call: Call[Query, Body]) -> Answer`.

    One that answers None has status 204.
    """
    query, body, answer = _types(function)

    async def serve(exchange: Exchange) -> web.StreamResponse:
        made = await function(await _call(exchange, query, body))
        response = web.Response(status=204) if made is None else json_response(status, made)
        response.headers["Cache-Control"] = "no-store"
        return response

    return AdminRoute(
        method=method,
        path=path,
        summary=summary,
        tag=tag,
        access=access,
        status=204 if answer is None else status,
        query=query,
        body=body,
        answer=answer,
        media_type=JSON,
        serve=serve,
    )


def raw_route(
    method: str,
    path: str,
    summary: str,
    function: Callable[[Call[Q, B]], Awaitable[web.StreamResponse]],
    *,
    tag: str,
    media_type: str = JSON,
    answer: type[Struct] | None = None,
    status: int = 200,
    access: Access = Access.ADMIN,
) -> AdminRoute:
    """As `route`, for what is answered in another form than JSON, or with headers of its own."""
    query, body, _ = _types(function)

    async def serve(exchange: Exchange) -> web.StreamResponse:
        response = await function(await _call(exchange, query, body))
        if not response.prepared:
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    return AdminRoute(
        method=method,
        path=path,
        summary=summary,
        tag=tag,
        access=access,
        status=status,
        query=query,
        body=body,
        answer=answer,
        media_type=media_type,
        serve=serve,
    )


async def _call(exchange: Exchange, query: type[Q], body: type[B]) -> Call[Q, B]:
    request = exchange.http
    return Call(
        by=Author.of(exchange),
        path=dict(request.match_info),
        query=read_query(query, request.query),
        body=read_body(body, (await incoming(exchange)).body),
        exchange=exchange,
    )


def given(body: Struct) -> dict[str, Any]:
    """The fields of a body that were not left out, where leaving out means: as it is."""
    return {name: value for name, value in asdict(body).items() if value is not UNSET}


def json_response(status: int, body: Struct) -> web.Response:
    return web.Response(status=status, body=_ENCODER.encode(body), content_type=JSON)


def _types(function: Callable[[Call[Q, B]], object]) -> tuple[type[Q], type[B], type[Struct] | None]:
    """Of the query, the body and the answer."""
    hints = typing.get_type_hints(function)
    answer = hints.pop("return")
    (call,) = hints.values()
    query, body = typing.get_args(call)
    return query, body, None if answer is type(None) or not issubclass(answer, Struct) else answer
