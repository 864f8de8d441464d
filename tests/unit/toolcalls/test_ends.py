"""Values whose own text reads like the end of their call, where that end is broken too."""

import json

import pytest

from qwen_proxy.chat.events import TextDelta, ToolArgumentsDelta
from qwen_proxy.toolcalls.readers.inline_ends import HELD_CHARACTERS
from qwen_proxy.toolcalls.reading import ReadingOptions
from tests.support.calls import read, reading

HEAD = "[[call 7f3a Write]]\n[[arg 7f3a file_path]]\na.md\n[[arg 7f3a content]]\n"
END_LIKE = "A call ends with\n[[end]]"


@pytest.mark.parametrize("ending", ["\n[[end 7f3", "\n[[end 7f3a", "\n[[end]]", "\n[[end 7f3a]]"])
@pytest.mark.parametrize("value", [END_LIKE, END_LIKE + "\n", END_LIKE + "\n[[end]]", END_LIKE + "\r\n[[end 7f3b]]"])
def test_the_last_end_is_the_one_of_the_call(value: str, ending: str) -> None:
    assert read(HEAD + value + ending).calls == [("Write", {"file_path": "a.md", "content": value})]


def test_a_line_feed_with_a_carriage_return_belongs_to_the_marker_where_all_have_one() -> None:
    text = (HEAD + END_LIKE + "\n[[end 7f3").replace("\n", "\r\n")
    content = END_LIKE.replace("\n", "\r\n")
    assert read(text).calls == [("Write", {"file_path": "a.md", "content": content})]


@pytest.mark.parametrize("value", ["from .things import *", "a[[", "x [", "**bold**"])
def test_signs_before_an_end_on_the_same_line_are_the_values(value: str) -> None:
    text = f"{HEAD}first\n{value}[[end 7f3a]]"
    assert read(text).calls == [("Write", {"file_path": "a.md", "content": f"first\n{value}"})]


def test_bold_markers_are_markers() -> None:
    text = "\n".join(f"**{line}**" if line.startswith("[[") else line for line in f"{HEAD}x\n[[end 7f3a]]".split("\n"))
    assert read(text).calls == [("Write", {"file_path": "a.md", "content": "x"})]


BASH = "[[call 7f3a Bash]]\n[[arg 7f3a command]]\n"
LONG = "x" * HELD_CHARACTERS


@pytest.mark.parametrize(
    ("ending", "command"),
    [
        ("[[end 7f3a]]", "ls"),
        ("[[end 7f3a]] \n\n", "ls"),
        ("\n[[end 7f3a]] [[1]][[2]]", "ls"),
        ("\n[[end 7f3a]] [[1]][[2]]\n\n---\n[1] A page", "ls"),
        ("\n[[end 7f3a]] Now I wait.\nFor it.", "ls"),
        ("\n[[end 7f3a]]<|im_end|>", "ls"),
        ("\n  [[end 7f3a]]", "ls"),
        ("\n**[[end 7f3a]]**\n", "ls"),
        ("\n  __[[end 7f3a]]__ x", "ls"),
        ("\n  [[end 7f3a]]\n  [[end 7f3a]]", "ls"),
        (" [[end 7f3a]] x [[end 7f3a]]", "ls [[end 7f3a]] x "),
        ("\n        [[end 7f3a]] x[[end 7f3a]]", "ls\n        [[end 7f3a]] x"),
        ("\n[[end 7f3a]]" + LONG, "ls"),
    ],
)
def test_an_end_that_shares_its_line_ends_a_call_that_streams(ending: str, command: str) -> None:
    reply = read(BASH + "ls" + ending)
    assert reply.calls == [("Bash", {"command": command})]
    assert (reply.report.repairs, reply.text, reply.report.cut) == ({"loose_markers": 1}, "", False)


@pytest.mark.parametrize("before", ["", "  ", "**"])
def test_an_end_that_shares_its_line_may_follow_no_value_at_all(before: str) -> None:
    assert read(f"{BASH}{before}[[end 7f3a]] [[1]]").calls == [("Bash", {"command": ""})]


def test_an_end_that_shares_its_line_belongs_to_lines_with_carriage_returns() -> None:
    text = f"{BASH}ls\n  [[end 7f3a]] x".replace("\n", "\r\n")
    assert read(text).calls == [("Bash", {"command": "ls"})]


def test_an_end_that_shares_its_line_ends_before_the_next_call() -> None:
    for ending in ("[[end 7f3a]]", "\n  [[end 7f3a]]", "\n[[end 7f3a]] And now:"):
        reply = read(f"{BASH}ls{ending}\n{BASH}pwd\n[[end 7f3a]]")
        assert reply.calls == [("Bash", {"command": "ls"}), ("Bash", {"command": "pwd"})]
        assert reply.report.repairs == {"loose_markers": 1}


def test_an_end_that_shares_its_line_with_json_leaves_the_json() -> None:
    for ending in ("5[[end 7f3a]]", "5\n[[end 7f3a]] [[1]]"):
        reply = read(f"{BASH}ls\n[[arg 7f3a timeout]]\n{ending}")
        assert reply.calls == [("Bash", {"command": "ls", "timeout": 5})]


@pytest.mark.parametrize(
    "value",
    [
        "ls[[end 7f3a]] x",
        "if [[",
        "ls [[end 7f3",
        "a[[end 7f3a]]" + " " * 300,
        "ls\n        [[end 7f3a]]",
        "ls\n  [[end 7f3",
        "\t[[end 7f3a]]",
        "\n[[end 7f3a]] x" + LONG,
        "ls [[arg 7f3a timeout]] 5 [[end 7f3a]]",
        "ls [[arg 7f3a timeout]] 5\n  [[end 7f3a]]",
    ],
)
def test_what_only_looks_like_an_end_within_a_line_is_text(value: str) -> None:
    cut = read(BASH + value)
    assert (cut.calls, cut.report.cut) == ([], True)
    assert (cut.open or "").startswith(json.dumps({"command": value.rstrip()}, separators=(",", ":"))[:-2])
    whole = read(f"{BASH}{value}\n[[end 7f3a]]")
    assert (whole.calls, dict(whole.report.repairs)) == ([("Bash", {"command": value})], {})
    both = read(f"{BASH}{value}\n[[arg 7f3a timeout]]\n5\n[[end 7f3a]]")
    assert both.calls == [("Bash", {"command": value, "timeout": 5})]


def test_what_is_held_behind_an_end_that_shares_its_line_is_told_with_what_shows_that_it_is_text() -> None:
    shown = reading()
    shown.feed([TextDelta(BASH + "ls")])
    assert shown.feed([TextDelta("\n[[end 7f3a]] is")]) == []
    assert shown.feed([TextDelta(" what ends it")]) == []
    (told,) = shown.feed([TextDelta("\n[[end 7f3a]]\n")])
    assert told == ToolArgumentsDelta('\\n[[end 7f3a]] is what ends it"}')


def test_an_end_that_shares_its_line_ends_a_call_that_is_held() -> None:
    reply = read(f"{BASH}ls\n[[end 7f3a]] [[1]]", ReadingOptions(strict=frozenset({"Bash"})))
    assert (reply.calls, dict(reply.report.repairs)) == ([("Bash", {"command": "ls"})], {"loose_markers": 1})
    lacking = read("[[call 7f3a Write]]\n[[arg 7f3a file_path]]\na [[arg 7f3a content]] b [[end 7f3a]]")
    assert lacking.calls == [("Write", {"file_path": "a ", "content": "b "})]
    assert dict(lacking.report.repairs) == {"loose_markers": 1}
    mixed = read("[[call 7f3a Write]]\n[[arg 7f3a file_path]]\na\n   [[arg 7f3a content]]\nb\n  [[end 7f3a]] x")
    assert mixed.calls == [("Write", {"file_path": "a", "content": "b"})]
