"""What a Messages reply looks like on the wire, streamed and whole."""

from typing import Any

import msgspec
import pytest

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
from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import Folder
from qwen_proxy.ground.errors import ReplyCut
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols.anthropic_blocks import Signer
from qwen_proxy.protocols.anthropic_messages import AnthropicCount, AnthropicMessages, Manner, MessagesCall
from qwen_proxy.protocols.base import ReplyFacts

Json = dict[str, Any]

FACTS = ReplyFacts(reply_id="r1", request_id="req_1", created_at=1_800_000_000, model="qwen3.7-plus", prompt_tokens=9)
USAGE = Usage(prompt_tokens=10, completion_tokens=7, reasoning_tokens=2, cached_tokens=4)
STOP = Finish(FinishReason.STOP)
SOURCES = SourcesFound((Source("https://a.example/", "A", "snip", date="2026-01-02"), Source("https://b.example/")))


def call(manner: Manner | None = None) -> MessagesCall:
    request = ChatRequest(model=ModelName("m"), messages=())
    return MessagesCall(request=request, stream=True, manner=manner or Manner(), ignored_fields=(), session="")


def events(*batches: Batch, manner: Manner | None = None) -> list[Json]:
    parsed = call(manner)
    encoder = parsed.encoder(FACTS, 0)
    written = encoder.start() + b"".join(encoder.encode(batch) for batch in batches) + parsed.trailer(FACTS, USAGE)
    return [msgspec.json.decode(frame.partition(b"data: ")[2]) for frame in written.split(b"\n\n")[:-1]]


def whole(*parts: Any, manner: Manner | None = None, finish: Finish = STOP) -> Json:
    folder = Folder()
    folder.feed([ReplyStart(), *parts, USAGE, finish])
    return msgspec.json.decode(call(manner).result(FACTS, [folder.result()]))


def kinds(told: list[Json]) -> list[str]:
    return [event["type"] for event in told]


def test_a_text_is_one_block_between_the_messages_beginning_and_end():
    told = events([ReplyStart()], [TextDelta("Hel"), TextDelta("lo")], [TextDelta("!"), TextDelta("")], [USAGE, STOP])
    assert kinds(told) == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message = told[0]["message"]
    assert (message["id"], message["role"], message["model"], message["content"]) == (
        "msg_r1",
        "assistant",
        "qwen3.7-plus",
        [],
    )
    assert message["stop_reason"] is None and message["stop_sequence"] is None
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (9, 0)
    assert told[1] == {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    assert told[2]["delta"] == {"type": "text_delta", "text": "Hello"}
    assert told[5]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None}
    assert told[5]["usage"] == {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 2},
    }


def test_every_event_is_named_in_a_line_of_its_own():
    parsed = call()
    encoder = parsed.encoder(FACTS, 0)
    written = encoder.start() + encoder.encode([TextDelta("a\nb"), USAGE, STOP]) + parsed.trailer(FACTS, USAGE)
    for frame in written.decode().split("\n\n")[:-1]:
        name, _, data = frame.partition("\n")
        assert name == f"event: {msgspec.json.decode(data.removeprefix('data: '))['type']}"


def test_thinking_is_signed_before_its_block_ends_and_the_signature_is_stable():
    told = events(
        [ReasoningDelta("Let me"), ReasoningDelta("")], [ReasoningDelta(" see")], [TextDelta("So"), USAGE, STOP]
    )
    block = {"type": "thinking", "thinking": "", "signature": ""}
    assert told[1]["content_block"] == block
    assert [event["delta"]["type"] for event in told[2:5]] == ["thinking_delta", "thinking_delta", "signature_delta"]
    assert told[5] == {"type": "content_block_stop", "index": 0}
    signature = told[4]["delta"]["signature"]
    assert len(signature) > 20
    folded = whole(ReasoningDelta("Let me see"), TextDelta("So"))["content"]
    assert folded[0] == {"type": "thinking", "thinking": "Let me see", "signature": signature}
    other = whole(ReasoningDelta("Let me be"), TextDelta("So"))["content"]
    assert other[0]["signature"] != signature


def test_half_a_character_can_be_signed():
    signer = Signer()
    signer.add("\ud800")
    assert signer.signature()


def test_omitted_thinking_has_a_signature_and_no_text():
    manner = Manner(omits_thinking=True)
    told = events([ReasoningDelta("secret")], [ReasoningDelta("!")], [TextDelta("So"), USAGE, STOP], manner=manner)
    assert "secret" not in str(told)
    assert kinds(told)[1:4] == ["content_block_start", "content_block_delta", "content_block_stop"]
    assert told[2]["delta"]["type"] == "signature_delta"
    (thought, _) = whole(ReasoningDelta("secret!"), TextDelta("So"), manner=manner)["content"]
    assert thought == {"type": "thinking", "thinking": "", "signature": told[2]["delta"]["signature"]}


def test_thinking_that_was_switched_off_is_not_shown():
    manner = Manner(shows_thinking=False)
    told = events([ReasoningDelta("all the same")], [TextDelta("So"), USAGE, STOP], manner=manner)
    assert [event["content_block"]["type"] for event in told if "content_block" in event] == ["text"]
    assert [block["type"] for block in whole(ReasoningDelta("x"), TextDelta("So"), manner=manner)["content"]] == [
        "text"
    ]


def test_calls_are_blocks_with_an_empty_input_and_its_text_in_deltas():
    told = events(
        [TextDelta("I look."), ToolCallStart("c1", "read"), ToolArgumentsDelta('{"pa'), ToolArgumentsDelta("")],
        [ToolArgumentsDelta('th":1}'), ToolCallStart("toolu_2", "list"), ToolArgumentsDelta("")],
        [USAGE, Finish(FinishReason.TOOL_CALLS)],
    )
    started = [event for event in told if event["type"] == "content_block_start"]
    assert [event["index"] for event in started] == [0, 1, 2]
    assert started[1]["content_block"] == {"type": "tool_use", "id": "toolu_c1", "name": "read", "input": {}}
    assert started[2]["content_block"]["id"] == "toolu_2"
    pieces = [
        event["delta"]["partial_json"] for event in told if event.get("delta", {}).get("type") == "input_json_delta"
    ]
    assert pieces == ['{"pa', 'th":1}']
    assert told[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_folded_call_has_its_input_as_an_object():
    parts = [
        ToolCallStart("c1", "f"),
        ToolArgumentsDelta('{"a":1}'),
        ToolCallStart("c2", "g"),
        ToolArgumentsDelta('{"a'),
    ]
    reply = whole(*parts, finish=Finish(FinishReason.LENGTH))
    assert [block["input"] for block in reply["content"]] == [{"a": 1}, {}]
    assert reply["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        (STOP, "end_turn"),
        (Finish(FinishReason.LENGTH), "max_tokens"),
        (Finish(FinishReason.TOOL_CALLS), "tool_use"),
        (Finish(FinishReason.CONTENT_FILTER), "refusal"),
        (Finish(FinishReason.STOP, "END"), "stop_sequence"),
    ],
)
def test_why_a_reply_ended(finish: Finish, reason: str):
    end = events([TextDelta("x"), USAGE, finish])[-2]["delta"]
    assert (end["stop_reason"], end["stop_sequence"]) == (reason, finish.stop_sequence)
    assert (end["stop_details"] is not None) == (reason == "refusal")
    reply = whole(TextDelta("x"), finish=finish)
    assert {name: reply[name] for name in end} == end


def test_a_reply_that_calls_ends_for_its_calls_unless_it_was_cut():
    start = ToolCallStart("c1", "f")
    for finish, reason in ((STOP, "tool_use"), (Finish(FinishReason.LENGTH), "max_tokens")):
        assert events([start, USAGE, finish])[-2]["delta"]["stop_reason"] == reason
        assert whole(start, finish=finish)["stop_reason"] == reason


def test_a_picture_is_a_part_of_the_text():
    picture = MediaOutput(MediaKind.IMAGE, "https://cdn.qwen.ai/a b.png")
    expected = "Here:\n![image](https://cdn.qwen.ai/a%20b.png)\n"
    told = events([TextDelta("Here:"), picture], [USAGE, STOP])
    assert kinds(told).count("content_block_start") == 1
    assert "".join(event["delta"]["text"] for event in told if event["type"] == "content_block_delta") == expected
    assert whole(TextDelta("Here:"), picture)["content"] == [{"type": "text", "text": expected}]
    clip = MediaOutput(MediaKind.VIDEO, "https://cdn.qwen.ai/a.mp4")
    assert whole(clip)["content"][0]["text"] == "\n[video](https://cdn.qwen.ai/a.mp4)\n"


def test_sources_are_told_as_anthropics_search_only_to_who_asked_for_it():
    told = events([SOURCES], [TextDelta("So"), SourcesFound(())], [USAGE, STOP], manner=Manner(searches=True))
    use, found = (
        event["content_block"] for event in told if event.get("content_block", {}).get("type", "text") != "text"
    )
    assert use == {"type": "server_tool_use", "id": "srvtoolu_r10", "name": "web_search", "input": {}}
    assert found["tool_use_id"] == "srvtoolu_r10"
    assert [(each["url"], each["title"], each["page_age"]) for each in found["content"]] == [
        ("https://a.example/", "A", "2026-01-02"),
        ("https://b.example/", "https://b.example/", None),
    ]
    assert kinds(told)[1:5] == ["content_block_start", "content_block_stop"] * 2
    assert told[-2]["usage"]["server_tool_use"]["web_search_requests"] == 1
    reply = whole(ReasoningDelta("hm"), SOURCES, TextDelta("So"), manner=Manner(searches=True))
    assert [block["type"] for block in reply["content"]] == [
        "thinking",
        "server_tool_use",
        "web_search_tool_result",
        "text",
    ]
    assert reply["usage"]["server_tool_use"]["web_search_requests"] == 1
    assert len(whole(SOURCES, manner=Manner(searches=True))["content"]) == 2
    assert "a.example" not in str(events([SOURCES], [TextDelta("So"), USAGE, STOP]))
    assert [block["type"] for block in whole(SOURCES, TextDelta("So"))["content"]] == ["text"]


def test_what_was_searched_for_is_the_searchs_input():
    manner = Manner(searches=True)
    asked: Batch = [SourcesFound((), ("tides", "moon"))]
    told = events(asked, [SOURCES], [SourcesFound(SOURCES.sources)], [TextDelta("So"), USAGE, STOP], manner=manner)
    deltas = [event["delta"] for event in told if event["type"] == "content_block_delta"]
    assert deltas[0] == {"type": "input_json_delta", "partial_json": '{"query":"tides; moon"}'}
    assert [delta["type"] for delta in deltas] == ["input_json_delta", "text_delta"]  # further results tell no query
    use = whole(*asked, SOURCES, TextDelta("So"), manner=manner)["content"][0]
    assert use["input"] == {"query": "tides; moon"}
    assert [block["type"] for block in whole(*asked, TextDelta("So"), manner=manner)["content"]] == ["text"]


def test_json_is_one_block_whatever_comes_between_its_pieces():
    manner = Manner(is_single=True, searches=True)
    parts: Batch = [ReasoningDelta("hm"), TextDelta('{"a"'), ReasoningDelta("oh"), SOURCES, TextDelta(":1}")]
    told = events(*[[part] for part in parts], [USAGE, STOP], manner=manner)
    assert [event["content_block"]["type"] for event in told if "content_block" in event] == ["thinking", "text"]
    texts = [event["delta"]["text"] for event in told if event.get("delta", {}).get("type") == "text_delta"]
    assert "".join(texts) == '{"a":1}'
    content = whole(*parts, manner=manner)["content"]
    assert [block["text"] for block in content if block["type"] == "text"] == ['{"a":1}']


def test_thinking_between_texts_parts_them():
    reply = whole(TextDelta("a"), ReasoningDelta("hm"), TextDelta("b"), ReasoningDelta(""), TextDelta("c"))
    assert [block["type"] for block in reply["content"]] == ["text", "thinking", "text", "text"]


def test_a_reply_of_nothing_has_no_blocks():
    assert kinds(events([ReplyStart(), USAGE, Finish(FinishReason.LENGTH)])) == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    folder = Folder()
    folder.feed([ReplyStart(), STOP])
    reply = msgspec.json.decode(call().result(FACTS, [folder.result()]))
    assert (reply["content"], reply["usage"]["output_tokens"]) == ([], 0)


def test_a_failure_in_the_stream_is_an_event_with_the_requests_id():
    encoder = call().encoder(FACTS, 0)
    name, _, data = encoder.fail(ReplyCut()).partition(b"\n")
    assert name == b"event: error"
    error = msgspec.json.decode(data.removeprefix(b"data: "))
    assert (error["type"], error["error"]["type"], error["request_id"]) == ("error", "overloaded_error", "req_1")


def test_how_a_stream_is_kept_alive():
    assert AnthropicMessages.stream_content_type == "text/event-stream; charset=utf-8"
    assert AnthropicMessages.heartbeat == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_limits_are_told_in_anthropics_headers():
    assert AnthropicMessages().limit_headers(LimitFacts(at=0.0)) == ()
    assert AnthropicCount.request_id_header == "request-id"
