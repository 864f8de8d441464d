"""Claude Code's own requests, as recorded, through the whole program."""

from typing import Any

import anthropic
import msgspec

from qwen_proxy.chat.request import Role
from qwen_proxy.chat.transcript import parse
from tests.support.http import USER_KEY
from tests.support.openai_server import OpenAIServer
from tests.support.running import Running, running

BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    "mid-conversation-tool-changes-2026-07-01,effort-2025-11-24,thinking-display-updates-2026-08-18"
)
BODY: dict[str, Any] = {
    "model": "claude-opus-5-5",
    "max_tokens": 32000,
    "stream": True,
    "thinking": {"type": "adaptive", "display": "omitted"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"10059b3c"}'},
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330; cch=00000;"},
        {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be precise.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "[[sim think]] [[sim say Done]]"}]},
        {"role": "system", "content": [{"type": "text", "text": "The folder is /tmp/t."}]},
    ],
    "tools": [{"name": "Rare", "description": "later", "input_schema": {"type": "object"}, "defer_loading": True}],
}


async def ask(gateway: Running, body: dict[str, Any]) -> tuple[dict[str, str], str]:
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": BETAS, "Authorization": f"Bearer {USER_KEY}"}
    async with gateway.client.post("/v1/messages?beta=true", json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        return dict(response.headers), await response.text()


async def test_claude_codes_request_is_taken_as_it_is() -> None:
    async with running() as gateway:
        headers, written = await ask(gateway, BODY)
        assert headers["x-qwen-proxy-ignored"] == "context_management"
        assert "thinking_delta" not in written and "signature_delta" in written
        assert '"text":"Done"' in written and written.endswith('data: {"type":"message_stop"}\n\n')
        prompt = gateway.simulator.seen("completions")[-1].json["messages"][0]["content"]
        said = parse(prompt)
        assert [role for role, _ in said] == [Role.SYSTEM, Role.USER, Role.SYSTEM]
        assert said[0][1] == "You are Claude Code.\nBe precise."
        assert said[2][1] == "The folder is /tmp/t."
        assert "x-anthropic-billing-header" not in prompt and "Rare" not in prompt


async def test_a_turn_that_is_begun_is_continued() -> None:
    body = BODY | {"messages": [*BODY["messages"], {"role": "assistant", "content": "So far: "}], "stream": False}
    async with running() as gateway:
        await ask(gateway, body)
        prompt = gateway.simulator.seen("completions")[-1].json["messages"][0]["content"]
        assert "Continue the last assistant message from exactly where it stops" in prompt


async def test_what_is_not_served_is_refused_in_anthropics_words() -> None:
    async with running() as gateway:
        headers = {"anthropic-version": "2023-06-01"}
        async with gateway.client.post("/v1/messages/batches", json={}, headers=headers) as response:
            body = await response.json()
            assert (response.status, body["type"], body["error"]["type"]) == (404, "error", "not_found_error")
        async with gateway.client.get("/v1/messages", headers=headers) as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
            assert (await response.json())["error"]["type"] == "invalid_request_error"
        async with gateway.client.post("/v1/messages/batches", json={}) as response:
            assert (response.status, (await response.json())["type"]) == (404, "error")
        async with gateway.client.post("/v1/batches", json={}) as response:
            assert (await response.json())["error"]["code"] == "unknown_url"


async def test_a_backend_that_takes_pictures_and_tools_itself_is_given_them() -> None:
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
    tools: Any = [{"name": name, "input_schema": {"type": "object"}} for name in ("weather", "time")]
    async with OpenAIServer() as server:
        backends = msgspec.json.encode([{"name": "b", "base_url": server.base_url}]).decode()
        async with running(accounts=(), BACKENDS=backends) as gateway:
            async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=USER_KEY, max_retries=0) as client:
                text: Any = {"type": "text", "text": "[[recording calls_interleaved]]"}
                question: Any = {"role": "user", "content": [image, text]}
                async with client.messages.stream(
                    model="m-1", max_tokens=500, messages=[question], tools=tools, extra_body={"top_k": 7}
                ) as stream:
                    reply = await stream.get_final_message()
                assert [(block.name, block.input) for block in reply.content if block.type == "tool_use"] == [
                    ("weather", {"city": "Paris"}),
                    ("time", {"zone": "CET"}),
                ]
                assert reply.stop_reason == "tool_use"
                results: Any = [
                    {"type": "tool_result", "tool_use_id": block.id, "content": "ok"}
                    for block in reply.content
                    if block.type == "tool_use"
                ]
                again: Any = [question, reply.to_param(), {"role": "user", "content": results}]
                raw = await client.messages.with_raw_response.create(
                    model="m-1", max_tokens=500, messages=again, tools=tools, extra_body={"top_k": 7, "speed": "fast"}
                )
                assert raw.headers["x-qwen-proxy-ignored"] == "speed"
        first, second = server.asked
        assert first["messages"][0]["content"][0]["image_url"]["url"] == "data:image/png;base64,iVBO"
        assert first["top_k"] == 7 and [tool["function"]["name"] for tool in first["tools"]] == ["weather", "time"]
        called = [call["id"] for call in second["messages"][1]["tool_calls"]]
        assert called == [each["tool_call_id"] for each in second["messages"] if each["role"] == "tool"]
