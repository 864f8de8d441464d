"""One reply out of several tries."""

import pytest

from qwen_proxy.chat.events import (
    Batch,
    Finish,
    FinishReason,
    MediaKind,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    TextDelta,
    ToolCallStart,
)
from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import ChatRequest, Message, OutputFormat, Role, TextPart, Tool
from qwen_proxy.gateway.progress import Progress

ASKED = ChatRequest(model=ModelName("m"), messages=(Message(Role.USER, (TextPart("go"),)),))
TAUGHT = ChatRequest(model=ModelName("m"), messages=ASKED.messages, tools=(Tool("T"),))
JSON = ChatRequest(model=ModelName("m"), messages=ASKED.messages, output=OutputFormat())
START, STOP = ReplyStart("r"), Finish(FinishReason.STOP)


@pytest.mark.parametrize(
    ("request_", "batch", "content", "call"),
    [
        (ASKED, [START], False, False),
        (ASKED, [START, ReasoningDelta("x")], True, False),
        (TAUGHT, [START, ReasoningDelta("x")], False, False),
        (JSON, [ReasoningDelta("x")], False, False),
        (TAUGHT, [TextDelta("x")], True, False),
        (TAUGHT, [TextDelta("x"), ToolCallStart("c", "T")], True, True),
        (ASKED, [MediaOutput(MediaKind.IMAGE, "u")], True, True),
        (ASKED, [STOP], False, False),
    ],
)
def test_what_of_a_reply_commits_it(request_: ChatRequest, batch: Batch, content: bool, call: bool):
    progress = Progress(request_)
    assert progress.sending(batch) == batch
    assert (progress.content, progress.call) == (content, call)


def test_a_second_try_goes_on_behind_the_first():
    progress = Progress(TAUGHT)
    assert progress.next_try(TAUGHT) is TAUGHT
    assert progress.sending([START, ReasoningDelta("hm"), TextDelta("a")]) == [
        START,
        ReasoningDelta("hm"),
        TextDelta("a"),
    ]
    progress.hint = "Once more."
    assert progress.next_try(TAUGHT).hint == "Once more."
    assert progress.sending([START]) == []
    assert progress.sending([START, ReasoningDelta("so"), TextDelta("b"), TextDelta("c")]) == [
        ReasoningDelta("\n\nso"),
        TextDelta("\n\nb"),
        TextDelta("c"),
    ]
    assert progress.sending([TextDelta("d"), STOP]) == [TextDelta("d"), STOP]


def test_other_kinds_need_no_space_between():
    progress = Progress(TAUGHT)
    progress.next_try(TAUGHT)
    progress.sending([START, ReasoningDelta("hm")])
    progress.next_try(TAUGHT)
    assert progress.sending([START, TextDelta("b")]) == [TextDelta("b")]
    progress.next_try(TAUGHT)
    assert progress.sending([START, ToolCallStart("c", "T")]) == [ToolCallStart("c", "T")]


def test_a_first_try_that_sent_nothing_leaves_no_trace():
    progress = Progress(TAUGHT)
    progress.next_try(TAUGHT)
    progress.next_try(TAUGHT)
    assert progress.sending([START, TextDelta("b")]) == [START, TextDelta("b")]


@pytest.mark.parametrize("kind", [TextDelta, ReasoningDelta])
def test_tokens_that_come_one_by_one_go_out_as_they_are_until_another_try(kind: type[TextDelta | ReasoningDelta]):
    progress = Progress(TAUGHT)
    progress.next_try(TAUGHT)
    for token in "abc":
        assert progress.sending([kind(token)]) == [kind(token)]
    progress.next_try(TAUGHT)
    assert progress.sending([kind("d")]) == [kind("\n\nd")]
    assert progress.sending([kind("e")]) == [kind("e")]
