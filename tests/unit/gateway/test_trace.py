"""The facts of a request's log line, and what it has used."""

import pytest

from qwen_proxy.chat.events import ReasoningDelta, TextDelta, Usage, UsageOrigin
from qwen_proxy.chat.request import Sampling
from qwen_proxy.gateway.delivery import Delivery
from qwen_proxy.gateway.reply import ReplyShaper
from qwen_proxy.gateway.trace import Trace
from tests.support.counting import WordCounter


def test_several_choices_become_one_line() -> None:
    line = Trace("r", model="m")
    usage = Usage(prompt_tokens=5, completion_tokens=2, origin=UsageOrigin.COUNTED)
    line.take_up(
        [Trace("r", tries=2, failures=["ReplyCut"], verdicts=["k"]), Trace("r", tries=1, account_id="a", usage=usage)],
        2,
    )
    assert (line.tries, line.failures, line.account_id, line.model) == (3, ["ReplyCut"], "a", "m")
    assert (line.usage, line.verdicts, line.tools) == (usage, ["k"], None)


def test_choices_that_all_failed_used_nothing() -> None:
    line = Trace("r")
    line.take_up([Trace("r", tries=1), Trace("r")], 2)
    assert (line.tries, line.account_id, line.usage) == (1, "", None)


def test_each_of_several_prompts_counts() -> None:
    line = Trace("r")
    line.take_up([Trace("r", tries=1, usage=UPSTREAMS) for _ in range(4)], 2)
    assert used(line, has_left=False) == (14, 20)


UPSTREAMS = Usage(prompt_tokens=7, completion_tokens=5, reasoning_tokens=2, origin=UsageOrigin.UPSTREAM)


def reply(text: str, reasoning: str = "") -> ReplyShaper:
    shaper = ReplyShaper(Sampling(), Delivery(), WordCounter())
    shaper.take([ReasoningDelta(reasoning), TextDelta(text)])
    return shaper


def used(trace: Trace, *, has_left: bool) -> tuple[int, int] | None:
    """Tokens of the prompt, which is estimated at 100, and of replies."""
    usage = trace.used(lambda: 100, has_left=has_left)
    return None if usage is None else (usage.prompt_tokens, usage.completion_tokens)


@pytest.mark.parametrize("has_left", [False, True])
def test_a_reply_that_came_to_its_end_has_used_what_it_says(has_left: bool) -> None:
    def never() -> int:
        raise AssertionError("it is known")

    trace = Trace("r", account_id="a", usage=UPSTREAMS, reply=reply("text"))
    assert trace.used(never, has_left=has_left) == UPSTREAMS


def test_what_never_got_to_an_account_has_used_nothing() -> None:
    assert used(Trace("r"), has_left=True) is None
    assert used(Trace("r", tries=1), has_left=False) is None


def test_a_failure_that_brought_nothing_has_used_nothing_and_a_client_that_left_its_prompt() -> None:
    trace = Trace("r", account_id="a", reply=reply(""))
    assert used(trace, has_left=False) is None
    assert used(trace, has_left=True) == (100, 0)


def test_prompts_whose_replies_broke_off_count_and_those_that_were_not_asked_yet_do_not() -> None:
    line = Trace("r")
    cut = Trace("r", account_id="a", reply=reply("x" * 9))
    line.take_up([Trace("r", account_id="a", usage=UPSTREAMS), cut, Trace("r"), Trace("r")], 1)
    assert used(line, has_left=True) == (7 + 25, 5 + 3)
    line.take_up([cut, cut, Trace("r"), Trace("r")], 2)
    assert used(line, has_left=True) == (50, 6)


@pytest.mark.parametrize("has_left", [False, True])
def test_a_reply_that_broke_off_has_used_what_had_come(has_left: bool) -> None:
    assert used(Trace("r", account_id="a", reply=reply("x" * 10, "ж" * 10)), has_left=has_left) == (100, 10)


def test_several_choices_have_used_what_each_has() -> None:
    line = Trace("r")
    line.take_up(
        [
            Trace("r", account_id="a", usage=UPSTREAMS, reply=reply("x" * 300)),
            Trace("r", account_id="a", reply=reply("x" * 9)),
            Trace("r"),
        ],
        3,
    )
    assert used(line, has_left=True) == (7, 8)
    line.take_up([Trace("r", account_id="a", reply=reply("x" * 9)), Trace("r", reply=reply("x" * 3))], 2)
    assert used(line, has_left=False) == (100, 4)
