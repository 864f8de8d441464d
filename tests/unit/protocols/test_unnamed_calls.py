"""Calls that have no ids find their results."""

from qwen_proxy.protocols.unnamed_calls import CallNames


def test_a_result_is_of_the_first_open_call_of_its_tool() -> None:
    names = CallNames()
    assert [names.called("read"), names.called("read"), names.called("write")] == ["call_1", "call_2", "call_3"]
    assert [names.answered("write"), names.answered("read"), names.answered("read")] == ["call_3", "call_1", "call_2"]
    assert names.answered("read") == "read"


def test_an_id_of_the_clients_own_stays() -> None:
    names = CallNames()
    assert (names.called("read", "a"), names.called("read")) == ("a", "call_2")
    assert names.answered("", "a") == "a"
    assert names.answered("read", "unknown") == "unknown"
    assert names.answered("read") == "call_2"


def test_a_result_without_a_word_is_of_a_call_that_is_open() -> None:
    names = CallNames()
    assert names.answered("") == ""
    names.called("read")
    assert (names.answered(""), names.answered("")) == ("call_1", "")
