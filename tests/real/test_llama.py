"""The gateway over a real server, as the OpenAI SDK sees it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam

from tests.real.llama_server import ALIAS
from tests.support.http import USER_KEY, listener
from tests.support.running import running

pytestmark = pytest.mark.timeout(240)

WEATHER: ChatCompletionToolUnionParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    sock = listener()
    port = int(sock.getsockname()[1])
    sock.close()
    command = [sys.executable, "-m", "tests.real.llama_server", str(tmp_path_factory.mktemp("model")), str(port)]
    log = tmp_path_factory.mktemp("log") / "llama.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None and process.stdout is not None
        try:
            assert b"ready" in process.stdout.readline(), log.read_text()[-2000:]
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stdin.close()
            process.stdout.close()
            process.terminate()
            process.wait(20)


@asynccontextmanager
async def through(server: str) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with running(accounts=(), LLAMA_CPP_BASE_URL=server, CHAT_RETRY_COUNT="0") as served:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=USER_KEY, max_retries=0) as client:
            yield client


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


async def test_models_chat_and_usage(server: str) -> None:
    async with through(server) as client:
        assert [model.id async for model in client.models.list()] == [ALIAS]
        made = await client.chat.completions.create(model=ALIAS, messages=user("Count: one, two,"), max_tokens=8)
        assert made.choices[0].message.content and made.usage is not None
        assert made.usage.completion_tokens == 8 and made.usage.prompt_tokens > 3
        assert made.choices[0].finish_reason == "length"


async def test_a_stream_comes_in_pieces_with_its_usage_last(server: str) -> None:
    async with through(server) as client:
        stream = await client.chat.completions.create(
            model=ALIAS,
            messages=user("Count: one, two,"),
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) > 2
        assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 8


async def test_log_probabilities(server: str) -> None:
    async with through(server) as client:
        made = await client.chat.completions.create(
            model=ALIAS, messages=user("Say hi"), max_tokens=3, logprobs=True, top_logprobs=2
        )
        told = made.choices[0].logprobs
        assert told is not None and told.content and len(told.content[0].top_logprobs) == 2
        assert "".join(token.token for token in told.content) == made.choices[0].message.content


async def test_a_schema_holds(server: str) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 120}, "is_adult": {"type": "boolean"}},
        "required": ["age", "is_adult"],
        "additionalProperties": False,
    }
    async with through(server) as client:
        made = await client.chat.completions.create(
            model=ALIAS,
            messages=user("A person"),
            max_tokens=80,
            temperature=0,
            response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema}},
        )
        person: dict[str, object] = msgspec.json.decode(made.choices[0].message.content or "")
        assert isinstance(person["age"], int) and isinstance(person["is_adult"], bool)


async def test_a_tool_call(server: str) -> None:
    messages: list[Any] = []
    for number, (city, found) in enumerate((("Rome", "sunny"), ("Oslo", "snow"), ("Lima", "fog"))):
        function: Any = {"name": "weather", "arguments": json.dumps({"city": city})}
        messages += [
            {"role": "user", "content": f"Weather in {city}?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": f"call_{number}", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": f"call_{number}", "content": found},
            {"role": "assistant", "content": f"It is {found} there."},
        ]
    messages += user("Weather in Paris?")
    async with through(server) as client:
        stream = await client.chat.completions.create(
            model=ALIAS,
            messages=messages,
            tools=[WEATHER],
            tool_choice="required",
            temperature=0,
            max_tokens=32,
            stream=True,
        )
        name, arguments = "", ""
        async for chunk in stream:
            for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
                if call.index == 0 and call.function is not None:
                    name += call.function.name or ""
                    arguments += call.function.arguments or ""
        assert name == "weather" and json.loads(arguments) == {"city": "Paris"}


async def test_a_client_that_leaves_ends_the_generation(server: str) -> None:
    async with through(server) as client, aiohttp.ClientSession(server) as direct:

        async def busy() -> int:
            async with direct.get("/slots") as response:
                return sum(slot["is_processing"] for slot in await response.json())

        stream = await client.chat.completions.create(
            model=ALIAS, messages=user("Count"), max_tokens=1900, stream=True, extra_body={"ignore_eos": True}
        )
        async for _ in stream:
            break
        assert await busy() == 1
        await stream.close()
        async with asyncio.timeout(20):
            while await busy():  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # the server tells nobody when a slot becomes free


async def test_what_the_server_refuses_is_told(server: str) -> None:
    async with through(server) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model=ALIAS, messages=user("word " * 3000), max_tokens=4)
        assert refused.value.code == "context_length_exceeded"
