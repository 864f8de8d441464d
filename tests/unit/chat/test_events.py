"""Events and batches."""

import pytest

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
    has_content,
    merged,
)

ONE, TWO = Source("https://a.example"), Source("https://b.example")
END = Finish(FinishReason.STOP)


@pytest.mark.parametrize(
    "event",
    [TextDelta("a"), ReasoningDelta("a"), ToolCallStart("c", "f"), MediaOutput(MediaKind.VIDEO, "https://m.example")],
)
def test_what_commits_a_reply(event: ChatEvent):
    assert has_content([ReplyStart(), event])


def test_what_does_not():
    used = Usage(prompt_tokens=1, completion_tokens=1)
    assert not has_content([])
    assert not has_content([ReplyStart(), SourcesFound((ONE,)), used, END])


def test_neighbouring_deltas_of_one_kind_merge():
    events: Batch = [
        ReplyStart(),
        ReasoningDelta("a"),
        ReasoningDelta("b"),
        TextDelta("c"),
        TextDelta("d"),
        SourcesFound((ONE,)),
        SourcesFound((TWO,)),
        TextDelta("e"),
        ToolCallStart("c1", "f"),
        ToolArgumentsDelta("{"),
        ToolArgumentsDelta("}"),
        END,
    ]
    assert merged(events) == [
        ReplyStart(),
        ReasoningDelta("ab"),
        TextDelta("cd"),
        SourcesFound((ONE, TWO)),
        TextDelta("e"),
        ToolCallStart("c1", "f"),
        ToolArgumentsDelta("{}"),
        END,
    ]
    assert merged([]) == []
