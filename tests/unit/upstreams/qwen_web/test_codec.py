"""What the recordings do not show of the reply codec."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.chat.events import (
    Batch,
    Finish,
    FinishReason,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    SourcesFound,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
    merged,
)
from qwen_proxy.ground.errors import ReplyCut, ReplyEmpty, ReplyUnfit, UpstreamFailed, UpstreamProtocolError
from qwen_proxy.upstreams.qwen_web.codec import INSPECT_EVERY, ReplyCodec
from qwen_proxy.upstreams.qwen_web.drift import Drift

END = {"content": "", "role": "assistant", "status": "finished", "phase": "answer"}


def frame(delta: dict[str, object], response_id: str | None = "a", **more: object) -> bytes:
    value: dict[str, object] = {"choices": [{"delta": delta}]} | more
    if response_id is not None:
        value["response_id"] = response_id
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def answer(text: str, response_id: str | None = "a", phase: str = "answer") -> bytes:
    return frame({"role": "assistant", "content": text, "phase": phase, "status": "typing"}, response_id)


def created(response_id: object, index: object = "0") -> bytes:
    body = {"response.created": {"response_id": response_id, "response_index": index}}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def codec() -> ReplyCodec:
    return ReplyCodec(Drift(lambda: 0.0), model="m")


def decode(*chunks: bytes) -> Batch:
    reply = codec()
    events = [event for chunk in chunks for event in reply.feed(chunk)] + reply.finish()
    if reply.failure is not None:
        raise reply.failure
    return merged(events)


def test_what_one_chunk_holds_is_one_delta() -> None:
    reply = codec()
    assert reply.feed(created("a")) == []
    assert reply.feed(answer("One ") + answer("two ") + answer("three")) == [
        ReplyStart("a"),
        TextDelta("One two three"),
    ]
    assert reply.feed(answer("!")) == [TextDelta("!")]
    assert not reply.finished
    assert reply.feed(frame(dict(END))) == [Finish(FinishReason.STOP)]
    assert reply.finished
    assert reply.finish() == []


def test_a_failure_behind_content_of_its_chunk_comes_after_it() -> None:
    reply = codec()
    assert reply.feed(answer("Hi") + b'data: {"error": "Internal error!"}\n\n') == [ReplyStart("a"), TextDelta("Hi")]
    assert isinstance(reply.failure, UpstreamFailed)
    for again in (lambda: reply.feed(answer("more")), reply.finish):
        with pytest.raises(UpstreamFailed):
            again()


def test_an_error_beside_choices_is_seen_and_a_null_one_is_not() -> None:
    assert decode(frame({"content": "Hi", "phase": "answer"}, error=None), frame(dict(END)))[1] == TextDelta("Hi")
    with pytest.raises(UpstreamFailed):
        decode(frame({"content": "Hi", "phase": "answer"}, error="Internal error!"))


@pytest.mark.parametrize(
    "payload", ["{oops", "\xff", "[" * 100_000, '["\xff",' + "[" * 100_000, '{"choices": [{"delta": ']
)
def test_a_payload_that_is_no_json(payload: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        decode(b"data: " + payload.encode("latin-1") + b"\n\n", answer("x"))


def test_half_a_surrogate_and_broken_bytes_are_replaced() -> None:
    broken = answer("a\ud83d").replace(b"a\\", b"a\xff\\")
    assert decode(broken, frame(dict(END)))[1] == TextDelta("a\ufffd?")


def test_empty_payloads_are_nothing() -> None:
    assert decode(b"data: \n\ndata:\n\n", answer("x"), b"data:  [DONE]\n\n")[1] == TextDelta("x")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("tool_calls", FinishReason.STOP),
    ],
)
def test_finish_reasons(said: str, reason: FinishReason) -> None:
    end = {"choices": [{"delta": {"content": ""}, "finish_reason": said}], "response_id": "a"}
    assert decode(answer("x"), b"data: " + json.dumps(end).encode() + b"\n\n")[-1] == Finish(reason)


def test_a_frame_between_tokens_is_looked_at_now_and_then() -> None:
    drift = Drift(lambda: 0.0)
    reply = ReplyCodec(drift)
    reply.feed(answer("x") * (INSPECT_EVERY - 1))
    delta: dict[str, object] = {"role": "assistant", "content": "x", "phase": "answer", "status": "typing", "mood": 1}
    reply.feed(frame(delta))
    assert [(note.kind, note.name) for note in drift.snapshot()] == [("delta_key", "mood")]


def test_an_unknown_finish_reason_is_counted() -> None:
    drift = Drift(lambda: 0.0)
    ReplyCodec(drift).feed(b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "bored"}]}\n\n')
    assert ("finish_reason", "bored") in [(note.kind, note.name) for note in drift.snapshot()]


def test_a_video_is_media() -> None:
    url = "https://cdn.qwenlm.ai/output/u/t2v/1.mp4?key=x"
    assert [type(event) for event in decode(answer(url, phase="video_gen"), b"data: [DONE]\n\n")] == [
        ReplyStart, MediaOutput, Finish,
    ]  # fmt: skip


def test_lines_that_are_no_event_and_tell_nothing_end_as_a_cut() -> None:
    with pytest.raises(ReplyCut):
        decode(answer("x"), b"hello")


@pytest.mark.parametrize(("is_clean", "notes"), [(True, ["an answer without an end mark"]), (False, [])])
def test_a_clean_end_without_an_end_mark_is_drift(is_clean: bool, notes: list[str]) -> None:
    drift = Drift(lambda: 0.0)
    reply = ReplyCodec(drift)
    reply.feed(answer("x"))
    with pytest.raises(ReplyCut):
        reply.finish(is_clean=is_clean)
    assert [note.name for note in drift.snapshot()] == notes


def test_the_last_usage_that_is_one_counts() -> None:
    counts = {"input_tokens": 7, "output_tokens": 2}
    delta: dict[str, object] = {"role": "assistant", "content": "x", "phase": "answer", "status": "typing"}
    frames = [frame(delta, usage=counts), frame(delta, usage=None), frame(delta), frame(dict(END))]
    assert decode(answer("x"), *frames)[-2] == Usage(prompt_tokens=7, completion_tokens=2)
    with_zeros = frame(delta, usage=counts | {"input_tokens": 0, "output_tokens": 0})
    assert decode(with_zeros, frame(dict(END)))[-1] == Finish(FinishReason.STOP)
    assert not any(isinstance(event, Usage) for event in decode(with_zeros, frame(dict(END))))


# --- candidates


def test_frames_before_the_announcement_of_index_0_are_not_lost() -> None:
    events = decode(
        created("b", "1"), answer("early"), answer("other", "b"), created("a"), answer(" late"), frame(dict(END))
    )
    assert events == [ReplyStart("a"), TextDelta("early late"), Finish(FinishReason.STOP)]


def test_without_index_0_another_is_the_reply() -> None:
    events = decode(created("b", "1"), answer("x", "b"), frame(dict(END), "b"))
    assert events == [ReplyStart("b"), TextDelta("x"), Finish(FinishReason.STOP)]


def test_a_candidate_that_was_given_up_is_not_heard_again() -> None:
    full = answer("x" * 40_000, "b") * 2
    events = decode(created("a"), created("b", "1"), full, answer("no"), answer("y", "b"), frame(dict(END), "b"))
    assert events == [ReplyStart("b"), TextDelta("x" * 80_000 + "y"), Finish(FinishReason.STOP)]


def test_what_is_held_of_others_is_bounded_while_the_reply_thinks() -> None:
    thinking = answer("Hm.", phase="think")
    full = answer("x" * 40_000, "b") * 3
    events = decode(created("a"), created("b", "1"), thinking, full, answer("Yes.") + frame(dict(END)))
    assert events == [ReplyStart("a"), ReasoningDelta("Hm."), TextDelta("Yes."), Finish(FinishReason.STOP)]
    with pytest.raises(ReplyEmpty):
        decode(created("a"), created("b", "1"), thinking, full, frame(dict(END)))


def test_the_other_candidates_tokens_stay_out_of_the_answer() -> None:
    events = decode(created("a"), created("b", "1"), *(answer("x", who) for who in "abababab"), frame(dict(END)))
    assert events[1] == TextDelta("xxxx")


def test_no_more_than_eight_others_are_kept() -> None:
    others = b"".join(created(f"b{number}", str(number)) + answer("x", f"b{number}") for number in range(1, 20))
    with pytest.raises(ReplyCut):
        decode(created("a"), others, answer("x", "b19"))


def test_the_other_candidate_may_break_off_too() -> None:
    with pytest.raises(ReplyCut):
        decode(created("a"), created("b", "1"), answer("half", "b"))


def test_a_creation_without_an_id_is_ignored_and_one_told_twice_is_one() -> None:
    events = decode(created(None), created("a"), created("a"), answer("x"), frame(dict(END)))
    assert events == [ReplyStart("a"), TextDelta("x"), Finish(FinishReason.STOP)]


def test_an_error_of_another_candidate_waits_and_one_of_nobody_does_not() -> None:
    of_other = b'data: {"error": "Internal error!", "response_id": "b"}\n\n'
    assert decode(created("a"), created("b", "1"), of_other, answer("x"), frame(dict(END)))[1] == TextDelta("x")
    with pytest.raises(UpstreamFailed):
        decode(created("a"), created("b", "1"), of_other)
    with pytest.raises(UpstreamFailed):
        decode(created("a"), of_other, answer("x"), frame(dict(END)))


# --- snapshots


@given(st.lists(st.text("ab", max_size=6), max_size=5), st.data())
def test_growing_snapshots_say_each_element_once(final: list[str], data: st.DataObject) -> None:
    """Elements grow in place or are added, in order; whatever the steps, what is said is the last snapshot."""
    frames: list[bytes] = []
    for index, thought in enumerate(final):
        cuts = sorted({*data.draw(st.lists(st.integers(0, len(thought)), max_size=3)), len(thought)})
        for cut in cuts:
            snapshot = {"summary_thought": {"content": [*final[:index], thought[:cut]]}}
            frames.append(frame({"role": "assistant", "content": "", "phase": "thinking_summary", "extra": snapshot}))
    events = decode(*frames, answer("Yes."), frame(dict(END)))
    said = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert said == "\n\n".join(thought for thought in final if thought)


# --- calls that come as frames, of tools that the prompt taught


def call_frame(name: str | None, arguments: object, call_id: str = "f1", phase: str = "answer") -> bytes:
    call = {"arguments": arguments} | ({} if name is None else {"name": name})
    return frame({"role": "assistant", "content": "", "phase": phase, "function_id": call_id, "function_call": call})


def refusal(name: str = "Read") -> bytes:
    return frame({"role": "function", "content": f"Tool {name} does not exists.", "phase": "answer", "name": name})


def decode_taught(*chunks: bytes) -> Batch:
    reply = ReplyCodec(Drift(lambda: 0.0), tools=frozenset({"Read", "Write"}))
    return [event for chunk in chunks for event in reply.feed(chunk)] + reply.finish()


def test_what_the_site_searches_for_is_told_once_it_is_whole() -> None:
    pieces = [call_frame("web_search", '{"queries": ["tides', phase="web_search")]
    pieces.append(call_frame(None, '", "moon"]}', phase="web_search"))
    pieces.append(call_frame(None, '{"queries": ["elsewhere"]}'))  # nobody knows whose that is
    assert decode(*pieces, answer("Low."), frame(dict(END))) == [
        ReplyStart("a"),
        SourcesFound((), ("tides", "moon")),
        TextDelta("Low."),
        Finish(FinishReason.STOP),
    ]


READ = [ToolCallStart("f1", "Read"), ToolArgumentsDelta('{"path":"a"}')]


def test_a_native_call_is_handed_on_once_it_is_whole() -> None:
    snapshots = [call_frame("Read", text) for text in ("", '{"path"', '{"path":"a"}', '{"path":"a"}')]
    increments = [call_frame("Read", ""), call_frame(None, '{"path"'), call_frame(None, ':"a"}')]
    for frames in (snapshots, increments):
        assert decode_taught(*frames, frame(dict(END))) == [ReplyStart("a"), *READ, Finish(FinishReason.STOP)]


def test_a_native_call_stands_where_it_came() -> None:
    events = decode_taught(
        answer("Before"),
        call_frame("Read", {"path": "a"}),
        call_frame("Write", "", "f2"),
        answer("Behind"),
        frame(dict(END)),
    )
    assert events[1:-1] == [
        TextDelta("Before"),
        *READ,
        ToolCallStart("f2", "Write"),
        ToolArgumentsDelta("{}"),
        TextDelta("Behind"),
    ]


def test_a_refused_call_whose_arguments_came_is_a_call() -> None:
    events = decode_taught(call_frame("Read", {"path": "a"}), refusal(), answer("Sorry"), frame(dict(END)))
    assert events[1:-1] == [*READ, TextDelta("Sorry")]


def test_a_refused_call_whose_arguments_are_lost_fails_the_reply() -> None:
    for frames in ([call_frame("Read", ""), refusal()], [answer("I will."), refusal("Bash")]):
        with pytest.raises(ReplyUnfit) as raised:
            decode_taught(*frames)
        assert raised.value.kind == "intercepted"


def test_calls_of_the_platforms_own_tools_are_not_handed_on() -> None:
    events = decode_taught(
        call_frame("Bash", {"x": 1}), call_frame("Read", {"path": "a"}, phase="code_interpreter"),
        frame({"role": "function", "content": "2", "phase": "answer"}), answer("x"), frame(dict(END)),
    )  # fmt: skip
    assert events[1:-1] == [TextDelta("x")]
