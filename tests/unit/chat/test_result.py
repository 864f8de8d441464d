"""Replies folded into results."""

import pytest
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
    UsageOrigin,
)
from qwen_proxy.chat.result import Called, ChatResult, Folder, Reasoned, Said, total_usage, usage_of_all

ONE, TWO = Source("https://a.example"), Source("https://b.example")
PICTURE = MediaOutput(MediaKind.IMAGE, "https://m.example")
USED = Usage(prompt_tokens=7, completion_tokens=5, reasoning_tokens=2, cached_tokens=1)
END = Finish(FinishReason.TOOL_CALLS)


def test_a_reply_folds_in_its_order():
    events: Batch = [
        ReplyStart("r"),
        ReasoningDelta("h"),
        SourcesFound((ONE,)),
        ReasoningDelta("m"),
        TextDelta("a"),
        TextDelta("b"),
        PICTURE,
        TextDelta("c"),
        ReasoningDelta("again"),
        ToolCallStart("c1", "f"),
        ToolArgumentsDelta("{"),
        ToolArgumentsDelta("}"),
        ToolCallStart("c2", "g"),
        SourcesFound((TWO,)),
        USED,
        END,
    ]
    folder = Folder()
    folder.feed(events[:4])
    folder.feed(events[4:])
    result = folder.result()
    assert result == ChatResult(
        parts=(
            Reasoned("hm"),
            Said("ab"),
            PICTURE,
            Said("c"),
            Reasoned("again"),
            Called("c1", "f", "{}"),
            Called("c2", "g", ""),
        ),
        sources=(ONE, TWO),
        usage=USED,
        finish=END,
    )
    assert result.text == "abc"
    assert result.reasoning == "hmagain"


def test_a_reply_without_an_end_is_no_result():
    folder = Folder()
    folder.feed([ReplyStart(), TextDelta("a")])
    with pytest.raises(ValueError, match="no Finish"):
        folder.result()


def test_replies_to_one_request_share_its_prompt():
    other = Usage(prompt_tokens=8, completion_tokens=3, reasoning_tokens=1, cached_tokens=0)
    assert total_usage([USED]) == USED
    assert total_usage([USED, other]) == Usage(
        prompt_tokens=8, completion_tokens=8, reasoning_tokens=3, cached_tokens=1
    )


def test_replies_to_several_requests_have_a_prompt_each():
    other = Usage(prompt_tokens=8, completion_tokens=3, reasoning_tokens=1, cached_tokens=2)
    assert usage_of_all([USED, None, other, other], 2) == Usage(
        prompt_tokens=USED.prompt_tokens + 8,
        completion_tokens=USED.completion_tokens + 6,
        reasoning_tokens=USED.reasoning_tokens + 2,
        cached_tokens=USED.cached_tokens + 2,
    )
    assert usage_of_all([None, USED], 1) == USED
    assert usage_of_all([None, None], 2) is None


def test_a_sum_is_counted_if_one_of_its_terms_is():
    counted = Usage(prompt_tokens=1, completion_tokens=1, origin=UsageOrigin.COUNTED)
    assert total_usage([USED, counted]).origin is UsageOrigin.COUNTED


def test_log_probabilities_of_all_text_are_joined() -> None:
    folder = Folder()
    folder.feed(
        [
            ReplyStart(),
            TextDelta("a", Raw(b'[{"token":"a"}]')),
            TextDelta("b"),
            TextDelta("c", Raw(b' [ {"token":"c"} ] ')),
            TextDelta("", Raw(b"[]")),
            Finish(FinishReason.STOP),
        ]
    )
    assert folder.result().logprobs == Raw(b'[{"token":"a"},{"token":"c"}]')
    assert folder.result().parts == (Said("abc", Raw(b'[{"token":"a"},{"token":"c"}]')),)


def test_log_probabilities_stay_with_the_part_that_they_belong_to() -> None:
    folder = Folder()
    call: Batch = [ToolCallStart("c", "f"), ToolArgumentsDelta("{}")]
    folder.feed([ReplyStart(), TextDelta("a", Raw(b"[1]")), *call, TextDelta("b", Raw(b"[2]")), ReasoningDelta("c")])
    folder.feed([TextDelta("d"), Finish(FinishReason.STOP)])
    result = folder.result()
    parts = [part for part in result.parts if isinstance(part, Said)]
    assert parts == [Said("a", Raw(b"[1]")), Said("b", Raw(b"[2]")), Said("d")]
    assert result.logprobs == Raw(b"[1,2]")
