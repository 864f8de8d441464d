"""The form that is taught, read back."""

import pytest

from qwen_proxy.chat.events import TextDelta, ToolArgumentsDelta, ToolCallStart
from qwen_proxy.chat.request import Tool
from qwen_proxy.toolcalls.reading import ReadingOptions
from qwen_proxy.toolcalls.toolbox import Toolbox
from tests.support.calls import read, read_split, reading

WRITE = "[[call 7f3a Write]]\n[[arg 7f3a file_path]]\na.py\n[[arg 7f3a content]]\nprint(1)\n\n[[end 7f3a]]"
WRITTEN = ("Write", {"file_path": "a.py", "content": "print(1)\n"})


def test_a_call_becomes_one_start_and_one_delta() -> None:
    assert read(WRITE).events == [
        ToolCallStart("call_1", "Write"),
        ToolArgumentsDelta('{"file_path":"a.py","content":"print(1)\\n"}'),
    ]


def test_text_before_a_call_loses_one_line_feed() -> None:
    reply = read(f"I write it.\n\n{WRITE}\n")
    assert (reply.text, reply.calls) == ("I write it.\n", [WRITTEN])
    assert not reply.report.repairs and not reply.report.dropped


def test_blanks_before_a_call_are_no_text() -> None:
    assert read(f"\n\n{WRITE}").text == ""


def test_text_behind_a_call_is_dropped_and_counted_once() -> None:
    reply = read(f"{WRITE}\nDone!\nAll of it.")
    assert (reply.text, reply.calls, reply.report.dropped) == ("", [WRITTEN], {"prose": 1})


def test_nothing_behind_an_invented_result_is_read() -> None:
    reply = read(f"{WRITE}\n[[result 7f3a #1 Write]]\nok\n[[end 7f3a]]\n{WRITE}")
    assert (reply.calls, reply.report.result_invented) == ([WRITTEN], True)


def test_calls_follow_each_other() -> None:
    assert read(f"{WRITE}\n{WRITE}\n\n{WRITE}").calls == [WRITTEN] * 3


def test_the_marker_with_another_nonce_is_text_within_a_value() -> None:
    inner = WRITE.replace("7f3a", "0000")
    assert read(WRITE.replace("print(1)\n", inner)).calls == [("Write", {"file_path": "a.py", "content": inner})]


def test_an_example_of_the_form_with_another_nonce_is_text() -> None:
    text = WRITE.replace("7f3a", "9c21")
    assert (read(text).calls, read(text).text) == ([], text)


def test_a_long_call_is_committed_and_streams() -> None:
    read = reading(ReadingOptions(commit_characters=8))
    opening = "[[call 7f3a Write]]\n[[arg 7f3a file_path]]\na.py\n[[arg 7f3a content]]\n1234"
    assert read.feed([TextDelta(opening)]) == [
        ToolCallStart("call_1", "Write"),
        ToolArgumentsDelta('{"file_path":"a.py","content":"1234'),
    ]
    assert read.feed([TextDelta('"x')]) == [ToolArgumentsDelta('\\"x')]
    assert read.report.committed == 1
    assert read.feed([TextDelta("\n[[end 7f3a]]\n")]) == [ToolArgumentsDelta('"}')]


def test_more_than_one_value_of_a_call_may_stream() -> None:
    text = "[[call 7f3a Write]]\n[[arg 7f3a content]]\n12345\n[[arg 7f3a file_path]]\na.py\n[[end 7f3a]]"
    reply = read(text, ReadingOptions(commit_characters=3))
    assert reply.events[1:] == [ToolArgumentsDelta('{"content":"12345","file_path":"a.py"}')]


def test_a_batch_gives_one_delta() -> None:
    read = reading(ReadingOptions(commit_characters=1))
    read.feed([TextDelta(WRITE[: WRITE.index("print")] + "x")])
    assert read.feed([TextDelta("a"), TextDelta("b")]) == [ToolArgumentsDelta("ab")]


def test_a_call_in_a_fence_is_one() -> None:
    reply = read(f"So:\n```\n{WRITE}\n```\n")
    assert (reply.calls, reply.text, reply.report.repairs) == ([WRITTEN], "So:", {"fence": 1})


@pytest.mark.parametrize(
    "value",
    [
        "[[" + "x" * 400 + "\n",
        "a\n[[end 7f3b]]" + "\n" * 300,
        "a\n[[end 7f3b]]\n[[x",
        "a\n[[end 7f3b]]\n\n[[arg 0000 x]]\nb",
        "[[end 7f3b]]",
        "[[call 7f3b Write]]\n",
    ],
)
def test_a_value_that_looks_like_markers(value: str) -> None:
    reply = read(WRITE.replace("print(1)\n", value))
    assert reply.calls == [("Write", {"file_path": "a.py", "content": value})]


def test_markers_of_others_stay_in_a_value_that_is_read_loosely() -> None:
    text = WRITE.replace("[[arg 7f3a content]]", "[[arg 7f3 content]]\n[[end 0000]]\n[[arg 7f3a nothing]]")
    reply = read(text)
    assert reply.calls == [
        ("Write", {"file_path": "a.py", "content": "[[end 0000]]\n[[arg 7f3a nothing]]\nprint(1)\n"})
    ]


def test_a_cut_value_is_never_closed() -> None:
    for size in (1, 5, 1000):
        options = ReadingOptions(commit_characters=4)
        reply = read_split("[[call 7f3a Bash]]\n[[arg 7f3a command]]\nrm -rf /home/u", size, options)
        assert (reply.calls, reply.open, reply.report.cut) == ([], '{"command":"rm -rf /home/u', True)


def test_a_cut_call_that_is_not_committed_is_told_in_the_report_alone() -> None:
    reply = read("[[call 7f3a Write]]\n[[arg 7f3a content]]\nrm -rf /home/u")
    assert (reply.events, reply.report.cut) == ([], True)
    assert [(call.name, call.errors) for call in reply.report.invalid] == [("Write", ("it was cut off",))]


def test_a_call_that_lacks_nothing_else_streams_from_the_first_character_of_its_value() -> None:
    read = reading()
    assert read.feed([TextDelta(WRITE[: WRITE.index("print")])]) == []
    assert read.feed([TextDelta("p")]) == [
        ToolCallStart("call_1", "Write"),
        ToolArgumentsDelta('{"file_path":"a.py","content":"p'),
    ]
    assert read.feed([TextDelta("rint")]) == [ToolArgumentsDelta("rint")]


@pytest.mark.parametrize(
    "text",
    [
        "[[call 7f3a Write]]\n[[arg 7f3a content]]\nx = 1",
        "[[call 7f3a Read]]\n[[arg 7f3a limit]]\nmany\n[[arg 7f3a file_path]]\na.py",
        "[[call 7f3a Bash]]\n[[arg 7f3a nothing]]\nx\n[[arg 7f3a command]]\nls",
        "[[call 7f3a Bash]]\nls\n[[arg 7f3a command]]\nls",
        "[[call 7f3a bash]]\n[[arg 0000 command]]\nls",
    ],
)
def test_a_call_that_may_still_be_wrong_is_held(text: str) -> None:
    assert reading().feed([TextDelta(text)]) == []


def test_a_call_whose_schema_concerns_the_whole_is_held() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "maxProperties": 1}
    text = "[[call 7f3a one]]\n[[arg 7f3a a]]\nx"
    assert reading(toolbox=Toolbox((Tool("one", "", schema),))).feed([TextDelta(text)]) == []


def test_an_optional_null_that_comes_late_is_left_out() -> None:
    text = "[[call 7f3a Bash]]\n[[arg 7f3a command]]\nls\n[[arg 7f3a timeout]]\nnull\n[[end 7f3a]]"
    reply = read(text)
    assert (reply.calls, dict(reply.report.repairs)) == ([("Bash", {"command": "ls"})], {"null": 1})


def test_half_an_end_marker_at_the_end_is_one() -> None:
    for cut in range(1, len("[[end 7f3a]]") - 2):
        assert read(WRITE[:-cut]).calls == [WRITTEN], WRITE[-cut:]


def test_what_is_invalid_is_given_as_text_if_wanted() -> None:
    text = WRITE.replace("content", "body")
    assert read(text).events == []
    assert read(text, ReadingOptions(invalid_as_text=True)).text == text
    assert read(f"So.\n{text}").text == "So."
    assert read(f"So.\n{text}\nYes.").report.unsent == f"{text}\nYes."
