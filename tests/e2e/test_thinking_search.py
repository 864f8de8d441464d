"""Reasoning, search results and pictures, from the upstream's frames to the client's fields (§4.4, §4.5, §5, §6.1)."""

from typing import Literal

import pytest

import qwen_proxy.simulator.frames as frames
from qwen_proxy.simulator import Scenario, Step, stream
from qwen_proxy.simulator.answers import THINK_TEXT, THOUGHTS
from tests.support.asking import Reply, streamed, whole
from tests.support.running import Running, running

REASONING = "\n\n".join(THOUGHTS)
SOURCES = tuple(result.url for result in frames.RESULTS)
PICTURE = "https://cdn.qwenlm.ai/output/1/t2i/a/1.png?key=e30"


async def both(gateway: Running, text: str = "hello", **fields: object) -> Reply:
    """The same question whole and streamed: what they have in common must be equal."""
    folded = await whole(gateway, text, **fields)
    flowing = await streamed(gateway, text, **fields)
    assert folded.status == flowing.status == 200
    assert (folded.text, folded.reasoning, folded.sources) == (flowing.text, flowing.reasoning, flowing.sources)
    assert (folded.finish, flowing.finish, flowing.done) == ("stop", "stop", True)
    assert folded.usage == flowing.usage is not None
    return flowing


def twice(*steps: Step) -> Scenario:
    return Scenario(replies=[stream(*steps), stream(*steps)])


# --- reasoning


@pytest.mark.parametrize("form", ["grow", "append", "finished"])
async def test_snapshots_become_increments_that_repeat_nothing(form: Literal["grow", "append", "finished"]) -> None:
    async with running(Scenario(thinking=form)) as gateway:
        reply = await both(gateway, model="qwen3.7-plus-thinking")
        assert reply.reasoning == REASONING
        assert "hello" in reply.text
        assert THOUGHTS[0] not in reply.text


async def test_reasoning_in_the_older_form_is_passed_on_as_it_comes() -> None:
    async with running() as gateway:
        reply = await both(gateway, "[[sim think detail]] hello")
        assert reply.reasoning == THINK_TEXT


async def test_snapshots_that_shrink_or_change_are_not_said_again() -> None:
    snapshots = [
        ["First."],
        ["First.", "Second"],
        ["First.", "Second thought."],
        ["First."],
        ["Other.", "Second thought."],
    ]
    steps = [frames.thinking_summary(["T"] * len(each), each) for each in snapshots]
    async with running(twice(frames.created(), *steps, frames.answer("So."), frames.finished())) as gateway:
        reply = await both(gateway)
        assert reply.reasoning == "First.\n\nSecond thought."
        assert reply.text == "So."


async def test_both_forms_in_one_reply_and_the_rare_field_are_reasoning() -> None:
    rare = frames.delta({"role": "assistant", "content": "", "reasoning_content": "rare", "phase": "think"})
    steps = [rare, frames.think(" old"), frames.answer("So."), frames.finished()]
    async with running(twice(*steps)) as gateway:
        assert (await both(gateway)).reasoning == "rare old"


async def test_reasoning_is_asked_for_only_when_it_is_wanted() -> None:
    async with running() as gateway:
        asked: list[tuple[dict[str, object], bool]] = [
            ({}, False),
            ({"model": "qwen3.7-plus-thinking"}, True),
            ({"reasoning_effort": "high"}, True),
            ({"enable_thinking": True}, True),
            ({"enable_thinking": False, "model": "qwen3.7-plus"}, False),
        ]
        for fields, wanted in asked:
            reply = await whole(gateway, "hello", **fields)
            assert bool(reply.reasoning) is wanted
            config = gateway.simulator.seen("completions")[-1].json["messages"][0]["feature_config"]
            assert config["thinking_enabled"] is wanted


async def test_a_model_that_cannot_skip_thinking_is_let_think() -> None:
    async with running() as gateway:
        reply = await both(gateway, model="qwen3.8-max")
        assert reply.reasoning == REASONING
        reply = await both(gateway, model="qwen3.8-max", enable_thinking=False)
        assert "hello" in reply.text


async def test_reasoning_goes_into_the_content_where_the_operator_wants_it_so() -> None:
    async with running(LEGACY_REASONING_IN_CONTENT="true") as gateway:
        reply = await both(gateway, model="qwen3.7-plus-thinking")
        assert reply.reasoning == ""
        assert reply.text.startswith(f"<think>\n{REASONING}\n</think>\n\n")
        assert reply.text.count("<think>") == reply.text.count("</think>") == 1


async def test_reasoning_is_not_delivered_at_all_where_the_operator_says_so() -> None:
    async with running(OUTPUT_THINK="false", LEGACY_REASONING_IN_CONTENT="true") as gateway:
        reply = await both(gateway, model="qwen3.7-plus-thinking")
        assert reply.reasoning == ""
        assert "think>" not in reply.text
        assert "hello" in reply.text


async def test_tokens_of_reasoning_that_is_not_delivered_are_used_all_the_same() -> None:
    async with running(OUTPUT_THINK="false") as gateway:
        thinking = await whole(gateway, model="qwen3.7-plus-thinking")
        plain = await whole(gateway)
        assert thinking.usage is not None and plain.usage is not None
        assert thinking.usage.completion_tokens > plain.usage.completion_tokens
        assert thinking.usage.origin == "upstream"


# --- search


@pytest.mark.parametrize("carrier", ["one", "two", "both"])
async def test_results_of_either_carrier_are_annotations_once_each(carrier: Literal["one", "two", "both"]) -> None:
    async with running(Scenario(search=carrier)) as gateway:
        reply = await both(gateway, model="qwen3.7-plus-search")
        assert reply.sources == SOURCES
        assert SOURCES[0] not in reply.text
        assert reply.reasoning == ""
        assert gateway.simulator.seen("completions")[-1].json["messages"][0]["chat_type"] == "search"


async def test_a_search_that_nobody_asked_for_is_off() -> None:
    async with running() as gateway:
        await whole(gateway)
        message = gateway.simulator.seen("completions")[-1].json["messages"][0]
        assert (message["chat_type"], message["feature_config"]["auto_search"]) == ("t2t", False)


async def test_results_are_a_list_behind_the_answer() -> None:
    async with running(SEARCH_INFO_MODE="text") as gateway:
        reply = await both(gateway, model="qwen3.7-plus-search")
        answer, _, listed = reply.text.partition("\n\n---\n")
        assert "hello" in answer
        assert listed.splitlines() == [
            "[1] [First result](https://example.com/a) | source: example.com",
            "[2] [Second result](https://example.org/b) | source: example.org",
        ]
        assert reply.sources == SOURCES


async def test_results_are_a_table_before_the_answer() -> None:
    async with running(SEARCH_INFO_MODE="table") as gateway:
        reply = await both(gateway, model="qwen3.7-plus-search")
        table, _, answer = reply.text.partition("\n\n")
        assert table.splitlines()[2:] == [
            "| 1 | [First result](https://example.com/a) | example.com |",
            "| 2 | [Second result](https://example.org/b) | example.org |",
        ]
        assert "hello" in answer


@pytest.mark.parametrize("mode", ["table", "text"])
async def test_results_stand_before_reasoning_and_only_there(mode: str) -> None:
    steps = [frames.search_info(frames.RESULTS), frames.think("Hm."), frames.answer("So."), frames.finished()]
    async with running(twice(*steps), SEARCH_INFO_MODE=mode) as gateway:
        reply = await both(gateway)
        assert reply.text == "So."
        assert reply.reasoning.endswith("\n\nHm.")
        assert reply.reasoning.count("example.org/b") == 1


async def test_thinking_and_search_go_together() -> None:
    async with running() as gateway:
        reply = await both(gateway, model="qwen3.7-plus-thinking-search")
        assert reply.reasoning == REASONING
        assert reply.sources == SOURCES


async def test_a_title_that_is_missing_is_the_address_and_markup_in_it_is_harmless() -> None:
    results = [
        frames.SearchResult("https://example.com/x", None),
        frames.SearchResult("https://example.com/y", "a](javascript:x) | <b>"),
        frames.SearchResult("javascript:alert(1)", "bad"),
        frames.SearchResult("https://example.com/x", "again"),
    ]
    steps = [frames.search_info(results), frames.answer("So."), frames.finished()]
    async with running(twice(*steps), SEARCH_INFO_MODE="text") as gateway:
        reply = await both(gateway)
        assert reply.sources == ("https://example.com/x", "https://example.com/y")
        assert "[2] [a\\](javascript:x) \\| \\<b\\>](https://example.com/y)" in reply.text


async def test_null_extras_and_missing_fields_harm_nobody() -> None:
    steps = [
        frames.created(),
        frames.null_extra(name="web_search"),
        frames.null_content(),
        frames.empty_choices(),
        frames.comment(),
        frames.answer("So."),
        frames.finished(),
    ]
    async with running(twice(*steps)) as gateway:
        assert (await both(gateway)).text == "So."


@pytest.mark.parametrize("phase", [None, "answer"])
async def test_deltas_without_a_phase_are_the_answer(phase: str | None) -> None:
    steps = [frames.answer("So", phase=phase, response_id=None), frames.answer(" what.", phase=phase, response_id=None)]
    async with running(twice(*steps, frames.finished(response_id=None))) as gateway:
        assert (await both(gateway)).text == "So what."


async def test_an_unknown_phase_is_reasoning_and_is_counted() -> None:
    steps = [frames.answer("plan", phase="Brainstorm"), frames.answer("So."), frames.finished()]
    async with running(twice(*steps)) as gateway:
        reply = await both(gateway)
        assert (reply.reasoning, reply.text) == ("plan", "So.")
        assert ("phase", "Brainstorm", 2) in [(note.kind, note.name, note.count) for note in gateway.drift.snapshot()]


# --- pictures in a chat


async def test_a_picture_made_in_a_chat_is_a_markdown_link() -> None:
    steps = [frames.image_in_chat(PICTURE), frames.answer("Here it is."), frames.finished()]
    async with running(twice(*steps)) as gateway:
        assert (await both(gateway)).text == f"\n![image]({PICTURE})\nHere it is."


async def test_a_picture_alone_is_an_answer() -> None:
    steps = [frames.image_in_chat(PICTURE, PICTURE), frames.answer(""), frames.finished()]
    async with running(twice(*steps)) as gateway:
        assert (await both(gateway)).text == f"\n![image]({PICTURE})\n"


@pytest.mark.parametrize(
    "url",
    [
        "https://chat.qwen.ai:443//api/v2/chat/completions/_____tmd_____/punish?x5secdata=1&action=captcha",
        "https://evil.example/1.png",
        "http://cdn.qwenlm.ai/1.png",
        "https://cdn.qwenlm.ai.evil.example/1.png",
        "https://user@cdn.qwenlm.ai/1.png",
    ],
)
async def test_a_picture_from_elsewhere_is_not_shown(url: str) -> None:
    steps = [frames.image_in_chat(url), frames.answer("So."), frames.finished()]
    async with running(twice(*steps)) as gateway:
        assert (await both(gateway)).text == "So."


# --- the wire's own forms


@pytest.mark.parametrize(
    "form",
    [
        "bytes 1",
        "bytes 7",
        "one-segment",
        "gzip",
        "deflate",
        "zstd",
        "crlf",
        "no-blank-line",
        "done",
        "quirks",
        "drift",
    ],
)
async def test_the_form_on_the_wire_does_not_change_the_reply(form: str) -> None:
    said = "[[sim think]] [[sim search both]] [[sim say Grüße, 世界 😀!]]"
    async with running() as gateway:
        plain = await both(gateway, said)
        reply = await both(gateway, f"{said} [[sim {form}]]")
        assert (reply.text, reply.reasoning, reply.sources) == (plain.text, plain.reasoning, plain.sources)
        assert "Grüße, 世界 😀!" in reply.text
