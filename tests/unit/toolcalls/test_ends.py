"""Values whose own text reads like the end of their call, where that end is broken too."""

import pytest

from tests.support.calls import read

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
