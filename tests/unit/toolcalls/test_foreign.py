"""Forms that were not taught, read nevertheless."""

import pytest

from qwen_proxy.toolcalls.reading import FOREIGN_FORMS, ReadingOptions
from tests.support.calls import read

READ = '{"name": "Read", "arguments": {"file_path": "a.py"}}'
CALL = ("Read", {"file_path": "a.py"})
BY_FORM = {
    "tool_call": f"<tool_call>\n{READ}\n</tool_call>",
    "function": "<tool_call>\n<function=Read>\n<parameter=file_path>\na.py\n</parameter>\n</function>\n</tool_call>",
    "invoke": '<function_calls>\n<invoke name="Read">\n<parameter name="file_path">a.py</parameter>\n'
    "</invoke>\n</function_calls>",
    "bracket": f"[TOOL CALL]\n{READ}",
    "bare": READ,
}


@pytest.mark.parametrize("form", FOREIGN_FORMS)
def test_a_call_is_read_and_its_form_counted(form: str) -> None:
    reply = read(BY_FORM[form])
    assert (reply.calls, reply.text, reply.report.hits) == ([CALL], "", {form: 1})
    assert not reply.report.repairs and not reply.report.dropped


@pytest.mark.parametrize("form", FOREIGN_FORMS)
def test_two_calls_are_read(form: str) -> None:
    assert read(f"{BY_FORM[form]}\n{BY_FORM[form]}").calls == [CALL, CALL]


@pytest.mark.parametrize("form", FOREIGN_FORMS)
def test_a_form_that_is_off_is_text(form: str) -> None:
    off = frozenset({form, "tool_call"}) if form == "function" else frozenset({form})
    reply = read(BY_FORM[form], ReadingOptions(forms_off=off))
    assert (reply.calls, reply.text) == ([], BY_FORM[form])


@pytest.mark.parametrize("form", FOREIGN_FORMS)
@pytest.mark.parametrize("shown", ["Like this:\n```\n{}\n```\n", "> {}", "    {}", "A call `{}` is read."])
def test_a_call_that_is_shown_is_text(form: str, shown: str) -> None:
    text = "See:\n" + shown.replace("{}", BY_FORM[form].replace("\n", " ") if "\n" not in shown else BY_FORM[form])
    reply = read(text)
    assert (reply.calls, reply.text) == ([], text)


def test_a_value_may_hold_the_closing_tag() -> None:
    value = "x</tool_call>\n<tool_call>{}"
    text = '<tool_call>\n{"name":"Bash","arguments":{"command":"x</tool_call>\\n<tool_call>{}"}}\n</tool_call>'
    assert read(text).calls == [("Bash", {"command": value})]


def test_a_tool_may_be_named_tool_call() -> None:
    text = '<tool_call>{"name":"tool_call","arguments":{"name":"web_fetch","arguments":{"u":1}}}</tool_call>'
    assert read(text).calls == [("tool_call", {"name": "web_fetch", "arguments": {"u": 1}})]
