"""What the recordings do not show of replies."""

from qwen_proxy.chat.events import Finish, ReasoningDelta, TextDelta, ToolArgumentsDelta, ToolCallStart
from qwen_proxy.ground.errors import RateLimited
from qwen_proxy.upstreams.openai_api.reply import ReplyReader


def reader() -> ReplyReader:
    return ReplyReader("m", lambda: "made")


def test_frames_that_say_nothing_are_nothing() -> None:
    read = reader()
    events = read.feed(
        b'data: \n\ndata: {"choices":[{"index":0}]}\n\ndata: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    )
    assert events[1:] == [TextDelta("a")] and not read.is_over


def test_nothing_is_read_behind_the_end() -> None:
    read = reader()
    events = read.feed(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\ndata: odd\n\ndata: odd')
    assert isinstance(events[-1], Finish) and read.is_over
    assert read.finish() == [] and read.failure is None


def test_what_comes_while_a_call_is_open_has_to_wait() -> None:
    read = reader()
    call = b'{"index":0,"id":"c","function":{"name":"f","arguments":"{"}}'
    assert read.feed(b'data: {"choices":[{"delta":{"tool_calls":[' + call + b"]}}]}\n\n")[1:] == [
        ToolCallStart("c", "f"),
        ToolArgumentsDelta("{"),
    ]
    behind = b'data: {"choices":[{"delta":{"reasoning":"t","content":"a"}}]}\n\n'
    assert read.feed(behind) == []
    end = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}}]}\n\n'
    assert read.feed(end) == [ToolArgumentsDelta("}"), ReasoningDelta("t"), TextDelta("a")]


def test_a_failing_status_is_judged_with_what_it_says() -> None:
    refused = reader().refused(429, b'{"error": {"message": "slower"}}', "7")
    assert isinstance(refused, RateLimited) and refused.rest_seconds == 7
