"""Tokens: the upstream's numbers, else a count with Qwen's own tokenizer, and which of the two is said."""

import pytest

from qwen_proxy.simulator import Cut, Reply, Scenario, frames
from qwen_proxy.tokens import QwenTokens
from tests.support.replies import Json, chunks, folded
from tests.support.running import Running, ask, running

WORDS = "Hello there, general"


def count(text: str) -> int:
    return QwenTokens().count(text)


async def both(gateway: Running, body: dict[str, object]) -> tuple[Json, Json]:
    """The usage of the reply folded, and streamed."""
    whole = (await folded(gateway, body))["usage"]
    stream = await chunks(gateway, body | {"stream_options": {"include_usage": True}})
    assert stream[-1]["choices"] == []
    return whole, stream[-1]["usage"]


def told(*steps: str, used: str | None = None) -> Reply:
    return Reply([frames.created(), *steps, frames.answer(WORDS, used=used), frames.finished()])


async def test_the_upstreams_numbers_are_passed_on() -> None:
    reply = told(used=frames.usage(31, 17, 4))
    async with running(Scenario(replies=[reply, reply])) as gateway:
        for usage in await both(gateway, ask()):
            assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (31, 17, 48)
            assert usage["completion_tokens_details"] == {"reasoning_tokens": 4}
            assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
            assert usage["origin"] == "upstream"


async def test_the_last_of_several_cumulative_numbers_holds() -> None:
    steps = [frames.answer("a ", used=frames.usage(31, 2)), frames.answer("b ", used=frames.usage(31, 5))]
    reply = told(*steps, used=frames.usage(31, 9))
    async with running(Scenario(replies=[reply, reply])) as gateway:
        for usage in await both(gateway, ask()):
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (31, 9)


async def test_without_numbers_they_are_counted_here() -> None:
    async with running(Scenario(replies=[told(), told()])) as gateway:
        for usage in await both(gateway, ask("How do you do?")):
            assert usage["origin"] == "counted"
            assert usage["completion_tokens"] == count(WORDS)
            assert usage["prompt_tokens"] >= count("How do you do?")
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_reasoning_is_counted_too_and_told_apart() -> None:
    thought = frames.think("Let me think about that")
    async with running(Scenario(replies=[told(thought), told(thought)])) as gateway:
        for usage in await both(gateway, ask(enable_thinking=True)):
            reasoning = count("Let me think about that")
            assert usage["completion_tokens_details"] == {"reasoning_tokens": reasoning}
            assert usage["completion_tokens"] == count(WORDS) + reasoning


async def test_hidden_reasoning_is_counted_all_the_same() -> None:
    thought = frames.think("Let me think about that")
    async with running(Scenario(replies=[told(thought), told(thought)]), OUTPUT_THINK="false") as gateway:
        for usage in await both(gateway, ask(enable_thinking=True)):
            assert usage["completion_tokens_details"]["reasoning_tokens"] == count("Let me think about that")


@pytest.mark.parametrize("limit", [{"stop": "word4"}, {"max_tokens": 5}])
async def test_a_reply_cut_here_is_counted_here(limit: dict[str, object]) -> None:
    async with running() as gateway:
        body = ask("[[sim repeat 50]]", **limit)
        whole, stream = await both(gateway, body)
        text = (await folded(gateway, body))["choices"][0]["message"]["content"]
        assert whole == stream
        assert (whole["origin"], whole["completion_tokens"]) == ("counted", count(text))


async def test_several_choices_are_summed_and_the_prompt_counts_once() -> None:
    replies = [told(used=frames.usage(31, each)) for each in (3, 4, 5)]
    async with running(Scenario(replies=replies * 2), ACCOUNT_CONCURRENCY="3") as gateway:
        for usage in await both(gateway, ask(n=3)):
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (31, 12)
            assert usage["origin"] == "upstream"


async def test_one_counted_choice_makes_the_whole_a_count() -> None:
    replies = [told(used=frames.usage(31, 3)), told()]
    async with running(Scenario(replies=replies), ACCOUNT_CONCURRENCY="2") as gateway:
        assert (await folded(gateway, ask(n=2)))["usage"]["origin"] == "counted"


async def test_special_looking_text_is_counted_as_text() -> None:
    async with running(Scenario(replies=[told()])) as gateway:
        usage = (await folded(gateway, ask("<|im_start|>system<|endoftext|>" * 20)))["usage"]
        assert usage["prompt_tokens"] > 100


async def test_a_try_that_failed_costs_nothing() -> None:
    failed = Reply([frames.created(), frames.think("much thought", used=frames.usage(900, 900)), Cut()])
    async with running(Scenario(replies=[failed, told(used=frames.usage(31, 17))]), CHAT_RETRY_COUNT="1") as gateway:
        usage = (await folded(gateway, ask()))["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (31, 17)
