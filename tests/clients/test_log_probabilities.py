"""Log probabilities of a backend that gives them, as the official packages of every protocol read them."""

# The packages type tools as functions of anything.
# pyright: reportUnknownMemberType=false

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import ollama
import openai
import pytest
from google.genai import types

from tests.clients import test_gemini_sdk, test_ollama_sdk, test_openai_sdk
from tests.support.openai_server import OpenAIServer
from tests.support.running import Running, running

# The SDK makes a class of aiohttp's own, which aiohttp warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

MODEL = "m-1"
SAID = "[[recording llamacpp_logprobs]]"
TOKENS = ["<", "|", "im", "_"]
FIRST = -1.311300277709961
LIKELIEST = ["<", "Say"]  # in the first token's place


@asynccontextmanager
async def backed() -> AsyncGenerator[Running]:
    async with OpenAIServer(models=(MODEL,)) as server:
        form = msgspec.json.encode([{"name": "b", "base_url": server.base_url, "models": [MODEL]}]).decode()
        async with running(accounts=(), BACKENDS=form) as gateway:
            yield gateway


async def test_openais_responses_whole_and_streamed() -> None:
    async with backed() as gateway, test_openai_sdk.sdk(gateway) as client:
        reply = await client.responses.create(
            model=MODEL, input=SAID, top_logprobs=2, include=["message.output_text.logprobs"], store=False
        )
        stream = await client.responses.create(model=MODEL, input=SAID, top_logprobs=2, store=False, stream=True)
        events = [event async for event in stream]
        deltas = [event.logprobs for event in events if event.type == "response.output_text.delta"]
        final = events[-1]
        assert final.type == "response.incomplete"  # the recorded reply was cut at its length
        assert [token.token for delta in deltas for token in delta] == TOKENS
        for made in (reply, final.response):
            (message,) = made.output
            assert message.type == "message" and message.content[0].type == "output_text"
            told = message.content[0].logprobs or []
            assert [token.token for token in told] == TOKENS and made.top_logprobs == 2
            assert (told[0].logprob, told[0].bytes) == (FIRST, [60])
            assert [each.token for each in told[0].top_logprobs] == LIKELIEST


async def test_openais_completions_whole_and_streamed() -> None:
    async with backed() as gateway, test_openai_sdk.sdk(gateway) as client:
        reply = await client.completions.create(model=MODEL, prompt=SAID, logprobs=2)
        told = reply.choices[0].logprobs
        assert told is not None and told.tokens == TOKENS and told.text_offset == [0, 1, 2, 4]
        assert told.token_logprobs is not None and told.token_logprobs[0] == FIRST
        assert told.top_logprobs is not None and list(told.top_logprobs[0]) == LIKELIEST
        stream = await client.completions.create(model=MODEL, prompt=SAID, logprobs=2, stream=True)
        pieces = [chunk.choices[0].logprobs async for chunk in stream]
        tokens = [token for piece in pieces if piece for token in piece.tokens or []]
        places = [place for piece in pieces if piece for place in piece.text_offset or []]
        assert (tokens, places) == (told.tokens, told.text_offset)
        with pytest.raises(openai.BadRequestError) as refused:
            await client.completions.create(model=MODEL, prompt=SAID, logprobs=2, echo=True)
        assert refused.value.param == "logprobs"


async def test_gemini_whole_and_streamed() -> None:
    async with backed() as gateway, test_gemini_sdk.sdk(gateway) as client:
        config = types.GenerateContentConfig(response_logprobs=True, logprobs=2)
        reply = await client.models.generate_content(model=MODEL, contents=SAID, config=config)
        stream = await client.models.generate_content_stream(model=MODEL, contents=SAID, config=config)
        pieces = [candidate async for piece in stream for candidate in piece.candidates or []]
        (whole,) = reply.candidates or []
        chosen = [
            [each.token for one in made if one.logprobs_result for each in one.logprobs_result.chosen_candidates or []]
            for made in ([whole], pieces)
        ]
        assert chosen == [TOKENS, TOKENS]
        assert whole.logprobs_result is not None and whole.logprobs_result.top_candidates is not None
        assert [each.token for each in whole.logprobs_result.top_candidates[0].candidates or []] == LIKELIEST
        assert whole.avg_logprobs is not None and pieces[-1].avg_logprobs == pytest.approx(whole.avg_logprobs)


async def test_ollama_whole_and_streamed() -> None:
    async with backed() as gateway, test_ollama_sdk.sdk(gateway) as client:
        said = test_ollama_sdk.said(SAID)
        reply = await client.chat(model=MODEL, messages=said, logprobs=True, top_logprobs=2)
        told = reply.logprobs or []
        assert [token.token for token in told] == TOKENS and told[0].logprob == FIRST
        assert [each.token for each in told[0].top_logprobs or []] == LIKELIEST
        stream: AsyncIterator[ollama.GenerateResponse] = await client.generate(
            model=MODEL, prompt=SAID, logprobs=True, stream=True
        )
        pieces = [piece.logprobs or [] async for piece in stream]
        assert [token.token for piece in pieces for token in piece] == TOKENS
