"""Calls of tools from a client's socket to the upstream's and back, over a simulated model that obeys its prompt."""

import json
from typing import Any

import pytest

from qwen_proxy.config.keybook import NewKey
from tests.support.http import ADMIN_KEY, USER_KEY
from tests.support.running import Running, running

READ: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "Read",
        "description": "Reads a file.",
        "parameters": {
            "type": "object",
            "properties": {"file_path": {"type": "string"}, "limit": {"type": "integer"}},
            "required": ["file_path"],
        },
    },
}
CALL = '[[sim call Read {"file_path": "a.py", "limit": 3}]]'
ARGUMENTS = {"file_path": "a.py", "limit": 3}


def asked(text: str, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}, *more]
    return {"model": "qwen3.7-plus", "messages": messages, "tools": [READ], **fields}


class Got:
    """One reply, streamed or whole."""

    def __init__(self, text: str, calls: list[tuple[str, str]], finish: str | None, headers: dict[str, str]) -> None:
        self.text = text
        self.calls = [(name, json.loads(arguments)) for name, arguments in calls]
        self.finish = finish
        self.headers = {name.lower(): value for name, value in headers.items()}


async def folded(gateway: Running, body: dict[str, Any]) -> Got:
    async with gateway.client.post("/v1/chat/completions", json=body) as response:
        told = await response.json()
        assert response.status == 200, told
        message = told["choices"][0]["message"]
        made: list[dict[str, Any]] = message.get("tool_calls") or []
        calls = [(call["function"]["name"], call["function"]["arguments"]) for call in made]
        return Got(message["content"] or "", calls, told["choices"][0]["finish_reason"], dict(response.headers))


async def streamed(gateway: Running, body: dict[str, Any]) -> Got:
    text, finish = "", None
    calls: dict[int, list[str]] = {}
    async with gateway.client.post("/v1/chat/completions", json=body | {"stream": True}) as response:
        assert response.status == 200, await response.text()
        headers = dict(response.headers)
        for frame in (await response.text()).split("\n\n"):
            if not frame.startswith("data: {"):
                continue
            told = json.loads(frame.removeprefix("data: "))
            assert "error" not in told, told
            for choice in told["choices"]:
                delta: dict[str, Any] = choice["delta"]
                text += delta.get("content") or ""
                finish = choice["finish_reason"] or finish
                pieces: list[dict[str, Any]] = delta.get("tool_calls") or []
                for piece in pieces:
                    known = calls.setdefault(piece["index"], ["", ""])
                    known[0] += piece["function"].get("name") or ""
                    known[1] += piece["function"].get("arguments") or ""
    return Got(text, [(name, arguments) for name, arguments in calls.values()], finish, headers)


async def both(gateway: Running, body: dict[str, Any]) -> Got:
    """The reply, which is the same streamed and whole."""
    one, other = await streamed(gateway, body), await folded(gateway, body)
    assert (one.text, one.calls, one.finish) == (other.text, other.calls, other.finish)
    return one


async def test_a_tool_is_called_and_its_result_is_answered() -> None:
    async with running() as gateway:
        got = await both(gateway, asked(CALL))
        assert (got.text, got.calls, got.finish) == ("", [("Read", ARGUMENTS)], "tool_calls")
        call = {"id": "c1", "type": "function", "function": {"name": "Read", "arguments": json.dumps(ARGUMENTS)}}
        turns = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "print(1)"},
        ]
        answer = await both(gateway, asked(CALL, *turns))
        assert (answer.text, answer.calls, answer.finish) == ("The tool Read said: print(1)", [], "stop")


@pytest.mark.parametrize(
    "form", ["hermes", "coder", "function", "invoke", "cdata", "bracket", "bare", "fenced", "native"]
)
async def test_calls_in_forms_that_were_not_taught_are_read(form: str) -> None:
    async with running() as gateway:
        got = await both(gateway, asked(f"{CALL} [[sim form {form}]]"))
        assert (got.calls, got.finish) == ([("Read", ARGUMENTS)], "tool_calls")


@pytest.mark.parametrize(
    ("spoilt", "verdict"),
    [
        ("[[sim in-thinking once]]", "call_in_thinking"),
        ("[[sim intercepted once]]", "intercepted"),
        ("[[sim damage unknown-tool once]]", "call_invalid"),
        ("[[sim damage missing-argument once]]", "call_invalid"),
    ],
)
async def test_a_reply_that_can_not_be_used_is_asked_for_again(spoilt: str, verdict: str) -> None:
    for get in (streamed, folded):
        async with running() as gateway:
            got = await get(gateway, asked(f"{CALL} {spoilt}"))
            assert (got.calls, got.finish) == ([("Read", ARGUMENTS)], "tool_calls")
            trace = await trace_of(gateway, got)
            assert (trace["verdicts"], trace["tries"], trace["has_failed"]) == ([verdict], 2, False)


async def trace_of(gateway: Running, got: Got, key: str = USER_KEY) -> dict[str, Any]:
    url = f"/v1/requests/{got.headers['x-request-id']}/trace"
    async with gateway.client.get(url, headers={"Authorization": f"Bearer {key}"}) as response:
        return await response.json() | {"status": response.status}


async def test_a_trace_tells_how_tools_were_told_and_read_and_nothing_of_what_was_said() -> None:
    async with running() as gateway:
        got = await streamed(gateway, asked(f"{CALL} [[sim form hermes]] secret-words"))
        assert got.headers["x-qwen-proxy-tools"].startswith("T0; bytes=")
        trace = await trace_of(gateway, got)
        assert trace["tools"]["calls"] == ["Read"] and trace["tools"]["forms"] == {"tool_call": 1}
        assert (trace["tools"]["tier"], trace["tools"]["form"]) == ("T0", "markers-1")
        await gateway.commons.traces.flush()  # from the store, as another process would have it
        assert await trace_of(gateway, got) == trace
        assert await trace_of(gateway, got, ADMIN_KEY) == trace
        assert "a.py" not in json.dumps(trace) and "secret-words" not in json.dumps(trace)
        _, key = await gateway.commons.key_book.create(NewKey(name="other"))
        assert (await trace_of(gateway, got, key.reveal()))["status"] == 404
        assert (await trace_of(gateway, Got("", [], None, {"x-request-id": "req_none"})))["status"] == 404


async def test_what_was_demanded_and_does_not_come_is_an_error() -> None:
    async with running() as gateway:
        body = asked("hello", tool_choice="required")
        for fields in ({}, {"stream": True}):
            async with gateway.client.post("/v1/chat/completions", json=body | fields) as response:
                told = await response.json()
                assert response.status == 502 and "a call was demanded" in told["error"]["message"]


async def test_tools_that_are_too_large_are_refused_by_name() -> None:
    many = [READ | {"function": {**READ["function"], "name": f"Read{i}"}} for i in range(1000)]
    async with (
        running() as gateway,
        gateway.client.post("/v1/chat/completions", json=asked("hello", tools=many)) as response,
    ):
        told = (await response.json())["error"]
        assert (response.status, told["param"]) == (400, "tools")


def tool(name: str, *parameters: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {key: {"type": "string"} for key in parameters},
        "required": [*parameters],
    }
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}


AGENT = (
    '[[sim agent write path=/t/a.py content="x = 1\\n</tool_call>\\n[[end 0000]]\\n" | edit path=/t/a.py old=1 new=2 '
    "| read path=/t/a.py | say It says {result}]]"
)


async def test_an_agent_writes_edits_and_reads_over_several_turns() -> None:
    tools = [
        tool("Write", "file_path", "content"),
        tool("Edit", "file_path", "old_string", "new_string"),
        tool("Read", "file_path"),
    ]
    turns: list[dict[str, Any]] = []
    made: list[tuple[str, Any]] = []
    got = Got("", [], None, {})
    async with running() as gateway:
        for number in range(4):
            got = await streamed(gateway, asked(AGENT, *turns, tools=tools))
            made += got.calls
            for name, arguments in got.calls:
                call = {"id": f"c{number}", "type": "function"}
                call["function"] = {"name": name, "arguments": json.dumps(arguments)}  # pyright: ignore[reportArgumentType]
                turns.append({"role": "assistant", "content": None, "tool_calls": [call]})
                turns.append({"role": "tool", "tool_call_id": f"c{number}", "content": f"done {number}"})
        assert made == [
            ("Write", {"file_path": "/t/a.py", "content": "x = 1\n</tool_call>\n[[end 0000]]\n"}),
            ("Edit", {"file_path": "/t/a.py", "old_string": "1", "new_string": "2"}),
            ("Read", {"file_path": "/t/a.py"}),
        ]
        assert (got.text, got.finish) == ("It says done 2", "stop")


async def test_a_tool_that_is_named_like_a_tag_carries_a_tag() -> None:
    arguments = {"name": "web_fetch", "arguments": "</tool_call>{}"}
    async with running() as gateway:
        for form in ("taught", "hermes"):
            text = f"[[sim call tool_call {json.dumps(arguments)}]] [[sim form {form}]]"
            got = await both(gateway, asked(text, tools=[tool("tool_call", "name", "arguments")]))
            assert got.calls == [("tool_call", arguments)]


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("spoilt", "status", "verdicts"),
    [
        ("", 200, []),
        ("fence", 200, []),
        ("prose", 200, []),
        ("comma", 200, []),
        ("invalid once", 200, ["output_invalid"]),
        ("none", 502, ["output_invalid"] * 2),
    ],
)
async def test_json_that_was_demanded_is_bare_and_valid_or_an_error(
    spoilt: str, status: int, verdicts: list[str]
) -> None:
    body = {
        "model": "qwen3.7-plus",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": f"hello [[sim bad-json {spoilt}]]" if spoilt else "hello"}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    async with running() as gateway:
        async with gateway.client.post("/v1/messages", json=body) as response:
            told = await response.json()
            assert response.status == status
            if status == 200:
                assert [json.loads(block["text"]) for block in told["content"]] == [{"a": 42}]
            url = f"/v1/requests/{response.headers['request-id']}/trace"
        async with gateway.client.get(url) as response:
            assert (await response.json())["verdicts"] == verdicts


@pytest.mark.parametrize("search_info", ["text", "table"])
async def test_json_stays_bare_beside_a_search_and_thinking_in_the_text(search_info: str) -> None:
    body = {
        "model": "qwen3.7-plus-thinking-search",
        "messages": [{"role": "user", "content": "hello"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    }
    async with running(SEARCH_INFO_MODE=search_info, LEGACY_REASONING_IN_CONTENT="true") as gateway:
        async with gateway.client.post("/v1/chat/completions", json=body) as response:
            told = await response.json()
        assert response.status == 200, told
        message = told["choices"][0]["message"]
        assert json.loads(message["content"]) == {"a": 42}
        assert message["reasoning_content"] and message["annotations"]


PNG = "iVBORw0KGgo="
DATA = f"data:image/png;base64,{PNG}"
PICTURES: list[tuple[str, dict[str, Any], str]] = [
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": DATA}}]},
            ],
            "tools": [{"type": "function", "function": {"name": "look"}}],
        },
        "messages[1].content[0]",
    ),
    (
        "/v1/messages",
        {
            "system": "Be brief.",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    ],
                }
            ],
            "tools": [{"name": "look"}],
        },
        "messages[0].content[1]",
    ),
    (
        "/v1/responses",
        {
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": "Look"},
                {"role": "user", "content": [{"type": "input_file", "file_data": "data:application/pdf;base64,AA"}]},
            ],
        },
        "input[1].content[0]",
    ),
    (
        "/v1beta/models/qwen3.7-plus:generateContent",
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [{"parts": [{"text": "Look"}, {"inlineData": {"mimeType": "image/png", "data": PNG}}]}],
        },
        "contents[0].parts[1].inlineData",
    ),
    ("/api/chat", {"messages": [{"role": "user", "content": "Look", "images": [PNG]}]}, "messages[0].images[0]"),
    ("/api/generate", {"prompt": "Look", "images": [PNG]}, "images[0]"),
]


async def test_a_picture_is_refused_by_its_place_in_the_clients_own_body() -> None:
    async with running() as gateway:
        for path, body, place in PICTURES:
            async with gateway.client.post(path, json=body) as response:
                assert response.status == 400, path
                assert f"{place}: this upstream takes no images" in await response.text(), path


@pytest.mark.parametrize("has_tools", [True, False])
async def test_a_result_that_is_cut_is_told_of_also_where_no_tool_is_offered(has_tools: bool) -> None:
    def asked(result: str) -> dict[str, Any]:
        called = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        return {
            "messages": [
                {"role": "user", "content": "Look."},
                {"role": "assistant", "content": None, "tool_calls": [called]},
                {"role": "tool", "tool_call_id": "c1", "content": result},
                {"role": "user", "content": "[[sim say Seen]]"},
            ],
            **({"tools": [{"type": "function", "function": {"name": "look"}}]} if has_tools else {}),
        }

    async with running(MAX_TOOL_RESULT_BYTES="2000") as gateway:
        for result, told in (("x" * 2000, None), ("é" * 1001, "results of tools that are longer than 2000 bytes")):
            async with gateway.client.post("/v1/chat/completions", json=asked(result)) as response:
                assert response.status == 200
                assert (response.headers.get("x-qwen-proxy-warnings") or "").partition(" are cut")[0] == (told or "")
