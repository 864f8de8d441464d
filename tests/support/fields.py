"""Every field that clients send, with an example: what becomes of each is seen on a running server and told in
docs/fields.md.

    python -m tests.support.fields      # writes that page anew; review the diff
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from tests.support.openai_server import OpenAIServer
from tests.support.running import Running, running

PAGE: Final = Path(__file__).parents[2] / "docs" / "fields.md"
WEB_MODEL: Final = "qwen3.7-plus"
OTHER_MODEL: Final = "coder-model"
WITHOUT_EFFECT: Final = ("x-qwen-proxy-ignored", "x-qwen-proxy-warnings")

Fields = dict[str, Any]  # JSON enters here

SAY: Final = "[[sim call look x=1]] hello"  # calls the tool where there is one
SCHEMA: Final = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
CUSTOM_SAY: Final = '[[sim call look {"input": "x"}]] hello'
JSON_SAY: Final = '[[sim json {"x": "1"}]] hello'
PICTURE: Final = "data:image/png;base64,iVBORw0KGgo="

CHAT_TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
CUSTOM_TOOL: Final = {"type": "custom", "custom": {"name": "look", "format": {"type": "text"}}}
CLAUDE_TOOL: Final = {"name": "look", "input_schema": SCHEMA}
RESPONSE_TOOL: Final = {"type": "function", "name": "look", "parameters": SCHEMA}
GEMINI_TOOL: Final = {"functionDeclarations": [{"name": "look", "parametersJsonSchema": SCHEMA}]}


class Spoken(NamedTuple):
    """A protocol: where it is asked, the smallest request, and its fields with what is sent of each.

    The path has `{model}` where the model stands in it.
    """

    title: str
    path: str
    smallest: Fields
    fields: dict[str, Fields]


def _user(content: object) -> list[Fields]:
    return [{"role": "user", "content": content}]


CHAT: Final = Spoken(
    "OpenAI chat completions",
    "/v1/chat/completions",
    {"messages": _user(SAY)},
    {
        "messages: roles system, developer, assistant": {
            "messages": [
                {"role": "system", "content": "a"},
                {"role": "developer", "content": "b"},
                {"role": "assistant", "content": "c"},
                *_user(SAY),
            ]
        },
        "messages: image_url": {"messages": _user([{"type": "image_url", "image_url": {"url": PICTURE}}])},
        "messages: file": {
            "messages": _user([{"type": "file", "file": {"file_data": "data:text/plain;base64,YQ==", "filename": "a"}}])
        },
        "messages: tool calls and results": {
            "messages": [
                *_user("a"),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "found"}]},
            ],
            "tools": [CHAT_TOOL],
        },
        "messages: calls of custom tools": {
            "messages": [
                *_user("a"),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "look", "input": "x"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "found"},
            ],
            "tools": [CUSTOM_TOOL],
        },
        "max_tokens": {"max_tokens": 5},
        "max_completion_tokens": {"max_completion_tokens": 5},
        "stop": {"stop": ["zzz"]},
        "n": {"n": 2},
        "stream": {"stream": True},
        "stream_options.include_usage": {"stream": True, "stream_options": {"include_usage": True}},
        "tools": {"tools": [CHAT_TOOL]},
        "tools: custom": {"messages": _user(CUSTOM_SAY), "tools": [CUSTOM_TOOL]},
        "tools: custom, with a grammar": {
            "messages": _user(CUSTOM_SAY),
            "tools": [
                {
                    "type": "custom",
                    "custom": {
                        "name": "look",
                        "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "x+"}},
                    },
                }
            ],
        },
        "tools: a kind that nobody knows": {"tools": [{"type": "unheard_of"}]},
        "tool_choice: auto": {"tools": [CHAT_TOOL], "tool_choice": "auto"},
        "tool_choice: none": {"tools": [CHAT_TOOL], "tool_choice": "none"},
        "tool_choice: required": {"tools": [CHAT_TOOL], "tool_choice": "required"},
        "tool_choice: a function": {
            "tools": [CHAT_TOOL],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
        },
        "tool_choice: a custom tool": {
            "messages": _user(CUSTOM_SAY),
            "tools": [CUSTOM_TOOL],
            "tool_choice": {"type": "custom", "custom": {"name": "look"}},
        },
        "tool_choice: allowed_tools": {
            "tools": [CHAT_TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "look"}}]},
            },
        },
        "parallel_tool_calls": {"tools": [CHAT_TOOL], "parallel_tool_calls": False},
        "functions": {"functions": [CHAT_TOOL["function"]]},
        "function_call": {"functions": [CHAT_TOOL["function"]], "function_call": {"name": "look"}},
        "response_format: json_object": {"messages": _user(JSON_SAY), "response_format": {"type": "json_object"}},
        "response_format: json_schema": {
            "messages": _user(JSON_SAY),
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
        },
        "reasoning_effort": {"reasoning_effort": "low"},
        "enable_thinking": {"enable_thinking": True},
        "thinking_budget": {"thinking_budget": 100},
        "temperature": {"temperature": 0.5},
        "top_p": {"top_p": 0.5},
        "seed": {"seed": 1},
        "presence_penalty": {"presence_penalty": 0.5},
        "frequency_penalty": {"frequency_penalty": 0.5},
        "logit_bias": {"logit_bias": {"1": 1}},
        "logprobs": {"logprobs": True},
        "top_logprobs": {"logprobs": True, "top_logprobs": 2},
        "modalities: text": {"modalities": ["text"]},
        "modalities: audio": {"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}},
        "metadata": {"metadata": {"a": "b"}},
        "prompt_cache_key": {"prompt_cache_key": "a"},
        "store": {"store": True},
        "service_tier": {"service_tier": "auto"},
        "user": {"user": "a"},
        "prediction": {"prediction": {"type": "content", "content": "a"}},
        "a field that nobody knows": {"unheard_of": 1},
    },
)

MESSAGES: Final = Spoken(
    "Anthropic Messages",
    "/v1/messages",
    {"messages": _user(SAY), "max_tokens": 1000},
    {
        "system: string": {"system": "a"},
        "system: blocks": {"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        "messages: role system in the middle": {
            "messages": [*_user("a"), {"role": "system", "content": "b"}, *_user(SAY)]
        },
        "messages: prefill": {"messages": [*_user(SAY), {"role": "assistant", "content": "It"}]},
        "messages: image": {
            "messages": _user(
                [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]
            )
        },
        "messages: document": {
            "messages": _user(
                [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}]
            )
        },
        "messages: thinking of another server": {
            "messages": [
                *_user("a"),
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "a", "signature": "foreign"},
                        {"type": "redacted_thinking", "data": "a"},
                        {"type": "text", "text": "b"},
                    ],
                },
                *_user(SAY),
            ]
        },
        "messages: tool_use and tool_result": {
            "tools": [CLAUDE_TOOL],
            "messages": [
                *_user("a"),
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t", "is_error": True, "content": "found"}],
                },
            ],
        },
        "max_tokens": {"max_tokens": 5},
        "max_tokens: 0": {"max_tokens": 0},
        "stop_sequences": {"stop_sequences": ["zzz"]},
        "stream": {"stream": True},
        "tools": {"tools": [CLAUDE_TOOL]},
        "tools: defer_loading": {"tools": [CLAUDE_TOOL, {**CLAUDE_TOOL, "name": "later", "defer_loading": True}]},
        "tools: web_search": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "tool_choice: auto": {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "auto"}},
        "tool_choice: any": {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}},
        "tool_choice: tool": {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "tool", "name": "look"}},
        "tool_choice: none": {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "none"}},
        "tool_choice.disable_parallel_tool_use": {
            "tools": [CLAUDE_TOOL],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        },
        "thinking: enabled": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        "thinking: adaptive, display omitted": {"thinking": {"type": "adaptive", "display": "omitted"}},
        "thinking: disabled": {"thinking": {"type": "disabled"}},
        "output_config.format": {
            "messages": _user(JSON_SAY),
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        },
        "output_config.effort": {"output_config": {"effort": "high"}},
        "output_format": {"messages": _user(JSON_SAY), "output_format": {"type": "json_schema", "schema": SCHEMA}},
        "metadata.user_id": {"metadata": {"user_id": "a"}},
        "temperature": {"temperature": 0.5},
        "top_p": {"top_p": 0.5},
        "top_k": {"top_k": 5},
        "context_management": {"context_management": {"edits": []}},
        "service_tier": {"service_tier": "auto"},
        "container": {"container": "a"},
        "mcp_servers": {"mcp_servers": [{"type": "url", "url": "https://a.example", "name": "a"}]},
        "thread": {"thread": {"type": "create"}},
        "a field that nobody knows": {"unheard_of": 1},
    },
)

RESPONSES: Final = Spoken(
    "OpenAI Responses",
    "/v1/responses",
    {"input": SAY},
    {
        "input: messages": {
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": SAY}]}]
        },
        "input: input_image": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}]},
        "input: function_call and its output": {
            "tools": [RESPONSE_TOOL],
            "input": [
                {"role": "user", "content": "a"},
                {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "found"},
            ],
        },
        "input: reasoning of another server": {
            "input": [
                {"role": "user", "content": "a"},
                {"type": "reasoning", "id": "rs_a", "summary": [], "encrypted_content": "foreign"},
                {"role": "user", "content": SAY},
            ]
        },
        "input: web_search_call": {
            "input": [
                {"role": "user", "content": "a"},
                {"type": "web_search_call", "id": "ws_a", "status": "completed", "action": {"type": "search"}},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": SAY},
            ]
        },
        "input: an item that nobody knows": {"input": [{"type": "unheard_of"}, {"role": "user", "content": SAY}]},
        "instructions": {"instructions": "a"},
        "previous_response_id, unknown": {"previous_response_id": "resp_none"},
        "store: false": {"store": False},
        "background": {"background": True},
        "stream": {"stream": True},
        "tools: function": {"tools": [RESPONSE_TOOL]},
        "tools: custom": {"tools": [{"type": "custom", "name": "look"}]},
        "tools: namespace": {"tools": [{"type": "namespace", "name": "a", "tools": [RESPONSE_TOOL]}]},
        "tools: web_search": {"tools": [{"type": "web_search"}]},
        "tools: a kind that nobody knows": {"tools": [{"type": "unheard_of"}]},
        "tool_choice: required": {"tools": [RESPONSE_TOOL], "tool_choice": "required"},
        "tool_choice: a function": {
            "tools": [RESPONSE_TOOL],
            "tool_choice": {"type": "function", "name": "look"},
        },
        "tool_choice: allowed_tools": {
            "tools": [RESPONSE_TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "look"}],
            },
        },
        "parallel_tool_calls": {"tools": [RESPONSE_TOOL], "parallel_tool_calls": False},
        "max_output_tokens": {"max_output_tokens": 20},
        "text.format: json_schema": {
            "input": JSON_SAY,
            "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}},
        },
        "text.verbosity": {"text": {"verbosity": "low"}},
        "reasoning.effort": {"reasoning": {"effort": "low"}},
        "reasoning.summary": {"reasoning": {"summary": "auto"}},
        "include: reasoning.encrypted_content": {"include": ["reasoning.encrypted_content"]},
        "include: web_search_call.action.sources": {
            "tools": [{"type": "web_search"}],
            "include": ["web_search_call.action.sources"],
        },
        "include: message.output_text.logprobs": {"include": ["message.output_text.logprobs"]},
        "top_logprobs": {"top_logprobs": 2},
        "truncation: auto": {"truncation": "auto"},
        "temperature": {"temperature": 0.5},
        "top_p": {"top_p": 0.5},
        "metadata": {"metadata": {"a": "b"}},
        "prompt_cache_key": {"prompt_cache_key": "a"},
        "conversation": {"conversation": "conv_a"},
        "prompt": {"prompt": {"id": "a"}},
        "service_tier": {"service_tier": "auto"},
        "user": {"user": "a"},
        "a field that nobody knows": {"unheard_of": 1},
    },
)

COMPLETIONS: Final = Spoken(
    "OpenAI completions (legacy)",
    "/v1/completions",
    {"prompt": "hello"},
    {
        "prompt: several": {"prompt": ["a", "b"]},
        "prompt: tokens": {"prompt": [1, 2]},
        "max_tokens": {"max_tokens": 5},
        "stop": {"stop": "zzz"},
        "n": {"n": 2},
        "stream": {"stream": True},
        "echo": {"echo": True},
        "suffix": {"suffix": "a"},
        "best_of": {"best_of": 2},
        "logprobs": {"logprobs": 2},
        "logprobs with echo": {"logprobs": 2, "echo": True},
        "temperature": {"temperature": 0.5},
        "a field that nobody knows": {"unheard_of": 1},
    },
)

OLLAMA: Final = Spoken(
    "Ollama chat",
    "/api/chat",
    {"messages": _user(SAY), "stream": False},
    {
        "messages: images": {"messages": [{"role": "user", "content": "a", "images": ["iVBORw0KGgo="]}]},
        "stream": {"stream": True},
        "tools": {"tools": [CHAT_TOOL]},
        "think": {"think": True},
        "format: json": {"messages": _user(JSON_SAY), "format": "json"},
        "format: a schema": {"messages": _user(JSON_SAY), "format": SCHEMA},
        "options.num_predict": {"options": {"num_predict": 5}},
        "options.stop": {"options": {"stop": ["zzz"]}},
        "options.temperature": {"options": {"temperature": 0.5}},
        "options.min_p": {"options": {"min_p": 0.1}},
        "options.repeat_penalty": {"options": {"repeat_penalty": 1.1}},
        "options.num_ctx": {"options": {"num_ctx": 4096}},
        "logprobs": {"logprobs": True},
        "top_logprobs": {"logprobs": True, "top_logprobs": 2},
        "keep_alive": {"keep_alive": "5m"},
        "a field that nobody knows": {"unheard_of": 1},
    },
)

GEMINI: Final = Spoken(
    "Gemini generateContent",
    "/v1beta/models/{model}:generateContent",
    {"contents": [{"role": "user", "parts": [{"text": SAY}]}]},
    {
        "contents: inlineData": {
            "contents": [{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]}]
        },
        "contents: functionCall and functionResponse": {
            "tools": [GEMINI_TOOL],
            "contents": [
                {"role": "user", "parts": [{"text": "a"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {}}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"result": "found"}}}]},
            ],
        },
        "systemInstruction": {"systemInstruction": {"parts": [{"text": "a"}]}},
        "tools: functionDeclarations": {"tools": [GEMINI_TOOL]},
        "tools: googleSearch": {"tools": [{"googleSearch": {}}]},
        "tools: codeExecution": {"tools": [{"codeExecution": {}}]},
        "toolConfig: ANY": {"tools": [GEMINI_TOOL], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
        "toolConfig: NONE": {"tools": [GEMINI_TOOL], "toolConfig": {"functionCallingConfig": {"mode": "NONE"}}},
        "generationConfig.maxOutputTokens": {"generationConfig": {"maxOutputTokens": 5}},
        "generationConfig.stopSequences": {"generationConfig": {"stopSequences": ["zzz"]}},
        "generationConfig.candidateCount": {"generationConfig": {"candidateCount": 2}},
        "generationConfig.temperature": {"generationConfig": {"temperature": 0.5}},
        "generationConfig.thinkingConfig": {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}},
        "generationConfig.responseSchema": {
            "contents": [{"role": "user", "parts": [{"text": JSON_SAY}]}],
            "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
        },
        "generationConfig.responseLogprobs": {"generationConfig": {"responseLogprobs": True}},
        "generationConfig.logprobs": {"generationConfig": {"responseLogprobs": True, "logprobs": 2}},
        "safetySettings": {"safetySettings": []},
        "cachedContent": {"cachedContent": "cachedContents/a"},
        "a field that nobody knows": {"unheardOf": 1},
    },
)

SPOKEN: Final = (CHAT, MESSAGES, RESPONSES, COMPLETIONS, GEMINI, OLLAMA)


class Seen(NamedTuple):
    """What became of a field at each kind of upstream."""

    field: str
    web: str
    other: str


@asynccontextmanager
async def both_kinds() -> AsyncGenerator[Running]:
    """A gateway over the simulated site and over a server that speaks OpenAI's API."""
    async with OpenAIServer("sk-1", models=(OTHER_MODEL,)) as server:
        form = [{"name": "studio", "base_url": server.base_url, "keys": ["sk-1"]}]
        async with running(BACKENDS=msgspec.json.encode(form).decode()) as gateway:
            async with gateway.client.get("/v1/models") as response:  # both lists are there
                assert response.status == 200
            yield gateway


async def seen(gateway: Running, spoken: Spoken) -> list[Seen]:
    return [
        Seen(field, await _became(gateway, spoken, sent, WEB_MODEL), await _became(gateway, spoken, sent, OTHER_MODEL))
        for field, sent in spoken.fields.items()
    ]


async def _became(gateway: Running, spoken: Spoken, sent: Fields, model: str) -> str:
    path = spoken.path.replace("{model}", model)
    body = spoken.smallest | sent | ({} if "{model}" in spoken.path else {"model": model})
    async with gateway.client.post(path, json=body) as response:
        text = await response.text()
        if response.status == 200:
            return "ignored" if any(name in response.headers for name in WITHOUT_EFFECT) else "supported"
        assert response.status in (400, 404), f"{path} {sent}: {response.status} {text}"
        return "refused"


def page(tables: Sequence[tuple[Spoken, Sequence[Seen]]]) -> str:
    lines = [
        "# Fields of each protocol, and what becomes of them",
        "",
        "Made by `make accept` from requests to a running server, one for each line, and compared by a test: what the",
        "simulated site makes of it (chat.qwen.ai takes neither tools, formats nor sampling of its own), and a backend",
        "that speaks OpenAI's API.",
        "",
        "- **supported**: it has its effect, here or upstream.",
        "- **ignored**: it has none; the reply's header `x-qwen-proxy-ignored` names it (`STRICT_FIELDS` refuses it),",
        "  or `x-qwen-proxy-warnings` tells of it.",
        "- **refused**: a 400 or 404 that names it and says what would be right.",
    ]
    for spoken, rows in tables:
        lines += [
            "",
            f"## {spoken.title}: `POST {spoken.path}`",
            "",
            "| field | site | OpenAI's API |",
            "|---|---|---|",
        ]
        lines += [f"| {row.field} | {row.web} | {row.other} |" for row in rows]
    return "\n".join(lines) + "\n"


async def whole_page() -> str:
    async with both_kinds() as gateway:
        return page([(spoken, await seen(gateway, spoken)) for spoken in SPOKEN])


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(whole_page()))
