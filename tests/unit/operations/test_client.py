"""The client of our own server, against a server that says what a test wants."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.chat import answer_to, printable
from qwen_proxy.operations.client import Citation, Counts, Question, ServerClient, ServerRefused, ServerSilent
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.upstreams.transport import Transport

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def client_of(handler: Handler) -> AsyncGenerator[ServerClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with Transport(SystemClock()) as transport:
            yield ServerClient(transport, f"http://127.0.0.1:{port}", Secret("sk-admin-key"), SystemClock())
    finally:
        await runner.cleanup()


def answering(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer sk-admin-key"
        encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return web.Response(body=encoded, status=status, headers=headers)

    return answer


def streaming(*payloads: object) -> Handler:
    body = b"".join(
        b"data: " + (payload if isinstance(payload, bytes) else msgspec.json.encode(payload)) + b"\n\n"
        for payload in payloads
    )
    return answering(body, 200, {"x-request-id": "req_1"})


def delta(**words: object) -> dict[str, Any]:
    return {"model": "qwen", "choices": [{"delta": words, "finish_reason": None}], "usage": None}


NOWHERE = "http://127.0.0.1:1"


async def test_health_is_read_from_healthz():
    async with client_of(answering({"status": "ok"})) as client:
        assert await client.is_up()
    async with client_of(answering(b"hello")) as client:
        assert not await client.is_up()
    async with client_of(answering({"status": "ok"}, 500)) as client:
        assert not await client.is_up()


async def test_nothing_there_is_silence():
    async with Transport(SystemClock()) as transport:
        client = ServerClient(transport, NOWHERE, Secret("k"), SystemClock())
        assert not await client.is_up()
        with pytest.raises(ServerSilent, match="does not answer"):
            await client.models()
        with pytest.raises(ServerSilent, match="does not answer"):
            await client.ask(Question(text="hi"))


async def test_diagnostics_of_another_version_are_read_as_far_as_they_go():
    body = {"version": "9", "accounts": [{"account": "a@x", "mood": 1}], "upstream": {"simulated": True}, "more": []}
    async with client_of(answering(body)) as client:
        found = await client.diagnostics()
    assert (found.version, found.accounts[0].account, found.upstream.simulated) == ("9", "a@x", True)
    async with client_of(answering({"accounts": 3})) as client:
        with pytest.raises(ServerSilent, match="unknown to this version"):
            await client.diagnostics()


async def test_refusal_carries_the_servers_sentence_and_code():
    body = {"error": {"message": "no valid API key", "code": "invalid_api_key", "type": "x", "param": None}}
    async with client_of(answering(body, 401, {"x-request-id": "req_9"})) as client:
        with pytest.raises(ServerRefused, match="no valid API key") as caught:
            await client.diagnostics()
        assert (caught.value.status, caught.value.code, caught.value.request_id) == (401, "invalid_api_key", "req_9")
        with pytest.raises(ServerRefused, match="no valid API key"):
            await client.ask(Question(text="hi"))
    async with client_of(answering(b"<html>", 502)) as client:
        with pytest.raises(ServerRefused, match="HTTP 502"):
            await client.models()


async def test_streamed_reply_is_handed_on_and_put_together():
    source = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "origin": "upstream"}
    handler = streaming(
        delta(role="assistant", content=""),
        delta(reasoning_content="hm"),
        delta(content="He"),
        delta(content="llo", annotations=[source]),
        {"model": "qwen", "choices": [{"delta": {"content": None}, "finish_reason": "stop"}]},
        {"model": "qwen", "choices": [], "usage": usage},
        b"[DONE]",
    )
    thoughts: list[str] = []
    words: list[str] = []
    async with client_of(handler) as client:
        answered = await client.ask(Question(text="hi", model="qwen", thinking=True), thoughts.append, words.append)
    assert (thoughts, words) == (["hm"], ["He", "llo"])
    assert (answered.text, answered.reasoning, answered.finish_reason) == ("Hello", "hm", "stop")
    assert answered.sources == (Citation("https://a.example", "A"),)
    assert answered.usage == Counts(prompt_tokens=3, completion_tokens=2, total_tokens=5, origin="upstream")
    assert answered.request_id == "req_1"
    assert answered.first_seconds is not None and answered.first_seconds <= answered.seconds


async def test_reply_that_is_not_streamed():
    body = {"model": "qwen", "choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
    async with client_of(answering(body)) as client:
        answered = await client.ask(Question(text="hi", stream=False))
    assert (answered.text, answered.usage, answered.first_seconds) == ("Hi", None, None)


async def test_error_in_the_middle_of_a_stream():
    handler = streaming(delta(content="He"), {"error": {"message": "broke off", "code": "upstream_unavailable"}})
    async with client_of(handler) as client:
        with pytest.raises(ServerRefused, match="broke off") as caught:
            await client.ask(Question(text="hi"))
    assert caught.value.code == "upstream_unavailable"


async def test_reply_in_no_known_form():
    async with client_of(streaming(b"no JSON")) as client:
        with pytest.raises(ServerSilent, match="can't be read"):
            await client.ask(Question(text="hi"))


@pytest.mark.parametrize(
    ("model", "thinking", "asked"),
    [
        ("qwen", None, "qwen-search"),
        ("qwen", True, "qwen-thinking-search"),
        ("qwen-search", None, "qwen-search"),
        ("", False, "first-search"),
    ],
)
async def test_search_is_asked_for_by_the_models_suffix(model: str, thinking: bool | None, asked: str):
    bodies: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"data": [{"id": "first"}, {"id": "second"}]})
        bodies.append(await request.json())
        return web.json_response({"choices": [{"message": {"content": "x"}}]})

    async with client_of(handler) as client:
        question = Question(text="hi", model=model, thinking=thinking, stream=False)
        await answer_to(client, question, searches=True, on_reasoning=lambda _: None, on_text=lambda _: None)
    assert bodies[0]["model"] == asked


def test_control_characters_do_not_reach_the_terminal():
    assert printable("a\x1b[2Jb\n\tc\u200d…") == "a[2Jb\n\tc…"
