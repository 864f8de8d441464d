"""Leasing and waiting."""

import asyncio
import gc

import pytest

from qwen_proxy.accounts.leasing import Lease, Leasing
from qwen_proxy.accounts.model import Feature, OutcomeKind
from qwen_proxy.ground.errors import (
    BUSY_SECONDS,
    AccountsBusy,
    AccountsChallenged,
    AccountsOutOfQuota,
    NoAccountUsable,
    ShuttingDown,
)
from tests.unit.accounts.house import account, house, outcome

SUCCEEDED = OutcomeKind.SUCCEEDED


async def test_the_least_used_and_longest_unused_account_comes_first() -> None:
    async with house(account("b"), account("a"), account("c")) as home:
        fits: Leasing = home.pool
        assert fits is home.pool
        taken = [home.take() for _ in range(6)]
        assert [lease.credential.account_id[0] for lease in taken] == ["a", "b", "c", "a", "b", "c"]
        taken[4].end()
        taken[0].end()
        assert [home.take().credential.account_id[0] for _ in range(2)] == ["b", "a"]


async def test_no_account_has_more_uses_at_a_time_than_allowed() -> None:
    async with house(account("a"), concurrency=2) as home:
        first = home.take()
        home.take()
        assert home.pool.try_take(home.want()) is None
        first.end()
        home.take()


async def test_concurrency_0_sets_no_limit() -> None:
    async with house(account("a"), concurrency=0) as home:
        leases = [home.take() for _ in range(50)]
        assert home.pool.snapshot()[0].in_use == 50
        for lease in leases:
            lease.end()
        assert home.pool.snapshot()[0].in_use == 0


async def test_a_block_returns_its_lease_once_and_counts_as_cancelled_without_a_report() -> None:
    async with house(account("a"), concurrency=1) as home:
        use = home.pool.lease(Feature.CHAT, deadline=home.clock.monotonic() + 1)
        async with use as lease:
            fits: Lease = lease
            assert fits.credential.account_id == "a@x.org"
        lease.end()
        lease.report(outcome(OutcomeKind.CHALLENGED))  # too late to count
        report = home.pool.snapshot()[0]
        assert (report.in_use, report.succeeded, report.failed, report.state) == (0, 0, 0, "ready")


async def test_only_the_first_report_counts() -> None:
    async with house(account("a")) as home:
        lease = home.take()
        lease.report(outcome(SUCCEEDED))
        lease.report(outcome(OutcomeKind.CHALLENGED))
        lease.end()
        assert (home.state("a"), home.pool.snapshot()[0].succeeded) == ("ready", 1)


async def test_a_block_that_never_got_a_lease_gives_nothing_back() -> None:
    async with house() as home:
        with pytest.raises(NoAccountUsable, match="no account is configured"):
            async with home.pool.lease(Feature.CHAT, deadline=home.clock.monotonic() + 1):
                raise AssertionError


async def test_what_is_to_be_avoided_is_taken_only_when_nothing_else_is_there() -> None:
    async with house(account("a"), account("b", exit="http://p"), concurrency=1) as home:
        deadline = home.clock.monotonic() + 60
        avoiding = home.pool.lease(Feature.CHAT, deadline=deadline, avoid_accounts={"a@x.org"})
        async with avoiding as lease:
            assert lease.credential.account_id == "b@x.org"
            again = home.pool.lease(Feature.CHAT, deadline=deadline, avoid_accounts={"a@x.org"})
            async with again as other:
                assert other.credential.account_id == "a@x.org"
        async with home.pool.lease(Feature.CHAT, deadline=deadline, avoid_exits={"", "http://p"}) as lease:
            assert lease.credential.account_id == "a@x.org"


async def test_waiters_are_served_in_the_order_they_came() -> None:
    async with house(account("a"), concurrency=1) as home:
        held = home.take()
        waiting = [await home.wait() for _ in range(4)]
        for task in waiting:
            held.end()
            held = await task
        held.end()
        assert home.pool.snapshot()[0].in_use == 0


async def test_a_newcomer_does_not_overtake_who_waits() -> None:
    async with house(account("a"), concurrency=1) as home:
        held = home.take()
        first = await home.wait()
        held.end()
        second = await home.wait()
        assert first.done() and not second.done()
        (await first).end()
        (await second).end()


async def test_one_who_wants_another_account_does_not_wait_behind() -> None:
    async with house(account("a"), account("b"), concurrency=1) as home:
        a = home.take(only="a")
        for_a = await home.wait(only="a")
        for_b = await home.wait(only="b")
        assert for_b.done() and not for_a.done()
        (await for_b).end()
        assert not for_a.done()
        a.end()
        (await for_a).end()


async def test_a_returned_account_goes_to_the_longest_waiting_of_all_it_can_serve() -> None:
    async with house(account("a"), concurrency=1) as home:
        held = home.take()
        pinned = await home.wait(only="a")
        anyone = await home.wait()
        video = await home.wait(feature=Feature.VIDEO)
        for task in (pinned, anyone, video):
            held.end()
            held = await task
        held.end()


async def test_a_returned_account_passes_over_those_it_cant_serve() -> None:
    async with house(account("a"), account("b"), concurrency=1) as home:
        a, b = home.take(only="a"), home.take(only="b")
        video, chat = await home.wait(feature=Feature.VIDEO), await home.wait()
        assert home.pool.waiting == 2
        a.report(outcome(OutcomeKind.OUT_OF_QUOTA, feature=Feature.VIDEO))
        late = home.pool.snapshot()[0].parked
        assert list(late) == [Feature.VIDEO]
        a.end()
        held = await chat
        assert (held.credential.account_id, video.done()) == ("a@x.org", False)
        another = await home.wait()
        held.end()  # without trouble: it alone is offered, and VIDEO came first but can't have it
        (await another).end()
        b.end()
        (await video).end()


async def test_the_pool_says_why_it_is_not_ready() -> None:
    async with house(account("a"), concurrency=1) as home:
        home.take()
        assert (await home.pool.status()).why_not_ready is None
    async with house(account("a", password=None)) as home:
        status = await home.pool.status()
        assert status.why_not_ready is not None and "no_password" in status.why_not_ready
        assert (len(status.accounts), len(status.exits)) == (1, 1)


async def test_the_pool_says_what_a_lease_would_be_refused_with_or_would_wait_for() -> None:
    async with house(account("a"), concurrency=1) as home:
        assert home.pool.shortage() is None
        home.take()
        assert isinstance(home.pool.shortage(), AccountsBusy)
    async with house(account("a", password=None)) as home:
        told = home.pool.shortage()
        assert type(told) is NoAccountUsable and "no_password" in str(told)


async def test_a_waiter_dies_with_its_deadline_and_leaves_nothing_behind() -> None:
    async with house(account("a"), concurrency=1) as home:
        held = home.take()
        late = await home.wait(5)
        patient = await home.wait(50)
        await home.clock.advance(4.9)
        assert not late.done()
        await home.clock.advance(0.2)
        with pytest.raises(AccountsBusy, match="1 account: 1 busy") as caught:
            await late
        assert caught.value.retry_after_seconds == BUSY_SECONDS
        held.end()
        (await patient).end()
        home.take().end()


async def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    async with house(account("a"), concurrency=1) as home:
        held = home.take()
        gone, next_one = await home.wait(), await home.wait()
        gone.cancel()
        held.end()  # before the cancelled task has run
        await home.clock.settle()
        assert gone.cancelled()
        (await next_one).end()
        assert home.pool.snapshot()[0].in_use == 0


async def test_a_waiter_cancelled_as_it_is_served_gives_the_account_back() -> None:
    async with house(account("a"), concurrency=1) as home:
        held = home.take()
        gone, next_one = await home.wait(), await home.wait()
        held.end()
        gone.cancel()
        await home.clock.settle()
        assert gone.cancelled()
        (await next_one).end()
        assert home.pool.snapshot()[0].in_use == 0


async def test_a_waiter_cancelled_as_it_is_refused_is_quiet() -> None:
    async with house(account("a"), concurrency=1) as home:
        held = home.take()
        gone = await home.wait()
        held.report(outcome(OutcomeKind.OUT_OF_QUOTA))
        held.end()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        gc.collect()  # an exception nobody fetched would be an error here


async def test_waiters_stop_waiting_when_no_hope_is_left() -> None:
    async with house(account("a"), concurrency=1) as home:
        held = home.take()
        waiting = [await home.wait() for _ in range(3)]
        gone = waiting.pop()
        gone.cancel()
        held.report(outcome(OutcomeKind.OUT_OF_QUOTA, rest_seconds=7200))
        held.end()
        for task in waiting:
            with pytest.raises(AccountsOutOfQuota) as caught:
                await task
            assert caught.value.retry_after_seconds == 7200


async def test_an_account_that_has_rested_is_given_to_who_waits() -> None:
    async with house(account("a"), account("b"), concurrency=1) as home:
        home.use(OutcomeKind.CHALLENGED, only="a")
        held = home.take()
        waiter = await home.wait(100)
        await home.clock.advance(59)
        assert not waiter.done()
        await home.clock.advance(2)
        assert (await waiter).credential.account_id == "a@x.org"
        held.end()


async def test_every_end_of_a_rest_is_noticed_not_only_the_first() -> None:
    async with house(account("a"), account("b"), account("c"), concurrency=1) as home:
        home.use(OutcomeKind.OUT_OF_QUOTA, only="a", rest_seconds=10)
        home.use(OutcomeKind.OUT_OF_QUOTA, only="b", rest_seconds=20)
        home.take()
        waiting = [await home.wait(100) for _ in range(2)]
        await home.clock.advance(11)
        assert [task.done() for task in waiting] == [True, False]
        await home.clock.advance(10)
        assert [task.done() for task in waiting] == [True, True]


async def test_a_feature_is_parked_alone() -> None:
    async with house(account("a")) as home:
        home.use(OutcomeKind.OUT_OF_QUOTA, rest_seconds=3600)
        with pytest.raises(AccountsOutOfQuota, match="1 out of quota until"):
            await home.pool.take(home.want())
        home.take(feature=Feature.IMAGE).end()
        assert not home.pool.usable(Feature.CHAT)
        assert home.pool.usable(Feature.VIDEO)


async def test_busy_counts_as_usable() -> None:
    async with house(account("a"), concurrency=1) as home:
        home.take()
        assert home.pool.usable(Feature.CHAT)


async def test_the_second_account_challenged_on_an_exit_rests_it_and_others_go_on() -> None:
    exits = ["http://one", "http://one", "http://one", "http://two"]
    async with house(*(account(name, exit) for name, exit in zip("abcd", exits, strict=True))) as home:
        home.use(OutcomeKind.CHALLENGED, only="a")
        home.use(OutcomeKind.CHALLENGED, only="b")
        assert [home.state(name) for name in "abcd"] == ["challenged", "exit_challenged", "exit_challenged", "ready"]
        assert [report.state for report in home.pool.exits()] == ["challenged", "open"]
        assert home.take().credential.account_id == "d@x.org"
        with pytest.raises(AccountsChallenged):
            await home.pool.take(home.want(only="c"))


async def test_a_half_open_exit_lets_one_trial_through_and_opens_when_it_succeeds() -> None:
    async with house(*(account(name) for name in "abc")) as home:
        home.use(OutcomeKind.CHALLENGED, only="a")
        home.use(OutcomeKind.CHALLENGED, only="b")
        await home.clock.advance(61)
        assert home.pool.exits()[0].state == "half_open"
        trial = home.take()
        waiting = [await home.wait() for _ in range(3)]
        assert not any(task.done() for task in waiting)
        trial.report(outcome(SUCCEEDED))
        trial.end()
        await home.clock.settle()
        assert all(task.done() for task in waiting)
        assert home.pool.exits()[0].state == "open"


async def test_a_trial_that_is_challenged_rests_the_exit_for_longer() -> None:
    async with house(*(account(name) for name in "abc")) as home:
        home.use(OutcomeKind.CHALLENGED, only="a")
        home.use(OutcomeKind.CHALLENGED, only="b")
        await home.clock.advance(61)
        trial, waiter = home.take(), await home.wait()
        trial.report(outcome(OutcomeKind.CHALLENGED))
        trial.end()
        with pytest.raises(AccountsChallenged) as caught:
            await waiter
        assert caught.value.retry_after_seconds == 120


async def test_a_cancelled_trial_decides_nothing_and_lets_the_next_one_through() -> None:
    async with house(*(account(name) for name in "abc")) as home:
        home.use(OutcomeKind.CHALLENGED, only="a")
        home.use(OutcomeKind.CHALLENGED, only="b")
        await home.clock.advance(61)
        trial, waiter = home.take(), await home.wait()
        trial.end()
        (await waiter).end()
        assert home.pool.exits()[0].state == "half_open"


async def test_a_long_trial_does_not_keep_the_exit_shut() -> None:
    async with house(*(account(name) for name in "abc")) as home:
        home.use(OutcomeKind.CHALLENGED, only="a")
        home.use(OutcomeKind.CHALLENGED, only="b")
        await home.clock.advance(61)
        long_one, waiter = home.take(), await home.wait()
        await home.clock.advance(21)
        second = await waiter
        third = await home.wait()
        long_one.end()  # is not the trial any more: the second still is
        await home.clock.settle()
        assert not third.done()
        second.end()
        (await third).end()


async def test_leaving_the_pool_refuses_who_waits() -> None:
    async with house(account("a"), concurrency=1) as home:
        held = home.take()
        waiter = await home.wait()
    with pytest.raises(ShuttingDown):
        await waiter
    with pytest.raises(ShuttingDown):
        await home.pool.take(home.want())
    held.report(outcome(OutcomeKind.CHALLENGED))  # too late to start anything
    held.end()
    assert home.clock.sleepers == 0


async def test_what_was_learned_is_saved() -> None:
    async with house(account("a")) as home:
        home.use(OutcomeKind.OUT_OF_QUOTA, rest_seconds=60)
        kept = home.kept
    (stored,) = await kept.book.all()
    assert stored.health.failed == 1
    assert stored.credential is not None


async def test_a_parked_account_stays_parked_over_a_restart() -> None:
    async with house(account("a")) as home:
        home.use(OutcomeKind.OUT_OF_QUOTA, rest_seconds=600)
    async with house(kept=home.kept) as again:
        assert again.state("a") == "out_of_quota"
        assert again.site.attempts == []


async def test_an_account_can_be_removed_while_it_is_in_use() -> None:
    async with house(account("a"), account("b"), concurrency=1) as home:
        held, waiter = home.take(only="a"), await home.wait(only="a")
        await home.pool.remove("a@x.org")
        with pytest.raises(NoAccountUsable, match="not here any more"):
            await waiter
        home.take()
        anyone = await home.wait()
        held.end()
        await home.clock.settle()
        assert not anyone.done()
        assert [report.account for report in home.pool.snapshot()] == ["b@x.org"]
        await home.pool.remove("nobody@x.org")
        anyone.cancel()


async def test_what_was_learned_of_a_removed_account_is_not_saved() -> None:
    async with house(account("a")) as home:
        home.use(OutcomeKind.CHALLENGED)
        await home.pool.remove("a@x.org")
        await home.clock.settle()
        assert await home.kept.book.all() == []


async def test_an_account_that_is_not_enabled_is_neither_used_nor_signed_in() -> None:
    off = account("a")
    async with house() as home:
        await home.pool.put(type(off)(id=off.id, email=off.email, password=off.password, enabled=False))
        await home.clock.advance(3600)
        assert home.state("a") == "disabled"
        with pytest.raises(NoAccountUsable, match="1 disabled"):
            await home.pool.take(home.want(only="a"))
        assert home.site.attempts == []


async def test_deadlines_of_those_who_were_served_do_not_pile_up() -> None:
    async with house(account("a"), concurrency=1) as home:
        for _ in range(300):
            held = home.take()
            waiter = await home.wait(1e6)
            held.end()
            (await waiter).end()
        assert home.clock.sleepers <= 4
