"""`stop` and `max_tokens` give one result, however the text is cut into deltas and batches."""

from hypothesis import example, given
from hypothesis import strategies as st

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
    Finish,
    FinishReason,
    ReasoningDelta,
    ReplyStart,
    Source,
    SourcesFound,
    TextDelta,
)
from qwen_proxy.chat.grammar import Grammar
from qwen_proxy.chat.result import ChatResult, Folder
from qwen_proxy.gateway.limits import SEGMENT_CHARACTERS, Limiter

FEW = "ab \né"
SOME_TEXT = st.text(FEW, max_size=40) | st.text("x", min_size=55, max_size=140) | st.text(max_size=20)
STOPS = st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3, unique=True).map(tuple)
BUDGETS = st.none() | st.integers(0, 60)


class StrideTokens:
    """A token is so many bytes, counted from a text's start."""

    def __init__(self, stride: int) -> None:
        self._stride = stride

    def count(self, text: str) -> int:
        return -(-len(text.encode()) // self._stride)

    def cut(self, text: str, tokens: int) -> str:
        return text.encode()[: tokens * self._stride].decode(errors="ignore")


def result(limiter: Limiter, batches: list[Batch]) -> ChatResult:
    """What a client gets, after a check that it is a legal reply which ends when `done` is said."""
    folder, grammar = Folder(), Grammar()
    for batch in batches:
        was_done = limiter.done
        kept = limiter.apply(batch)
        assert not (was_done and kept)
        grammar.feed(kept)
        folder.feed(kept)
    grammar.finish()
    return folder.result()


def expected(text: str, stop: tuple[str, ...], max_tokens: int | None, counter: StrideTokens) -> tuple[str, Finish]:
    """The rules of gateway/limits.py on a whole text, one character at a time."""
    end, finish = len(text), Finish(FinishReason.STOP)
    for until in range(len(text) + 1):
        found = [sequence for sequence in stop if text[:until].endswith(sequence)]
        if found:
            longest = max(found, key=len)
            end, finish = until - len(longest), Finish(FinishReason.STOP, longest)
            break
    text, left, kept = text[:end], max_tokens, ""
    while text and left is not None:
        size = 1
        while size < min(len(text), SEGMENT_CHARACTERS) and (not text[size].isspace() or text[:size].isspace()):
            size += 1
        segment, text = text[:size], text[size:]
        if counter.count(segment) > left:
            return kept + counter.cut(segment, left), Finish(FinishReason.LENGTH)
        left -= counter.count(segment)
        kept += segment
    return kept + text, finish


def split(data: st.DataObject, text: str) -> list[ChatEvent]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12), label="cuts"))
    return [TextDelta(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def batched(data: st.DataObject, events: list[ChatEvent]) -> list[Batch]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=6), label="batches"))
    return [events[a:b] for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]


@given(st.data(), SOME_TEXT, STOPS, BUDGETS, st.integers(1, 5))
def test_any_split_gives_what_the_rules_say_of_the_whole_text(
    data: st.DataObject, text: str, stop: tuple[str, ...], max_tokens: int | None, stride: int
):
    counter = StrideTokens(stride)
    events = [ReplyStart(), *split(data, text), Finish(FinishReason.STOP)]
    got = result(Limiter(stop, max_tokens, counter), batched(data, events))
    assert (got.text, got.finish) == expected(text, stop, max_tokens, counter)


@given(st.data(), st.lists(SOME_TEXT | st.sampled_from([1, 2]), max_size=6), STOPS, BUDGETS, st.integers(1, 5))
def test_other_events_between_do_not_make_the_split_matter(
    data: st.DataObject, parts: list[str | int], stop: tuple[str, ...], max_tokens: int | None, stride: int
):
    other: dict[int, ChatEvent] = {1: ReasoningDelta("hm"), 2: SourcesFound((Source("https://x"),))}
    whole: list[ChatEvent] = [TextDelta(part) if isinstance(part, str) else other[part] for part in parts]
    pieces: list[ChatEvent] = []
    for part in parts:
        pieces += split(data, part) if isinstance(part, str) else [other[part]]
    end = Finish(FinishReason.STOP)
    counter = StrideTokens(stride)
    at_once = result(Limiter(stop, max_tokens, counter), [[ReplyStart(), *whole, end]])
    in_pieces = result(Limiter(stop, max_tokens, counter), batched(data, [ReplyStart(), *pieces, end]))
    assert at_once == in_pieces


@given(SOME_TEXT, st.integers(0, 60), st.integers(1, 5))
@example("é" * 40, 10, 3)
def test_a_cut_reply_never_holds_more_bytes_than_its_tokens_can(text: str, max_tokens: int, stride: int):
    got = result(
        Limiter((), max_tokens, StrideTokens(stride)), [[ReplyStart(), TextDelta(text), Finish(FinishReason.STOP)]]
    )
    assert len(got.text.encode()) <= max_tokens * stride
    assert text.startswith(got.text)
