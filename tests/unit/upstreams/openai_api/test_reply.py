"""What the recordings do not show of replies."""

from qwen_proxy.chat.events import Finish, TextDelta
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
