"""How reasoning and search results are delivered, by what the operator set."""

import pytest

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
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
from qwen_proxy.chat.grammar import Grammar
from qwen_proxy.gateway.delivery import Deliverer, Delivery, SearchInfo, block, of_json

ONE = SourcesFound((Source("https://a.example/1", "One", site="a.example"),))
TWO = SourcesFound((Source("https://b.example/2", "Two", site="b.example"),))
END = Finish(FinishReason.STOP)
USED = Usage(prompt_tokens=1, completion_tokens=1)
START = ReplyStart()
CALL = ToolCallStart("c1", "clock")
PICTURE = MediaOutput(MediaKind.IMAGE, "https://m.example/a")

TEXT_1 = "[1] [One](https://a.example/1) | source: a.example"
TEXT_2 = "[2] [Two](https://b.example/2) | source: b.example"
HEAD = "| **#** | **Site** | **Source** |\n|:---|:---|:---|\n"
TABLE_1 = f"{HEAD}| 1 | [One](https://a.example/1) | a.example |"
TABLE_2 = f"{HEAD}| 2 | [Two](https://b.example/2) | b.example |"

PLAIN = Delivery(search_info=SearchInfo.NONE)
HIDDEN = Delivery(show_reasoning=False, search_info=SearchInfo.NONE)
INLINE = Delivery(reasoning_in_content=True, search_info=SearchInfo.NONE)
TABLE = Delivery(search_info=SearchInfo.TABLE)
LIST = Delivery(search_info=SearchInfo.TEXT)


def said(text: str) -> ChatEvent:
    return TextDelta(text)


def thought(text: str) -> ChatEvent:
    return ReasoningDelta(text)


def delivered(delivery: Delivery, *events: ChatEvent) -> Batch:
    """What a whole reply becomes, and the same when each event comes in a batch of its own."""
    reply: Batch = [START, *events, USED, END]
    together, alone = Deliverer(delivery), Deliverer(delivery)
    whole = together.apply(reply)
    assert [piece for event in reply for piece in alone.apply([event])] == whole
    grammar = Grammar()
    grammar.feed(whole)
    grammar.finish()
    assert whole[0] == START
    assert whole[-2:] == [USED, END]
    return merged(whole[1:-2])


def test_nothing_is_written_into_json():
    for delivery in (INLINE, TABLE, LIST):
        told = delivered(of_json(delivery), thought("hm"), ONE, said("{}"))
        assert told == [thought("hm"), ONE, said("{}")]
    assert delivered(of_json(HIDDEN), thought("hm"), said("{}")) == [said("{}")]


# --- reasoning ---------------------------------------------------------------------------------------------


def test_reasoning_passes_by_default():
    assert delivered(PLAIN, thought("hm"), said("Hi")) == [thought("hm"), said("Hi")]


def test_reasoning_is_dropped_when_it_is_not_shown():
    assert delivered(HIDDEN, thought("hm"), said("Hi"), thought("hm")) == [said("Hi")]


def test_reasoning_in_the_text_stands_between_marks():
    assert delivered(INLINE, thought("hm"), thought(" hm"), said("Hi"), said("!")) == [
        said("<think>\nhm hm\n</think>\n\nHi!")
    ]


def test_hidden_reasoning_leaves_no_marks_in_the_text():
    hidden = Delivery(show_reasoning=False, reasoning_in_content=True, search_info=SearchInfo.NONE)
    assert delivered(hidden, thought("hm"), said("Hi")) == [said("Hi")]


@pytest.mark.parametrize("event", [CALL, PICTURE])
def test_marks_are_closed_before_anything_else(event: ToolCallStart | MediaOutput):
    assert delivered(INLINE, thought("hm"), event) == [said("<think>\nhm\n</think>\n\n"), event]


def test_marks_are_closed_when_the_reply_ends():
    assert delivered(INLINE, thought("hm")) == [said("<think>\nhm\n</think>\n\n")]
    without_usage: Batch = [START, thought("hm"), END]
    assert merged(Deliverer(INLINE).apply(without_usage)) == [START, said("<think>\nhm\n</think>\n\n"), END]


def test_reasoning_that_comes_again_is_marked_again():
    assert delivered(INLINE, thought("a"), said("b"), thought("c"), said("d")) == [
        said("<think>\na\n</think>\n\nb<think>\nc\n</think>\n\nd")
    ]


def test_what_says_nothing_changes_nothing():
    assert delivered(INLINE, thought(""), thought("hm"), said(""), thought(" hm")) == [
        said("<think>\nhm hm\n</think>\n\n")
    ]


def test_other_events_pass():
    events = (said("Hi"), CALL, ToolArgumentsDelta("{}"), PICTURE, ONE)
    assert delivered(PLAIN, *events) == list(events)


# --- search ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delivery", "written"), [(TABLE, TABLE_1), (LIST, TEXT_1)])
def test_with_reasoning_the_block_stands_before_its_first_text(delivery: Delivery, written: str):
    assert delivered(delivery, ONE, thought("hm"), thought(" hm"), said("Hi")) == [
        ONE,
        thought(f"{written}\n\nhm hm"),
        said("Hi"),
    ]


def test_with_reasoning_in_the_text_the_block_stands_inside_its_marks():
    inline = Delivery(reasoning_in_content=True, search_info=SearchInfo.TEXT)
    assert delivered(inline, ONE, thought("hm"), said("Hi")) == [
        ONE,
        said(f"<think>\n{TEXT_1}\n\nhm\n</think>\n\nHi"),
    ]


def test_without_reasoning_a_table_stands_before_the_answer():
    assert delivered(TABLE, ONE, TWO, said("Hi"), said("!")) == [
        SourcesFound(ONE.sources + TWO.sources),
        said(f"{TABLE_1}\n| 2 | [Two](https://b.example/2) | b.example |\n\nHi!"),
    ]


def test_without_reasoning_a_list_stands_behind_the_answer():
    assert delivered(LIST, ONE, said("Hi"), TWO) == [ONE, said("Hi"), TWO, said(f"\n\n---\n{TEXT_1}\n{TEXT_2}")]


def test_hidden_reasoning_counts_as_none():
    hidden = Delivery(show_reasoning=False, search_info=SearchInfo.TABLE)
    assert delivered(hidden, ONE, thought("hm"), said("Hi")) == [ONE, said(f"{TABLE_1}\n\nHi")]


def test_results_found_while_thinking_are_written_with_the_answer_and_keep_their_numbers():
    assert delivered(TABLE, ONE, thought("a"), TWO, thought("b"), said("Hi")) == [
        ONE,
        thought(f"{TABLE_1}\n\na"),
        TWO,
        thought("b"),
        said(f"{TABLE_2}\n\nHi"),
    ]
    assert delivered(LIST, ONE, thought("a"), TWO, thought("b"), said("Hi")) == [
        ONE,
        thought(f"{TEXT_1}\n\na"),
        TWO,
        thought("b"),
        said(f"Hi\n\n---\n{TEXT_2}"),
    ]


def test_results_found_after_the_answer_began_are_not_put_into_its_middle():
    assert delivered(TABLE, said("Hi"), ONE, said("!"), thought("hm"), said("?")) == [
        said("Hi"),
        ONE,
        said("!"),
        thought(f"{TABLE_1}\n\nhm"),
        said("?"),
    ]
    assert delivered(TABLE, said("Hi"), ONE, said("!")) == [said("Hi"), ONE, said("!")]


@pytest.mark.parametrize("delivery", [TABLE, LIST])
def test_without_an_answer_nothing_is_written(delivery: Delivery):
    assert delivered(delivery, ONE) == [ONE]
    assert delivered(delivery, ONE, CALL) == [ONE, CALL]


def test_an_answer_behind_a_picture_has_its_block_too():
    assert delivered(TABLE, ONE, PICTURE, said("Hi")) == [ONE, PICTURE, said(f"{TABLE_1}\n\nHi")]
    assert delivered(LIST, ONE, PICTURE, said("Hi")) == [ONE, PICTURE, said(f"Hi\n\n---\n{TEXT_1}")]


def test_results_are_only_told_when_no_block_is_wanted():
    assert delivered(PLAIN, ONE, thought("hm"), said("Hi")) == [ONE, thought("hm"), said("Hi")]


def test_a_block_of_nothing_is_nothing():
    for mode in SearchInfo:
        assert block([], mode) == ""


def test_missing_and_hostile_fields():
    hostile = Source("https://x.example/a)|b\n", "a|b]\n(c)", site="x|y")
    bare = Source("https://y.example")
    script = Source("javascript:alert(1)", "click")
    assert block([hostile, bare, script], SearchInfo.TEXT, first=3).splitlines() == [
        "[3] [a\\|b\\] (c)](https://x.example/a%29%7Cb%0A) | source: x\\|y",
        "[4] [https://y.example](https://y.example) | source: y.example",
        "[5] click | source: ",
    ]
