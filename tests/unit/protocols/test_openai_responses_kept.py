"""What is kept of a response, and its end when that comes from outside."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from qwen_proxy.chat.events import Finish, FinishReason, ReplyStart, TextDelta, ToolCallStart, Usage
from qwen_proxy.chat.request import AUTO, Role, TextPart
from qwen_proxy.chat.result import Folder
from qwen_proxy.ground.errors import InvalidRequest, ShuttingDown
from qwen_proxy.protocols.base import Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.openai_responses import OpenAIResponses, ResponsesCall
from qwen_proxy.protocols.openai_responses_body import KeptBody
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder
from qwen_proxy.protocols.openai_responses_extras import DEMAND, compacting, counted
from qwen_proxy.protocols.openai_responses_kept import (
    behind,
    bodies,
    broken_off,
    cancelled,
    facts_of,
    find_item,
    frames,
    input_items,
    items_done,
    items_of,
    last_number,
    listed,
    response_of,
    status_of,
)
from qwen_proxy.protocols.openai_responses_sealed import opened

REPLY = "ab" * 16
FACTS = ReplyFacts(reply_id=REPLY, request_id="req_1", created_at=1_800_000_000, model="qwen3.7-plus")
USAGE = Usage(prompt_tokens=5, completion_tokens=7)


def call(**fields: object) -> ResponsesCall:
    body = msgspec.json.encode({"input": "hello", "tools": [{"type": "function", "name": "list"}], **fields})
    return OpenAIResponses().parse(Incoming(path="", query={}, headers={}, body=body), ParseOptions())


def kept_input(input: object, **found: object) -> list[Any]:
    kept = KeptBody(input=Raw(msgspec.json.encode(input)))
    raw = {id: Raw(msgspec.json.encode(item)) for id, item in found.items()}
    return msgspec.json.decode(input_items(kept, REPLY, raw))


# --- items


def test_the_items_of_an_input_get_what_they_lack() -> None:
    told = kept_input(
        [
            {"role": "user", "content": "a", "type": None},
            {"role": "assistant", "content": "b", "id": "msg_own", "status": "incomplete"},
            {"type": "function_call", "call_id": "c", "name": "list", "arguments": "{}"},
            {"type": "never_heard_of", "anything": [1]},
            {"id": "fc_1"},
        ],
        fc_1={"type": "function_call", "id": "fc_1"},
    )
    assert told == [
        {
            "id": f"msg_{REPLY}8000",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": "a"}],
        },
        {
            "id": "msg_own",
            "type": "message",
            "role": "assistant",
            "status": "incomplete",
            "content": [{"type": "output_text", "text": "b"}],
        },
        {
            "id": f"fc_{REPLY}8002",
            "type": "function_call",
            "status": "completed",
            "call_id": "c",
            "name": "list",
            "arguments": "{}",
        },
        {"id": f"item_{REPLY}8003", "type": "never_heard_of", "status": "completed", "anything": [1]},
        {"type": "function_call", "id": "fc_1"},
    ]
    (text,) = kept_input("hello")
    assert text["content"] == [{"type": "input_text", "text": "hello"}] and text["role"] == "user"


def test_an_items_id_tells_its_response() -> None:
    assert response_of(f"msg_{REPLY}0001") == f"resp_{REPLY}"
    assert response_of("msg_67") == response_of("") == ""


def test_items_are_found_by_id() -> None:
    items = b'[{"id":"a","type":"message","role":"user","content":"x"},{"id":"b"}]'
    assert [item.id for item in bodies(items)] == ["a", "b"]
    found = find_item(items, "b")
    assert found is not None and bytes(found) == b'{"id":"b"}'
    assert find_item(items, "c") is None
    assert items_of(b'{"output":[1], "x": 2}') == b"[1]"


ITEMS = msgspec.json.encode([{"id": name} for name in "abcde"])


def page(**query: str) -> tuple[list[str], bool]:
    told = msgspec.json.decode(listed(ITEMS, query))
    ids = [item["id"] for item in told["data"]]
    assert (told["first_id"], told["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    return ids, told["has_more"]


def test_pages_of_items() -> None:
    assert page() == (list("edcba"), False)
    assert page(order="asc", limit="2") == (["a", "b"], True)
    assert page(order="asc", limit="2", after="b") == (["c", "d"], True)
    assert page(limit="2", after="b") == (["a"], False)
    assert page(after="a") == ([], False)


@pytest.mark.parametrize("query", [{"order": "up"}, {"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"after": "z"}])
def test_a_wrong_page_is_refused_by_name(query: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        listed(ITEMS, query)
    assert [refused.value.param] == list(query)


# --- events


def written(*events: Any) -> tuple[ResponseEncoder, bytes]:
    meant = call()
    encoder = ResponseEncoder(FACTS, meant.wishes, meant.toolbox, is_queued=True)
    return encoder, encoder.start() + encoder.encode([ReplyStart(), *events])


def test_events_are_told_apart_by_their_numbers() -> None:
    text = 'a\n\nb "sequence_number":7}\n\n'
    encoder, told = written(TextDelta(text), ToolCallStart("c", "list"))
    assert [number for number, _ in frames(told)] == list(range(encoder.last_number + 1))
    assert b"".join(frame for _, frame in frames(told)) == told
    assert last_number(told) == encoder.last_number
    rest = behind(told, 3)
    assert told.endswith(rest) and next(frames(rest))[0] == 4
    assert behind(told, encoder.last_number) == b""
    (item,) = items_done(told)
    assert msgspec.json.decode(item)["content"][0]["text"] == text


def last_events(events: bytes) -> list[Any]:
    return [msgspec.json.decode(frame.split(b"\ndata: ")[1]) for _, frame in frames(events)]


def test_a_response_that_was_cancelled_keeps_what_was_done() -> None:
    encoder, told = written(TextDelta("a"), ToolCallStart("c", "list"))
    assert status_of(encoder.last) == "in_progress"
    end = cancelled(encoder.last, told, encoder.last_number)
    (event,) = last_events(end.events)
    assert (event["type"], event["sequence_number"]) == ("response.incomplete", encoder.last_number + 1)
    assert end.last == encoder.last_number + 1 and msgspec.json.decode(end.response) == event["response"]
    assert status_of(end.response) == "cancelled"
    assert [item["type"] for item in event["response"]["output"]] == ["message"]


def test_a_response_without_a_worker_fails_and_is_created_first() -> None:
    queued = msgspec.json.encode({"id": "resp_1", "created_at": 5, "model": "m", "status": "queued", "output": []})
    assert facts_of(queued) == (5, "m")
    end = broken_off(queued, b"", -1, ShuttingDown("its process is gone"), "req_1")
    events = last_events(end.events)
    assert [event["type"] for event in events] == ["response.created", "error", "response.failed"]
    assert [event["sequence_number"] for event in events] == [0, 1, 2]
    assert events[2]["response"]["error"] == {
        "code": "server_error",
        "message": "its process is gone; send the request again",
    }


# --- the routes beside


def test_compacting_asks_for_a_summary_and_seals_it() -> None:
    meant = compacting(call(tool_choice="required"))
    *before, demand = meant.request.messages
    assert [message.parts for message in before] == [(TextPart("hello"),)]
    assert (demand.role, demand.parts) == (Role.USER, (TextPart(DEMAND),))
    assert (meant.request.tools, meant.request.tool_choice, meant.stream) == ((), AUTO, False)
    folder = Folder()
    folder.feed([ReplyStart(), TextDelta("in short"), USAGE, Finish(FinishReason.STOP)])
    told = msgspec.json.decode(meant.result(FACTS, [folder.result()]))
    (item,) = told["output"]
    assert (told["object"], item["type"], opened(item["encrypted_content"])) == (
        "response.compaction",
        "compaction",
        "in short",
    )
    assert told["usage"]["total_tokens"] == 12
    folder = Folder()
    folder.feed([ReplyStart(), TextDelta("a"), Finish(FinishReason.STOP)])
    assert msgspec.json.decode(meant.result(FACTS, [folder.result()]))["usage"] is None
    assert meant.trailer(FACTS, USAGE) == b"" and meant.encoder(FACTS, 0).last_number == -1


def test_counting_tells_a_number() -> None:
    assert msgspec.json.decode(counted(7)) == {"object": "response.input_tokens", "input_tokens": 7}
