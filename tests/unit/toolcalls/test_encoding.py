"""Calls and results as the history shows them."""

import pytest

from qwen_proxy.toolcalls.encoding import encode_call, encode_result
from qwen_proxy.toolcalls.form import MARKERS
from tests.support.calls import TOOLBOX, read


def encoded(name: str, arguments: str) -> str:
    return encode_call(MARKERS, "7f3a", TOOLBOX, name, arguments)


def test_strings_are_raw_and_the_rest_is_json() -> None:
    assert encoded("Read", '{"file_path": "a\\n\\"b\\"", "limit": 5}') == (
        '[[call 7f3a Read]]\n[[arg 7f3a file_path]]\na\n"b"\n[[arg 7f3a limit]]\n5\n[[end 7f3a]]'
    )


def test_a_tool_that_is_not_offered_has_everything_as_json() -> None:
    assert encoded("Gone", '{"a": "ü"}') == '[[call 7f3a Gone]]\n[[arg 7f3a a]]\n"ü"\n[[end 7f3a]]'


@pytest.mark.parametrize("arguments", ["", "  ", "{}"])
def test_no_arguments(arguments: str) -> None:
    assert encoded("list_files", arguments) == "[[call 7f3a list_files]]\n[[end 7f3a]]"


@pytest.mark.parametrize("arguments", ["{broken", "[1]", '{"a]]": 1}', '{"": 1}', '{" a": 1}', '{"a\\nb": 1}'])
def test_what_has_no_place_on_marker_lines_stands_as_it_is(arguments: str) -> None:
    assert encoded("list_files", arguments) == f"[[call 7f3a list_files]]\n{arguments}\n[[end 7f3a]]"


def test_odd_keys_are_read_back() -> None:
    assert read(encoded("list_files", '{"a]]": "x\\n"}')).calls == [("list_files", {"a]]": "x\n"})]


def test_results_tell_their_number_and_failure() -> None:
    assert encode_result(MARKERS, "7f3a", 3, "Read", "text\n") == "[[result 7f3a #3 Read]]\ntext\n\n[[end 7f3a]]"
    assert (
        encode_result(MARKERS, "7f3a", 3, "Read", "", is_error=True) == "[[result 7f3a #3 Read error]]\n\n[[end 7f3a]]"
    )
