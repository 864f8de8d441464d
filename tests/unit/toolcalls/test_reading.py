"""A reply's events, whatever its calls are written in."""

import pytest

from qwen_proxy.chat.events import (
    Finish,
    FinishReason,
    MediaKind,
    MediaOutput,
    ReasoningDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
)
from qwen_proxy.toolcalls.readers.base import MAX_CALL_CHARACTERS
from qwen_proxy.toolcalls.reading import MAX_CALLS, MAX_FAILED_READINGS, ReadingOptions
from tests.support.calls import read, read_whole, reading

BASH = "[[call 7f3a Bash]]\n[[arg 7f3a command]]\nls\n[[end 7f3a]]\n"
LISTED: tuple[str, dict[str, str]] = ("list_files", {})
CALL = ("Bash", {"command": "ls"})
START, ARGUMENTS = ToolCallStart("call_1", "Bash"), ToolArgumentsDelta('{"command":"ls"}')
STOP = Finish(FinishReason.STOP)


def test_the_end_of_the_reply_comes_behind_what_was_held() -> None:
    read = reading()
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    assert read.feed([TextDelta(BASH[:-1]), usage, STOP]) == [START, ARGUMENTS, usage, STOP]


def test_reasoning_passes_and_calls_in_it_are_noticed_only() -> None:
    read = reading()
    thought = [ReasoningDelta("I do:\n[[call 7f"), ReasoningDelta("3a Bash]]")]
    assert [read.feed([event]) for event in thought] == [[thought[0]], [thought[1]]]
    assert read.report.call_in_thinking
    assert not read.report.committed
    plain = reading()
    plain.feed([ReasoningDelta("hm")])
    assert not plain.report.call_in_thinking


def test_other_events_pass() -> None:
    picture = MediaOutput(MediaKind.IMAGE, "https://example.com/x.png")
    assert reading().feed([picture]) == [picture]


def test_what_comes_within_a_committed_call_waits_for_its_end() -> None:
    read = reading(ReadingOptions(commit_characters=1))
    thought = ReasoningDelta("hm")
    assert read.feed([TextDelta(BASH[:45])]) == [START, ToolArgumentsDelta('{"command":"ls')]
    assert read.feed([thought]) == []
    assert read.feed([TextDelta(BASH[45:])]) == [ToolArgumentsDelta('"}'), thought]
    cut = reading(ReadingOptions(commit_characters=1))
    cut.feed([TextDelta(BASH[:45]), thought])
    assert cut.finish() == [thought]


def test_blanks_alone_pass_at_the_end() -> None:
    assert read("\n \n").text == "\n \n"


def test_only_the_first_call_is_wanted() -> None:
    read_one = read(BASH + BASH, ReadingOptions(stop_after_first=True))
    assert read_one.calls == [CALL]
    array = '[{"name":"Bash","arguments":{"command":"ls"}},{"name":"Bash","arguments":{"command":"ls"}}]'
    assert read(array, ReadingOptions(stop_after_first=True)).calls == [CALL]


def test_text_is_withheld_until_a_call_is_made() -> None:
    options = ReadingOptions(withhold_text=True)
    reply = read(f"Well.\n{BASH}", options)
    assert (reply.text, reply.calls) == ("Well.", [CALL])
    assert isinstance(reply.events[0], TextDelta)
    refused = read("I will not.", options)
    assert (refused.events, refused.report.withheld) == ([], "I will not.")


def test_a_strict_tool_is_told_whole() -> None:
    text = BASH.replace("ls", "x" * 100)
    read = reading(ReadingOptions(commit_characters=1, strict=frozenset({"Bash"})))
    assert read.feed([TextDelta(text[:60])]) == []
    assert len(read.feed([TextDelta(text[60:])])) == 2


def test_too_many_calls_are_a_runaway() -> None:
    for text in (BASH * (MAX_CALLS + 3), "[TOOL CALL]" + str([{"name": "Bash", "arguments": {"command": "ls"}}] * 30)):
        reply = read_whole(text)
        assert (len(reply.calls), reply.report.runaway) == (MAX_CALLS, True)


def test_too_many_invalid_calls_are_a_runaway() -> None:
    reply = read_whole(BASH.replace("Bash", "Fly") * (MAX_CALLS * 2))
    assert (len(reply.report.invalid), reply.report.runaway) == (MAX_CALLS + 1, True)


def test_a_call_that_is_not_offered_is_invalid() -> None:
    reply = read(BASH.replace("Bash", "Fly"))
    assert [call.errors for call in reply.report.invalid] == [("there is no tool `Fly`",)]


def test_an_invalid_call_beside_a_valid_one_is_dropped() -> None:
    invalid = BASH.replace("command", "zzz")
    for text in (invalid + BASH, BASH + invalid):
        reply = read(text)
        assert (reply.calls, reply.text, reply.report.dropped["invalid"]) == ([CALL], "", 1)
        assert len(reply.report.invalid) == 1


def test_a_call_that_turns_out_invalid_when_committed_is_told() -> None:
    text = (
        '[[call 7f3a Write]]\n[[arg 7f3a content]]\nabc\n[[arg 7f3a mode]]\n"x"\n[[arg 7f3a content]]\nd\n[[end 7f3a]]'
    )
    reply = read(text, ReadingOptions(commit_characters=2))
    assert reply.calls == [("Write", {"content": "abc", "mode": "x"})]
    assert [(call.errors, call.committed) for call in reply.report.invalid] == [
        (('"file_path" is a required property',), True)
    ]
    assert reply.report.repairs["duplicate_key"] == 1


def test_json_values_of_a_committed_call_are_told_whole() -> None:
    text = (
        "[[call 7f3a Read]]\n[[arg 7f3a filePath]]\nabc\n[[arg 7f3a limit]]\n'5'\n[[arg 7f3a offset]]\nx\n[[end 7f3a]]"
    )
    reply = read(text, ReadingOptions(commit_characters=2))
    assert reply.calls == [("Read", {"file_path": "abc", "limit": 5, "offset": "x"})]
    assert reply.report.invalid[0].errors == ('offset: "x" is not of type "integer"',)


def test_a_call_is_not_committed_while_something_in_it_is_invalid() -> None:
    text = "[[call 7f3a Edit]]\n[[arg 7f3a mode]]\nno\n[[arg 7f3a path]]\nabcdef\n[[end 7f3a]]"
    reply = read(text, ReadingOptions(commit_characters=4))
    assert (reply.calls, len(reply.report.invalid)) == ([], 1)


@pytest.mark.parametrize(
    ("ending", "calls"),
    [
        ("[[arg 7f3a limit]]\n12\n", 1),
        ("[[arg 7f3a limit]]\n12\n[[", 1),
        ("[[arg 7f3a limit]]\n12", 0),
        ("[[arg 7f3a limit]]\n1x\n", 0),
        ("[[arg 7f3a limit]]\n[1\n", 0),
        ("[[arg 7f3a limit]]\n", 0),
        ("[[arg 7f3a limit]]", 0),
        ("[[arg 7f3a other]]\n12\n", 0),
    ],
)
def test_a_call_without_its_end_counts_if_its_last_value_is_whole_json(ending: str, calls: int) -> None:
    reply = read(f"[[call 7f3a Read]]\n[[arg 7f3a file_path]]\na.py\n{ending}")
    assert (len(reply.calls), reply.report.cut) == (calls, not calls)


def test_a_committed_call_without_its_end_counts_if_its_last_value_is_whole_json() -> None:
    text = "[[call 7f3a Read]]\n[[arg 7f3a file_path]]\na.py\n[[arg 7f3a limit]]\n12\n"
    reply = read(text, ReadingOptions(commit_characters=2))
    assert reply.calls == [("Read", {"file_path": "a.py", "limit": 12})]
    assert reply.report.repairs == {"missing_end": 1}


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('[[call 7f3a Read]]\n{"file_path": "a"}', ("Read", {"file_path": "a"})),
        ("[[call 7f3a list_files]]", LISTED),
        ("[[call 7f3a list_files]]\n[[end 7f3a]]", LISTED),
        ("[[call 7f3a Bash]]\nls\n[[end 7f3a]]", CALL),
        ("[[call 7f3a Bash]]\n[[arg 7f3a command]]\nls\n[[call 7f3a list_files]]\n[[end 7f3a]]", CALL),
        ("[[call 7f3a Bash]]\n[[arg 7f3a command]]\nls\n[[end 7f3]]\n\n[[call 7f3a list_files]]\n[[end 7f3a]]", CALL),
        ("[[call 7f3a Bash]]\n[[arg 7f3a command]]\nls\n[[end 7f3b]]\n \n", CALL),
        ("[[call 7f3a Bash]]\n[[arg 7f3a command]]\nls\n[[call 7f3a list_files]]", CALL),
        ("[[call 7f3a Bash]]\r\n[[arg 7f3a command]]\r\nls\r\n[[end 7f3a]]\r\n", CALL),
        ("[[call 7f3a Bash]] \n  [[arg 7f3a command]]\n  ls\n  [[end 7f3a]]", ("Bash", {"command": "  ls"})),
        ("[[call 7f3a Bash]]\n[[arg 7f3a command]] ls[[end 7f3a]]\nDone.", CALL),
        ("[[call 7F3A bash]]\n[[arg 7F3A command]]\nls\n[[end 7F3A]]", CALL),
        ("[[call 73fa Bash]]\n[[arg 73fa command]]\nls\n[[end 7f3a]]", CALL),
        ("[[arg 7f3a command]]\nls\n[[end 7f3a]]", CALL),
        ("[[call 7f3a Bash]]\n[[arg 7f3a command]]\nls\n[[end]]\n[[call 7f3a list_files]]\n[[end]]", CALL),
        ("[[call 7f3a Bash]]\n[[arg 7f3a command]]\nls\n[[end]]", CALL),
        ("**[[call 7f3a Bash]]**\n**[[arg 7f3a command]]**\nls\n**[[end 7f3a]]**", CALL),
        ("[call 7f3a Bash]\n[[arg 7f3a command]]\nls\n[[end 7f3a]]", CALL),
    ],
)
def test_damage_to_the_taught_form(text: str, call: tuple[str, dict[str, str]]) -> None:
    reply = read(text)
    assert reply.calls[0] == call
    assert not reply.report.cut


@pytest.mark.parametrize(
    "text",
    [
        "[[call 7f3a Read]]\nsome words\n[[end 7f3a]]",
        "[[call 7f3a Write]]\nsome words\n[[end 7f3a]]",
        '[[call 7f3a Write]]\n{"file_path": 1}\n[[end 7f3a]]',
        "[[call 7f3a Write]]\n[1]\n[[end 7f3a]]",
        "[[arg 7f3a nothing]]\nls\n[[end 7f3a]]",
        "[[arg 7f3a file_path]]\nls\n[[end 7f3a]]\n",
    ],
)
def test_what_is_no_call_of_a_tool_is_invalid(text: str) -> None:
    reply = read(text)
    if "some words" in text and "Read" in text:
        assert reply.calls == [("Read", {"file_path": "some words"})]
    elif "file_path]]" in text:
        assert reply.calls == [("Read", {"file_path": "ls"})]
    else:
        assert (reply.calls, len(reply.report.invalid)) == ([], 1)


def test_an_end_without_its_code_is_no_part_of_a_json_value() -> None:
    text = '[[call 7f3a Edit]]\n[[arg 7f3a path]]\na\n[[arg 7f3a edits]]\n[{"old": "a", "new": "b"}]\n[[end]]\n'
    assert read(text + BASH).calls == [("Edit", {"path": "a", "edits": [{"old": "a", "new": "b"}]}), CALL]


def test_a_call_that_is_too_long_is_invalid() -> None:
    read = reading(ReadingOptions(strict=frozenset({"Bash"})))
    for piece in (BASH[:40], *["x" * 65536] * 17, BASH):
        assert read.feed([TextDelta(piece)]) == []
    assert read.report.invalid[0].errors == ("it is too long",)
    assert read.done


def test_foreign_forms_are_given_up_after_many_that_were_text() -> None:
    text = "<tool_call> is a tag\n" * (MAX_FAILED_READINGS + 2)
    call = '<tool_call>{"name":"Bash","arguments":{"command":"ls"}}</tool_call>'
    reply = read(text + call)
    assert (reply.calls, reply.report.dropped) == ([], {"too_many_readings": 1})
    assert read(text + BASH).calls == [CALL]


def test_native_calls() -> None:
    read = reading()
    assert read.snapshot("1", "bash", '{"comm') == []
    assert read.snapshot("1", "bash", '{"command":"ls"}') == []
    assert read.snapshot("1", "bash", '{"command":"ls"}') == []
    assert read.snapshot("2", "web_search", "{}") == [START, ARGUMENTS]
    assert read.feed([TextDelta(" "), TextDelta("so")]) == []
    assert read.snapshot("3", "list_files", "") == []
    assert read.finish() == [ToolCallStart("call_2", "list_files"), ToolArgumentsDelta("{}")]
    assert read.report.hits == {"native": 2}
    assert read.report.dropped == {"native_unknown": 1, "prose": 1}


def test_a_native_call_that_is_cut_or_invalid_is_told() -> None:
    read = reading()
    read.snapshot("1", "Bash", '{"command":"rm -rf /home/u')
    assert read.finish() == []
    assert read.report.cut
    wrong = reading()
    wrong.snapshot("1", "Bash", '{"x":1}')
    assert wrong.feed([TextDelta("so")]) == []
    assert wrong.report.invalid[0].errors == ('"command" is a required property',)


def test_native_calls_may_be_off_and_are_limited() -> None:
    off = reading(ReadingOptions(forms_off=frozenset({"native"})))
    off.snapshot("1", "Bash", '{"command":"ls"}')
    assert off.finish() == []
    many = reading()
    for number in range(MAX_CALLS + 2):
        many.snapshot(str(number), "Bash", '{"command":"ls"}')
    many.finish()
    assert (many.report.committed, many.report.runaway) == (MAX_CALLS, True)


def test_the_platform_that_takes_calls_for_itself_is_noticed() -> None:
    reply = read("Tool Read does not exists.\nSorry.")
    assert (reply.text, reply.report.intercepted) == ("Sorry.", 1)
    read_frames = reading()
    read_frames.intercept()
    assert read_frames.report.intercepted == 1


@pytest.mark.parametrize(
    "text", ["Tool Read does not exist.", "Tool bars are fine", "Tool X does not existsx", "Toolbox"]
)
def test_words_like_the_platforms_are_text(text: str) -> None:
    assert read(text).text == text


@pytest.mark.parametrize(
    "result",
    ["[[result 7f3a #1 Bash]]", "[[result 0000 #1 Bash]]", "<tool_response>", "<function_results>", "[TOOL RESULT]"],
)
def test_an_invented_result_ends_the_reading(result: str) -> None:
    reply = read(f"{BASH}{result}\na.py\n{BASH}")
    assert (reply.calls, reply.report.result_invented) == ([CALL], True)


def test_halves_of_characters_are_joined() -> None:
    read = reading()
    assert read.feed([TextDelta("x\ud83d")]) == [TextDelta("x")]
    assert read.feed([TextDelta("\ude00")]) == [TextDelta("😀")]
    assert read.feed([TextDelta("\ud83d")]) == []
    assert read.finish() == [TextDelta("\ufffd")]


@pytest.mark.parametrize("extra", [10, 200_000])
@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name":"Bash","arguments":{"command":"VALUE"}}</tool_call>',
        "<function=Bash>\n<parameter=command>VALUE</parameter>\n</function>",
    ],
)
def test_a_held_call_is_bounded(text: str, extra: int) -> None:
    text = text.replace("VALUE", "x" * (MAX_CALL_CHARACTERS + extra))
    reading_long = reading()
    out = [event for i in range(0, len(text), 65536) for event in reading_long.feed([TextDelta(text[i : i + 65536])])]
    out += reading_long.finish()
    assert "".join(event.text for event in out if isinstance(event, TextDelta)) == text
