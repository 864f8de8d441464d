"""The facts of a request's log line."""

from qwen_proxy.chat.events import Usage, UsageOrigin
from qwen_proxy.gateway.trace import Trace


def test_several_choices_become_one_line() -> None:
    line = Trace("r", model="m")
    usage = Usage(prompt_tokens=5, completion_tokens=2, origin=UsageOrigin.COUNTED)
    line.take_up([Trace("r", tries=2, failures=["ReplyCut"]), Trace("r", tries=1, account_id="a", usage=usage)])
    assert (line.tries, line.failures, line.account_id, line.model) == (3, ["ReplyCut"], "a", "m")
    assert line.usage == usage


def test_choices_that_all_failed_used_nothing() -> None:
    line = Trace("r")
    line.take_up([Trace("r", tries=1), Trace("r")])
    assert (line.tries, line.account_id, line.usage) == (1, "", None)
