"""Several processes over one store: uses of accounts, health and tokens are shared."""

import asyncio
from itertools import pairwise

import pytest
from msgspec.structs import replace

from qwen_proxy.accounts.model import Feature, OutcomeKind
from qwen_proxy.accounts.waiting import Want
from qwen_proxy.config.choices import Strategy
from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsOutOfQuota,
    NoAccountUsable,
    SignInReason,
    SignInRefused,
    StoreUnavailable,
)
from qwen_proxy.state.store import Put
from tests.unit.accounts.house import account
from tests.unit.accounts.town import ended, town

# --- uses --------------------------------------------------------------------------------------------------


async def test_two_processes_together_have_no_more_uses_than_allowed() -> None:
    async with town(account("a"), account("b"), concurrency=2) as place:
        asked = [await process.ask(20) for process in place.processes for _ in range(4)]
        await place.clock.advance(3)
        assert sum(task.done() for task in asked) == 4
        await place.clock.advance(20)
        for task in asked:
            if task.exception() is None:
                task.result().end()
            else:
                assert isinstance(task.exception(), AccountsBusy)


async def test_what_one_gives_back_serves_who_waits_in_the_other() -> None:
    async with town(account("a"), concurrency=1) as place:
        one, two = place.processes
        held = await (await one.ask())
        waiting = await two.ask()
        await place.clock.advance(2)
        assert not waiting.done()
        held.end()
        await place.clock.advance(2)
        (await waiting).end()


async def test_who_waits_for_a_sign_in_elsewhere_asks_for_a_use_when_it_is_made() -> None:
    async with town(settle=2.5, concurrency=1) as place:
        place.site.takes_seconds = 2.0
        await place.keeper.pool.put(account("a"))
        await place.clock.advance(0.5)
        waiting = await place.other(place.keeper).ask()
        assert not waiting.done()
        await place.clock.advance(2)
        (await waiting).end()


async def test_a_lower_priority_is_borrowed_when_nobody_has_uses_of_the_higher_left() -> None:
    high, low = (replace(account(name), priority=priority) for name, priority in (("b", 1), ("a", 0)))
    async with town(high, low, concurrency=2) as place:
        held = [await (await process.ask()) for process in place.processes]
        assert {lease.credential.account_id for lease in held} == {"b@x.org"}
        third = await place.processes[0].ask()
        await place.clock.advance(1)
        assert third.result().credential.account_id == "a@x.org"
        for lease in (*held, third.result()):
            lease.end()


async def test_a_session_has_the_same_account_in_every_process_while_that_has_uses_left() -> None:
    names = "abcdefgh"
    async with town(*(account(name) for name in names), strategy=Strategy.SESSION, concurrency=2) as place:
        one, two = place.processes
        for session in ("s", "t", "u"):
            held = [await (await process.ask(session=session)) for process in (one, two)]
            assert len({lease.credential.account_id for lease in held}) == 1
            third = await one.ask(session=session)
            await place.clock.advance(1)
            assert third.result().credential.account_id != held[0].credential.account_id
            for lease in (*held, third.result()):
                lease.end()
        assert (one.pool.sessions.hits, one.pool.sessions.escapes) == (3, 3)


async def test_a_session_that_is_to_avoid_its_account_borrows_another() -> None:
    async with town(account("a"), account("b"), strategy=Strategy.SESSION, concurrency=2) as place:
        own = (await (await place.processes[0].ask(session="s"))).credential.account_id
        want = Want(feature=Feature.CHAT, deadline=2e9, avoid_accounts=frozenset({own}), session="s")
        taken = place.processes[1].pool.try_take(want) or await place.processes[1].pool.take(want)
        assert taken.credential.account_id != own
        taken.end()


async def test_a_process_alone_keeps_everything_and_asks_nobody() -> None:
    async with town(account("a"), account("b"), processes=1, concurrency=2) as place:
        assert await place.kept.store.taken("account:") == {"account:a@x.org": 2, "account:b@x.org": 2}
        await place.clock.advance(10)
        held = [(await process.ask()).result() for process in place.processes for _ in range(4)]
        for lease in held:
            lease.end()


async def test_idle_uses_are_given_back_within_seconds_once_another_is_there() -> None:
    async with town(account("a"), account("b"), processes=1, concurrency=2) as place:
        await place.add()
        await place.clock.advance(2.5)
        assert await place.kept.store.taken("account:") == {}


async def test_one_that_is_always_busy_leaves_the_other_its_share() -> None:
    async with town(account("a"), concurrency=2) as place:
        one, two = place.processes
        held = [await (await one.ask()) for _ in range(2)]
        queue = [await one.ask(600) for _ in range(6)]
        waiting = await two.ask(600)
        for _ in range(6):
            await place.clock.advance(1)
            if waiting.done():
                break
            ended(held.pop(0))
            await place.clock.settle()
            held += [task.result() for task in queue if task.done()]
            queue = [task for task in queue if not task.done()]
        assert waiting.done(), "it starved beside one with a queue"
        waiting.result().end()
        for task in queue:
            task.cancel()
        for lease in held:
            lease.end()
        await place.clock.settle()


async def test_who_waits_for_a_sign_in_is_served_when_it_has_come() -> None:
    async with town(account("a"), concurrency=1) as place:
        worker = place.other(place.keeper)
        ended(await (await worker.ask()))
        await place.clock.advance(0.5)
        place.site.takes_seconds = 5
        ended(await (await worker.ask()), OutcomeKind.CREDENTIAL_REJECTED)
        await place.clock.advance(3)
        waiting = await worker.ask()
        await place.clock.advance(1)
        assert not waiting.done() and not await place.kept.store.taken("account:")
        await place.clock.advance(4)
        (await waiting).end()


async def test_who_waits_for_the_end_of_a_rest_is_served_when_it_has_come() -> None:
    async with town(account("a"), account("b"), concurrency=1) as place:
        one, two = place.processes
        held = await (await two.ask(only="b"))
        ended(await (await one.ask(only="a")), OutcomeKind.OUT_OF_QUOTA, rest_seconds=20)
        await place.clock.advance(3)
        waiting = await one.ask()
        await place.clock.advance(18)
        (await waiting).end()
        held.end()


async def test_what_a_killed_process_held_is_free_when_its_heartbeat_is_missed() -> None:
    async with town(account("a"), concurrency=1) as place:
        one, two = place.processes
        await (await one.ask())
        await one.die()
        waiting = await two.ask()
        await place.clock.advance(4)
        assert not waiting.done()
        await place.clock.advance(3)
        (await waiting).end()


async def test_a_process_that_lost_touch_grants_nothing_and_comes_back() -> None:
    async with town(account("a"), concurrency=1) as place:
        one, two = place.processes
        held = await (await one.ask())
        one.member.is_cut = True
        await place.clock.advance(4.6)
        assert one.pool.why_not_ready() is not None
        with pytest.raises(StoreUnavailable):
            await (await one.ask())
        await place.clock.advance(1)
        other = await (await two.ask(5))  # for the others it is gone
        one.member.is_cut = False
        await place.clock.advance(1)
        assert one.pool.why_not_ready() is None
        # Both run, which nobody can undo; but nothing more is granted until the count is right again.
        late = await one.ask()
        other.end()
        await place.clock.advance(2)
        assert not late.done()
        held.end()
        await place.clock.advance(2)
        (await late).end()


async def test_who_waits_is_refused_when_the_store_is_lost() -> None:
    async with town(account("a"), concurrency=1) as place:
        one, two = place.processes
        held = await (await one.ask())
        waiting = await two.ask()
        two.member.is_cut = True
        await place.clock.advance(1)
        with pytest.raises(StoreUnavailable):
            await waiting
        held.end()


async def test_an_account_removed_while_it_is_in_use_elsewhere_leaves_nothing_behind() -> None:
    async with town(account("a"), account("b"), concurrency=1) as place:
        one, two = place.processes
        held = await (await one.ask(only="a"))
        await two.pool.remove("a@x.org")
        await place.clock.advance(1)
        assert [report.account for report in one.pool.snapshot()] == ["b@x.org"]
        held.end()
        await place.clock.advance(2.5)
        assert await place.kept.store.taken("account:") == {}


async def test_uses_of_all_processes_are_told() -> None:
    async with town(account("a"), concurrency=2) as place:
        one, two = place.processes
        held = await (await one.ask())
        await place.clock.advance(1.5)
        assert [report.in_use for report in (await two.pool.status()).accounts] == [1]
        assert two.state("a") == "ready"
        held.end()


async def test_a_changed_limit_holds_for_all() -> None:
    async with town(account("a"), concurrency=1) as place:
        one = place.processes[0]
        options = one.pool.options
        for process in place.processes:
            process.pool.use(type(options)(account_concurrency=0, signin_spacing_seconds=0))
        held = [(await process.ask()).result() for process in place.processes for _ in range(3)]
        for process in place.processes:
            process.pool.use(type(options)(account_concurrency=2, signin_spacing_seconds=0))
        await place.clock.advance(1.5)
        assert await place.kept.store.taken("account:") == {"account:a@x.org": 6}  # they run, whatever the limit
        late = await one.ask()
        await place.clock.advance(2)
        assert not late.done()
        for lease in held:
            lease.end()
        await place.clock.advance(2)
        (await late).end()


# --- health ------------------------------------------------------------------------------------------------


async def test_what_one_learns_of_an_account_holds_for_the_others() -> None:
    async with town(account("a"), concurrency=0) as place:
        one, two = place.processes
        ended(await (await one.ask()), OutcomeKind.OUT_OF_QUOTA, rest_seconds=3600)
        await place.clock.advance(0.5)
        assert [process.state("a") for process in place.processes] == ["out_of_quota"] * 2
        with pytest.raises(AccountsOutOfQuota):
            await (await two.ask())
        await place.clock.advance(3600)
        assert two.state("a") == "ready"


async def test_what_two_learn_at_once_is_not_lost() -> None:
    async with town(account("a"), account("b"), concurrency=0) as place:
        one, two = place.processes
        mine, others = await (await one.ask(only="a")), await (await two.ask(only="a"))
        mine.report(place.reported(OutcomeKind.OUT_OF_QUOTA, 3600))
        ended(others, OutcomeKind.CHALLENGED)
        mine.end()
        await place.clock.advance(0.5)
        for process in place.processes:
            (found,) = [report for report in process.pool.snapshot() if report.account == "a@x.org"]
            assert found.parked and found.last_error == "why"
        stored = await place.kept.book.get("a@x.org")
        assert stored is not None and stored.health.challenge.strikes == 1 and stored.health.parked


async def test_two_accounts_challenged_in_two_processes_make_their_exit_rest_for_all() -> None:
    async with town(*(account(name, "http://p") for name in "abc"), concurrency=0) as place:
        one, two = place.processes
        ended(await (await one.ask(only="a")), OutcomeKind.CHALLENGED)
        await place.clock.advance(0.5)
        ended(await (await two.ask(only="b")), OutcomeKind.CHALLENGED)
        await place.clock.advance(0.5)
        assert [process.state("c") for process in place.processes] == ["exit_challenged"] * 2


async def test_damaged_documents_of_health_are_written_over() -> None:
    async with town(account("a"), concurrency=0) as place:
        one = place.processes[0]
        ended(await (await one.ask()), OutcomeKind.CHALLENGED)
        await place.clock.advance(0.5)
        book = place.kept.book
        for kind, id in ((book.healths.kind, "a@x.org"), (book.exits.kind, book.exit_id(""))):
            await place.kept.store.write([Put(kind=kind, id=id, value=b"broken")])
        await place.clock.advance(120)
        ended(await (await one.ask()), OutcomeKind.OUT_OF_QUOTA, rest_seconds=3600)
        await place.clock.advance(0.5)
        assert [process.state("a") for process in place.processes] == ["out_of_quota"] * 2


async def test_successes_cost_no_write() -> None:
    async with town(account("a"), concurrency=0) as place:
        for _ in range(3):  # the first proves the token
            ended(await (await place.processes[0].ask()))
            await place.clock.advance(0.5)
        before = await place.kept.store.get(place.kept.book.healths.kind, "a@x.org")
        for _ in range(50):
            ended(await (await place.processes[0].ask()))
        await place.clock.advance(0.5)
        assert await place.kept.store.get(place.kept.book.healths.kind, "a@x.org") == before


# --- tokens ------------------------------------------------------------------------------------------------


async def test_one_process_signs_in_for_all() -> None:
    async with town(account("a"), account("b"), processes=3) as place:
        assert place.site.names == ["a", "b"]
        assert [process.state(name) for process in place.processes for name in "ab"] == ["ready"] * 6


async def test_a_token_rejected_in_another_process_is_renewed_by_the_keeper() -> None:
    async with town(account("a"), concurrency=0) as place:
        worker = place.other(place.keeper)
        ended(await (await place.keeper.ask()))
        await place.clock.advance(0.5)
        lease = await (await worker.ask())
        lease.report(place.reported(OutcomeKind.CREDENTIAL_REJECTED))
        deadline = place.clock.monotonic() + 30
        renewal = asyncio.get_running_loop().create_task(worker.pool.renew(lease.credential, deadline=deadline))
        lease.end()
        await place.clock.advance(2)
        await renewal
        assert place.site.names == ["a", "a"]
        tokens = {(await (await process.ask())).credential.token.reveal() for process in place.processes}
        assert tokens == {"a-2"}


async def test_an_account_damaged_meanwhile_keeps_no_other_token_from_being_kept() -> None:
    async with town(account("a"), account("b"), processes=1, concurrency=0) as place:
        pool, book = place.keeper.pool, place.kept.book
        for name in "ab":  # proven: a new token that is rejected at once would be given up
            ended(await (await place.keeper.ask(only=name)))
        await place.clock.advance(0.5)
        held = [await (await place.keeper.ask(only=name)) for name in "ab"]
        await place.kept.store.write([Put(kind=book.accounts.kind, id="a@x.org", value=b"broken")])
        for lease in held:
            lease.report(place.reported(OutcomeKind.CREDENTIAL_REJECTED))
            lease.end()
        deadline = place.clock.monotonic() + 30
        loop = asyncio.get_running_loop()
        renewals = [loop.create_task(pool.renew(lease.credential, deadline=deadline)) for lease in held]
        await place.clock.advance(2)
        await asyncio.gather(*renewals)
        kept = await book.get("b@x.org")
        assert kept is not None and kept.credential is not None and kept.credential.token.reveal() == "b-4"


async def test_a_renewal_that_the_keeper_could_not_have_tells_why() -> None:
    async with town(account("a"), concurrency=0) as place:
        worker = place.other(place.keeper)
        ended(await (await place.keeper.ask()))
        await place.clock.advance(0.5)
        place.site.errors["a"] = [SignInRefused(SignInReason.BANNED)]
        lease = await (await worker.ask())
        deadline = place.clock.monotonic() + 30
        renewal = asyncio.get_running_loop().create_task(worker.pool.renew(lease.credential, deadline=deadline))
        await place.clock.advance(2)
        with pytest.raises(SignInRefused, match="banned"):
            await renewal
        lease.end()


async def test_an_operator_may_ask_any_process_to_sign_in() -> None:
    async with town(account("a")) as place:
        worker = place.other(place.keeper)
        deadline = place.clock.monotonic() + 30
        asking = asyncio.get_running_loop().create_task(worker.pool.sign_in("a@x.org", deadline=deadline))
        await place.clock.advance(2)
        await asking
        assert place.site.names == ["a", "a"]
        place.site.errors["a"] = [SignInRefused(SignInReason.WRONG_PASSWORD)]
        asking = asyncio.get_running_loop().create_task(worker.pool.sign_in("a@x.org", deadline=deadline))
        await place.clock.advance(2)
        with pytest.raises(SignInRefused, match="wrong_password"):
            await asking


async def test_another_takes_over_when_the_keeper_is_killed_and_keeps_the_spacing() -> None:
    async with town(*(account(name) for name in "abcd"), spacing=10, settle=0) as place:
        first = place.keeper
        await place.clock.advance(1)
        assert place.site.names == ["a"]
        await place.clock.advance(10)
        assert place.site.names == ["a", "b"]
        await first.die()
        await place.clock.advance(8)
        second = place.other(first)
        assert second.pool.is_keeper
        assert place.site.names == ["a", "b"]
        await place.clock.advance(30)
        assert place.site.names == ["a", "b", "c", "d"]
        times = [at for at, _ in place.site.attempts]
        assert all(later - earlier >= 10 for earlier, later in pairwise(times))


async def test_an_account_added_in_one_process_is_signed_in_and_served_by_all() -> None:
    async with town(account("a"), concurrency=1) as place:
        worker = place.other(place.keeper)
        await worker.pool.put(account("b"))
        await place.clock.advance(1)
        for process in place.processes:
            (await (await process.ask(only="b"))).end()
            await place.clock.advance(2.5)
        assert place.site.names == ["a", "b"]


async def test_a_changed_password_clears_a_refusal_everywhere() -> None:
    async with town(account("a"), settle=0) as place:
        worker = place.other(place.keeper)
        await place.clock.advance(1)
        await worker.pool.put(account("a", password="wrong"))
        place.site.errors["a"] = [SignInRefused(SignInReason.WRONG_PASSWORD)]
        await place.clock.advance(1)
        with pytest.raises(NoAccountUsable, match="wrong_password"):
            await (await worker.ask())
        await worker.pool.put(account("a", password="right"))
        await place.clock.advance(1)
        assert [process.state("a") for process in place.processes] == ["ready"] * 2
