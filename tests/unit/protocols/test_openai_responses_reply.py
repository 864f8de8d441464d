"""What `/v1/responses` answers. That streamed and folded read alike is tried for every protocol in conformance/."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from qwen_proxy.chat.events import (
    Batch,
    Finish,
    FinishReason,
    MediaKind,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    Source,
    SourcesFound,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
)
from qwen_proxy.chat.result import Folder
from qwen_proxy.ground.errors import (
    InternalError,
    InvalidRequest,
    ModelNotFound,
    PromptTooLong,
    QuotaExhausted,
    ReplyCut,
)
from qwen_proxy.ground.limits import LimitFacts, WindowFacts
from qwen_proxy.protocols.base import Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.openai_freeform import MOST_BEFORE, FreeformInput
from qwen_proxy.protocols.openai_responses import OpenAIResponses, ResponsesCall
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder
from qwen_proxy.protocols.openai_responses_sealed import opened

FACTS = ReplyFacts(reply_id="ab" * 16, request_id="req_1", created_at=1_800_000_000, model="qwen3.7-plus")
USAGE = Usage(prompt_tokens=5, completion_tokens=7, reasoning_tokens=2, cached_tokens=1)
TOOLS = [
    {"type": "function", "name": "list"},
    {"type": "custom", "name": "apply_patch"},
    {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "spawn"}]},
]
Json = dict[str, Any]  # JSON enters here


def call(**fields: object) -> ResponsesCall:
    body = msgspec.json.encode({"input": "hello", "tools": TOOLS, **fields})
    incoming = Incoming(path="/v1/responses", query={}, headers={}, body=body)
    return OpenAIResponses().parse(incoming, ParseOptions())


def events_of(written: bytes) -> list[Json]:
    return [msgspec.json.decode(frame.split(b"\ndata: ")[1]) for frame in written.split(b"\n\n")[:-1]]


def streamed(*events: Any, finish: FinishReason = FinishReason.STOP, **fields: object) -> list[Json]:
    encoder = call(**fields).encoder(FACTS, 0)
    batch: Batch = [ReplyStart(), *events, USAGE, Finish(finish)]
    return events_of(encoder.start() + b"".join(encoder.encode([event]) for event in batch))


def folded(*events: Any, finish: FinishReason = FinishReason.STOP, **fields: object) -> Json:
    folder = Folder()
    folder.feed([ReplyStart(), *events, USAGE, Finish(finish)])
    return msgspec.json.decode(call(**fields).result(FACTS, [folder.result()]))


def kinds(events: list[Json]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_the_events_of_a_text() -> None:
    events = streamed(TextDelta("Hel"), TextDelta("lo"))
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(10))
    assert events[0]["response"]["status"] == "in_progress" and events[0]["response"]["output"] == []
    assert events[2]["item"]["content"] == [] and events[2]["item"]["status"] == "in_progress"
    assert events[4]["logprobs"] == events[6]["logprobs"] == []
    assert events[6]["text"] == "Hello"
    assert events[8]["item"]["status"] == "completed"
    final = events[-1]["response"]
    assert final["output"] == [events[8]["item"]]
    assert final["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }
    assert final == folded(TextDelta("Hello"))


def token(text: str) -> TextDelta:
    return TextDelta(text, Raw(msgspec.json.encode([{"token": text, "logprob": -0.5}])))


def told_of(text: str) -> Json:
    return {"token": text, "bytes": list(text.encode()), "logprob": -0.5, "top_logprobs": []}


def test_log_probabilities_stand_with_their_text() -> None:
    said = (token("Hel"), token("lo"), TextDelta("!"), ToolCallStart("c", "list"), token("Bye"), token(""))
    events = streamed(*said, top_logprobs=2)
    deltas = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert deltas == [[told_of("Hel")], [told_of("lo")], [], [told_of("Bye")], [told_of("")]]
    done = [event["logprobs"] for event in events if event["type"] == "response.output_text.done"]
    assert done == [[told_of("Hel"), told_of("lo")], [told_of("Bye"), told_of("")]]
    final = events[-1]["response"]
    assert [item["content"][0]["logprobs"] for item in final["output"] if item["type"] == "message"] == done
    assert final == folded(*said, top_logprobs=2) and final["top_logprobs"] == 2


def test_a_response_tells_its_request_again() -> None:
    fields: Json = {
        "instructions": "be brief",
        "metadata": {"a": "b"},
        "reasoning": {"effort": "high", "generate_summary": "auto"},
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "store": False,
        "max_output_tokens": 9,
    }
    told = folded(TextDelta("a"), **fields)
    assert {name: told[name] for name in fields if name != "reasoning"} == {
        name: fields[name] for name in fields if name != "reasoning"
    }
    assert told["reasoning"] == {"effort": "high", "summary": "auto"}
    assert (told["tools"], told["id"], told["model"]) == (TOOLS, "resp_" + "ab" * 16, "qwen3.7-plus")
    assert folded(TextDelta("a"), text=None)["text"] == {"format": {"type": "text"}}


def test_thinking_is_told_whole_or_as_the_summary_that_was_asked_for() -> None:
    thought = (ReasoningDelta("h"), ReasoningDelta("m"), TextDelta("a"))
    plain = streamed(*thought)
    assert kinds(plain)[2:9] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    item = plain[-1]["response"]["output"][0]
    assert (item["summary"], item["content"]) == ([], [{"type": "reasoning_text", "text": "hm"}])
    assert item["encrypted_content"] is None
    wishes: Json = {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]}
    summary = streamed(*thought, **wishes)
    assert kinds(summary)[2:9] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert summary[2]["item"]["encrypted_content"] is None
    item = summary[-1]["response"]["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "hm"}] and "content" not in item
    assert opened(item["encrypted_content"]) == "hm"
    assert summary[-1]["response"] == folded(*thought, **wishes)


def test_calls_come_back_as_the_client_calls_its_tools() -> None:
    events = streamed(
        ToolCallStart("c1", "list"),
        ToolArgumentsDelta('{"a"'),
        ToolArgumentsDelta(""),
        ToolArgumentsDelta(":1}"),
        ToolCallStart("c2", "spawn"),
        ToolArgumentsDelta("{}"),
        ToolCallStart("c3", "apply_patch"),
        ToolArgumentsDelta('{"inp'),
        ToolArgumentsDelta('ut": "*** \\'),
        ToolArgumentsDelta("n end"),
        ToolArgumentsDelta('"}'),
        finish=FinishReason.TOOL_CALLS,
    )
    assert kinds(events)[2:7] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert events[2]["item"]["arguments"] == ""
    assert events[5]["arguments"] == '{"a":1}' and events[5]["name"] == "list"
    one, two, three = events[-1]["response"]["output"]
    assert (one["type"], one["call_id"], one["arguments"]) == ("function_call", "c1", '{"a":1}')
    assert "namespace" not in one
    assert (two["name"], two["namespace"]) == ("spawn", "agents")
    assert (three["type"], three["input"], "arguments" in three) == ("custom_tool_call", "*** \n end", False)
    deltas = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    assert deltas == ["*** ", "\n end"]
    assert events[-1]["response"]["status"] == "completed"
    assert [item["id"] for item in (one, two, three)] == [
        f"{prefix}_{'ab' * 16}{i:04x}" for i, prefix in enumerate(("fc", "fc", "ctc"))
    ]


def test_a_freeform_call_without_its_form_is_told_at_its_end() -> None:
    events = streamed(ToolCallStart("c", "apply_patch"), ToolArgumentsDelta("[1]"))
    assert kinds(events)[2:6] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    assert events[-1]["response"]["output"][0]["input"] == "[1]"
    nothing = streamed(ToolCallStart("c", "apply_patch"))
    assert nothing[-1]["response"]["output"][0]["input"] == ""


def test_sources_are_citations_of_the_message_they_came_with() -> None:
    found = SourcesFound((Source("https://a.example/", "A"), Source("https://b.example/")))
    events = streamed(found, TextDelta("x"), SourcesFound((Source("https://c.example/"),)))
    search, message = events[-1]["response"]["output"]
    assert search["type"] == "web_search_call"
    assert [cited["url"] for cited in message["content"][0]["annotations"]] == [
        "https://a.example/",
        "https://b.example/",
        "https://c.example/",
    ]
    assert kinds(events)[9:13] == [
        "output_text.annotation.added",
        "output_text.annotation.added",
        "output_text.delta",
        "output_text.annotation.added",
    ]
    assert message["content"][0]["annotations"][0]["title"] == "A"
    late = streamed(ToolCallStart("c", "list"), found)[-1]["response"]["output"]
    assert [item["type"] for item in late] == ["function_call", "web_search_call", "message"]


def test_the_events_of_a_search() -> None:
    asked, found = SourcesFound((), ("tide tables", "moon")), SourcesFound((Source("https://a.example/"),))
    events = streamed(ReasoningDelta("hm"), asked, found, TextDelta("x"), include=["web_search_call.action.sources"])
    assert kinds(events)[6:14] == [
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "web_search_call.in_progress",
        "web_search_call.searching",
        "web_search_call.completed",
        "output_item.done",
        "output_item.added",
    ]
    id, action = f"ws_{'ab' * 16}0001", {"type": "search", "query": "tide tables", "queries": ["tide tables", "moon"]}
    assert events[8]["item"] == {"id": id, "type": "web_search_call", "status": "in_progress", "action": action}
    assert {(event["item_id"], event["output_index"]) for event in events[9:12]} == {(id, 1)}
    done = action | {"sources": [{"type": "url", "url": "https://a.example/"}]}
    assert events[12]["item"] == {"id": id, "type": "web_search_call", "status": "completed", "action": done}
    final = events[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["reasoning", "web_search_call", "message"]
    whole = folded(ReasoningDelta("hm"), asked, found, TextDelta("x"), include=["web_search_call.action.sources"])
    assert whole["output"] == final["output"]


def test_sources_of_a_search_are_told_to_who_asks_for_them() -> None:
    (search, _) = folded(SourcesFound((Source("https://a.example/"),)), TextDelta("x"))["output"]
    assert search["action"] == {"type": "search"}
    assert [item["type"] for item in folded(TextDelta("x"))["output"]] == ["message"]


def test_a_search_that_a_message_tells_of_stands_behind_it() -> None:
    found = [SourcesFound((Source(f"https://{name}.example/"),)) for name in "ab"]
    events = streamed(
        TextDelta("x"), *found, TextDelta("y"), ToolCallStart("c", "list"), include=["web_search_call.action.sources"]
    )
    message, search, call = output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "web_search_call", "function_call"]
    assert [item["id"][-1] for item in output] == ["0", "1", "2"]
    assert (message["content"][0]["text"], len(message["content"][0]["annotations"])) == ("xy", 2)
    assert [source["url"] for source in search["action"]["sources"]] == ["https://a.example/", "https://b.example/"]
    assert call["name"] == "list"
    indexes = [event["output_index"] for event in events if "output_index" in event]
    assert indexes == sorted(indexes)


def test_further_results_of_a_search_are_no_further_search() -> None:
    first, more = (SourcesFound((Source(f"https://{name}.example/"),)) for name in "ab")
    events = streamed(first, TextDelta("x"), more)
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["web_search_call", "message"]
    again = streamed(first, TextDelta("x"), SourcesFound((), ("what else",)))
    assert [item["type"] for item in again[-1]["response"]["output"]] == [
        "web_search_call",
        "message",
        "web_search_call",
    ]


def test_a_search_is_whole_also_in_a_response_that_was_cut_and_not_in_one_that_broke_off() -> None:
    found = SourcesFound((Source("https://a.example/"),))
    (search, _) = streamed(found, finish=FinishReason.LENGTH)[-1]["response"]["output"]
    assert search["status"] == "completed"
    encoder = call().encoder(FACTS, 0)
    written = encoder.start() + encoder.encode([ReplyStart(), found]) + encoder.fail(ReplyCut())
    (search,) = events_of(written)[-1]["response"]["output"]
    assert (search["type"], search["status"]) == ("web_search_call", "incomplete")


def test_pictures_are_text() -> None:
    events = streamed(MediaOutput(MediaKind.IMAGE, "https://cdn.qwen.ai/a.png"))
    assert "![image](https://cdn.qwen.ai/a.png)" in events[-1]["response"]["output"][0]["content"][0]["text"]
    assert folded(MediaOutput(MediaKind.IMAGE, "https://cdn.qwen.ai/a.png")) == events[-1]["response"]


@pytest.mark.parametrize(
    ("finish", "reason"), [(FinishReason.LENGTH, "max_output_tokens"), (FinishReason.CONTENT_FILTER, "content_filter")]
)
def test_a_reply_that_was_cut_is_incomplete(finish: FinishReason, reason: str) -> None:
    events = streamed(TextDelta("a"), finish=finish)
    assert kinds(events)[-1] == "incomplete"
    final = events[-1]["response"]
    assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert final["output"][0]["status"] == "incomplete"


def test_a_failure_is_told_twice_with_what_had_come() -> None:
    encoder = call().encoder(FACTS, 0)
    written = encoder.start() + encoder.encode([ReplyStart(), TextDelta("so far")]) + encoder.fail(ReplyCut())
    error, last = events_of(written)[-2:]
    assert (error["type"], error["code"], error["param"]) == ("error", "upstream_unavailable", None)
    assert error["sequence_number"] + 1 == last["sequence_number"]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": error["message"]}
    (item,) = last["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "so far")
    assert encoder.outcome.status == "failed" and msgspec.json.decode(encoder.last) == last["response"]


@pytest.mark.parametrize(
    ("error", "code", "param"),
    [
        (InvalidRequest("no", param="input"), "invalid_prompt", "input"),
        (PromptTooLong(9, 8), "invalid_prompt", None),
        (ModelNotFound("gpt"), "invalid_prompt", "model"),
        (QuotaExhausted(), "rate_limit_exceeded", None),
        (InternalError(), "server_error", None),
    ],
)
def test_a_failure_before_anything_else_was_told(error: Any, code: str, param: str | None) -> None:
    encoder = call().encoder(FACTS, 0)
    encoder.start()  # which never went out
    events = events_of(encoder.fail(error))
    assert kinds(events) == ["created", "in_progress", "error", "failed"]
    assert [event["sequence_number"] for event in events] == [0, 1, 2, 3]
    assert (events[-1]["response"]["error"]["code"], events[2]["param"]) == (code, param)


def test_a_queued_response_and_one_that_is_cancelled() -> None:
    meant = call()
    encoder = ResponseEncoder(FACTS, meant.wishes, meant.toolbox, is_queued=True)
    assert encoder.last_number == -1
    opening = events_of(encoder.start())
    assert kinds(opening) == ["created", "queued", "in_progress"]
    assert [event["response"]["status"] for event in opening] == ["queued", "queued", "in_progress"]
    encoder.encode([ReplyStart(), TextDelta("a")])
    (last,) = events_of(encoder.cancel())
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
    assert encoder.last_number == last["sequence_number"] and encoder.items
    early = ResponseEncoder(FACTS, meant.wishes, meant.toolbox)
    assert kinds(events_of(early.cancel())) == ["created", "in_progress", "incomplete"]


def test_a_keys_limits_are_told_as_openai_does() -> None:
    facts = LimitFacts(at=0.0, requests=WindowFacts(5, 4, 60.0))
    assert dict(OpenAIResponses().limit_headers(facts))["x-ratelimit-remaining-requests"] == "4"


def test_empty_deltas_open_nothing() -> None:
    assert streamed(TextDelta(""), ReasoningDelta(""))[-1]["response"]["output"] == []


# --- freeform input


@given(text=st.text(), at=st.lists(st.integers(0, 60), max_size=6), escapes=st.booleans())
def test_a_freeform_input_is_the_same_however_it_is_cut(text: str, at: list[int], escapes: bool) -> None:
    written = ' { "input" :' + (ascii_json(text) if escapes else msgspec.json.encode(text).decode()) + "} "
    places = sorted({place % (len(written) + 1) for place in at})
    reader = FreeformInput()
    pieces = [written[start:end] for start, end in zip([0, *places], [*places, len(written)], strict=True)]
    assert "".join(map(reader.feed, pieces)) == reader.end() == text


def ascii_json(text: str) -> str:
    units = text.encode("utf-16-be")
    return '"' + "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2)) + '"'


def read(arguments: str) -> tuple[str, str]:
    reader = FreeformInput()
    return "".join(map(reader.feed, arguments)), reader.end()


def test_arguments_of_another_form_are_told_whole() -> None:
    assert read('{"patch": "a"}') == ("", '{"patch": "a"}')
    assert read("no JSON") == ("", "no JSON")
    long = '{"a": "' + "x" * MOST_BEFORE + '", "input": "late"}'
    assert read(long) == ("", "late")


def test_half_a_character_does_not_end_a_freeform_input() -> None:
    assert read('{"input": "a\\ud83d b"}') == ("a", "a\N{REPLACEMENT CHARACTER} b")


def test_what_was_given_out_stays_a_prefix() -> None:
    assert read('{"input": "a", "input": "b"}') == ("a", "a")
