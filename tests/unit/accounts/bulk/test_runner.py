"""Batches are run to their end, at their pace, whatever an operator, the site or the store does meanwhile."""

import pytest
from msgspec.structs import replace

from qwen_proxy.accounts.bulk import model
from qwen_proxy.accounts.bulk.book import line_id
from qwen_proxy.accounts.bulk.model import BatchStatus, LineStatus, PauseCause
from qwen_proxy.accounts.bulk.runner import GRACE_SECONDS
from qwen_proxy.accounts.model import Account, Origin
from qwen_proxy.ground.errors import (
    ExitUnreachable,
    ShuttingDown,
    SignInReason,
    SignInRefused,
    StoreUnavailable,
    Unreadable,
    UpstreamChallenged,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.kinds import BATCH
from qwen_proxy.state.store import Put
from tests.unit.accounts.bulk.hall import Hall, Process, pasted

DAY = 24 * 3600.0
EXITS = [f"http://proxy-{number}:1" for number in range(4)]


async def test_every_line_is_signed_in_and_added_with_what_the_batch_says():
    hall = Hall()
    hall.accounts["known@x.org"] = Account(id="known@x.org", email="known@x.org")
    id = await hall.create(pasted("a") + pasted("B", exit=EXITS[0]) + "nonsense\n" + pasted("known", "a"), "team")
    async with hall.process():
        await hall.clock.advance(10)
        batch = await hall.batch(id)
        assert batch.status is BatchStatus.COMPLETED
        assert (batch.total, batch.good, batch.repeated, batch.invalid, batch.succeeded) == (5, 2, 2, 1, 2)
        assert hall.accounts["b@x.org"] == Account(
            id="b@x.org",
            email="B@x.org",
            password=Secret("pw-B"),
            exit=EXITS[0],
            labels=("team",),
            origin=Origin.ADDED,
            added_at=hall.accounts["b@x.org"].added_at,
        )
        assert hall.tokens == {"a@x.org": "token of a", "b@x.org": "token of b"}
        await hall.check(id)


async def test_a_thousand_lines_keep_to_one_at_a_time_through_each_exit():
    hall = Hall()
    names = [f"n{number}" for number in range(1000)]
    text = "".join(pasted(name, exit=EXITS[index % 4]) for index, name in enumerate(names))
    id = await hall.create(text)
    hall.concurrency = 3
    async with hall.process():
        await hall.clock.advance(60)
        assert hall.most_under_way == 3
        hall.concurrency = 20  # read live: all four exits are used from now on
        await hall.clock.advance(400)
        assert hall.most_under_way == 4 and hall.most_through_one == 1
        assert (await hall.batch(id)).succeeded == 1000 == len(hall.attempts)
        await hall.check(id)


async def test_lines_behind_one_exit_do_not_hold_up_the_others():
    hall = Hall()
    hall.spacing_seconds = 100.0
    id = await hall.create(pasted("a", "b", "c", exit=EXITS[0]) + pasted("d", exit=EXITS[1]) + pasted("e"))
    async with hall.process():
        await hall.clock.advance(5)
        assert sorted(hall.attempts) == ["a", "d", "e"]
        await hall.clock.advance(210)
        assert sorted(hall.attempts) == ["a", "b", "c", "d", "e"]
        assert (await hall.batch(id)).status is BatchStatus.COMPLETED


async def test_an_older_batch_goes_first_and_a_younger_one_uses_other_exits():
    hall = Hall()
    hall.concurrency = 1
    first = await hall.create(pasted("a", "b"))
    await hall.clock.advance(1)
    second = await hall.create(pasted("c") + pasted("d", exit=EXITS[0]))
    async with hall.process():
        await hall.clock.advance(1.5)
        hall.concurrency = 2
        await hall.clock.advance(10)
        assert hall.attempts[0] == "a" and hall.attempts.index("d") < hall.attempts.index("c")
        for id in (first, second):
            assert (await hall.batch(id)).status is BatchStatus.COMPLETED


async def test_a_refusal_fails_the_line_and_the_rest_goes_on():
    hall = Hall()
    hall.errors["a"] = [SignInRefused(SignInReason.WRONG_PASSWORD)]
    id = await hall.create(pasted("a", "b"))
    async with hall.process():
        await hall.clock.advance(10)
        lines = await hall.lines(id)
        assert (lines[1].status, lines[1].message) == (
            LineStatus.FAILED,
            "the upstream refuses to sign the account in (wrong_password)",
        )
        assert lines[2].status is LineStatus.SUCCEEDED and lines[2].password is None
        assert hall.attempts == ["a", "b"]
        await hall.check(id)


async def test_the_first_challenge_pauses_the_batch_until_an_operator_resumes_it():
    hall = Hall()
    hall.errors["b"] = [UpstreamChallenged("html")]
    id = await hall.create(pasted("a", "b", "c", exit=EXITS[0]))
    async with hall.process() as process:
        await hall.clock.advance(300)
        batch = await hall.batch(id)
        assert (batch.status, batch.paused_by) == (BatchStatus.PAUSED, PauseCause.CHALLENGE)
        assert "(line 2)" in batch.reason and "verification" in batch.reason
        assert "from the exit of line 2 (http://proxy-0:1)" in batch.next_action
        assert hall.attempts == ["a", "b"]
        assert await hall.statuses(id) == {"a": "succeeded", "b": "pending", "c": "pending"}
        await hall.check(id)
        await process.batches.resume(id)
        await hall.clock.advance(20)
        batch = await hall.batch(id)
        assert (batch.status, batch.reason, batch.paused_by) == (BatchStatus.COMPLETED, "", None)
        assert hall.attempts == ["a", "b", "b", "c"]
        await hall.check(id)


async def test_a_challenge_on_one_exit_lets_what_is_under_way_elsewhere_end_and_begins_nothing():
    hall = Hall()
    hall.errors["a"] = [UpstreamChallenged("json")]
    id = await hall.create("".join(pasted(f"{name}{n}", exit=EXITS[n]) for name in "ab" for n in range(2)))
    hall.errors["a0"] = hall.errors.pop("a")
    async with hall.process():
        await hall.clock.advance(60)
        assert hall.attempts == ["a0", "a1"]
        assert await hall.statuses(id) == {"a0": "pending", "a1": "succeeded", "b0": "pending", "b1": "pending"}
        await hall.check(id)


async def test_what_gets_no_answer_is_tried_three_times():
    hall = Hall()
    hall.errors["a"] = [UpstreamTimeout("headers", 10), ExitUnreachable("refused"), UpstreamUnavailable("HTTP 503")]
    hall.errors["b"] = [UpstreamUnavailable("reset")] * 2
    id = await hall.create(pasted("a", exit=EXITS[0]) + pasted("b"))
    async with hall.process():
        await hall.clock.advance(60)
        lines = await hall.lines(id)
        assert (lines[1].status, lines[1].message) == (LineStatus.FAILED, "the upstream is unavailable (HTTP 503)")
        assert lines[2].status is LineStatus.SUCCEEDED
        assert sorted(hall.attempts) == ["a"] * 3 + ["b"] * 3
        assert (await hall.batch(id)).status is BatchStatus.COMPLETED
        await hall.check(id)


async def test_no_answer_eight_times_in_a_row_pauses_the_batch_instead_of_failing_all_of_it():
    hall = Hall()
    names = [f"n{number}" for number in range(30)]
    hall.errors = {name: [UpstreamUnavailable("connection refused")] * 9 for name in names}
    id = await hall.create(pasted(*names))
    async with hall.process() as process:
        await hall.clock.advance(300)
        batch = await hall.batch(id)
        assert (batch.status, batch.paused_by) == (BatchStatus.PAUSED, PauseCause.NO_ANSWER)
        assert "8 sign-ins in a row got no answer" in batch.reason and "connection refused" in batch.reason
        assert "resume" in batch.next_action
        assert len(hall.attempts) == 8
        await hall.check(id)
        hall.errors = {}
        await process.batches.resume(id)
        await hall.clock.advance(120)
        batch = await hall.batch(id)
        assert batch.succeeded + len(batch.failed) == 30 and len(batch.failed) <= 2
        await hall.check(id)


async def test_a_paused_batch_waits_and_a_resumed_one_goes_on_where_it_stopped():
    hall = Hall()
    id = await hall.create(pasted("a", "b", "c"))
    async with hall.process(), hall.process(is_keeper=False) as elsewhere:
        await hall.clock.advance(1.5)
        await elsewhere.batches.pause(id)
        await hall.clock.advance(300)
        assert hall.attempts == ["a", "b"]
        batch = await hall.batch(id)
        assert (batch.status, batch.paused_by, batch.active) == (BatchStatus.PAUSED, PauseCause.OPERATOR, ())
        await hall.check(id)
        await elsewhere.batches.resume(id)
        await hall.clock.advance(5)
        assert hall.attempts == ["a", "b", "c"]
        assert (await hall.batch(id)).status is BatchStatus.COMPLETED


async def test_a_pause_takes_effect_within_a_second():
    hall = Hall()
    hall.takes_seconds = 0.9
    id = await hall.create(pasted(*(f"n{number}" for number in range(9))))
    async with hall.process(), hall.process(is_keeper=False) as elsewhere:
        await hall.clock.advance(2)
        await elsewhere.batches.pause(id)
        begun = len(hall.attempts)
        await hall.clock.advance(30)
        assert len(hall.attempts) == begun


async def test_a_line_that_waits_long_is_put_back_when_its_batch_is_paused():
    hall = Hall()
    hall.takes_seconds = 1000.0
    id = await hall.create(pasted("a"))
    async with hall.process() as process:
        await hall.clock.advance(1)
        await process.batches.pause(id)
        await hall.clock.advance(GRACE_SECONDS - 2)
        assert await hall.statuses(id) == {"a": "running"}
        await hall.clock.advance(3)
        assert await hall.statuses(id) == {"a": "pending"} and not hall.under_way.total()
        await hall.check(id)
        hall.takes_seconds = 1.0
        await process.batches.resume(id)
        await hall.clock.advance(5)
        assert await hall.statuses(id) == {"a": "succeeded"}


async def test_a_batch_resumed_in_time_keeps_what_is_under_way():
    hall = Hall()
    hall.takes_seconds = 30.0
    id = await hall.create(pasted("a"))
    async with hall.process() as process:
        await hall.clock.advance(1)
        await process.batches.pause(id)
        await hall.clock.advance(2)
        await process.batches.resume(id)
        await hall.clock.advance(60)
        assert hall.attempts == ["a"] and await hall.statuses(id) == {"a": "succeeded"}


@pytest.mark.parametrize("lasts", [1, 2, 5, 12])
async def test_a_pause_at_any_moment_and_its_end_lose_no_line(lasts: int):
    for moment in range(1, 40):
        hall = Hall()
        id = await hall.create(pasted("a", exit=EXITS[0]) + pasted("b", exit=EXITS[1]) + pasted("c"))

        async def pause(hall: Hall = hall, id: str = id) -> None:
            await hall.book.change_batch(id, lambda batch: model.pause(batch, PauseCause.OPERATOR))

        async def resume(hall: Hall = hall, id: str = id) -> None:
            await hall.book.change_batch(id, model.resume)

        async with hall.process() as process:
            process.line.meanwhile = {moment: pause, moment + lasts: resume}
            await hall.clock.advance(6)
            await resume()
            await hall.clock.advance(15)
            assert (await hall.batch(id)).status is BatchStatus.COMPLETED
            assert sorted(hall.attempts) == ["a", "b", "c"]
            await hall.check(id)


async def test_two_keepers_at_a_time_do_no_harm():
    for moment in range(1, 30):
        hall = Hall()
        hall.errors = {"b": [SignInRefused(SignInReason.BANNED)] * 2, "c": [UpstreamUnavailable("reset")]}
        id = await hall.create(pasted("a", exit=EXITS[0]) + pasted("b", exit=EXITS[1]) + pasted("c"))
        async with hall.process() as first, hall.process(is_keeper=False) as second:

            async def start(second: Process = second) -> None:
                second.runner.start()

            first.line.meanwhile = {moment: start}
            await hall.clock.advance(40)
            assert await hall.statuses(id) == {"a": "succeeded", "b": "failed", "c": "succeeded"}
            assert (await hall.batch(id)).status is BatchStatus.COMPLETED
            await hall.check(id)


async def test_a_cancelled_batch_keeps_what_was_added_and_forgets_the_other_passwords():
    hall = Hall()
    hall.errors["a"] = [SignInRefused(SignInReason.BANNED)]
    id = await hall.create(pasted("a", "b", "c", "d"))
    async with hall.process() as process:
        await hall.clock.advance(2.5)
        told = await process.batches.cancel(id)
        assert told.status is BatchStatus.CANCELLED and not told.is_over
        await hall.clock.advance(10)
        batch = await hall.batch(id)
        assert batch.is_over and batch.status is BatchStatus.CANCELLED and batch.cancelled == 1
        assert await hall.statuses(id) == {"a": "failed", "b": "succeeded", "c": "succeeded", "d": "cancelled"}
        await hall.check(id)


async def test_a_batch_cancelled_before_it_began_is_over_at_once():
    hall = Hall()
    id = await hall.create(pasted("a"))
    async with hall.process(is_keeper=False) as process:
        await process.batches.pause(id)
        await process.batches.cancel(id)
    async with hall.process():
        await hall.clock.advance(1)
        assert (await hall.batch(id)).is_over and hall.attempts == []
        await hall.check(id)


@pytest.mark.parametrize("is_paused", [False, True])
async def test_failed_lines_are_tried_again_at_an_operators_wish(is_paused: bool):
    hall = Hall()
    hall.errors["a"] = [SignInRefused(SignInReason.NOT_ACTIVATED)]
    hall.errors["b"] = [SignInRefused(SignInReason.UNKNOWN), SignInRefused(SignInReason.BANNED)]
    id = await hall.create(pasted("a", "b", "c"))
    async with hall.process() as process:
        await hall.clock.advance(2.5)
        if is_paused:
            await process.batches.pause(id)
        await hall.clock.advance(20)
        await process.batches.retry_failed(id)
        await hall.clock.advance(1)
        assert (await hall.batch(id)).status is (BatchStatus.PAUSED if is_paused else BatchStatus.RUNNING)
        if is_paused:
            assert await hall.statuses(id) == {"a": "pending", "b": "pending", "c": "succeeded"}
            await hall.check(id)
            await process.batches.resume(id)
        await hall.clock.advance(30)
        assert await hall.statuses(id) == {"a": "succeeded", "b": "failed", "c": "succeeded"}
        assert (await hall.batch(id)).status is BatchStatus.COMPLETED
        await hall.check(id)


async def test_an_account_that_was_added_meanwhile_is_skipped():
    hall = Hall()
    id = await hall.create(pasted("a", "b"))
    hall.accounts["a@x.org"] = Account(id="a@x.org", email="a@x.org", password=Secret("another"))
    async with hall.process():
        await hall.clock.advance(10)
        assert await hall.statuses(id) == {"a": "skipped", "b": "succeeded"}
        assert hall.attempts == ["b"] and hall.accounts["a@x.org"].password == Secret("another")
        await hall.check(id)


async def test_the_store_going_away_and_coming_back_costs_no_line_and_no_second_sign_in():
    hall = Hall()
    id = await hall.create(pasted("a", "b", "c"))
    async with hall.process() as process:
        for _ in range(6):
            await hall.clock.advance(0.7)
            process.line.is_up = False
            await hall.clock.advance(0.9)
            process.line.is_up = True
        await hall.clock.advance(20)
        assert hall.attempts == ["a", "b", "c"] and (await hall.batch(id)).status is BatchStatus.COMPLETED
        await hall.check(id)


@pytest.mark.parametrize("lasts", [1, 2, 7])
async def test_a_cut_at_any_moment_costs_no_line_and_no_second_sign_in(lasts: int):
    for moment in range(1, 45):
        hall = Hall()
        hall.errors = {"b": [SignInRefused(SignInReason.BANNED)], "c": [UpstreamUnavailable("reset")]}
        id = await hall.create(pasted("a", exit=EXITS[0]) + pasted("b", exit=EXITS[1]) + pasted("c", "d"))
        async with hall.process() as process:
            process.line.cut_at = range(moment, moment + lasts)
            await hall.clock.advance(40)
            assert sorted(hall.attempts) == ["a", "b", "c", "c", "d"]
            assert (await hall.batch(id)).status is BatchStatus.COMPLETED
            await hall.check(id)


async def test_an_add_that_the_store_refuses_for_a_while_is_done_later():
    hall = Hall()
    hall.add_errors = [StoreUnavailable("cut")] * 3
    id = await hall.create(pasted("a"))
    async with hall.process():
        await hall.clock.advance(10)
        assert await hall.statuses(id) == {"a": "succeeded"} and hall.attempts == ["a"]


async def test_a_sign_in_broken_off_by_our_own_end_leaves_the_line_as_it_was():
    hall = Hall()
    hall.errors["a"] = [ShuttingDown()]
    id = await hall.create(pasted("a"))
    async with hall.process():
        await hall.clock.advance(3)
        assert await hall.statuses(id) == {"a": "pending"}
        await hall.clock.advance(20)
        assert await hall.statuses(id) == {"a": "succeeded"}
        await hall.check(id)


async def test_a_bug_fails_its_line_only(caplog: pytest.LogCaptureFixture):
    hall = Hall()
    hall.errors["a"] = [RuntimeError("pw-a")]
    hall.add_errors = [KeyError("x")]
    id = await hall.create(pasted("a", "b", "c"))
    async with hall.process():
        await hall.clock.advance(20)
        assert await hall.statuses(id) == {"a": "failed", "b": "failed", "c": "succeeded"}
        assert "internal error" in (await hall.lines(id))[1].message
        assert caplog.text.count("a line of a batch failed") == 2
        await hall.check(id)


async def test_a_line_whose_account_is_damaged_fails_with_the_reason(caplog: pytest.LogCaptureFixture):
    hall = Hall()
    hall.add_errors = [Unreadable("account a***@x.org does not open")]
    id = await hall.create(pasted("a", "b"))
    async with hall.process():
        await hall.clock.advance(20)
        assert await hall.statuses(id) == {"a": "failed", "b": "succeeded"}
        assert (await hall.lines(id))[1].message == "account a***@x.org does not open"
        assert "a line of a batch failed" not in caplog.text
        await hall.check(id)


async def spoil(hall: Hall, id: str, number: int) -> None:
    """Give the line the value of another."""
    entry = await hall.book.lines.get(line_id(id, number))
    assert entry is not None
    moved = hall.book.lines.put("elsewhere", entry.value)
    await hall.store.write([replace(moved, id=line_id(id, number))])


async def test_a_batch_with_a_line_that_can_not_be_read_is_given_up():
    hall = Hall()
    id, other = await hall.create(pasted("a", "b")), await hall.create(pasted("c"))
    await spoil(hall, id, 2)
    async with hall.process(watches=False):
        await hall.clock.advance(10)
        batch = await hall.batch(id)
        assert batch.status is BatchStatus.FAILED and batch.is_over and "does not open" in batch.reason
        assert hall.attempts == ["c"] and (await hall.batch(other)).status is BatchStatus.COMPLETED
        await hall.clock.advance(DAY + 3600)
        assert not (await hall.batch(id)).has_passwords
        line = await hall.book.lines.get(line_id(id, 1))
        assert line is not None and line.value.password is None


async def test_a_line_that_can_not_be_read_when_its_turn_comes_gives_the_batch_up():
    hall = Hall()
    id = await hall.create(pasted("a", "b", "c"))
    async with hall.process():
        await hall.clock.advance(0.5)
        await spoil(hall, id, 2)
        await hall.clock.advance(20)
        assert (await hall.batch(id)).status is BatchStatus.FAILED
        assert hall.attempts == ["a"]


async def test_a_batch_that_becomes_unreadable_stops_and_the_others_go_on():
    hall = Hall()
    id, other = await hall.create(pasted("a", "b")), await hall.create(pasted("c", exit=EXITS[0]) + pasted("d"))
    async with hall.process():
        await hall.clock.advance(0.5)
        await hall.store.write([Put(kind=BATCH, id=id, value=b"\x93newer")])
        await hall.clock.advance(30)
        assert hall.attempts == ["a", "c", "d"]
        assert (await hall.batch(other)).status is BatchStatus.COMPLETED


async def test_a_batch_that_is_unreadable_for_days_keeps_its_lines_and_holds_nobody_up():
    hall = Hall()
    id = await hall.create(pasted("a"))
    await hall.store.write([Put(kind=BATCH, id=id, value=b"\x93newer")])
    async with hall.process(watches=False) as process:
        await hall.clock.advance(2 * DAY)
        assert len(await hall.lines(id)) == 1
        other = await hall.create(pasted("b"))
        await process.watch.catch_up()
        await hall.clock.advance(10)
        assert (await hall.batch(other)).status is BatchStatus.COMPLETED


async def test_a_batch_removed_while_it_runs_is_let_go():
    hall = Hall()
    id = await hall.create(pasted("a", "b"))
    async with hall.process():
        await hall.clock.advance(0.5)
        await hall.book.remove(id)
        await hall.clock.advance(20)
        assert hall.attempts == ["a"] and await hall.lines(id) == {} and not await hall.book.remove(id)


async def test_old_batches_lose_the_passwords_of_failed_lines_after_a_day_and_are_gone_after_a_month():
    hall = Hall()
    hall.errors["a"] = [SignInRefused(SignInReason.BANNED)]
    id = await hall.create(pasted("a", "b"))
    async with hall.process(watches=False) as process:
        await hall.clock.advance(DAY - 3600)
        await hall.check(id)
        assert (await process.batches.progress(id)).can_retry
        await hall.clock.advance(2 * 3600 + 10)
        assert all(line.password is None for line in (await hall.lines(id)).values())
        assert not (await process.batches.progress(id)).can_retry
        await hall.clock.advance(28 * DAY)
        assert (await hall.batch(id)).succeeded == 1
        await hall.clock.advance(DAY + 3600)
        assert await hall.book.get(id) is None and await hall.lines(id) == {}


async def test_a_process_that_is_no_keeper_begins_nothing_and_one_that_stops_being_it_stops():
    hall = Hall()
    id = await hall.create(pasted("a", "b"))
    async with hall.process(is_keeper=False) as process:
        await hall.clock.advance(10)
        assert hall.attempts == []
        process.runner.start()
        process.runner.start()
        await hall.clock.advance(0.5)
        process.runner.stop()
        process.runner.stop()
        await hall.clock.advance(10)
        assert hall.attempts == ["a"] and not hall.under_way.total()
        process.runner.start()
        await hall.clock.advance(10)
        assert hall.attempts == ["a", "a", "b"]
        assert (await hall.batch(id)).status is BatchStatus.COMPLETED
        await hall.check(id)
