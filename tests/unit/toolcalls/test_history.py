"""Earlier calls and results, told in the taught form."""

from qwen_proxy.chat.request import ImagePart, Message, Part, Role, TextPart, Tool, ToolCallPart, ToolResultPart
from qwen_proxy.toolcalls.form import MARKERS
from qwen_proxy.toolcalls.history import NO_CALL, NO_IMAGE, NO_RESULT, History, retell, trimmed
from qwen_proxy.toolcalls.toolbox import Toolbox

TOOLBOX = Toolbox([Tool("Read", "", {"properties": {"path": {"type": "string"}}})])


def call(call_id: str, path: str = "a") -> ToolCallPart:
    return ToolCallPart(call_id, "Read", f'{{"path":"{path}"}}')


def result(call_id: str, *texts: str, is_error: bool = False) -> ToolResultPart:
    return ToolResultPart(call_id, tuple(TextPart(text) for text in texts), is_error)


def user(*parts: Part) -> Message:
    return Message(Role.USER, parts)


def assistant(*parts: Part) -> Message:
    return Message(Role.ASSISTANT, parts)


def told(*messages: Message, result_bytes: int = 1000) -> History:
    return retell(messages, MARKERS, "7f3a", TOOLBOX, result_bytes=result_bytes)


def texts(history: History) -> list[tuple[Role, list[str]]]:
    return [(m.role, [part.text for part in m.parts if isinstance(part, TextPart)]) for m in history.messages]


def called(path: str = "a") -> str:
    return f"[[call 7f3a Read]]\n[[arg 7f3a path]]\n{path}\n[[end 7f3a]]"


def gave(number: int, text: str, flag: str = "", name: str = "Read") -> str:
    return f"[[result 7f3a #{number} {name}{flag}]]\n{text}\n[[end 7f3a]]"


def test_calls_and_results_are_numbered_over_the_conversation():
    history = told(
        user(TextPart("go")),
        assistant(TextPart("Sure."), call("c1", "a"), call("c2", "b")),
        user(result("c2", "two", "lines"), result("c1", "one"), TextPart("and now?")),
        assistant(call("c3", "c")),
        user(result("c3", "bad", is_error=True)),
    )
    assert texts(history) == [
        (Role.USER, ["go"]),
        (Role.ASSISTANT, ["Sure.", called("a"), called("b")]),
        (Role.USER, [gave(2, "two\nlines"), gave(1, "one"), "and now?"]),
        (Role.ASSISTANT, [called("c")]),
        (Role.USER, [gave(3, "bad", " error")]),
    ]
    assert (history.hint, history.unpaired, history.trimmed_results, history.hidden_images) == ("", 0, 0, 0)


def test_results_that_came_one_a_message_are_one_turn():
    history = told(
        assistant(call("c1"), call("c2")), user(result("c1", "1")), user(result("c2", "2")), user(TextPart("x"))
    )
    assert texts(history)[1:] == [(Role.USER, [gave(1, "1"), gave(2, "2")]), (Role.USER, ["x"])]


def test_an_id_that_is_used_again_means_the_first_call_without_a_result():
    history = told(assistant(call("f", "a"), call("f", "b")), user(result("f", "1"), result("f", "2")))
    assert texts(history)[1] == (Role.USER, [gave(1, "1"), gave(2, "2")])


def test_a_result_without_a_call_says_so():
    history = told(user(result("lost", "text")), assistant(call("c1")), user(result("c1", "1"), result("c1", "2")))
    assert texts(history)[0] == (Role.USER, [gave(0, f"{NO_CALL}\ntext", name="unknown")])
    assert texts(history)[2] == (Role.USER, [gave(1, "1"), gave(0, f"{NO_CALL}\n2", name="unknown")])
    assert history.unpaired == 2


def test_a_call_without_a_result_gets_one_that_says_so_in_the_next_turn_of_the_user():
    history = told(
        assistant(call("c1", "a")),
        assistant(call("c2", "b"), call("c3", "c")),
        Message(Role.SYSTEM, (TextPart("s"),)),
        user(result("c2", "2"), TextPart("go on")),
    )
    assert texts(history)[2:] == [
        (Role.SYSTEM, ["s"]),
        (Role.USER, [gave(1, NO_RESULT, " error"), gave(3, NO_RESULT, " error"), gave(2, "2"), "go on"]),
    ]
    assert history.unpaired == 2


def test_at_the_end_of_the_conversation_a_turn_is_added_for_it():
    history = told(user(TextPart("x")), assistant(call("c1")))
    assert texts(history)[2:] == [(Role.USER, [gave(1, NO_RESULT, " error")])]


def test_pictures_in_results_become_a_note():
    history = told(assistant(call("c1")), user(ToolResultPart("c1", (ImagePart("data:,"), TextPart("caption")))))
    assert texts(history)[1] == (Role.USER, [gave(1, f"{NO_IMAGE}\ncaption")])
    assert history.hidden_images == 1


def test_other_parts_stay():
    picture = ImagePart("https://example.com/a.png")
    assert told(user(picture)).messages == (user(picture),)


def test_a_long_result_is_cut_in_its_middle():
    text = "ä" * 600 + "z" * 600
    history = told(assistant(call("c1")), user(result("c1", text)), result_bytes=300)
    shown = texts(history)[1][1][0]
    assert history.trimmed_results == 1
    assert gave(1, "ä" * 100 + "\n(... 1500 bytes of this result are left out here ...)\n" + "z" * 100) == shown
    whole = "ä" * 150
    assert texts(told(assistant(call("c1")), user(result("c1", whole)), result_bytes=300))[1][1] == [gave(1, whole)]
    assert "\ufffd" not in trimmed("ä€" * 100, 500, 101)


def test_a_call_that_gave_the_same_twice_is_told():
    again = told(
        assistant(call("c1")), user(result("c1", "x")), assistant(call("c2", "b")), user(result("c2", "x")),
        assistant(ToolCallPart("c3", "Read", '{ "path": "a" }')), user(result("c3", "x")),
    )  # fmt: skip
    assert again.hint.startswith("The call #3 Read had the same arguments and gave the same result as #1.")


def test_what_is_no_repetition():
    side_by_side = told(assistant(call("c1"), call("c2")), user(result("c1", "x"), result("c2", "x")))
    other_result = told(assistant(call("c1")), user(result("c1", "x")), assistant(call("c2")), user(result("c2", "y")))
    no_result = told(assistant(call("c1")), user(result("c1", "x")), assistant(call("c2")))
    not_json = told(
        assistant(ToolCallPart("c1", "Read", "{")), user(result("c1", "x")),
        assistant(ToolCallPart("c2", "Read", "[")), user(result("c2", "x")),
    )  # fmt: skip
    since_then = told(
        assistant(call("c1")), user(result("c1", "x")), assistant(call("c2")), user(result("c2", "x")),
        assistant(call("c3", "b")), user(result("c3", "x")),
    )  # fmt: skip
    assert [h.hint for h in (side_by_side, other_result, no_result, not_json, since_then)] == [""] * 5
