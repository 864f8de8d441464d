"""Which conversation a request belongs to."""

import pytest

from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import ChatRequest, FilePart, ImagePart, Message, Part, Role, TextPart, ToolResultPart
from qwen_proxy.gateway.sessions import HEADERS, session_name

SYSTEM = Message(Role.SYSTEM, (TextPart("You are terse."),))
REPLY = Message(Role.ASSISTANT, (TextPart("Hello."),))


def user(*parts: Part | str) -> Message:
    return Message(Role.USER, tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def request(*messages: Message, model: str = "qwen3.7-plus") -> ChatRequest:
    return ChatRequest(model=ModelName(model), messages=messages)


def name(*messages: Message, key: str = "k", headers: dict[str, str] | None = None, said: str = "") -> str:
    return session_name(key, headers or {}, said, request(*messages or (user("Hi"),)))


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_names_the_session(header: str) -> None:
    named = name(headers={header: "one"})
    assert named == name(user("Something else"), headers={header: " one "}, said="other")
    assert named != name(headers={header: "two"})


def test_headers_go_before_the_body_and_the_body_before_what_was_said() -> None:
    both = name(headers={"x-session-id": "a", "x-qwen-proxy-session": "b"})
    assert both == name(headers={"x-session-id": "b"})
    assert name(said="c") == name(user("Else"), said="c") == name(headers={"session-id": "c"})
    assert len({both, name(said="c"), name()}) == 3


@pytest.mark.parametrize("nothing", ["", "  ", "null", "undefined", "None"])
def test_what_a_program_writes_that_has_no_name_is_none(nothing: str) -> None:
    assert name(headers={"x-session-id": nothing}, said=nothing) == name()


def test_a_conversation_keeps_its_name_as_it_grows() -> None:
    first = name(SYSTEM, user("Hi"))
    assert first == name(SYSTEM, user("Hi"), REPLY, user("And now?"))
    assert len(first) == 32


def test_conversations_differ_by_their_system_text_their_whole_first_message_and_their_model() -> None:
    pages = "the same pages " * 1000
    names = {
        name(SYSTEM, user(pages + "a")),
        name(SYSTEM, user(pages + "b")),
        name(user(pages + "a")),
        name(user(pages, "a")),
        session_name("k", {}, "", request(SYSTEM, user(pages + "a"), model="qwen3-max")),
        name(user("Look", ImagePart("data:image/png;base64,AAAA"))),
        name(user("Look", ImagePart("data:image/png;base64,BBBB"))),
        name(user("Look", FilePart("document", "https://x.org/a.pdf"))),
    }
    assert len(names) == 8


def test_nobody_shares_a_session_with_another_key() -> None:
    headers = {"x-session-id": "one"}
    assert len({name(key=key, headers=each) for key in ("a", "b") for each in ({}, headers)}) == 4
    assert name(key="a", said="one") != name(key="a", said="", headers={}) != name(key="aone", said="")


@pytest.mark.parametrize(
    "messages",
    [(SYSTEM,), (SYSTEM, REPLY), (user(),), (user("", " \n"),), (user(ToolResultPart("call", (TextPart("4"),))),)],
)
def test_where_nobody_said_anything_there_is_no_session(messages: tuple[Message, ...]) -> None:
    assert name(*messages) == ""
    assert name(*messages, said="s") != ""


def test_half_characters_are_no_error() -> None:
    assert len(name(user("\ud800"))) == 32
