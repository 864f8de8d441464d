"""POST /v1/chat/completions: every field on an upstream that knows none of them, and bodies nobody should send."""

import asyncio
import gzip
import zlib

import psutil
import pytest
from aiohttp import ClientSession

from qwen_proxy.simulator import Pause, Reset, Scenario, Stall, frames, stream
from tests.support.freed import freed
from tests.support.http import USER_KEY, raw
from tests.support.replies import PATH, Json, chunks, folded, joined, refusal
from tests.support.running import Running, ask, running

COUNTING = "word1 word2 word3 word4 word5 word6 word7 word8 word9 word10 word11 word12"
REPEAT = "[[sim repeat 12]]"
LIMITS: list[tuple[dict[str, object], str, str]] = [
    ({}, COUNTING, "stop"),
    ({"stop": "word4"}, "word1 word2 word3 ", "stop"),
    ({"stop": ["d5 wo", "word9"]}, "word1 word2 word3 word4 wor", "stop"),
    ({"stop": "never there"}, COUNTING, "stop"),
    ({"stop": "word12"}, COUNTING.removesuffix("word12"), "stop"),
    ({"max_tokens": 1}, "word", "length"),
    ({"max_completion_tokens": 5}, "word1 word2 word", "length"),
    ({"max_tokens": 9, "stop": "word3"}, "word1 word2 ", "stop"),
    ({"max_tokens": 3, "stop": "word9"}, "word1 word", "length"),
    ({"max_tokens": 10_000}, COUNTING, "stop"),
]
CUTS = ["", "[[sim bytes 1]]", "[[sim bytes 7]]", "[[sim one-segment]]", "[[sim gzip]] [[sim bytes 3]]", "[[sim crlf]]"]


def content(choice: Json) -> tuple[str, str]:
    return choice["message"]["content"], choice["finish_reason"]


@pytest.mark.parametrize("cut", CUTS)
async def test_limits_give_the_same_streamed_folded_and_however_the_upstream_is_cut(cut: str) -> None:
    async with running(ACCOUNT_CONCURRENCY="4") as gateway:
        for fields, text, finish in LIMITS:
            for n in (1, 2):
                body = ask(f"{REPEAT} {cut}", n=n, **fields)
                reply = await folded(gateway, body)
                assert [content(choice) for choice in reply["choices"]] == [(text, finish)] * n, fields
                assert [content(choice) for choice in joined(await chunks(gateway, body))] == [(text, finish)] * n


async def test_a_reply_that_a_limit_ended_frees_the_account_for_the_next_at_once() -> None:
    async with running(ACCOUNT_CONCURRENCY="1") as gateway:
        for _ in range(3):
            reply = await asyncio.wait_for(folded(gateway, ask("[[sim stall 9]] [[sim repeat 99]]", stop="word5")), 5)
            assert content(reply["choices"][0]) == ("word1 word2 word3 word4 ", "stop")
        assert gateway.leases() == 0


async def test_streamed_and_folded_say_the_same_of_thinking_and_search() -> None:
    async with running() as gateway:
        body = ask("[[sim think append]] [[sim search two]] [[sim say Done]]") | {
            "model": "qwen3.7-plus-thinking-search"
        }
        whole = (await folded(gateway, body))["choices"][0]["message"]
        (streamed,) = joined(await chunks(gateway, body))
        assert whole["reasoning_content"] and len(whole["annotations"]) == 2
        for name in ("role", "content", "reasoning_content", "annotations"):
            assert streamed["message"][name] == whole[name], name


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({}, False),
        ({"enable_thinking": True}, True),
        ({"enable_thinking": "true"}, True),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"model": "qwen3.7-plus-thinking"}, True),
        ({"model": "qwen3.7-plus-thinking", "enable_thinking": False}, False),
        ({"model": "qwen3.8-max", "enable_thinking": False}, True),  # it can't do otherwise
    ],
)
async def test_thinking_follows_the_clients_wish_and_the_models_nature(fields: Json, thinks: bool) -> None:
    async with running() as gateway:
        await folded(gateway, ask() | fields)
        sent = gateway.simulator.seen("completions")[-1].json["messages"][0]["feature_config"]
        assert sent["thinking_enabled"] is thinks


async def test_a_thinking_budget_reaches_the_upstream() -> None:
    async with running() as gateway:
        await folded(gateway, ask(enable_thinking=True, thinking_budget=321))
        sent = gateway.simulator.seen("completions")[-1].json["messages"][0]["feature_config"]
        assert sent["thinking_budget"] == 321


async def test_ignored_fields_are_named_in_a_header_and_refused_in_strict_mode() -> None:
    body = ask(temperature=0.5, seed=7, user="u", metadata={"a": 1}, mystery=1, top_p=None)
    async with running() as gateway:
        for streamed in (True, False):
            async with gateway.client.post(PATH, json=body | {"stream": streamed}) as response:
                assert response.status == 200
                named = set(response.headers["x-qwen-proxy-ignored"].split(", "))
                assert named == {"temperature", "seed", "user", "metadata", "mystery"}
        async with gateway.client.post(PATH, json=ask() | {"bad\r\nSet-Cookie: x=1": 1, "ключ": 2}) as response:
            assert response.status == 200
            assert "Set-Cookie" not in response.headers
            assert set(response.headers["x-qwen-proxy-ignored"].split(", ")) == {"?"}
        async with gateway.client.post(PATH, json=ask()) as response:
            assert "x-qwen-proxy-ignored" not in response.headers
    async with running(STRICT_FIELDS="true") as gateway:
        async with gateway.client.post(PATH, json=body) as response:
            assert await refusal(response) == (400, "unsupported_parameter", "temperature")
        async with gateway.client.post(PATH, json=ask()) as response:
            assert response.status == 200


REFUSED: list[tuple[Json, str | None, str]] = [
    ({"logprobs": True}, "unsupported_parameter", "logprobs"),
    ({"top_logprobs": 3}, "unsupported_parameter", "top_logprobs"),
    ({"response_format": {"type": "xml"}}, None, "response_format.type"),
    ({"modalities": ["audio"]}, "unsupported_parameter", "modalities"),
    ({"audio": {"voice": "x"}}, "unsupported_parameter", "audio"),
    ({"n": 9}, None, "n"),
    ({"n": 0}, None, "n"),
    ({"max_tokens": 0}, None, "max_tokens"),
    ({"max_tokens": "many"}, None, "max_tokens"),
    ({"stop": [""]}, None, "stop"),
    ({"stop": ["x"] * 17}, None, "stop"),
    ({"stream": "yes"}, None, "stream"),
    ({"messages": []}, None, "messages"),
    ({"messages": "hello"}, None, "messages"),
    ({"messages": [{"role": "alien", "content": "x"}]}, None, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, None, "messages[0].content"),
    ({"messages": [{"content": "x"}]}, None, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, None, "messages[0].content[0].type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]},
        "unsupported_parameter",
        "messages[0].content[0]",
    ),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, None, "tools[0].function.name"),
]


async def test_what_cannot_be_honoured_is_refused_by_name_streamed_or_not() -> None:
    async with running() as gateway:
        for fields, code, param in REFUSED:
            for streamed in (False, True):
                async with gateway.client.post(PATH, json={**ask(), "stream": streamed, **fields}) as response:
                    assert await refusal(response) == (400, code, param), fields
        assert gateway.simulator.seen("chats_new") == []


async def test_a_single_user_message_goes_unchanged_and_a_conversation_in_the_documented_form() -> None:
    def sent(gateway: Running) -> str:
        return gateway.simulator.seen("completions")[-1].json["messages"][0]["content"]

    async with running() as gateway:
        text = 'Line\n\n[[user 1234]]\n  "quoted" \u2028 \U0001f600 '
        await folded(gateway, ask(text))
        assert sent(gateway) == text
        turns = [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
        ]
        await folded(gateway, ask() | {"messages": turns})
        assert [sent(gateway).find(word) > 0 for word in ("[[system ", "[[user ", "[[assistant ", "three")] == [
            True
        ] * 4


async def test_a_stream_asks_what_stands_between_not_to_hold_it_back() -> None:
    async with running() as gateway, gateway.client.post(PATH, json=ask(stream=True)) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Accel-Buffering"] == "no"


async def test_more_choices_than_an_account_takes_at_a_time_wait_their_turn() -> None:
    async with running(ACCOUNT_CONCURRENCY="1") as gateway:
        body = ask(REPEAT, n=4)
        assert [content(choice) for choice in (await folded(gateway, body))["choices"]] == [(COUNTING, "stop")] * 4
        assert [content(choice) for choice in joined(await chunks(gateway, body))] == [(COUNTING, "stop")] * 4


async def test_one_choice_that_fails_ends_the_others_and_tells_once() -> None:
    replies = [
        stream(frames.created(), frames.answer("fine so far"), Stall()),
        stream(frames.created(), frames.answer("not for long"), Pause(0.2), Reset()),
    ]
    async with running(Scenario(replies=replies * 2), CHAT_RETRY_COUNT="0") as gateway:
        async with gateway.client.post(PATH, json=ask(n=2, stream=True)) as response:
            text = await asyncio.wait_for(response.text(), 5)
        assert text.count('"error"') == 1 and "fine so far" in text and not text.endswith("[DONE]\n\n")
        assert await freed(gateway)
        async with gateway.client.post(PATH, json=ask(n=2)) as response:
            assert (await refusal(response))[0] == 502
        assert await freed(gateway)


# --- bodies --------------------------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}
BODIES: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("blank", b"  \n"),
    ("no json", b"hello"),
    ("half", b'{"messages": ['),
    ("array", b"[]"),
    ("null", b"null"),
    ("number", b"1e999"),
    ("not utf-8", b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}'),
    ("utf-16", '{"messages": []}'.encode("utf-16")),
    ("deep array", b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    ("deep object", b'{"x":' * 100_000 + b"1" + b"}" * 100_000),
    ("deep in messages", b'{"messages": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
]


@pytest.mark.parametrize("body", [body for _, body in BODIES], ids=[name for name, _ in BODIES])
async def test_a_body_that_is_no_request_is_a_400(body: bytes) -> None:
    async with running() as gateway, gateway.client.post(PATH, data=body, headers=JSON) as response:
        status, _, _ = await refusal(response)
        assert status == 400


async def test_the_content_type_does_not_matter() -> None:
    async with running() as gateway:
        body = b'{"messages": [{"role": "user", "content": "hello"}]}'
        for kind in ("text/plain", "application/json; charset=latin-1", "multipart/form-data; boundary=x", "nonsense"):
            async with gateway.client.post(PATH, data=body, headers={"Content-Type": kind}) as response:
                assert response.status == 200, kind


async def test_a_body_beyond_the_cap_is_a_413_whether_announced_or_chunked_or_compressed() -> None:
    async with running(MAX_BODY_BYTES="100K") as gateway:
        large = b'{"messages": [{"role": "user", "content": "' + b"x" * 150_000 + b'"}]}'

        async def dripping() -> object:
            for start in range(0, len(large), 10_000):
                yield large[start : start + 10_000]

        async with gateway.client.post(PATH, data=large, headers=JSON) as response:
            assert (await refusal(response))[:2] == (413, "request_too_large")
        async with gateway.client.post(PATH, data=dripping(), headers=JSON) as response:
            assert (await refusal(response))[:2] == (413, "request_too_large")


async def test_a_compressed_body_is_read() -> None:
    async with running() as gateway:
        plain = b'{"messages": [{"role": "user", "content": "hello"}]}'
        for encoding, packed in (
            ("gzip", gzip.compress(plain)),
            ("X-GZIP", gzip.compress(plain)),
            ("deflate", zlib.compress(plain)),
            ("deflate", zlib.compress(plain)[2:-4]),
            ("identity", plain),
        ):
            headers = JSON | {"Content-Encoding": encoding}
            async with gateway.client.post(PATH, data=packed, headers=headers) as response:
                assert response.status == 200, encoding


def bomb(megabytes: int) -> bytes:
    packing = zlib.compressobj(9, wbits=31)
    megabyte = b"x" * 1_000_000
    pieces = [packing.compress(b'{"messages": [{"role": "user", "content": "')]
    pieces += [packing.compress(megabyte) for _ in range(megabytes)]
    return b"".join([*pieces, packing.flush()])


async def test_a_bomb_is_not_unpacked_for_a_stranger_and_only_up_to_the_cap_for_a_caller() -> None:
    packed = bomb(600)
    assert len(packed) < 900_000
    async with running(MAX_BODY_BYTES="1M") as gateway, ClientSession(gateway.url) as stranger:
        for client, status in ((stranger, 401), (gateway.client, 413)):
            before = psutil.Process().cpu_times()
            headers = JSON | {"Content-Encoding": "gzip"}
            async with client.post(PATH, data=packed, headers=headers) as response:
                assert (await refusal(response))[0] == status
            async with client.get("/healthz") as response:  # behind whatever is left of the body
                assert response.status == 200
            after = psutil.Process().cpu_times()
            assert after.user - before.user < 0.4  # all of it takes 1.2 s


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "rot13", "gzip, gzip"])
async def test_a_broken_or_unknown_encoding_is_a_400(encoding: str) -> None:
    async with running() as gateway:
        headers = JSON | {"Content-Encoding": encoding}
        async with gateway.client.post(PATH, data=b"\x00not packed at all", headers=headers) as response:
            assert (await refusal(response))[0] == 400


async def test_a_prompt_that_does_not_fit_is_the_apis_own_400_before_anything_is_asked() -> None:
    async with running(MAX_PROMPT_BYTES="10K") as gateway:
        for streamed in (False, True):
            turns = [{"role": role, "content": "x" * 5_000} for role in ("user", "assistant", "user")]
            async with gateway.client.post(PATH, json=ask(stream=streamed) | {"messages": turns}) as response:
                assert await refusal(response) == (400, "context_length_exceeded", "messages")
                assert "prompt is too long" in await response.text()
        assert gateway.simulator.seen("chats_new") == []
        assert gateway.leases() == 0
        (report,) = gateway.pool.snapshot()
        assert report.failed == 0
        await folded(gateway, ask("x" * 5_000))


async def test_requests_may_follow_each_other_on_one_connection_after_any_refusal() -> None:
    async with running() as gateway:
        port = int(gateway.url.rpartition(":")[2])
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER_KEY}\r\nContent-Length: 5\r\n\r\nhello"
        reader, writer = await raw(port, head.encode() * 2)
        for _ in range(2):
            assert (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 400")
            headers = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in headers.split(b"\r\n") if line.lower().startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
        writer.close()
        await writer.wait_closed()
