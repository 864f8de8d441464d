"""JSON out of text that is nearly one."""

from typing import Any

import pytest

from qwen_proxy.toolcalls.repair import repaired
from qwen_proxy.toolcalls.values import NotJson


@pytest.mark.parametrize(
    ("text", "value", "reasons"),
    [
        ('{"a": 1}', {"a": 1}, ()),
        ('```json\n{"a": 1}\n```', {"a": 1}, ("debris",)),
        ('~~~\n{"a": 1}', {"a": 1}, ("debris",)),
        ('{"a": 1}}', {"a": 1}, ("debris",)),
        ('{"a": [1]}]} ;', {"a": [1]}, ("debris",)),
        ('{"a": 1}}}}}}}}', {"a": 1}, ("debris",)),
        ('{"a": "x\ny"}', {"a": "x\ny"}, ("control_characters",)),
        ('{"a": {"b": [1', {"a": {"b": [1]}}, ("closed",)),
        ('{"a": [1}', {"a": [1]}, ("closed",)),
        ('{"a": ["x"]]', {"a": ["x"]}, ("closed", "debris")),
        ("{'a': 'it\\'s', 'b': \"x\"}", {"a": "it's", "b": "x"}, ("quotes",)),
        ("{'a': 'it's'}", {"a": "it's"}, ("quotes",)),
        ("{“a”: “x”}", {"a": "x"}, ("quotes",)),
        ("{a: `x`, b-c: 1}", {"a": "x", "b-c": 1}, ("quotes",)),
        ('{"a": """x "y" z"""}', {"a": 'x "y" z'}, ("quotes",)),
        ('{"a": "say "hi", then "go""}', {"a": 'say "hi", then "go"'}, ("quotes",)),
        ('{"a": "print("{x}")"}', {"a": 'print("{x}")'}, ("quotes",)),
        ('{"a": ["x "y" z", "w"]}', {"a": ['x "y" z', "w"]}, ("quotes",)),
        ('{"a": src/x.py, "b": 1}', {"a": "src/x.py", "b": 1}, ("quotes",)),
        ('{"a": 1,}', {"a": 1}, ("commas",)),
        ('{"a": [1,,2,],}', {"a": [1, 2]}, ("commas",)),
        ('{, "a": 1; "b": 2}', {"a": 1, "b": 2}, ("commas",)),
        ('{"a": "x" "b": 2}', {"a": "x", "b": 2}, ("commas",)),
        (
            '{"a": True, "b": None, "c": False, "d": undefined}',
            {"a": True, "b": None, "c": False, "d": None},
            ("literals",),
        ),
        ('{"a": "C:\\dir\\\\x\\u00e4\\u12"}', {"a": "C:\\dir\\xä\\u12"}, ("escapes",)),
        ('{"a": 1, // one\n "b": /* two */ 2}', {"a": 1, "b": 2}, ("comments",)),
        ('{"a": "x"} # done', {"a": "x"}, ("comments",)),
        ('{"a": 1} // done', {"a": 1}, ("comments",)),
        ('{"a" = 1, "b" => +2.5}', {"a": 1, "b": 2.5}, ()),
        ('{"a": true, "a": 2,}', {"a": True}, ("commas",)),
        ("'\\ud83d\\ude00'", "😀", ("quotes",)),
        ("{'a': 1}}", {"a": 1}, ("quotes", "debris")),
    ],
)
def test_repairs(text: str, value: Any, reasons: tuple[str, ...]) -> None:
    decoded = repaired(text)
    assert decoded.value == value
    assert decoded.repairs == reasons


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{a 1}",
        "{(: 2}",
        '{"a" 1}',
        '{"a":',
        "{'a': 1} and more",
        "[" * 70,
        "{'a': ]}",
        "/* open",
        "{'a': 1e999}",
        "}}",
    ],
)
def test_what_can_not_be_repaired(text: str) -> None:
    with pytest.raises(NotJson):
        repaired(text)


@pytest.mark.parametrize("text", ['{"a": "rm -rf /home/u', '{"a": [1', "{'a': 12"])
def test_nothing_is_closed_in_a_text_that_was_cut(text: str) -> None:
    with pytest.raises(NotJson):
        repaired(text, ended=False)


def test_brackets_are_closed_at_a_mark_but_no_string() -> None:
    assert repaired('{"a": ["x"').value == {"a": ["x"]}
    with pytest.raises(NotJson):
        repaired('{"a": "x')
