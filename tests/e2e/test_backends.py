"""Other backends behind the real server: keys, their health, and what an operator switches."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from qwen_proxy.app.backends import spoken
from qwen_proxy.app.commons import Kept
from qwen_proxy.config.backends import BackendForm, read_forms
from qwen_proxy.config.settings import WrongSetting
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.ground.secret import Secret
from qwen_proxy.storage.opening import FilePlace
from tests.support.http import USER_KEY
from tests.support.openai_server import RECORDINGS, OpenAIServer, answer
from tests.support.running import Running, ask, running
from tests.support.waiting import until


def described(server: OpenAIServer, *keys: str, **fields: object) -> str:
    form = {"name": "b", "base_url": server.base_url, "keys": keys, **fields}
    return msgspec.json.encode([form]).decode()


def sdk(served: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=USER_KEY, max_retries=0)


async def say(served: Running, text: str = "hello", **fields: Any) -> Any:
    async with served.client.post("/v1/chat/completions", json=ask(text, model="m-1", **fields)) as response:
        return response.status, await response.json()


async def test_without_an_account_the_backend_serves_and_not_the_simulator() -> None:
    async with OpenAIServer("sk-1") as server:
        async with running(accounts=(), BACKENDS=described(server, "sk-1")) as served, sdk(served) as client:
            assert [model.id async for model in client.models.list()] == ["m-1", "m-2"]
            made = await client.chat.completions.create(model="m-1", messages=[{"role": "user", "content": "hi"}])
            assert made.choices[0].message.content == "hi " and made.usage and made.usage.prompt_tokens == 7
            async with served.client.get("/readyz") as ready:
                assert ready.status == 200


async def test_a_stream_is_parsed_and_told_anew() -> None:
    async with OpenAIServer() as server:
        async with running(accounts=(), BACKENDS=described(server)) as served, sdk(served) as client:
            async with client.chat.completions.stream(
                model="m-1", messages=[{"role": "user", "content": "[[recording calls_interleaved]]"}]
            ) as stream:
                async for _ in stream:
                    pass
                whole = await stream.get_final_completion()
            calls = whole.choices[0].message.tool_calls or []
            told = [(call.id, call.function.name, call.function.arguments) for call in calls]
            assert told == [("call_a", "weather", '{"city": "Paris"}'), ("call_b", "time", '{"zone": "CET"}')]


async def test_a_key_that_is_refused_is_retired_and_the_next_one_serves_also_after_a_restart(tmp_path: Path) -> None:
    place = Kept(FilePlace(tmp_path / "kept.db"), Secret("s" * 32))
    async with OpenAIServer("sk-good") as server:
        settings = {"BACKENDS": described(server, "sk-bad", "sk-good", models=["m-1"]), "CHAT_RETRY_COUNT": "2"}
        for _ in range(2):
            async with running(None, place, accounts=(), **settings) as served:
                for _ in range(3):
                    status, body = await say(served)
                    assert status == 200, body
                reports = served.others.reports("b")
                assert [report.state.value for report in reports] == ["retired", "ready"]
                assert "invalid_api_key" in reports[0].reason
        assert server.keys.count("sk-bad") == 1
        settings["BACKENDS"] = described(server, "sk-bad", models=["m-1"])
        async with running(None, place, accounts=(), **settings) as served:
            status, body = await say(served)
            assert status == 503 and "invalid_api_key" in body["error"]["message"]
            (tried,) = await served.others.test("b")
            assert tried.problem and served.others.reports("b")[0].state.value == "retired"
            server.keys_taken = ("sk-bad",)
            (tried,) = await served.others.test("b")
            await served.commons.watch.catch_up()
            assert not tried.problem
            status, body = await say(served)
            assert status == 200, (body, served.others.reports("b"))


async def test_quota_and_throttling_park_a_key() -> None:
    async with OpenAIServer() as server:
        server.refusals["sk-1"] = lambda: answer(429, RECORDINGS["insufficient_quota"].body)
        async with running(accounts=(), BACKENDS=described(server, "sk-1", models=["m-1"])) as served:
            async with served.client.post("/v1/chat/completions", json=ask(model="m-1")) as response:
                assert response.status == 429 and 60 <= int(response.headers["Retry-After"]) <= 65
            (report,) = served.others.reports("b")
            assert report.state.value == "out_of_quota" and len(server.keys) == 1
    async with OpenAIServer() as server:
        server.refusals["sk-1"] = lambda: answer(
            429, RECORDINGS["throttled"].body, "application/json", "Retry-After: 7"
        )
        async with running(accounts=(), BACKENDS=described(server, "sk-1", "sk-2", models=["m-1"])) as served:
            for _ in range(3):
                assert (await say(served))[0] == 200
            assert server.keys.count("sk-1") <= 1


async def test_what_the_server_says_of_a_request_is_told() -> None:
    async with OpenAIServer() as server, running(accounts=(), BACKENDS=described(server, models=["m-1"])) as served:
        status, body = await say(served, "[[recording refused_field]]")
        assert status == 400 and body["error"]["code"] == "decimal_above_max_value"
        assert body["error"]["param"] == "temperature" and "Expected <= 2" in body["error"]["message"]
        status, body = await say(served, "[[recording llamacpp_too_long]]")
        assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
        assert len(server.asked) == 2


async def test_a_limit_of_uses_holds_and_is_waited_for() -> None:
    async with OpenAIServer() as server:
        limited = described(server, "sk-1", "sk-2", models=["m-1"], key_concurrency=1)
        async with running(accounts=(), BACKENDS=limited) as served:
            answers = await asyncio.gather(*(say(served, "[[sim slow 1ms]] [[sim repeat 20]] x") for _ in range(6)))
            assert [status for status, _ in answers] == [200] * 6 and server.most_at_once == 2


async def test_a_backend_is_added_switched_off_and_removed_while_requests_run() -> None:
    async with OpenAIServer("sk-1") as server, running(accounts=()) as served:
        book = served.others.book
        await book.add(BackendForm(name="b", base_url=server.base_url, key="sk-1"))
        await served.commons.watch.catch_up()
        assert (await say(served))[0] == 200
        await book.edit("b", BackendForm(enabled=False))
        await served.commons.watch.catch_up()
        assert (await say(served))[0] != 200
        await book.edit("b", BackendForm(enabled=True, prefix="x/"))
        await served.commons.watch.catch_up()
        async with served.client.post("/v1/chat/completions", json=ask(model="x/m-1")) as response:
            assert response.status == 200
        (tried,) = await served.others.test("b")
        assert tried.models == ("m-1", "m-2")
        await book.remove("b")
        await served.commons.watch.catch_up()
        assert not served.others.current()


@pytest.mark.parametrize("path", ["", "/v2"])
async def test_a_wrong_address_is_told_clearly(path: str) -> None:
    async with OpenAIServer() as server:
        wrong = server.base_url.removesuffix("/v1") + path
        backend = msgspec.json.encode([{"name": "b", "base_url": wrong}]).decode()
        async with running(accounts=(), BACKENDS=backend, CHAT_RETRY_COUNT="0") as served:
            status, body = await say(served)
            assert status == 502 and "is the base URL right?" in body["error"]["message"]


async def test_fields_that_the_site_has_no_use_for_reach_a_server_that_may() -> None:
    async with OpenAIServer() as server, running(accounts=(), BACKENDS=described(server, models=["m-1"])) as served:
        fields: dict[str, object] = {
            "temperature": 0.5,
            "min_p": 0.1,
            "user": "u",
            "seed": 0,
            "max_tokens": 5,
            "stop": ["never"],
        }
        async with served.client.post("/v1/chat/completions", json=ask(model="m-1") | fields) as response:
            assert response.status == 200 and "x-qwen-proxy-ignored" not in response.headers
        (asked,) = server.asked
        assert {name: asked.get(name) for name in fields} == fields | {"stop": None}
        assert asked["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("path", "fields", "sent", "named"),
    [
        ("/v1/completions", {"prompt": "hi", "min_p": 0.1, "user": "u"}, {"min_p": 0.1, "user": "u"}, "min_p, user"),
        (
            "/v1/responses",
            {"input": "hi", "min_p": 0.1, "user": "u", "service_tier": "flex", "prompt_cache_key": "k"},
            {"min_p": 0.1, "user": "u", "service_tier": "flex", "prompt_cache_key": "k"},
            "min_p, service_tier",
        ),
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": "hi"}], "options": {"repeat_penalty": 1.1}, "stream": False},
            {"repeat_penalty": 1.1, "repetition_penalty": 1.1},
            "options.repeat_penalty",
        ),
        ("/v1/responses", {"input": "hi", "text": {"verbosity": "low"}}, {"verbosity": "low"}, "text.verbosity"),
    ],
)
async def test_other_protocols_hand_on_what_is_not_ours_as_well(
    path: str, fields: dict[str, Any], sent: dict[str, Any], named: str
) -> None:
    async with OpenAIServer() as server, running(BACKENDS=described(server, models=["m-1"])) as served:
        for model, ignored in (("m-1", None), ("qwen3.7-plus", named)):
            async with served.client.post(path, json=fields | {"model": model}) as response:
                assert (response.status, response.headers.get("x-qwen-proxy-ignored")) == (200, ignored)
        (asked,) = server.asked
        assert {name: asked.get(name) for name in sent} == sent


async def test_log_probabilities_formats_and_effort_pass() -> None:
    async with OpenAIServer() as server:
        backend = described(server, models=["m-1"])
        async with running(accounts=(), BACKENDS=backend, STRICT_FIELDS="true") as served, sdk(served) as client:
            made = await client.chat.completions.create(
                model="m-1",
                messages=[{"role": "user", "content": "[[recording llamacpp_logprobs]]"}],
                logprobs=True,
                top_logprobs=2,
                reasoning_effort="low",
                response_format={"type": "json_object"},
                extra_body={"repetition_penalty": 1.1},
            )
            told = made.choices[0].logprobs
            assert told and [each.token for each in told.content or []] == ["<", "|", "im", "_"]
            (asked,) = server.asked
            assert asked["reasoning_effort"] == "low" and asked["response_format"] == {"type": "json_object"}
            assert asked["repetition_penalty"] == 1.1 and asked["top_logprobs"] == 2


async def test_one_call_at_most_is_kept_to_though_the_server_gives_two() -> None:
    async with OpenAIServer() as server, running(accounts=(), BACKENDS=described(server, models=["m-1"])) as served:
        status, body = await say(served, "[[recording calls_interleaved]]", parallel_tool_calls=False)
    choice = body["choices"][0]
    assert (status, choice["finish_reason"]) == (200, "tool_calls")
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather"]


INCLUDED = "message.output_text.logprobs"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
STRICT: list[tuple[str, dict[str, Any]]] = [
    ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "temperature": 0.5}),
    ("/v1/responses", {"input": "hi", "temperature": 0.5}),
    ("/v1/responses", {"input": "hi", "temperature": 0.5, "background": True}),
    ("/v1/completions", {"prompt": "hi", "temperature": 0.5}),
    ("/api/chat", {"messages": [{"role": "user", "content": "hi"}], "options": {"temperature": 0.5}, "stream": False}),
    (
        "/v1beta/models/{model}:generateContent",
        {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"temperature": 0.5}},
    ),
]


async def test_a_server_that_is_strict_refuses_sampling_only_where_the_upstream_takes_none() -> None:
    async with OpenAIServer() as server:
        backend = described(server, models=["m-1"])
        async with running(BACKENDS=backend, STRICT_FIELDS="true") as served:
            for path, fields in STRICT:
                for model, status in (("m-1", 200), ("qwen3.7-plus", 400)):
                    body = fields if "{" in path else fields | {"model": model}
                    async with served.client.post(path.format(model=model), json=body) as response:
                        assert response.status == status, (path, model, await response.text())
            await until(lambda: len(server.asked) == len(STRICT))
        assert [asked["temperature"] for asked in server.asked] == [0.5] * len(STRICT)


async def test_several_choices_are_several_requests() -> None:
    async with OpenAIServer() as server, running(accounts=(), BACKENDS=described(server, models=["m-1"])) as served:
        status, body = await say(served, n=3)
        assert status == 200 and len(body["choices"]) == 3 and len(server.asked) == 3


# By path: what asks for log probabilities, the name of the field, and what of it reaches a server that has them.
WISHES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("/v1/chat/completions", HELLO | {"logprobs": True}, "logprobs", {"logprobs": True}),
    ("/v1/responses", {"input": "hi", "top_logprobs": 2}, "top_logprobs", {"logprobs": True, "top_logprobs": 2}),
    ("/v1/responses", {"input": "hi", "include": [INCLUDED]}, "include", {"logprobs": True}),
    ("/v1/responses", {"input": "hi", "include": [INCLUDED], "background": True}, "include", {"logprobs": True}),
    ("/v1/completions", {"prompt": "hi", "logprobs": 2}, "logprobs", {"logprobs": True, "top_logprobs": 2}),
    ("/v1/completions", {"prompt": "hi", "logprobs": 0, "stop": "x"}, "logprobs", {"logprobs": True, "stop": ["x"]}),
    ("/api/chat", HELLO | {"logprobs": True, "stream": False}, "logprobs", {"logprobs": True}),
    ("/api/generate", {"prompt": "hi", "logprobs": True, "stream": False}, "logprobs", {"logprobs": True}),
    (
        "/v1beta/models/{model}:generateContent",
        {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"responseLogprobs": True, "logprobs": 2}},
        "generationConfig.responseLogprobs",
        {"logprobs": True, "top_logprobs": 2},
    ),
]


async def test_log_probabilities_are_asked_for_in_every_protocol_and_refused_by_name_where_the_site_has_none() -> None:
    async with OpenAIServer() as server:
        async with running(BACKENDS=described(server, models=["m-1"])) as served:
            for path, fields, name, sent in WISHES:
                for model in ("m-1", "qwen3.7-plus"):
                    body = fields if "{" in path else fields | {"model": model}
                    before = len(server.asked)
                    async with served.client.post(path.format(model=model), json=body) as response:
                        told = await response.text()
                    if model == "m-1":
                        assert response.status == 200, (path, told)
                        await until(lambda before=before: len(server.asked) == before + 1)
                        known = ("logprobs", "top_logprobs", "stop")
                        assert {each: server.asked[-1][each] for each in known if each in server.asked[-1]} == sent
                    else:
                        assert response.status == 400 and f"{name}: this upstream gives no log prob" in told, path
            assert not served.simulator.seen("completions")


async def test_a_protocol_that_nobody_speaks_stops_the_start_and_is_not_added() -> None:
    with pytest.raises(WrongSetting, match="`protocol` is one of openai"):
        spoken(read_forms(b'[{"name": "b", "base_url": "http://127.0.0.1:9/v1", "protocol": "odd"}]'))
    async with running() as served:
        with pytest.raises(InvalidRequest, match="nobody here speaks 'odd'"):
            await served.others.book.add(BackendForm(name="b", base_url="http://127.0.0.1:9/v1", protocol="odd"))
