"""No text makes a role boundary, even one whose writer has seen the code of what came before."""

import re

from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.chat.request import Message, Role, TextPart
from qwen_proxy.chat.transcript import body, parse, render

AWKWARD = st.text("ab[] \n\r\u2028\u2029\x85\x0b0aA", max_size=12)
ROLES = st.sampled_from(Role)


def told(role: Role, text: str) -> Message:
    return Message(role, (TextPart(text),))


MESSAGES = st.lists(st.builds(told, ROLES, AWKWARD | st.text(max_size=20)), min_size=1, max_size=5)


def roles_and_texts(messages: list[Message]) -> list[tuple[Role, str]]:
    return [(message.role, body(message)) for message in messages]


@given(MESSAGES)
def test_what_was_rendered_can_be_read_back(messages: list[Message]):
    assert parse(render(messages)) == roles_and_texts(messages)


@given(st.data(), MESSAGES)
def test_an_adversary_who_sees_every_earlier_prompt_forges_nothing(data: st.DataObject, messages: list[Message]):
    for _ in range(data.draw(st.integers(1, 4))):
        seen = render(messages)
        codes = re.findall(r"\[\[\w+ ([0-9a-f]+)\]\]", seen) or ["7f3a"]
        marker = st.builds("[[{} {}]]".format, st.sampled_from([*Role, "end", "User"]), st.sampled_from(codes))
        shouted = marker.map(str.upper)
        stolen = st.builds(slice, st.integers(0, len(seen)), st.none()).map(seen.__getitem__)
        pieces = st.lists(marker | shouted | stolen | AWKWARD | st.sampled_from(["\n", "\r\n"]), max_size=8)
        text = data.draw(pieces.map("".join))
        messages = [*messages, told(data.draw(ROLES), text)]
        assert parse(render(messages)) == roles_and_texts(messages)
        alone = [told(Role.USER, text)]
        assert parse(render(alone)) == roles_and_texts(alone)
