"""Who may do what: every route with every carrier of a key, hostile headers, wrong methods and paths, CORS."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientSession, web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_proxy.serving.endpoint import Exchange
from tests.support.http import ADMIN_KEY, USER_KEY, raw, serving
from tests.support.replies import PATH, refusal
from tests.support.running import Running, ask, running

ROUTES = [
    ("POST", PATH, "key"),
    ("GET", "/v1/models", "key"),
    ("GET", "/v1/models/qwen3.7-plus", "key"),
    ("GET", "/models", "open"),
    ("GET", "/healthz", "open"),
    ("GET", "/readyz", "open"),
    ("GET", "/api/admin/diagnostics", "admin"),
]
CARRIERS: list[tuple[dict[str, str], str]] = [
    ({"Authorization": f"Bearer {USER_KEY}"}, "user"),
    ({"Authorization": f"bearer   {USER_KEY} "}, "user"),
    ({"Authorization": USER_KEY}, "user"),
    ({"x-api-key": USER_KEY}, "user"),
    ({"X-API-KEY": f" {USER_KEY}"}, "user"),
    ({"Authorization": "Bearer dummy", "x-api-key": USER_KEY}, "user"),
    ({"Authorization": f"Bearer {USER_KEY}", "x-api-key": "dummy"}, "user"),
    ({"Authorization": f"Bearer {ADMIN_KEY}"}, "admin"),
    ({"x-api-key": ADMIN_KEY}, "admin"),
    ({"Authorization": f"Bearer {USER_KEY}", "x-api-key": ADMIN_KEY}, "user"),  # the first right key holds
    ({}, "nobody"),
    ({"Authorization": ""}, "nobody"),
    ({"Authorization": "Bearer"}, "nobody"),
    ({"Authorization": "Bearer "}, "nobody"),
    ({"Authorization": f"Bearer {USER_KEY}x"}, "nobody"),
    ({"Authorization": f"Bearer {USER_KEY[:-1]}"}, "nobody"),
    ({"Authorization": f"Bearer {USER_KEY.upper()}"}, "nobody"),
    ({"Authorization": f"Bearer {USER_KEY},{ADMIN_KEY}"}, "nobody"),
    ({"Authorization": f"Basic {USER_KEY}"}, "nobody"),
    ({"x-api-key": f"Bearer {USER_KEY}"}, "nobody"),
    ({"Cookie": f"token={USER_KEY}"}, "nobody"),
    ({"x-goog-api-key": USER_KEY}, "user"),
    ({"Authorization": "Bearer " + "k" * 7000}, "nobody"),
    ({"x-api-key": "ключ"}, "nobody"),
]
EXPECTED = {
    ("open", "nobody"): None,
    ("open", "user"): None,
    ("open", "admin"): None,
    ("key", "nobody"): (401, "invalid_api_key", None),
    ("key", "user"): None,
    ("key", "admin"): None,
    ("admin", "nobody"): (401, "invalid_api_key", None),
    ("admin", "user"): (403, "permission_denied", None),
    ("admin", "admin"): None,
}


async def test_every_route_and_every_carrier_give_one_decision() -> None:
    async with running(WRONG_KEYS_PER_ADDRESS="0") as gateway, ClientSession(gateway.url) as session:
        for method, path, access in ROUTES:
            for headers, who in CARRIERS:
                body = ask() if method == "POST" else None
                async with session.request(method, path, json=body, headers=headers) as response:
                    expected = EXPECTED[access, who]
                    if expected is None:
                        assert response.status == 200, (path, headers)
                        assert response.headers["x-request-id"].startswith("req_")
                    else:
                        assert await refusal(response) == expected, (path, headers)


async def test_a_key_in_the_query_or_the_body_opens_nothing() -> None:
    async with running() as gateway, ClientSession(gateway.url) as session:
        async with session.post(f"{PATH}?key={USER_KEY}", json=ask(api_key=USER_KEY)) as response:
            assert (await refusal(response))[0] == 401


HOSTILE = [
    "' OR '1'='1",
    "'; DROP TABLE keys; --",
    '" OR ""="',
    "%%%%%%%%%%%%",
    "${jndi:ldap://127.0.0.1/x}",
    "{{7*7}}",
    "\x7f\x01\x02",
    "\\u0000",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "ÿ" * 50,
]
NAMES = [
    "Authorization",
    "x-api-key",
    "User-Agent",
    "Origin",
    "Referer",
    "X-Forwarded-For",
    "x-request-id",
    "Accept",
    "Cookie",
    "anthropic-version",
    "Accept-Encoding",
    "Content-Type",
    "Accept-Language",
    "X-Stainless-Lang",
    "X-Forwarded-Proto",
    "x-csrf-token",
    "Sec-Fetch-Site",
]


async def test_hostile_text_in_any_header_changes_no_decision_and_is_not_sent_on() -> None:
    async with running(CORS_ORIGINS="https://app.example") as gateway:
        port = int(gateway.url.rpartition(":")[2])
        reader, writer = await raw(port, b"")
        for name in NAMES:
            for text in HOSTILE:
                key = b"" if name in ("Authorization", "x-api-key") else f"x-api-key: {USER_KEY}\r\n".encode()
                head = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + key + f"{name}: ".encode() + text.encode("latin-1")
                writer.write(head + b"\r\n\r\n")
                status = await asyncio.wait_for(reader.readline(), 2)
                if status.split()[1] == b"400":  # no header may hold that: HTTP itself refuses, and hangs up
                    writer.close()
                    reader, writer = await raw(port, b"")
                    continue
                assert status.startswith(b"HTTP/1.1 200" if key else b"HTTP/1.1 401"), (name, text)
                headers = await reader.readuntil(b"\r\n\r\n")
                assert text.encode("latin-1") not in headers
                length = next(line for line in headers.split(b"\r\n") if line.lower().startswith(b"content-length"))
                assert text.encode("latin-1") not in await reader.readexactly(int(length.split(b":")[1]))
        writer.close()
        await writer.wait_closed()
        for seen in gateway.simulator.requests:
            assert not any(text in value for text in HOSTILE for value in seen.headers.values())


async def test_a_stranger_is_refused_before_a_byte_of_the_body_is_read() -> None:
    async with running() as gateway:
        port = int(gateway.url.rpartition(":")[2])
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        reader, writer = await raw(port, head.encode())
        assert (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 401")
        writer.close()
        await writer.wait_closed()


async def test_only_a_known_caller_is_told_to_go_on_with_its_body() -> None:
    async with running() as gateway:
        port = int(gateway.url.rpartition(":")[2])
        body = b'{"messages": [{"role": "user", "content": "hello"}]}'
        for key, first in (("wrong", b"HTTP/1.1 401"), (USER_KEY, b"HTTP/1.1 100")):
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\nExpect: 100-continue\r\n"
            reader, writer = await raw(port, f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
            assert (await asyncio.wait_for(reader.readline(), 2)).startswith(first)
            if key == USER_KEY:
                await reader.readline()
                writer.write(body)
                assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=3))
def test_no_bytes_on_a_socket_stop_the_server(noise: list[bytes]) -> None:
    async def bother() -> None:
        async with serving(_never) as served:
            for bytes_ in noise:
                _, writer = await raw(served.port, bytes_)
                writer.close()
                await writer.wait_closed()
            async with ClientSession() as session, session.get(served.url) as response:
                assert response.status == 401

    asyncio.run(bother())


async def _never(exchange: Exchange) -> web.StreamResponse:
    raise AssertionError("nobody gets here without a key")


async def test_wrong_methods_and_paths_are_told_in_the_apis_shape() -> None:
    async with running() as gateway:
        for method, path, allowed in (
            ("GET", PATH, "POST"),
            ("DELETE", PATH, "POST"),
            ("POST", "/v1/models", "GET"),
            ("PUT", "/v1/models/x", "GET"),
            ("POST", "/healthz", "GET"),
            ("OPTIONS", PATH, "POST"),
        ):
            async with gateway.client.request(method, path) as response:
                assert await refusal(response) == (405, "method_not_supported", None)
                assert response.headers["Allow"] == allowed
        for path in ("/", "/v1", "/v1/chat/completions/", "/v1//models", "/v1/../v1/nothing", "/%00", "/v1/model/a/b"):
            async with gateway.client.get(path) as response:
                assert await refusal(response) == (404, "unknown_url", None), path


# What a path that is not served looks like in the words of whose path it is: where the message stands.
WORDS: dict[str, Callable[[Any], object]] = {
    "openai": lambda told: told["error"]["message"] if told["error"]["type"] == "invalid_request_error" else None,
    "anthropic": lambda told: told["error"]["message"] if told["type"] == "error" else None,
    "gemini": lambda told: told["error"]["message"] if told["error"]["code"] in (404, 405) else None,
    "ollama": lambda told: told["error"],
}


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v1/messages", 405, "anthropic"),
        ("POST", "/v1/messages/batches", 404, "anthropic"),
        ("POST", "/v1beta/cachedContents", 404, "gemini"),
        ("PUT", "/v1beta/models/x:embedContent", 405, "gemini"),
        ("GET", "/v1beta", 404, "gemini"),
        ("DELETE", "/v1beta/models", 405, "gemini"),
        ("POST", "/upload/v1beta/files", 404, "gemini"),
        ("POST", "/api/pull", 404, "ollama"),
        ("GET", "/api/chat", 405, "ollama"),
        ("GET", "/api/admin/nothing", 404, "openai"),
        ("PUT", "/api/getAllAccounts", 405, "openai"),
        ("GET", "/v1/nothing", 404, "openai"),
        ("GET", "/v1betas", 404, "openai"),
    ],
)
async def test_what_is_not_there_is_told_in_the_words_of_whose_path_it_is(
    method: str, path: str, status: int, words: str
) -> None:
    async with running() as gateway, gateway.client.request(method, path) as response:
        assert (response.status, response.content_type) == (status, "application/json")
        message = WORDS[words](await response.json())
        assert isinstance(message, str) and path in message
        assert ("Allow" in response.headers) == (status == 405)


async def test_head_is_get_without_a_body() -> None:
    async with running() as gateway:
        for path in ("/v1/models", "/healthz", "/readyz"):
            async with gateway.client.head(path) as response:
                assert response.status == 200
                assert await response.read() == b""
        async with ClientSession(gateway.url) as stranger, stranger.head("/v1/models") as response:
            assert response.status == 401


# --- CORS ----------------------------------------------------------------------------------------------------

ORIGIN = "https://app.example"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


async def cors_headers(gateway: Running, method: str, path: str, **headers: str) -> tuple[int, dict[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = ask(stream=True) if method == "POST" else None
    async with gateway.client.request(method, path, headers=named, json=body) as response:
        await response.read()
        found = {name.lower(): value for name, value in response.headers.items() if "access-control" in name.lower()}
        return response.status, found


async def test_no_origin_is_allowed_by_default() -> None:
    async with running() as gateway:
        assert await cors_headers(gateway, "GET", "/v1/models", Origin=ORIGIN) == (200, {})
        assert await cors_headers(gateway, "OPTIONS", PATH, Origin=ORIGIN, **ASKED) == (405, {})


async def test_a_named_origin_may_ask_in_advance_and_read_every_answer() -> None:
    async with running(CORS_ORIGINS=f"{ORIGIN},http://localhost:5173") as gateway:
        async with ClientSession(gateway.url) as page:  # a preflight carries no key
            async with page.options(PATH, headers={"Origin": ORIGIN} | ASKED) as response:
                assert response.status == 204
                assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
                assert "POST" in response.headers["Access-Control-Allow-Methods"]
                assert response.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
                assert "Access-Control-Allow-Credentials" not in response.headers
                assert response.headers["Vary"] == "Origin"
        for method, path, status in (
            ("GET", "/v1/models", 200),
            ("POST", PATH, 200),  # a stream
            ("GET", "/nothing", 404),
            ("DELETE", PATH, 405),
        ):
            got, headers = await cors_headers(gateway, method, path, Origin=ORIGIN)
            assert (got, headers["access-control-allow-origin"]) == (status, ORIGIN)
            exposed = headers["access-control-expose-headers"].split(", ")
            assert {"x-request-id", "x-qwen-proxy-backend", "x-qwen-proxy-model", "x-qwen-proxy-tools"} <= {*exposed}


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.evil", "null", "http://app.example"])
async def test_other_origins_are_told_nothing(origin: str) -> None:
    async with running(CORS_ORIGINS=ORIGIN) as gateway:
        assert await cors_headers(gateway, "GET", "/v1/models", Origin=origin) == (200, {})
        assert await cors_headers(gateway, "OPTIONS", PATH, Origin=origin, **ASKED) == (405, {})
        assert await cors_headers(gateway, "GET", "/v1/models") == (200, {})


async def test_a_star_allows_every_origin_and_an_options_that_asks_nothing_stays_a_405() -> None:
    async with running(CORS_ORIGINS="*") as gateway:
        _, headers = await cors_headers(gateway, "GET", "/v1/models", Origin="https://any.example")
        assert headers["access-control-allow-origin"] == "https://any.example"
        status, _ = await cors_headers(gateway, "OPTIONS", PATH, Origin="https://any.example")
        assert status == 405
