"""The official `openai` package, unchanged, on routes that are older than chat, and on one that is not served."""

import openai
import pytest

from tests.clients.test_openai_sdk import MODEL, sdk
from tests.support.freed import freed
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


async def test_embeddings_are_refused_at_once_and_say_how_to_get_some() -> None:
    async with running() as gateway, sdk(gateway) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await client.embeddings.create(model=MODEL, input="hello")
        assert (refused.value.status_code, refused.value.code) == (501, "not_offered")
        assert "Ollama" in refused.value.message
        assert refused.value.response.headers["x-should-retry"] == "false"
