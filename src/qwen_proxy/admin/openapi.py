"""The OpenAPI 3.1 document of every route: the admin API's from its types, the clients' by path, summary and key.

Source: the OpenAPI specification 3.1.0; schemas are JSON Schema 2020-12, as msgspec writes them.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from qwen_proxy.admin.routing import JSON, AdminRoute
from qwen_proxy.serving.endpoint import Access

Json = dict[str, Any]  # JSON is made here

TEMPLATE: Final = "#/components/schemas/{name}"
SAFE: Final = frozenset(("GET", "HEAD"))
NEEDS: Final = {
    Access.OPEN: "No key is needed.",
    Access.KEY: "Any API key will do.",
    Access.ADMIN: "The admin key is needed.",
}
SECURITY: Final[Json] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "qwen_proxy_session",
        "description": "From POST /api/admin/session, for the web page. What changes things needs x-csrf-token too.",
    },
}


class ErrorDetail(Struct, frozen=True):
    """param: the field or parameter that is wrong. code: a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Struct, frozen=True):
    """Every failure, of every route that speaks OpenAI's API and of the admin API."""

    error: ErrorDetail


class ClientRoute(Struct, frozen=True, kw_only=True):
    """A route that is no part of the admin API: told by what it is for."""

    method: str
    path: str
    summary: str
    access: Access


def document(admin: Sequence[AdminRoute], clients: Sequence[ClientRoute], version: str) -> bytes:
    """The document, as JSON."""
    kinds: list[type[Struct]] = [ErrorBody]
    for route in admin:
        kinds += [kind for kind in (route.query, route.body, route.answer) if kind is not None and kind not in kinds]
    references, schemas = msgspec.json.schema_components(kinds, ref_template=TEMPLATE)
    by_kind = dict(zip(kinds, references, strict=True))
    paths: dict[str, Json] = {}
    for client in clients:
        paths.setdefault(client.path, {})[client.method.lower()] = _client_operation(client)
    for route in admin:
        paths.setdefault(route.path, {})[route.method.lower()] = _admin_operation(route, by_kind, schemas)
    queries = {by_kind[route.query]["$ref"].rpartition("/")[2] for route in admin}  # told as parameters
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Qwen-Proxy",
                "version": version,
                "description": "The API for clients is OpenAI's and described there; the admin API is described here.",
            },
            "paths": paths,
            "components": {
                "schemas": {name: schema for name, schema in sorted(schemas.items()) if name not in queries},
                "securitySchemes": SECURITY,
            },
        }
    )


def _client_operation(route: ClientRoute) -> Json:
    return {
        "tags": ["clients"],
        "summary": route.summary,
        "description": NEEDS[route.access],
        "operationId": _operation_id(route.method, route.path),
        "security": _security(route.access),
        "parameters": _path_parameters(route.path),
        "responses": {"200": {"description": "As in OpenAI's API reference."}, "default": _error()},
    }


def _admin_operation(route: AdminRoute, by_kind: dict[type[Struct], Json], schemas: dict[str, Json]) -> Json:
    operation: Json = {
        "tags": [route.tag],
        "summary": route.summary,
        "description": NEEDS[route.access],
        "operationId": _operation_id(route.method, route.path),
        "security": _security(route.access),
        "parameters": _path_parameters(route.path) + _query_parameters(_resolved(by_kind[route.query], schemas)),
        "responses": {str(route.status): _answer(route, by_kind), "default": _error()},
    }
    body = _resolved(by_kind[route.body], schemas)
    if body["properties"]:
        operation["requestBody"] = {
            "required": bool(body["required"]),
            "content": {JSON: {"schema": by_kind[route.body]}},
        }
    return operation


def _answer(route: AdminRoute, by_kind: dict[type[Struct], Json]) -> Json:
    if route.status == 204:
        return {"description": "It is done."}
    schema: Json = {"type": "string"} if route.answer is None else by_kind[route.answer]
    return {"description": "It went well.", "content": {route.media_type: {"schema": schema}}}


def _error() -> Json:
    return {"description": "Why not.", "content": {JSON: {"schema": {"$ref": TEMPLATE.format(name="ErrorBody")}}}}


def _security(access: Access) -> list[Json]:
    return [] if access is Access.OPEN else [{name: []} for name in SECURITY]


def _path_parameters(path: str) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _query_parameters(schema: Json) -> list[Json]:
    return [
        {"name": name, "in": "query", "required": name in schema["required"], "schema": each}
        for name, each in schema["properties"].items()
    ]


def _resolved(reference: Json, schemas: dict[str, Json]) -> Json:
    return schemas[reference["$ref"].rpartition("/")[2]]


def _operation_id(method: str, path: str) -> str:
    words = re.findall(r"\w+", path)
    return "_".join([method.lower(), *words])
