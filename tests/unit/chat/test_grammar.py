"""The legal order of events."""

import pytest

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
    Finish,
    FinishReason,
    ReplyStart,
    SourcesFound,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
)
from qwen_proxy.chat.grammar import Grammar, IllegalOrder

START, TEXT, END = ReplyStart(), TextDelta("a"), Finish(FinishReason.STOP)
CALL, ARGUMENTS, USED = ToolCallStart("c", "f"), ToolArgumentsDelta("{}"), Usage(prompt_tokens=1, completion_tokens=1)
SOURCES = SourcesFound(())


@pytest.mark.parametrize(
    "events",
    [
        [START, END],
        [START, TEXT, SOURCES, TEXT, CALL, ARGUMENTS, ARGUMENTS, CALL, ARGUMENTS, USED, END],
    ],
)
def test_legal_replies(events: Batch):
    grammar = Grammar()
    grammar.feed(events)
    grammar.finish()


@pytest.mark.parametrize(
    ("before", "event"),
    [
        ([], TEXT),
        ([], END),
        ([START], START),
        ([START], ARGUMENTS),
        ([START, CALL, TEXT], ARGUMENTS),
        ([START, USED], TEXT),
        ([START, USED], USED),
        ([START, END], TEXT),
        ([START, END], END),
    ],
)
def test_what_is_out_of_place(before: Batch, event: ChatEvent):
    grammar = Grammar()
    grammar.feed(before)
    with pytest.raises(IllegalOrder, match=type(event).__name__):
        grammar.feed([event])


def test_a_reply_must_have_its_end():
    grammar = Grammar()
    grammar.feed([START, TEXT])
    with pytest.raises(IllegalOrder, match="without a Finish"):
        grammar.finish()
