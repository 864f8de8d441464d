"""What becomes of a reply's reads, however they are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.chat.events import (
    Batch,
    Finish,
    FinishReason,
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
from qwen_proxy.chat.request import Sampling
from qwen_proxy.config.choices import SearchInfo
from qwen_proxy.gateway.delivery import Delivery
from qwen_proxy.gateway.reply import ReplyShaper
from tests.support.counting import WordCounter

REPLY: Batch = [
    ReplyStart("r"),
    ReasoningDelta("hm"),
    ReasoningDelta("."),
    SourcesFound((Source("https://a"),)),
    TextDelta("one "),
    TextDelta("two "),
    TextDelta("three"),
    ToolCallStart("c", "T"),
    ToolArgumentsDelta("{}"),
    TextDelta("four "),
    ReasoningDelta("again"),
    TextDelta("five"),
    Usage(prompt_tokens=1, completion_tokens=2),
    Finish(FinishReason.STOP),
]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(max_tokens=100, stop=("six",))])
@pytest.mark.parametrize(
    "delivery",
    [
        Delivery(),
        Delivery(reasoning_in_content=True),
        Delivery(show_reasoning=False),
        Delivery(search_info=SearchInfo.TEXT),
    ],
)
@given(cuts=st.sets(st.integers(1, len(REPLY) - 1)))
def test_a_reply_is_the_same_however_its_reads_are_cut(delivery: Delivery, sampling: Sampling, cuts: set[int]):
    whole, whole_shaper = shaped([REPLY], delivery, sampling)
    pieces = [REPLY[start:end] for start, end in itertools.pairwise([0, *sorted(cuts), len(REPLY)])]
    cut, cut_shaper = shaped(pieces, delivery, sampling)
    assert merged(cut) == merged(whole)
    assert (cut_shaper.text, cut_shaper.reasoning) == (whole_shaper.text, whole_shaper.reasoning)
    assert cut_shaper.text == "one two threefour five"


def shaped(reads: list[Batch], delivery: Delivery, sampling: Sampling) -> tuple[Batch, ReplyShaper]:
    shaper = ReplyShaper(sampling, delivery, WordCounter())
    sent: Batch = []
    for read in reads:
        sent += shaper.take(read)
    assert shaper.usage is not None
    return sent + shaper.end(shaper.usage), shaper


@pytest.mark.parametrize("one_call", [True, False])
def test_calls_behind_the_first_are_dropped_where_one_is_wanted(one_call: bool) -> None:
    shaper = ReplyShaper(Sampling(), Delivery(), WordCounter(), one_call=one_call)
    first: Batch = [ToolCallStart("a", "T"), ToolArgumentsDelta("{}")]
    second: Batch = [ToolCallStart("b", "U"), ToolArgumentsDelta("[1")]
    told = shaper.take([*first, *second]) + shaper.take([ToolArgumentsDelta("]")])
    assert [event.call_id for event in told if isinstance(event, ToolCallStart)] == (["a"] if one_call else ["a", "b"])
    arguments = "".join(event.text for event in told if isinstance(event, ToolArgumentsDelta))
    assert (arguments, shaper.calls) == (("{}", "T{}") if one_call else ("{}[1]", "T{}U[1]"))
