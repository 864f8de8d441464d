"""The document of routes made up for the purpose, and its page."""

import re
from enum import StrEnum
from html.parser import HTMLParser
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from qwen_proxy.admin.openapi import ClientRoute, document
from qwen_proxy.admin.page import POLICY, page
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import Call, raw_route, route
from qwen_proxy.serving.auth import Access

Json = dict[str, Any]


class FruitQuery(Struct):
    limit: Annotated[int, Meta(ge=1, le=100)] = 50
    kind: Literal["sweet", "sour"] = "sweet"


class Colour(StrEnum):
    RED = "red"


class FruitBody(Struct, forbid_unknown_fields=True):
    """A <b>fruit</b> & its price."""

    name: str
    price: float | None = None
    seeds: dict[str, int] = {}


class FruitsBody(Struct):
    fruits: tuple[FruitBody, ...]
    colour: Colour
    anything: msgspec.Raw
    other: dict[str, str | int] = {}


async def listed(call: Call[FruitQuery, Nothing]) -> FruitsBody:
    raise AssertionError


async def added(call: Call[Nothing, FruitBody]) -> FruitBody:
    raise AssertionError


async def eaten(call: Call[Nothing, Nothing]) -> None:
    raise AssertionError


async def exported(call: Call[FruitQuery, Nothing]) -> web.StreamResponse:
    raise AssertionError


ROUTES = (
    route("GET", "/fruits", "List <them>", listed, tag="fruits"),
    route("POST", "/fruits", "Add one", added, tag="fruits", status=201),
    route("DELETE", "/fruits/{id}", "Eat one", eaten, tag="fruits"),
    raw_route("GET", "/fruits.csv", "As a table", exported, tag="export", media_type="text/csv", access=Access.KEY),
)
CLIENTS = (
    ClientRoute(method="POST", path="/v1/chat/completions", summary="Chat", access=Access.KEY),
    ClientRoute(method="GET", path="/healthz", summary="Alive", access=Access.OPEN),
    ClientRoute(method="GET", path="/v1/models/{id}", summary="One", access=Access.KEY),
)
DOCUMENT = document(ROUTES, CLIENTS, "1.2.3")
READ: Json = msgspec.json.decode(DOCUMENT)


def test_routes_are_under_their_paths_and_methods() -> None:
    assert (READ["openapi"], READ["info"]["version"]) == ("3.1.0", "1.2.3")
    found = {(path, method) for path, operations in READ["paths"].items() for method in operations}
    assert found == {(each.path, each.method.lower()) for each in (*ROUTES, *CLIENTS)}
    ids = [operation["operationId"] for operations in READ["paths"].values() for operation in operations.values()]
    assert len(ids) == len(set(ids))


def test_what_is_asked_and_answered_is_told() -> None:
    get, post = READ["paths"]["/fruits"]["get"], READ["paths"]["/fruits"]["post"]
    assert [(each["name"], each["in"], each["required"]) for each in get["parameters"]] == [
        ("limit", "query", False),
        ("kind", "query", False),
    ]
    assert get["parameters"][0]["schema"]["maximum"] == 100
    assert "requestBody" not in get
    assert post["requestBody"] == {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FruitBody"}}},
    }
    assert post["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].endswith("/FruitBody")
    assert READ["paths"]["/fruits/{id}"]["delete"]["parameters"][0]["name"] == "id"
    assert "content" not in READ["paths"]["/fruits/{id}"]["delete"]["responses"]["204"]
    assert READ["paths"]["/fruits.csv"]["get"]["responses"]["200"]["content"] == {
        "text/csv": {"schema": {"type": "string"}}
    }


def test_every_reference_leads_somewhere_and_no_shape_is_there_for_nothing() -> None:
    references = set(re.findall(r"#/components/schemas/(\w+)", DOCUMENT.decode()))
    assert references == set(READ["components"]["schemas"])


def test_keys_are_told_route_by_route() -> None:
    assert READ["paths"]["/healthz"]["get"]["security"] == []
    assert [list(each) for each in READ["paths"]["/fruits"]["get"]["security"]] == [["bearer"], ["apiKey"], ["session"]]
    assert "admin key" in READ["paths"]["/fruits"]["get"]["description"]
    assert "Any API key" in READ["paths"]["/fruits.csv"]["get"]["description"]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: set[str] = set()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        given = dict(attrs)
        if tag not in ("meta",):
            self.open.append(tag)
        self.links.add(given.get("href") or "")
        self.ids.add(given.get("id") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_runs_nothing_fetches_nothing_and_leaves_no_text_unescaped() -> None:
    html = page(DOCUMENT)
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert tags.seen.isdisjoint({"script", "img", "link", "iframe", "form", "b", "them"})
    assert {link for link in tags.links if link and not link.startswith("#")} == {"/openapi.json"}
    assert {link[1:] for link in tags.links if link.startswith("#")} <= tags.ids
    assert "A &lt;b&gt;fruit&lt;/b&gt; &amp; its price." in html and "List &lt;them&gt;" in html
    assert "unsafe" not in POLICY and "default-src 'none'" in POLICY


def test_the_page_tells_shapes_in_words() -> None:
    html = page(DOCUMENT)
    for words in (
        "integer from 1 to 100",
        "<code>sour</code> or <code>sweet</code>",
        'list of <a href="#FruitBody">FruitBody</a>',
        "object of integer",
        "object of string or integer",
        "number or null",
        "price (optional)",
        "anything",
        '<a href="#Colour">Colour</a>',
        "<code>red</code>",
    ):
        assert words in html, words
