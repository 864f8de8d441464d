"""Damage to foreign forms, and texts that look like them."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import Reply, read, reading

READ = '{"name": "Read", "arguments": {"file_path": "a.py"}}'
CALL = ("Read", {"file_path": "a.py"})
LISTED: tuple[str, dict[str, Any]] = ("list_files", {})
BASH = ("Bash", {"command": 'echo "hi"'})


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        # shapes
        ('{"tool": "Read", "args": {"file_path": "a.py"}}', [CALL]),
        ('{"function": "Read", "parameters": {"file_path": "a.py"}}', [CALL]),
        ('{"type":"function","function":{"name":"Read","arguments":"{\\"file_path\\":\\"a.py\\"}"}}', [CALL]),
        ('{"id": "1", "name": "Read", "input": {"file_path": "a.py"}}', [CALL]),
        ('{"tool_calls": [' + READ + "," + READ + "]}", [CALL, CALL]),
        ('{"name": "Read", "file_path": "a.py"}', [CALL]),
        ('{"name": "list_files"}', [LISTED]),
        ("[\n" + READ + "\n]", [CALL]),
        ("[ " + READ + "]", [CALL]),
        # JSON that is nearly one
        ("<tool_call>\n{name: 'Read', arguments: {'file_path': 'a.py',},}\n</tool_call>", [CALL]),
        ("<tool_call>\n```json\n" + READ + "\n```\n</tool_call>", [CALL]),
        ("<tool_call>:" + READ, [CALL]),
        ("<tool_call>" + READ[:-1] + "</tool_call>\n<tool_call>" + READ + "</tool_call>", [CALL, CALL]),
        ("<tool_call>" + READ[:-1], [CALL]),
        ('<tool_call>{"name": "Bash", "arguments": {"command": "echo "hi""}}</tool_call>', [BASH]),
        ('<tool_call>{"name": "Bash", "arguments": {"command": "echo "hi""}}', [BASH]),
        ('<tool_call>{"name": "Bash", "arguments": {"command": "echo "{}" </tool_call>"}}</tool_call>',
         [("Bash", {"command": 'echo "{}" </tool_call>'})]),
        ("[TOOL CALL]\n{'name': 'Read', 'arguments': {'file_path': 'a.py'}}\n[TOOL CALL]\n" + READ, [CALL, CALL]),
        ("{'name': 'Read', 'arguments': {'file_path': 'a.py'}}\n{'name': 'Read', 'arguments': {'file_path': 'a.py'}}",
         [CALL, CALL]),
        (READ + "}}\n[[end 7f3a]]", [CALL]),
        (READ + "\n</tool_cal", [CALL]),
        (READ + "\n```\n" + READ, [CALL, CALL]),
        ("<tool_call>\n<tool_call>\n" + READ + "\n</tool_call>\n</tool_call>", [CALL]),
        ("<tool_call>\n<tool_call>\n<function=Read><parameter=file_path>a.py</parameter></function>", [CALL]),
        ("call>\n" + READ + "\n</tool_call>", [CALL]),
        ("ool_call>" + READ, [CALL]),
        ("{ // one\n # two\n /* three */ " + READ[1:], [CALL]),
        # fences around the whole answer
        ("```json\n" + READ + "\n```\n```json\n" + READ + "\n```", [CALL, CALL]),
        ("```\n" + READ + "\n```\n[[call 7f3a list_files]]\n[[end 7f3a]]", [CALL, LISTED]),
        ("```xml\n<tool_call>" + READ + "</tool_call>\n```\n\n", [CALL]),
        ("```json\n{'name': 'Read', 'arguments': {'file_path': 'a.py'}}\n```", [CALL]),
        ("```json\n" + READ[:-1] + "\n```", [CALL]),
        ("```json\n" + READ + "\n``", [CALL]),
        ('{"name": "Bash", "arguments": {"command": "' + "x" * 9000 + '"}}', [("Bash", {"command": "x" * 9000})]),
        # tags
        ("<function=Read>\n<parameter=file_path>\na.py\n</parameter>\n</tool_call>", [CALL]),
        ("<tool_call><function=Read><parameter=file_path>a.py</parameter></function></tool_call>", [CALL]),
        ("<function=Bash><parameter=command><parameter=x></parameter></function>",
         [("Bash", {"command": "<parameter=x>"})]),
        ("<function=Bash><parameter=command>a</parameter>b</parameter></function>",
         [("Bash", {"command": "a</parameter>b"})]),
        ("<function=Bash><parameter=command>x <parameter=y>z</parameter></function> w</parameter></function>",
         [("Bash", {"command": "x <parameter=y>z</parameter></function> w"})]),
        ("<function=list_files>\n</function>\n</function>\n</tool_call>", [LISTED]),
        ("<tool_call><invoke name='read'>\n<parameter name='file_path'>a.py</parameter></invoke></tool_call>", [CALL]),
        ('<invoke name="Read"><parameter name="file_path"><![CDATA[a]]]]><![CDATA[>b]]></parameter></invoke>',
         [("Read", {"file_path": "a]]>b"})]),
    ],
)  # fmt: skip
def test_recovered(text: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    reply = read(text)
    assert (reply.calls, reply.text) == (calls, "")
    assert not reply.report.invalid


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call> opens a call.",
        "<tool_call>" + " " * 200,
        "<tool_call>",
        "<tool_call><b>x</b></tool_call>",
        "<tool_call><func",
        "<tool_call>[1, 2]</tool_call>",
        '<tool_call>["a"]</tool_call>',
        '<tool_call>{"url": 1}</tool_call>',
        "<tool_call>" + "{" + " " * 300 + "}",
        '<tool_call>{"name": "Nope", "arguments": {"x": 1}}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>[{"name": "Read", "arguments": {"file_path": "a"}}, {"x": 1}]</tool_call>',
        '<tool_call>[{"name": "Read", "arguments": {"file_path": "a"}}, 1]</tool_call>',
        "<tool_call>{'name': 'Nope', 'arguments': {'x': 1}}</tool_call>",
        "[TOOL CALL] is written before it.",
        "[TOOL CALL]",
        '{"name": "x" , "age": 5}',
        '{"answer": 42}',
        "{}",
        "{",
        '{"',
        '{"name',
        "{\n  code\n}",
        "[1]",
        "[x](y)",
        '[{"a": 1}]',
        "[",
        '{"name": "' + "x" * 9000 + '"}',
        "<function=Nope>\n<parameter=x>\n1\n</parameter>\n</function>",
        "<function=Nope>\n" + "x" * 2000,
        "<function>" + "x" * 2000,
        "<function=\n" + "x" * 2000,
        "<function_calls>\n" + "x" * 2000,
        "<invoke of something>",
        '<invoke name="Nope">\n</invoke>\nSo.',
        "```json\n" + READ + "\n```\nThat is how.",
        "```json\n" + READ + "\n``` and",
        "```json\n" + READ + "\n```" + "\n" * 1200,
        "```json\n{}\n```",
        "```json\n{",
        "```json\n" + READ + "\n```\n<tool_c",
        '<tool_call>{"name": "Read", "arguments": {"limit": 1e999}}</tool_call>',
        "```\n" + "x" * 200,
        "``` " + "x" * 200 + "\n<tool_call>" + READ + "</tool_call>\n```" if False else "~~~ ~~~",
        "```\n\nx",
        "```\n",
        "```",
        "`` `x` ``\n`y",
        "a\n```x`y\nz",
        "So:\n\n```\n<tool_call>\n<function=Read>\n<parameter=file_path>\na\n</parameter>\n</function>\n</tool_call>\n\n"
        "And:\n\n```\n<tool_call>\n<function=Read>\n<parameter=file_path>\na\n</parameter>\n</function>\n</tool_call>\nx",
        "<example>\n<tool_call>" + READ + "</tool_call>\n</example>\nx",
        "<pre>a</pre>\n<prefix>\n<code",
        "<example>\n</exam\n</examples\n" + "</example " + "x" * 200,
        "<example " + "x" * 200,
        "[[call 0000 Write]]\n[[arg 0000 content]]\n<tool_call>" + READ + "</tool_call>\n[[end 0000]]\nx",
        "[[call 7f3b Nope]]\nx",
        "[[call Write]]\n[[arg content]]\n<tool_call>" + READ + "</tool_call>\n[[end]]\nx",
        "**[[end 7f3a]]**\n**bold**\n* item\n_x_\n**\n*******\n __[[x]]\n**[[call",
        "call me",
        "call> is half a tag",
        "{ / x",
        "[[call 7f3a " + "x" * 300 + "]]\n",
        "    [[call 7f3a Bash]]\n",
        "[[[[call 7f3a Bash]]\n",
        "```\n[[call 7f3b Bash]]\n[[arg 7f3b command]]\nx\n[[end 7f3b]]\n```" if False else "[[x]]\n",
    ],
)
def test_text(text: str) -> None:
    reply = read(text)
    assert (reply.calls, reply.text) == ([], text)
    assert not reply.report.invalid


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "Read", "arguments": {"limit": 1}}</tool_call>',
        '<tool_call>{"name": "Read", "arguments": {"file_path": "a',
        '<tool_call>{"name": "Read", "arguments": {\'file_path\' <>}}</tool_call>\nSo.',
        '{"name": "Read", "arguments": {"file_path": 1e999, "x": ',
        "<function=Read>\n<parameter=limit>\n1\n</parameter>\n</function>",
        "<function=Read>\n<parameter=file_path>\na",
        '<invoke name="Read"><parameter name="file_path"><![CDATA[a</parameter></invoke>',
        '<invoke name="Read"><parameter name="file_path"><![CDATA[a]]>b</parameter></invoke>',
        '<invoke name="Read">x</invoke>',
    ],
)
def test_invalid(text: str) -> None:
    reply = read(text)
    assert (reply.events, len(reply.report.invalid)) == ([], 1)
    assert reply.report.unsent == text


def test_pages_of_the_documentation_make_no_call() -> None:
    for page in Path("docs").glob("*.md"):
        text = page.read_text()
        read_page = reading(nonce="c0de")
        reply = Reply([text], read_page)
        assert (reply.calls, reply.text) == ([], text), page
        assert not reply.report.invalid, page


def test_a_damaged_call_is_tried_with_so_many_ends_alone() -> None:
    marks = "</tool_call>" * 40
    reply = read('<tool_call>{"name": "Bash", "arguments": {"command": "a "b" ' + marks + '"}}</tool_call>')
    assert (reply.calls, len(reply.report.invalid)) == ([], 1)


def test_a_call_right_under_a_code_block_counts_if_nothing_follows() -> None:
    text = "```python\nx = 1\n```\n<tool_call>" + READ + "</tool_call>"
    assert (read(text).calls, read(text).text) == ([CALL], "```python\nx = 1\n```")
    assert (read(f"{text}\nx").calls, read(f"{text}\nx").text) == ([], f"{text}\nx")


def test_a_string_that_may_go_on_is_not_closed_with_its_brackets() -> None:
    reply = read('<tool_call>{"name": "Bash", "arguments": {"command": "echo "{}"</tool_call>')
    assert (reply.calls, len(reply.report.invalid)) == ([], 1)


def test_a_value_that_was_cut_within_a_mark_is_no_call() -> None:
    text = '<tool_call>\n{"name":"Bash","arguments":{"command":"line 1\\n</tool_call>\\nline 2 is cut he'
    reply = read(text)
    assert (reply.calls, reply.report.cut) == ([], True)


def test_calls_that_a_broken_one_holds_are_not_made() -> None:
    reply = read(f'<invoke name="Write">\n<parameter name="content">\n<tool_call>\n{READ}\n</tool_call>\n')
    assert (reply.calls, len(reply.report.invalid)) == ([], 1)


def test_a_cut_call_behind_another_is_told() -> None:
    reply = read("<function=list_files>\n</function>\n<function=Write>\n<parameter=content>\nab")
    assert (len(reply.calls), reply.report.cut, reply.report.dropped) == (1, True, {"invalid": 1})
