"""Requests in our own words."""

import pytest

from qwen_proxy.chat.models import ModelName, Variant
from qwen_proxy.chat.request import ChatRequest, FilePart, ImagePart, Message, Reasoning, Role, TextPart, text_of


def test_the_text_of_a_message_is_its_text_parts_a_line_each():
    assert text_of(Message(Role.USER, (TextPart("a"), ImagePart("https://x"), TextPart("b")))) == "a\nb"
    assert text_of(Message(Role.USER, ())) == ""


@pytest.mark.parametrize(
    ("name", "wish", "thinks"),
    [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_what_the_client_says_of_thinking_stands_over_the_models_name(name: bool, wish: bool | None, thinks: bool):
    model = ModelName("q", Variant(thinking=name))
    assert ChatRequest(model=model, messages=(), reasoning=Reasoning(enabled=wish)).thinking is thinks


def test_where_a_picture_stood_makes_no_difference():
    here, there = ImagePart("https://x", place="messages[0].content[1]"), ImagePart("https://x")
    assert [here == there, here != there, hash(here) == hash(there)] == [True, False, True]
    assert here != ImagePart("https://y") and here != FilePart("document", "https://x") and here != "https://x"
    assert FilePart("audio", "https://x", "a", "here") == FilePart("audio", "https://x", "a")
    assert FilePart("audio", "https://x", "a") != FilePart("audio", "https://x", "b")
