"""What a request may cost, estimated."""

from collections.abc import Sequence

import msgspec
import pytest

from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import (
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from qwen_proxy.gateway.sizing import ATTACHMENT_BYTES, BYTES_PER_TOKEN, Size, chat_size, tokens_in


def request(*parts: Part, max_tokens: int | None = None, tools: Sequence[Tool] = ()) -> ChatRequest:
    return ChatRequest(
        model=ModelName("m"),
        messages=(Message(Role.USER, parts), Message(Role.USER, (TextPart("abc"),))),
        sampling=Sampling(max_tokens=max_tokens),
        tools=tuple(tools),
    )


@pytest.mark.parametrize(("size_bytes", "tokens"), [(0, 0), (1, 1), (3, 1), (4, 2), (300, 100)])
def test_three_bytes_are_a_token(size_bytes: int, tokens: int) -> None:
    assert tokens_in(size_bytes) == tokens


@pytest.mark.parametrize(
    ("part", "size_bytes"),
    [
        (TextPart("x" * 30), 30),
        (TextPart("ключ"), 8),
        (TextPart("\ud800"), 3),
        (ReasoningPart("x" * 9), 9),
        (ToolCallPart("c", "abc", '{"x":1}'), 10),
        (ToolResultPart("c", (TextPart("x" * 6), ImagePart("http://x"))), 6 + ATTACHMENT_BYTES),
        (ImagePart("data:image/png;base64," + "A" * 10**6), ATTACHMENT_BYTES),
        (FilePart("document", "http://x"), ATTACHMENT_BYTES),
    ],
)
def test_a_prompt_is_as_long_as_its_bytes(part: Part, size_bytes: int) -> None:
    assert chat_size(request(part), 1) == Size(tokens_in(size_bytes + 3), None, 1)


def test_tools_are_a_part_of_the_prompt() -> None:
    tool = Tool(name="f", parameters={"type": "object"})
    plain = chat_size(request(), 1).prompt_tokens
    with_tool = chat_size(request(tools=[tool]), 1).prompt_tokens
    assert (with_tool - plain) * BYTES_PER_TOKEN == pytest.approx(len(msgspec.json.encode([tool])), abs=3)


def test_the_wished_length_and_number_of_replies_are_told() -> None:
    assert chat_size(request(max_tokens=7), 3) == Size(1, 7, 3)


def test_several_prompts_are_the_size_of_all() -> None:
    one, other = request(TextPart("x" * 30), max_tokens=7), request(TextPart("x" * 60), max_tokens=7)
    size = chat_size(one, 3, (other,))
    alone = [chat_size(each, 3).prompt_tokens for each in (one, other)]
    assert size == Size(sum(alone), 7, 6, 2)
    assert size.one_prompt_tokens == -(-sum(alone) // 2)
