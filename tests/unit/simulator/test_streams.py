"""The forms of a composed answer: upstream protocol §4.4 to §4.6, §5.1 and §6.1."""

from typing import Any

import pytest

import qwen_proxy.simulator.frames as frames
from qwen_proxy.simulator import Pause, Reply, Simulator, interleave, stream
from qwen_proxy.simulator.answers import Search, Thinking, hidden_prompt_tokens, tokens
from tests.unit.simulator.visitor import Visitor


async def test_plain_answer_has_the_captured_form(visitor: Visitor, simulator: Simulator) -> None:
    answer = await visitor.ask("[[sim say Paris is it]]")
    created = answer.frames[0]["response.created"]
    chat_id, response_id = created["chat_id"], created["response_id"]
    lines = answer.body.decode().split("\n\n")
    assert lines[0] == (
        f'data: {{"response.created":{{"chat_id": "{chat_id}", "parent_id": "{created["parent_id"]}", '
        f'"response_id":"{response_id}", "response_index": "0"}}}}'
    )
    assert lines[1].startswith(
        'data: {"choices": [{"delta": {"role": "assistant", "content": "Paris", "phase": "answer", '
        f'"status": "typing"}}}}], "response_id": "{response_id}", "usage": {{"input_tokens": '
    )
    assert lines[-2] == (
        'data: {"choices": [{"delta": {"content": "", "role": "assistant", "status": "finished", '
        f'"phase": "answer"}}}}], "response_id": "{response_id}"}} '
    )
    assert lines[-1] == ""
    assert b"[DONE]" not in answer.body
    assert b"event:" not in answer.body
    assert chat_id in simulator.chats


async def test_default_answer_echoes_and_is_deterministic(visitor: Visitor) -> None:
    first, second = await visitor.ask("hello du 世界"), await visitor.ask("hello du 世界")
    assert first.text() == second.text()
    assert "“hello du 世界”" in first.text()
    assert "世界".encode() in first.body
    assert "You said nothing" in (await visitor.ask("")).text()
    assert " …”" in (await visitor.ask("word " * 100)).text()


async def test_scenario_may_set_the_answer(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.answer_text = " two  words\n"
    assert (await visitor.ask("x")).text() == " two  words\n"


async def test_usage_is_cumulative_and_absent_at_the_end(visitor: Visitor) -> None:
    answer = await visitor.ask("[[sim say one two three]]")
    used = [frame.get("usage") for frame in answer.frames[1:]]
    hidden = hidden_prompt_tokens("qwen3.7-plus")
    assert 800 <= hidden < 1400
    assert used[-1] is None
    assert used[-2]["input_tokens"] == hidden + tokens("[[sim say one two three]]")
    assert used[-2]["total_tokens"] == used[-2]["input_tokens"] + used[-2]["output_tokens"]
    assert [one["output_tokens"] for one in used[:-1]] == [1, 2, 4, 4]
    assert used[0].keys() == {
        "input_tokens",
        "output_tokens",
        "characters",
        "total_tokens",
        "input_tokens_details",
        "output_tokens_details",
        "prompt_tokens_details",
    }


def thoughts(deltas: list[Any]) -> list[list[str]]:
    return [delta["extra"]["summary_thought"]["content"] for delta in deltas if delta.get("extra")]


@pytest.mark.parametrize(("style", "lengths"), [("grow", [1, 1, 2, 2]), ("append", [1, 2]), ("finished", [1, 2])])
async def test_thinking_snapshots(visitor: Visitor, simulator: Simulator, style: Thinking, lengths: list[int]) -> None:
    simulator.scenario.thinking = style if style != "detail" else "grow"
    answer = await visitor.ask("x", thinking=True, thinking_format="summary")
    summaries = [delta for delta in answer.deltas if delta["phase"] == "thinking_summary"]
    snapshots = thoughts(summaries)
    assert [len(snapshot) for snapshot in snapshots] == lengths
    assert (snapshots[1][0].startswith(snapshots[0][0]) and snapshots[1][0] != snapshots[0][0]) == (style == "grow")
    assert {delta["status"] for delta in summaries[:-1]} == {"finished" if style == "finished" else "typing"}
    assert summaries[-1] == {"role": "assistant", "content": "", "phase": "thinking_summary", "status": "finished"}
    assert answer.frames[-2]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


async def test_detail_format_brings_think_increments(visitor: Visitor) -> None:
    answer = await visitor.ask("x", thinking=True, thinking_format="detail")
    assert answer.text("think").startswith("The user wrote")
    assert answer.text().startswith("You said")


async def test_model_without_the_ability_does_not_think(visitor: Visitor) -> None:
    answer = await visitor.ask("x", model="qwen3.5-omni-plus", thinking=True)
    assert {delta["phase"] for delta in answer.deltas} == {"answer"}


@pytest.mark.parametrize(("carrier", "kinds"), [("one", {"info"}), ("two", {"docs"}), ("both", {"info", "docs"})])
async def test_search_brings_queries_results_and_citations(
    visitor: Visitor, simulator: Simulator, carrier: Search, kinds: set[str]
) -> None:
    simulator.scenario.search = carrier
    answer = await visitor.ask("capital of France", chat_type="search")
    searching = [delta for delta in answer.deltas if delta["phase"] == "web_search"]
    arguments = "".join(delta["function_call"]["arguments"] for delta in searching if "function_call" in delta)
    extras = [delta["extra"] for delta in searching if "extra" in delta]
    assert arguments == '{"queries": ["capital of France"]}'
    assert {"info" if "web_search_info" in extra else "docs" for extra in extras} == kinds
    results = extras[-1].get("web_search_info") or extras[-1]["tool_result"]["docs"]
    assert results[1] == {"url": "https://example.org/b", "title": "Second result"}
    assert answer.text().endswith(" [[1]][[2]]")


async def test_image_mode_brings_a_picture_and_its_own_end(visitor: Visitor) -> None:
    answer = await visitor.ask("a cat", chat_type="t2i")
    assert answer.frames[1]["response.info"]["action"] == "keep_alive"
    assert answer.deltas[0]["content"].startswith("https://cdn.qwenlm.ai/output/")
    assert answer.deltas[0]["extra"] == {"output_image_hw": [[1536, 2688]]}
    assert answer.frames[2]["usage"]["image_count"] == 1
    assert answer.deltas[-1]["phase"] == "image_gen"
    assert answer.deltas[-1]["status"] == "finished"


async def test_scripted_replies_come_first_in_order_for_whom_they_fit(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.replies = [
        Reply([frames.answer("for other")], account="other@x"),
        Reply([frames.answer("for blue")], text="blue"),
        stream(frames.created(), frames.answer("any"), frames.finished()),
    ]
    assert (await visitor.ask("red [[sim say no]]")).text() == "any"
    assert (await visitor.ask("blue")).text() == "for blue"
    assert (await visitor.ask("[[sim say composed]]")).text() == "composed"
    assert [reply.account for reply in simulator.scenario.replies] == ["other@x"]


async def test_scripted_reply_sets_status_headers_and_ids(visitor: Visitor, simulator: Simulator) -> None:
    steps = [frames.created(None), frames.keep_alive(), Pause(0.0), b": raw $$chat_id$$\n\n"]
    reply = Reply([*steps], status=202, actual_status=418, headers={"x-more": "1"}, content_type="text/plain")
    simulator.scenario.replies = [reply]
    answer = await visitor.ask("x")
    assert (answer.status, answer.actual_status, answer.headers["x-more"]) == (202, 418, "1")
    assert answer.headers["content-type"] == "text/plain"
    created = answer.frames[0]["response.created"]
    assert created.keys() == {"chat_id", "parent_id", "response_id"}
    assert f": raw {created['chat_id']}".encode() in answer.body
    assert isinstance(answer.frames[1]["response.info"]["timestamp"], int)


async def test_every_frame_form_is_json_of_its_phase(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.replies = [
        stream(
            frames.think("hm"),
            frames.thinking_summary(["t"], ["a"]),
            frames.function_call("code_interpreter", {"code": "1"}),
            frames.function_call("code_interpreter", '{"co'),
            frames.image_in_chat("https://cdn.qwenlm.ai/output/1.png"),
            frames.null_extra(name="web_search"),
            frames.null_content(),
            frames.answer("x", phase=None, response_id=None),
            frames.answer("y", phase="meta"),
            frames.empty_choices(frames.usage(1, 2)),
            frames.error_object("c", "d"),
            frames.error_string(),
            frames.failure_line("RateLimited", "limit", 3),
            frames.drifted("z"),
            frames.unknown_event(),
        )
    ]
    answer = await visitor.ask("x")
    assert len(answer.frames) == 15
    assert answer.deltas[2]["function_call"]["arguments"] == {"code": "1"}
    assert answer.deltas[3]["function_call"]["arguments"] == '{"co'
    assert answer.deltas[5]["extra"] is None
    assert answer.frames[9]["usage"]["total_tokens"] == 3
    assert answer.frames[11] == {"error": "Internal error!"}
    assert answer.frames[12]["data"]["num"] == 3
    assert answer.deltas[7].keys() == {"role", "content", "status"}
    assert "response_id" not in answer.frames[7]


@pytest.mark.parametrize("other_first", [False, True])
async def test_two_candidates_take_turns(visitor: Visitor, simulator: Simulator, other_first: bool) -> None:
    simulator.scenario.replies = [stream(*interleave(["a", "b"], ["A"], other_first=other_first))]
    answer = await visitor.ask("x")
    zero, one = (frame["response.created"]["response_id"] for frame in answer.frames[:2])
    said = [(frame["response_id"], frame["choices"][0]["delta"]["content"]) for frame in answer.frames[2:5]]
    turns = [(zero, "a"), (one, "A"), (zero, "b")]
    assert said == ([turns[1], turns[0], turns[2]] if other_first else turns)
    assert [frame["response_id"] for frame in answer.frames[5:]] == [zero, one]


async def test_a_silent_candidate_has_no_end_either(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.replies = [stream(*interleave([], ["A"])), stream(*interleave(["a"], []))]
    assert len((await visitor.ask("x")).frames) == 4
    assert len((await visitor.ask("x")).frames) == 4
