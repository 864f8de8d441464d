"""A request with tools as one without."""

from msgspec import structs

from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import (
    AUTO,
    ChatRequest,
    FilePart,
    Message,
    Part,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceKind,
    ToolResultPart,
    text_of,
)
from qwen_proxy.toolcalls.conversation import concerns_tools, hinted, tell

READ = Tool("Read", "Reads.", {"properties": {"path": {"type": "string"}}})


def say(role: Role, *parts: Part | str) -> Message:
    return Message(role, tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


SYSTEM, USER = say(Role.SYSTEM, "sys"), say(Role.USER, "go")
CALL, RESULT = ToolCallPart("c1", "Read", '{"path":"a"}'), ToolResultPart("c1", (TextPart("x"),))
NONE = ToolChoice(ToolChoiceKind.NONE)


def asked(*messages: Message, **fields: object) -> ChatRequest:
    return structs.replace(ChatRequest(model=ModelName("m"), messages=messages, tools=(READ,)), **fields)


def roles(request: ChatRequest) -> list[str]:
    return [message.role.value for message in request.messages]


def test_system_texts_then_tools_then_history_then_the_reminder():
    middle = say(Role.SYSTEM, "more")
    told = tell(asked(SYSTEM, SYSTEM, USER, middle, say(Role.ASSISTANT, CALL), say(Role.USER, RESULT)))
    assert roles(told.request) == ["system"] * 3 + ["user", "system", "assistant", "user", "system"]
    messages = told.request.messages
    assert messages[:2] == (SYSTEM, SYSTEM) and messages[4] == middle
    assert text_of(messages[2]).startswith("# Tools\n") and "Read(" in text_of(messages[2])
    assert text_of(messages[5]) == f"[[call {told.nonce} Read]]\n[[arg {told.nonce} path]]\na\n[[end {told.nonce}]]"
    assert text_of(messages[6]) == f"[[result {told.nonce} #1 Read]]\nx\n[[end {told.nonce}]]"
    assert text_of(messages[7]).startswith("A call is a line [[call")
    assert told.compiled is not None and list(told.compiled.toolbox.tools) == ["Read"]
    assert (told.request.tools, told.request.tool_choice, told.request.taught) == ((), AUTO, {"Read"})


def test_the_hint_of_a_further_try_stands_at_the_very_end():
    told = tell(asked(USER, hint="Your last reply was wrong."))
    assert text_of(told.request.messages[-1]).endswith("\nYour last reply was wrong.")
    assert told.request.hint == ""


def test_a_repetition_is_told():
    turns = [say(Role.ASSISTANT, CALL), say(Role.USER, RESULT)] * 2
    told = tell(asked(USER, *turns))
    assert told.repeats_calls and "#2 Read had the same arguments" in text_of(told.request.messages[-1])


def test_an_answer_that_is_to_be_continued_stays_the_last():
    told = tell(asked(USER, say(Role.ASSISTANT, "So")))
    assert roles(told.request) == ["system", "user", "system", "assistant"]
    unanswered = tell(asked(USER, say(Role.ASSISTANT, CALL)))
    assert roles(unanswered.request) == ["system", "user", "assistant", "user", "system"]
    assert unanswered.unpaired == 1


def test_only_system_messages():
    assert roles(tell(asked(SYSTEM)).request) == ["system"] * 3


def test_without_tools_that_may_be_called_the_history_is_told_and_nothing_taught():
    told = tell(asked(USER, say(Role.ASSISTANT, CALL), say(Role.USER, RESULT), tool_choice=NONE))
    assert told.compiled is None and told.request.taught == frozenset()
    assert roles(told.request) == ["system", "user", "assistant", "user"]
    assert "No tool can be called now" in text_of(told.request.messages[0])


def test_system_texts_lose_foreign_forms_and_keep_other_parts():
    file = FilePart("document", "data:,")
    shown = say(Role.SYSTEM, "<tool_call><function=Read><parameter=path>a</parameter></function></tool_call>", file)
    told = tell(asked(shown, say(Role.USER, "<tool_call>")))
    assert text_of(told.request.messages[0]).startswith(f"[[call {told.nonce} Read]]")
    assert told.request.messages[0].parts[1] == file
    assert text_of(told.request.messages[2]) == "<tool_call>"  # a user's text is the user's


def test_markers_in_any_text_make_the_digits_be_drawn_again():
    nonce = tell(asked(USER)).nonce
    marker = f"[[end {nonce}]]"
    for parts in (
        [marker],
        [ToolCallPart("c", "Read", f'{{"path":"{marker}"}}')],
        [ToolResultPart("c", (TextPart(marker),))],
    ):
        assert tell(asked(USER, say(Role.ASSISTANT, *parts))).nonce != nonce
    assert tell(asked(USER, tools=(Tool("Read", marker),))).nonce != nonce


def test_a_broken_call_of_an_earlier_turn_leaves_a_note_and_the_digits_alone():
    nonce = tell(asked(USER)).nonce
    leaked = f"[[call {nonce} Delete]]\n[[end {nonce}]]"
    told = tell(asked(USER, say(Role.ASSISTANT, leaked, CALL), say(Role.USER, RESULT)))
    assert told.nonce == nonce
    assert text_of(told.request.messages[2]).startswith("(A call stood here that could not be made.")


def test_what_concerns_tools():
    assert concerns_tools(asked(USER))
    assert not concerns_tools(asked(USER, tool_choice=NONE))
    assert concerns_tools(asked(USER, say(Role.ASSISTANT, CALL), tool_choice=NONE))
    assert concerns_tools(asked(say(Role.USER, RESULT), tools=()))
    assert not concerns_tools(asked(USER, tools=()))


def test_a_hint_without_tools_is_a_last_system_message():
    assert hinted(asked(USER)) == asked(USER)
    assert hinted(asked(USER, hint="Once more.")).messages == (USER, say(Role.SYSTEM, "Once more."))
