"""What a model is told of its tools, and the digits in the markers."""

import pytest
from msgspec import structs

from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import AUTO, ChatRequest, Message, Role, TextPart, Tool, ToolChoice, ToolChoiceKind
from qwen_proxy.toolcalls.form import MARKERS
from qwen_proxy.toolcalls.prompt import MAX_DRAWS, draw_nonce, offered, stands_in, teach
from qwen_proxy.toolcalls.signature import describe

READ, WRITE = Tool("Read", "Reads {end}."), Tool("Write", "Writes.")


def asked(
    text: str = "go", *more: Message, tool_choice: ToolChoice = AUTO, parallel_tool_calls: bool = True
) -> ChatRequest:
    return ChatRequest(
        model=ModelName("m"),
        messages=(Message(Role.USER, (TextPart(text),)), *more),
        tools=(READ, WRITE),
        tool_choice=tool_choice,
        parallel_tool_calls=parallel_tool_calls,
    )


def reminder(choice: ToolChoice, *, parallel: bool = True) -> str:
    request = asked(tool_choice=choice, parallel_tool_calls=parallel)
    return teach(request, MARKERS, "7f3a", describe(offered(request))).reminder.split("\n")[1]


def test_the_teaching_has_the_signatures_the_form_and_an_example():
    text = teach(asked(), MARKERS, "7f3a", describe([READ, WRITE])).system
    assert "## Read\nReads {end}.\n\nRead()" in text  # a tool's own braces are its own
    assert "\n[[call 7f3a NAME]]\n[[arg 7f3a PARAMETER]]\nthe value\n[[end 7f3a]]\n" in text
    assert text.endswith(
        '\n[[call 7f3a note]]\n[[arg 7f3a title]]\nÜnits, "quoted"\n[[arg 7f3a tags]]\n["a", "b"]\n'
        "[[arg 7f3a text]]\nFirst line\n\tand <b>more</b>\n[[end 7f3a]]"
    )
    for tag in ("tool_call", "{nonce}", "{tools}", "{example}", "{call}"):
        assert tag not in text  # the site takes that tag for itself


def test_the_reminder_is_two_lines_and_says_what_is_wanted():
    assert reminder(ToolChoice()).startswith("Call tools where they help")
    assert (
        reminder(ToolChoice(ToolChoiceKind.REQUIRED)) == "This reply has to call a tool, one at least of: Read, Write."
    )
    assert reminder(ToolChoice(ToolChoiceKind.REQUIRED, ("Read",))) == "This reply has to call the tool Read."
    single = reminder(ToolChoice(ToolChoiceKind.REQUIRED, ("Read",)), parallel=False)
    assert single == "This reply has to call the tool Read. Make one call at most."
    assert teach(asked(), MARKERS, "7f3a", describe([READ])).reminder.count("\n") == 1


def test_only_what_may_be_called_is_offered():
    assert offered(asked()) == (READ, WRITE)
    assert offered(asked(tool_choice=ToolChoice(ToolChoiceKind.NONE))) == ()
    assert offered(asked(tool_choice=ToolChoice(ToolChoiceKind.AUTO, ("Write",)))) == (WRITE,)


def test_without_tools_the_form_is_explained_for_the_history_alone():
    teaching = teach(asked(), MARKERS, "7f3a", None)
    assert "[[result 7f3a #NUMBER NAME]]" in teaching.system and "No tool can be called now" in teaching.system
    assert teaching.reminder == ""


def test_a_conversation_keeps_its_digits_as_it_grows():
    first = asked("hello")
    nonce = draw_nonce(MARKERS, first, ["hello"])
    assert len(nonce) == 4 and int(nonce, 16) >= 0
    grown = asked("hello", Message(Role.ASSISTANT, (TextPart("x"),)), Message(Role.USER, (TextPart("y"),)))
    assert draw_nonce(MARKERS, grown, ["hello", "x", "y"]) == nonce
    assert draw_nonce(MARKERS, asked("other"), ["other"]) != nonce
    instructed = structs.replace(first, messages=(Message(Role.SYSTEM, (TextPart("s"),)), *first.messages))
    assert draw_nonce(MARKERS, instructed, ["s", "hello"]) != nonce
    alone = structs.replace(first, messages=(Message(Role.SYSTEM, (TextPart("s"),)),))
    assert len(draw_nonce(MARKERS, alone, ["s"])) == 4


@pytest.mark.parametrize("marker", ["[[call {} Read]]", "[[arg {} x]]", "x[[end {}]]", "[[result {} #1 Read]]"])
def test_digits_whose_marker_stands_in_the_prompt_are_drawn_again(marker: str):
    nonce = draw_nonce(MARKERS, asked(), ["go"])
    told = marker.format(nonce)
    assert stands_in(MARKERS, nonce, [told])
    again = draw_nonce(MARKERS, asked(), ["go", told])
    assert again != nonce and len(again) == 4
    assert draw_nonce(MARKERS, asked(), ["go", nonce]) == nonce  # the digits alone do no harm


def test_who_writes_all_of_them_gets_longer_ones():
    texts = ["go"]
    for _ in range(MAX_DRAWS):
        nonce = draw_nonce(MARKERS, asked(), texts)
        if len(nonce) > 4:
            break
        texts.append(f"[[end {nonce}")
    texts.append(" ".join(f"[[end {digits:04x}" for digits in range(0x10000)))
    assert len(draw_nonce(MARKERS, asked(), texts)) == 8
