"""A client's own teaching of another form, in its system text, becomes ours."""

import pytest

from qwen_proxy.chat.request import Tool
from qwen_proxy.toolcalls.form import MARKERS
from qwen_proxy.toolcalls.teaching import MAX_BLOCK_CHARACTERS, NOT_MADE, retaught, unleaked
from qwen_proxy.toolcalls.toolbox import Toolbox

TOOLBOX = Toolbox([Tool("run", "", {"properties": {"command": {"type": "string"}, "n": {"type": "integer"}}})])
RUN = "[[call 7f3a run]]\n[[arg 7f3a command]]\nnpm test\n[[end 7f3a]]"


def retold(text: str) -> str:
    return retaught(text, MARKERS, "7f3a", TOOLBOX)


@pytest.mark.parametrize(
    "block",
    [
        "<tool_call>\n<function=run>\n<parameter=command>\nnpm test\n</parameter>\n</function>\n</tool_call>",
        '<tool_call>\n{"name": "run", "arguments": {"command": "npm test"}}\n</tool_call>',
        '<tool_call>{"arguments": {"command": "npm test"}, "name": "run"}</tool_call>',
    ],
)
def test_a_call_that_is_shown_is_shown_in_our_form(block: str):
    assert retold(f"model: {block}\nand {block} more") == f"model: {RUN}\nand {RUN} more"


def test_values_keep_their_lines_and_types():
    block = "<tool_call><function=run><parameter=command>\n\n a\n\n</parameter><parameter=x>1</parameter></function>"
    assert retold(f"{block}</tool_call>") == (
        '[[call 7f3a run]]\n[[arg 7f3a command]]\n\n a\n\n[[arg 7f3a x]]\n"1"\n[[end 7f3a]]'
    )
    assert retold('<tool_call>{"name": "run", "arguments": {"n": 3}}</tool_call>') == (
        "[[call 7f3a run]]\n[[arg 7f3a n]]\n3\n[[end 7f3a]]"
    )


def test_a_call_that_is_described_becomes_a_sentence():
    assert retold("[tool_call: run for 'npm test'] ok [tool_call: read_file]") == (
        "(a call of run for 'npm test') ok (a call of read_file)"
    )


@pytest.mark.parametrize("inner", ["...", '{"name": 3}', "{" * 5000 + '"name"', '["x"]'])
def test_what_can_not_be_read_becomes_our_markers(inner: str):
    assert retold(f"Write <tool_call>{inner}</tool_call>!") == f"Write [[call 7f3a NAME]]{inner}[[end 7f3a]]!"


def test_a_tag_that_is_never_closed_and_one_that_is_closed_far_away():
    assert retold("in <tool_call> tags") == "in [[call 7f3a NAME]] tags"
    far = "x" * MAX_BLOCK_CHARACTERS
    assert retold(f"<tool_call>{far}</tool_call>") == f"[[call 7f3a NAME]]{far}[[end 7f3a]]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Now.\n{RUN}\nDone.", f"Now.\n{NOT_MADE}\nDone."),
        ("[[call 7f3a run]]\n[[arg 7f3a x]]\ncut off", NOT_MADE),
        ("[[call 7f3a run]]\n[[end 0000]]\n[[end 7f3a]]", NOT_MADE),
        ('Hm.\n<tool_call>\n{"name": "run"\n</tool_call>', f"Hm.\n{NOT_MADE}"),
        ("Write [[call 7f3a run]] or <tool_call> tags.", "Write [[call 7f3a run]] or <tool_call> tags."),
        ("nothing", "nothing"),
    ],
)
def test_a_call_that_was_none_does_not_stay_as_an_example(text: str, expected: str):
    assert unleaked(text) == expected


def test_other_text_stays():
    text = "Use [[sim x]] and tool-call, <function=a>."
    assert retold(text) is text
