"""`stop` and `max_tokens`, on plain cases; tests/properties/test_limits.py has every split."""

import pytest

from qwen_proxy.chat.events import (
    Batch,
    Finish,
    FinishReason,
    MediaKind,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    Source,
    SourcesFound,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
    merged,
)
from qwen_proxy.gateway.limits import SEGMENT_CHARACTERS, Limiter, segments

ENDED = Finish(FinishReason.STOP)
CUT = Finish(FinishReason.LENGTH)
USED = Usage(prompt_tokens=1, completion_tokens=1)


class ByteTokens:
    """A token is one byte, so the numbers in these tests can be seen; it notes what it was asked."""

    def __init__(self) -> None:
        self.counted: list[str] = []

    def count(self, text: str) -> int:
        self.counted.append(text)
        return len(text.encode())

    def cut(self, text: str, tokens: int) -> str:
        return text.encode()[:tokens].decode(errors="ignore")


class WordTokens:
    """A token is a segment's word, of whatever length."""

    def count(self, text: str) -> int:
        return 1 if text else 0

    def cut(self, text: str, tokens: int) -> str:
        return text if tokens else ""


def limited(*batches: Batch, stop: tuple[str, ...] = (), max_tokens: int | None = None) -> list[Batch]:
    limiter = Limiter(stop, max_tokens, ByteTokens())
    return [limiter.apply(batch) for batch in batches]


def texts(*pieces: str) -> list[Batch]:
    return [[TextDelta(piece)] for piece in pieces]


def test_text_before_a_stop_sequence_is_kept_and_the_rest_is_dropped():
    assert limited([TextDelta("one END two"), ENDED], stop=("END",)) == [
        [TextDelta("one "), Finish(FinishReason.STOP, "END")]
    ]


def test_only_what_may_become_a_stop_sequence_is_held_back():
    assert limited(*texts("one E", "N", "x", "END", "y"), stop=("END",)) == [
        [TextDelta("one ")],
        [],
        [TextDelta("ENx")],
        [Finish(FinishReason.STOP, "END")],
        [],
    ]


def test_a_stop_sequence_that_overlaps_itself_is_found():
    assert limited(*texts("aca", "bab"), stop=("abab",)) == [[TextDelta("ac")], [Finish(FinishReason.STOP, "abab")]]
    assert limited(*texts("aa", "ab"), stop=("aab",)) == [[], [TextDelta("a"), Finish(FinishReason.STOP, "aab")]]


def test_the_sequence_that_is_complete_first_ends_the_reply():
    assert limited([TextDelta("one two")], stop=("e", "two")) == [[TextDelta("on"), Finish(FinishReason.STOP, "e")]]
    assert limited([TextDelta("xabc")], stop=("abc", "b")) == [[TextDelta("xa"), Finish(FinishReason.STOP, "b")]]


def test_of_two_sequences_that_end_together_the_longer_is_taken():
    assert limited([TextDelta("xabc")], stop=("bc", "abc")) == [[TextDelta("x"), Finish(FinishReason.STOP, "abc")]]


def test_what_was_held_back_passes_before_the_upstreams_own_end():
    assert limited(*texts("one EN"), [USED], [ENDED], stop=("END",)) == [
        [TextDelta("one ")],
        [TextDelta("EN"), USED],
        [ENDED],
    ]


@pytest.mark.parametrize(
    "event", [ReasoningDelta("hm"), ToolCallStart("c", "f"), MediaOutput(MediaKind.IMAGE, "https://x")]
)
def test_a_stop_sequence_does_not_reach_over_another_part(event: ReasoningDelta | ToolCallStart | MediaOutput):
    assert limited([TextDelta("EN"), event, TextDelta("D")], stop=("END",)) == [
        [TextDelta("EN"), event, TextDelta("D")]
    ]


def test_events_that_are_no_text_pass_untouched():
    events: Batch = [
        ReplyStart("r"),
        ReasoningDelta("END and much more than the budget"),
        SourcesFound((Source("https://x"),)),
        ToolCallStart("c", "f"),
        ToolArgumentsDelta("{}"),
        USED,
        ENDED,
    ]
    assert limited(events, stop=("END",), max_tokens=1) == [events]


def test_sources_do_not_wait_for_text_that_is_held_back():
    found = SourcesFound((Source("https://x"),))
    assert limited([TextDelta("E"), found, TextDelta("ND")], stop=("END",)) == [
        [found, Finish(FinishReason.STOP, "END")]
    ]


def test_done_says_that_a_limit_ended_the_reply():
    limiter = Limiter(("END",), None, ByteTokens())
    limiter.apply([TextDelta("one")])
    assert not limiter.done
    limiter.apply([TextDelta("END")])
    assert limiter.done
    assert limiter.apply([TextDelta("two"), USED, ENDED]) == []


def test_exactly_the_first_tokens_are_kept():
    (kept,) = limited([TextDelta("one two"), ENDED], max_tokens=5)
    assert merged(kept) == [TextDelta("one t"), CUT]


def test_a_reply_as_long_as_the_budget_ends_as_the_upstream_ended_it():
    assert limited([TextDelta("one")], [TextDelta(""), ENDED], max_tokens=3) == [[TextDelta("one")], [ENDED]]


def test_a_budget_of_nothing_ends_the_reply_at_its_first_text():
    assert limited([ReplyStart(), TextDelta("a"), ENDED], max_tokens=0) == [[ReplyStart(), CUT]]


def test_a_character_of_several_tokens_is_kept_whole_or_not_at_all():
    assert limited([TextDelta("aé"), ENDED], max_tokens=2) == [[TextDelta("a"), CUT]]


def test_nothing_is_counted_while_the_bytes_do_not_exceed_the_budget():
    counter = ByteTokens()
    limiter = Limiter((), 10, counter)
    assert limiter.apply([TextDelta("0123456789"), ENDED]) == [TextDelta("0123456789"), ENDED]
    assert counter.counted == []


def test_text_passes_at_once_while_it_surely_fits_and_then_waits_for_its_segment():
    limiter = Limiter((), 4, WordTokens())
    passed = [limiter.apply(batch) for batch in texts("one", " t", "wo", " three", " four", " five")]
    assert passed == [
        [TextDelta("one")],
        [TextDelta(" t")],  # "one" is counted: three tokens are left for two bytes
        [],
        [TextDelta("wo")],
        [TextDelta(" three")],
        [TextDelta(" four"), CUT],
    ]


def test_what_ends_a_run_of_text_ends_its_segment():
    counter = ByteTokens()
    limiter = Limiter((), 4, counter)
    first: Batch = [TextDelta("ab"), ReasoningDelta("hm")]
    assert limiter.apply(first) == first
    assert limiter.apply([TextDelta("cde")]) == []
    assert limiter.apply([ENDED]) == [TextDelta("cd"), CUT]
    assert counter.counted == ["ab", "cde"]


def test_the_budget_ends_a_reply_before_a_later_stop_sequence():
    assert limited([TextDelta("one two END")], stop=("END",), max_tokens=4) == [[TextDelta("one "), CUT]]


def test_a_stop_sequence_ends_a_reply_before_the_budget_does():
    assert limited([TextDelta("oneEND two three")], stop=("END",), max_tokens=4) == [
        [TextDelta("one"), Finish(FinishReason.STOP, "END")]
    ]


def test_a_stop_sequence_right_behind_the_last_token_is_a_stop():
    assert limited([TextDelta("oneEND")], stop=("END",), max_tokens=3) == [
        [TextDelta("one"), Finish(FinishReason.STOP, "END")]
    ]


def test_what_was_held_back_for_a_stop_sequence_counts_when_it_passes():
    assert limited([TextDelta("one E"), USED, ENDED], stop=("END",), max_tokens=4) == [[TextDelta("one "), CUT]]


def test_a_segment_ends_before_whitespace_and_after_64_characters():
    word = "x" * (SEGMENT_CHARACTERS + 1)
    assert segments(f" one\n two {word} ", whole=False) == [" one", "\n two", f" {word[:63]}", "xx"]
    assert segments(f"two {word} ", whole=True) == ["two", f" {word[:63]}", "xx", " "]
    assert segments("x" * SEGMENT_CHARACTERS, whole=False) == ["x" * SEGMENT_CHARACTERS]
    assert segments("", whole=True) == []
