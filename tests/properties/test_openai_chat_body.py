"""Whatever bytes come as a chat completions request: a call, or an InvalidRequest that names the field."""

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.protocols.base import Incoming, ParseOptions
from qwen_proxy.protocols.openai_chat import ChatCall, OpenAIChat
from qwen_proxy.protocols.openai_chat_body import (
    ChatBody,
    FunctionBody,
    MessageBody,
    PartBody,
    ToolBody,
    ToolCallBody,
    ToolChoiceBody,
)

SHAPES = (ChatBody, FunctionBody, MessageBody, PartBody, ToolBody, ToolCallBody, ToolChoiceBody)
FIELDS = sorted({name for shape in SHAPES for name in shape.__struct_fields__})
WORDS = st.sampled_from(
    [
        "user",
        "assistant",
        "tool",
        "text",
        "image_url",
        "video",
        "file",
        "function",
        "auto",
        "true",
        "https://x",
        "data:,",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=4),
    max_leaves=25,
)
MESSAGE: dict[str, st.SearchStrategy[object]] = {"content": JSON, "tool_calls": JSON, "tool_call_id": st.text()}
MESSAGES = st.lists(st.fixed_dictionaries({"role": WORDS}, optional=MESSAGE), max_size=3)
OTHERS: dict[str, st.SearchStrategy[object]] = dict.fromkeys(ChatBody.__struct_fields__[1:], JSON)
BODIES = st.fixed_dictionaries({"messages": MESSAGES | JSON}, optional=OTHERS)


def outcome(body: bytes) -> ChatCall | InvalidRequest:
    try:
        return OpenAIChat().parse(Incoming(path="", query={}, headers={}, body=body), ParseOptions())
    except InvalidRequest as error:
        return error


@given(BODIES)
def test_any_json_is_taken_or_refused_by_name(body: dict[str, object]):
    given_names = {*body, "messages"}
    told = outcome(msgspec.json.encode(body))
    if isinstance(told, InvalidRequest):
        assert told.param is not None
        assert told.param.replace("[", ".").split(".")[0] in given_names


@given(st.binary() | st.binary().map(lambda junk: b'{"messages":[{"role":"user","content":"' + junk + b'"}]}'))
@example(b'{"messages":[{"role":"user","content":""}],"n":' + b"9" * 5000 + b"}")
@example(b'{"messages":[{"role":"user","content":""}],"seed":' + b"9" * 5000 + b"}")
@example(b'{"messages":[{"role":"user","content":""}],"temperature":1e999}')
@example(b'{"messages":[{"role":"user","content":""}],"temperature":' + b"9" * 5000 + b"}")
@example(b'{"messages":[{"role":"user","content":""}],"x":' + b"9" * 5000 + b"}")
def test_any_bytes_are_taken_or_refused(body: bytes):
    assert isinstance(outcome(body), ChatCall | InvalidRequest)
