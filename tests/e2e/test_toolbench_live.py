"""`toolbench --live` against the whole program over a simulated model that does what the tasks tell it."""

from dataclasses import replace

from bench.toolbench import live
from bench.toolbench.tasks import TASKS
from tests.support.http import USER_KEY
from tests.support.running import running


async def test_a_simulated_model_does_every_task_at_every_length() -> None:
    async with running() as program:
        gateway = live.Gateway(f"{program.url}/v1", USER_KEY, pause_seconds=0.0, simulated=True)
        found = await live.ask_all(gateway, ["qwen3.7-plus"], [0, 8], times=1)
    assert [(one.task, one.result) for one in found if one.result != "good"] == []
    assert len(found) == 2 * len(TASKS)
    assert all(one.obeyed and one.taught for one in found)
    rows = [line.split() for line in live.table(found).splitlines()[1:3]]
    assert [row[3:] for row in rows] == [[str(len(TASKS))] * 4] * 2


def test_an_answer_that_was_mended_or_asked_for_again_did_not_obey() -> None:
    good = live.Outcome("m", 0, "t", "good", "markers-1", ("taught",), 1)
    assert good.obeyed
    for other in (
        replace(good, result="wrong"),
        replace(good, tries=2),
        replace(good, mended=("key",)),
        replace(good, written=("taught", "tool_call")),
        replace(good, tries=0),
    ):
        assert not other.obeyed


async def test_what_fails_is_told() -> None:
    async with running() as program:
        gateway = live.Gateway(f"{program.url}/v1", "wrong", pause_seconds=0.0, simulated=True)
        found = await live.ask_all(gateway, ["qwen3.7-plus"], [0], times=1)
    assert {one.result for one in found} == {"error 401"}
    assert "1 x qwen3.7-plus: one call: error 401" in live.table(found)
