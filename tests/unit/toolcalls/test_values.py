"""JSON as arguments need it."""

import pytest

from qwen_proxy.toolcalls.values import Joiner, NotJson, decode, decode_strictly, encode, without_lone_surrogates


def test_valid_json_keeps_its_text() -> None:
    assert decode(' {"a": 1.50, "b":1e400}\n').text == '{"a": 1.50, "b":1e400}'


def test_of_equal_keys_the_first_counts() -> None:
    decoded = decode('{"a": 1, "b": {"c": 2, "c": 3}, "a": 4}')
    assert decoded == ({"a": 1, "b": {"c": 2}}, '{"a":1,"b":{"c":2}}', ("duplicate_key",))


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", "[" * 70 + "]" * 70, "[" * 100_000, '"a\nb"', "1 2"])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(NotJson):
        decode(text)
    assert decode_strictly(text) == text


def test_control_characters_may_be_let_pass() -> None:
    assert decode('"a\nb\t"', control_characters=True) == ("a\nb\t", '"a\\nb\\t"', ("control_characters",))


def test_halves_of_pairs_are_joined_or_replaced() -> None:
    assert decode('["\\ud83d\\ude00"]') == (["😀"], '["\\ud83d\\ude00"]', ())
    assert decode('{"\\ud83d": "x\\ude00"}') == ({"\ufffd": "x\ufffd"}, '{"\ufffd":"x\ufffd"}', ("surrogate",))
    assert without_lone_surrogates([1, "\ud83d"]) == [1, "\ufffd"]


def test_an_infinite_number_is_no_json() -> None:
    with pytest.raises(NotJson):
        encode([1e999])


def test_pairs_that_pieces_cut_are_joined() -> None:
    joiner = Joiner()
    assert [joiner.feed(piece) for piece in ("a\ud83d", "\ude00b", "ü", "\ud83d", "x")] == [
        "a",
        "😀b",
        "ü",
        "",
        "\ufffdx",
    ]
    assert (joiner.feed("\ud83d"), joiner.finish(), joiner.finish()) == ("", "\ufffd", "")
