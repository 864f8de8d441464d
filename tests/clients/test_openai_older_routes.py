"""The official `openai` package, unchanged, on routes that are older than chat, and on one that is not served."""

import msgspec
import openai
import pytest

from tests.clients.test_openai_sdk import MODEL, sdk
from tests.support.freed import freed
from tests.support.openai_server import OpenAIServer
from tests.support.running import running


async def test_completions_whole_and_streamed() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.completions.create(model=MODEL, prompt="[[sim say Good day]]", n=2)
        assert [choice.text for choice in reply.choices] == ["Good day"] * 2
        assert reply.usage is not None and reply.usage.total_tokens > 0 and reply.id.startswith("cmpl-")
        stream = await client.completions.create(
            model=MODEL, prompt=["[[sim repeat 30]]"], stream=True, max_tokens=4, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices).startswith("word1")
        assert chunks[-2].choices[0].finish_reason == "length"
        assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 4
        with pytest.raises(openai.BadRequestError) as refused:
            await client.completions.create(model=MODEL, prompt=[1, 2, 3])
        assert (refused.value.param, refused.value.code) == ("prompt", "unsupported_parameter")
        assert await freed(gateway)


async def test_each_of_several_prompts_has_its_completions_in_order() -> None:
    async with running(ACCOUNT_CONCURRENCY="4") as gateway, sdk(gateway) as client:
        prompts = [f"[[sim say Answer {letter}]]" for letter in "abc"]
        reply = await client.completions.create(model=MODEL, prompt=prompts, n=2)
        assert [(choice.index, choice.text) for choice in reply.choices] == [
            (index, f"Answer {letter}") for index, letter in enumerate("aabbcc")
        ]
        texts = [""] * 6
        async for chunk in await client.completions.create(model=MODEL, prompt=prompts, n=2, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        assert texts == [choice.text for choice in reply.choices]
        assert await freed(gateway)


async def test_several_prompts_are_asked_a_few_at_a_time_and_every_one_counts() -> None:
    async with OpenAIServer("sk-1") as server:
        form = [{"name": "studio", "base_url": server.base_url, "keys": ["sk-1"]}]
        async with (
            running(BACKENDS=msgspec.json.encode(form).decode(), MAX_CHOICES="2") as gateway,
            sdk(gateway) as client,
        ):
            prompts = [f"word-{number}" for number in range(7)]
            reply = await client.completions.create(model="m-1", prompt=prompts)
            assert [choice.text.strip() for choice in reply.choices] == prompts
            assert reply.usage is not None
            assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7 * 7, 7)
            assert 1 <= server.most_at_once <= 2
            stream = await client.completions.create(
                model="m-1", prompt=prompts, stream=True, stream_options={"include_usage": True}
            )
            usage = [chunk.usage async for chunk in stream][-1]
            assert usage is not None and (usage.prompt_tokens, usage.completion_tokens) == (7 * 7, 7)
            assert server.most_at_once <= 2
            with pytest.raises(openai.BadRequestError) as refused:
                await client.completions.create(model="m-1", prompt=["a"] * 65)
            assert refused.value.param == "prompt"


async def test_one_of_several_prompts_that_fails_fails_them_all() -> None:
    async with running(CHAT_RETRY_COUNT="0") as gateway, sdk(gateway) as client:
        with pytest.raises(openai.APIStatusError):
            await client.completions.create(model=MODEL, prompt=["[[sim say Good day]]", "[[sim error RateLimited]]"])
        assert await freed(gateway)


async def test_embeddings_are_refused_at_once_and_say_how_to_get_some() -> None:
    async with running() as gateway, sdk(gateway) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await client.embeddings.create(model=MODEL, input="hello")
        assert (refused.value.status_code, refused.value.code) == (501, "not_offered")
        assert "Ollama" in refused.value.message
        assert refused.value.response.headers["x-should-retry"] == "false"
