"""What `/v1/chat/completions` answers, checked against the openai SDK's own types and accumulator."""

from typing import get_args

import msgspec
import pytest
from msgspec import Raw, structs
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
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
    UsageOrigin,
)
from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import ChatResult, Folder
from qwen_proxy.ground.errors import ReplyCut
from qwen_proxy.protocols.base import ReplyFacts
from qwen_proxy.protocols.openai_chat import ChatCall, ChunkEncoder, OpenAIChat

FACTS = ReplyFacts(reply_id="77", request_id="req-1", created_at=1_790_000_000, model='Qwen3.7-"Plus"')
USED = Usage(prompt_tokens=7, completion_tokens=5, reasoning_tokens=2, cached_tokens=1)
STOPPED = Finish(FinishReason.STOP)
SOURCES = (Source("https://a.example/1", "One"), Source("https://b.example/2"))
CALLED: Batch = [
    ToolCallStart("c1", "weather"),
    ToolArgumentsDelta('{"city"'),
    ToolArgumentsDelta(':"Rome"}'),
    ToolCallStart("c2", "clock"),
    ToolArgumentsDelta("{}"),
]
WHOLE: list[Batch] = [
    [ReplyStart("r")],
    [ReasoningDelta("Let me "), ReasoningDelta("see"), SourcesFound(SOURCES[:1])],
    [SourcesFound(SOURCES[1:])],
    [TextDelta("Dry,\n"), TextDelta("“sunny”")],
    [MediaOutput(MediaKind.IMAGE, "https://m.example/a (1).png"), MediaOutput(MediaKind.VIDEO, "https://m.example/b")],
    CALLED,
    [USED, Finish(FinishReason.TOOL_CALLS)],
]
TEXT = "Dry,\n“sunny”\n![image](https://m.example/a%20%281%29.png)\n\n[video](https://m.example/b)\n"


def call(*, include_usage: bool = False, choices: int = 1) -> ChatCall:
    request = ChatRequest(model=ModelName("q"), messages=())
    return ChatCall(request=request, stream=True, include_usage=include_usage, choices=choices, ignored_fields=())


def chunks(written: bytes) -> list[ChatCompletionChunk]:
    """The chunks in what was written, each a whole frame that the SDK's types take."""
    *frames, rest = written.split(b"\n\n")
    assert rest == b""
    assert all(frame.startswith(b"data: {") for frame in frames)
    return [ChatCompletionChunk.model_validate_json(frame[6:], strict=True) for frame in frames]


def frames(written: bytes) -> list[bytes]:
    return [frame.removeprefix(b"data: ") for frame in written.split(b"\n\n")[:-1]]


def deltas(*events: ChatEvent) -> list[dict[str, object]]:
    return [chunk.choices[0].delta.to_dict() for chunk in chunks(call().encoder(FACTS, 0).encode(list(events)))]


def folded(batches: list[Batch]) -> ChatResult:
    folder = Folder()
    for batch in batches:
        folder.feed(batch)
    return folder.result()


def completion(*results: ChatResult) -> ChatCompletion:
    return ChatCompletion.model_validate_json(call(choices=len(results)).result(FACTS, results), strict=True)


def calls(message: ChatCompletionMessage) -> list[tuple[str, str]]:
    told = [call for call in message.tool_calls or [] if call.type == "function"]
    return [(call.function.name, call.function.arguments) for call in told]


def cited(message: ChatCompletionMessage) -> list[str]:
    return [note.url_citation.url for note in message.annotations or []]


# --- streams -----------------------------------------------------------------------------------------------


def test_the_first_chunk_gives_the_role_and_nothing_else():
    (chunk,) = chunks(call().encoder(FACTS, 0).start())
    assert chunk.to_dict() == {
        "id": "chatcmpl-77",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": 'Qwen3.7-"Plus"',
        "system_fingerprint": chunk.system_fingerprint,
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        ],
    }
    assert chunk.system_fingerprint is not None
    assert chunk.system_fingerprint.startswith("fp_")


def test_every_kind_of_event_has_a_writer():
    assert set(call().encoder(FACTS, 0).writers) == set(get_args(ChatEvent))


def test_neighbouring_deltas_of_a_batch_are_one_chunk():
    events: Batch = [TextDelta("a"), TextDelta("b\n"), ReasoningDelta("c"), ReasoningDelta("d"), TextDelta("e")]
    assert deltas(*events) == [{"content": "ab\n"}, {"reasoning_content": "cd"}, {"content": "e"}]


def test_what_says_nothing_is_not_written():
    encoder = call().encoder(FACTS, 0)
    assert encoder.encode([]) == b""
    assert encoder.encode([ReplyStart("r"), TextDelta(""), ReasoningDelta(""), SourcesFound(()), USED]) == b""


PATCHED: Batch = [
    ToolCallStart("c1", "patch"),
    ToolArgumentsDelta('{"inp'),
    ToolArgumentsDelta('ut": "a \\"b'),
    ToolArgumentsDelta('\\"\\n"}'),
    ToolCallStart("c2", "clock"),
    ToolArgumentsDelta("{}"),
    ToolCallStart("c3", "patch"),
    ToolArgumentsDelta('{"code": 1}'),  # of a form that was not asked for: all of it is the text
    TextDelta("so"),
    ToolCallStart("c4", "patch"),
    USED,
    Finish(FinishReason.TOOL_CALLS),
]
PATCH_TOLD = [("patch", 'a "b"\n'), ("clock", "{}"), ("patch", '{"code": 1}'), ("patch", "")]


def with_freeform() -> ChatCall:
    return structs.replace(call(), freeform=frozenset(("patch",)))


def test_the_call_of_a_custom_tool_comes_as_its_text_in_openais_deltas():
    encoder = with_freeform().encoder(FACTS, 0)
    written = b"".join(encoder.encode([event]) for event in PATCHED)
    told = [chunk["choices"][0]["delta"] for chunk in map(msgspec.json.decode, frames(written))]
    opened = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "patch", "input": ""}}
    assert told[:3] == [
        {"tool_calls": [opened]},
        {"tool_calls": [{"index": 0, "custom": {"input": 'a "b'}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": '"\n'}}]},
    ]
    made: dict[int, list[str]] = {}
    for piece in (piece for delta in told for piece in delta.get("tool_calls", [])):
        said = piece.get("custom") or piece["function"]
        known = made.setdefault(piece["index"], ["", ""])
        known[0] += said.get("name", "")
        known[1] += said.get("input", "") + said.get("arguments", "")
    assert [tuple(each) for each in made.values()] == PATCH_TOLD
    assert {"content": "so"} in told


def test_custom_calls_are_the_same_in_one_batch_and_in_a_folded_reply():
    one = with_freeform().encoder(FACTS, 0).encode(PATCHED)
    inputs = [
        piece["custom"]["input"]
        for chunk in map(msgspec.json.decode, frames(one))
        for piece in chunk["choices"][0]["delta"].get("tool_calls", [])
        if "custom" in piece
    ]
    assert inputs == ["", 'a "b"\n', "", '{"code": 1}', ""]
    whole = with_freeform().result(FACTS, [folded([[ReplyStart("r")], PATCHED])])
    message = ChatCompletion.model_validate_json(whole, strict=True).choices[0].message
    told = [
        (made.custom.name, made.custom.input)
        if made.type == "custom"
        else (made.function.name, made.function.arguments)
        for made in message.tool_calls or []
    ]
    assert told == PATCH_TOLD


def test_calls_have_an_index_and_their_name_first():
    def opened(index: int, call_id: str, name: str) -> dict[str, object]:
        function = {"name": name, "arguments": ""}
        return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}

    def argued(index: int, text: str) -> dict[str, object]:
        return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}

    assert deltas(*CALLED) == [
        opened(0, "c1", "weather"),
        argued(0, '{"city":"Rome"}'),
        opened(1, "c2", "clock"),
        argued(1, "{}"),
    ]
    assert deltas(ToolCallStart("c1", "a"), ToolCallStart("c2", "b")) == [opened(0, "c1", "a"), opened(1, "c2", "b")]


def test_the_last_chunk_of_a_choice_says_why_it_ended():
    for reason in FinishReason:
        (chunk,) = chunks(call().encoder(FACTS, 1).encode([Finish(reason)]))
        assert chunk.choices[0].to_dict() == {
            "index": 1,
            "delta": {},
            "logprobs": None,
            "finish_reason": reason.value,
        }


def test_sources_are_numbered_through_the_stream():
    encoder = call().encoder(FACTS, 0)
    written = encoder.encode([SourcesFound(SOURCES[:1])]) + encoder.encode([SourcesFound(SOURCES[1:])])
    first, second = (chunk.choices[0].delta.to_dict()["annotations"] for chunk in chunks(written))
    cited = {"url": "https://a.example/1", "title": "One", "start_index": 0, "end_index": 0}
    assert first == [{"index": 0, "type": "url_citation", "url_citation": cited}]
    cited = {"url": "https://b.example/2", "title": "https://b.example/2", "start_index": 0, "end_index": 0}
    assert second == [{"index": 1, "type": "url_citation", "url_citation": cited}]


def test_usage_is_null_until_its_own_chunk_when_it_was_asked_for():
    asked = call(include_usage=True)
    encoder = asked.encoder(FACTS, 0)
    for written in (encoder.start(), encoder.encode([TextDelta("a")]), encoder.encode([STOPPED])):
        assert b'"usage":null}\n\n' in written
        assert chunks(written)[0].usage is None
    trailer = asked.trailer(FACTS, USED)
    assert trailer.endswith(b"\n\ndata: [DONE]\n\n")
    (last,) = chunks(trailer.removesuffix(b"data: [DONE]\n\n"))
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.to_dict() == {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
        "origin": "upstream",
    }


def test_there_is_no_usage_when_it_was_not_asked_for():
    assert b"usage" not in call().encoder(FACTS, 0).encode([TextDelta("a"), STOPPED])
    assert call().trailer(FACTS, USED) == b"data: [DONE]\n\n"


def test_a_failure_in_the_stream_is_an_error_object_and_no_end():
    written = call().encoder(FACTS, 0).fail(ReplyCut())
    assert written.startswith(b"data: ")
    assert written.endswith(b"\n\n")
    assert msgspec.json.decode(written[6:]) == {
        "error": {
            "message": "the upstream's reply broke off before its end",
            "type": "upstream_error",
            "param": None,
            "code": "upstream_unavailable",
        }
    }


def test_the_protocol_says_how_its_streams_look():
    assert OpenAIChat.stream_content_type == "text/event-stream; charset=utf-8"
    assert OpenAIChat.heartbeat == b": keep-alive\n\n"


@pytest.mark.parametrize("batches", [WHOLE, [[event for batch in WHOLE for event in batch]]])
def test_the_sdks_accumulator_arrives_at_the_result(batches: list[Batch]):
    encoder: ChunkEncoder = call().encoder(FACTS, 0)
    state = ChatCompletionStreamState()
    for chunk in chunks(encoder.start() + b"".join(encoder.encode(batch) for batch in batches)):
        state.handle_chunk(chunk)
    streamed, result = state.get_final_completion().choices[0], completion(folded(WHOLE)).choices[0]
    assert streamed.message.content == result.message.content == TEXT
    assert streamed.finish_reason == result.finish_reason == "tool_calls"
    assert calls(streamed.message) == calls(result.message) == [("weather", '{"city":"Rome"}'), ("clock", "{}")]
    assert cited(streamed.message) == cited(result.message) == [source.url for source in SOURCES]
    assert streamed.message.to_dict()["reasoning_content"] == "Let me see"


# --- results -----------------------------------------------------------------------------------------------


def test_a_plain_result():
    told = completion(folded([[ReplyStart(), TextDelta("Paris"), USED, STOPPED]]))
    assert told.to_dict() == {
        "id": "chatcmpl-77",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": 'Qwen3.7-"Plus"',
        "system_fingerprint": told.system_fingerprint,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Paris", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 5,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2},
            "origin": "upstream",
        },
    }


def test_a_result_with_all_there_is():
    message = completion(folded(WHOLE)).choices[0].message
    assert message.content == TEXT
    assert message.to_dict()["reasoning_content"] == "Let me see"
    assert [note.url_citation.url for note in message.annotations or []] == [source.url for source in SOURCES]
    assert [tool_call.to_dict() for tool_call in message.tool_calls or []] == [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
        {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
    ]


def test_content_is_null_beside_calls_and_empty_without():
    called = completion(folded([[*CALLED, Finish(FinishReason.TOOL_CALLS)]]))
    assert called.choices[0].message.content is None
    assert completion(folded([[Finish(FinishReason.LENGTH)]])).choices[0].message.content == ""


def test_several_choices_share_one_usage():
    counted = Usage(prompt_tokens=8, completion_tokens=3, origin=UsageOrigin.COUNTED)
    told = completion(
        folded([[TextDelta("a"), USED, STOPPED]]), folded([[TextDelta("b"), counted, Finish(FinishReason.LENGTH)]])
    )
    assert [(one.index, one.message.content, one.finish_reason) for one in told.choices] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]
    assert told.usage is not None
    assert (told.usage.prompt_tokens, told.usage.completion_tokens) == (8, 8)
    assert told.usage.to_dict()["origin"] == "counted"


def test_a_result_without_usage():
    assert completion(folded([[TextDelta("a"), STOPPED]])).usage is None


def test_log_probabilities_stand_with_their_text() -> None:
    tokens = [f'{{"token":"{each}","logprob":-1,"bytes":null,"top_logprobs":[]}}' for each in "ab"]
    pieces = [TextDelta(each, Raw(f"[{token}]")) for each, token in zip("ab", tokens, strict=True)]
    (chunk,) = chunks(call().encoder(FACTS, 0).encode([*pieces]))
    assert chunk.choices[0].delta.content == "ab" and chunk.choices[0].logprobs is not None
    assert [token.token for token in chunk.choices[0].logprobs.content or []] == ["a", "b"]
    told = completion(folded([[ReplyStart(), *pieces, STOPPED]])).choices[0].logprobs
    assert told is not None and [token.token for token in told.content or []] == ["a", "b"]
