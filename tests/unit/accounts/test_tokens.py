"""Signing in: spacing, single flight, failures, refresh."""

import asyncio

import pytest

from qwen_proxy.accounts.health import SignInState
from qwen_proxy.accounts.model import OutcomeKind
from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsChallenged,
    CredentialRejected,
    ExitUnreachable,
    NoAccountUsable,
    ShuttingDown,
    SignInReason,
    SignInRefused,
    UpstreamChallenged,
    UpstreamUnavailable,
)
from qwen_proxy.ground.secret import Secret
from tests.unit.accounts.house import MONTH_SECONDS, account, house, outcome

DAY = 24 * 3600.0


async def test_every_account_is_signed_in_at_start_one_at_a_time_and_spaced() -> None:
    async with house(*(account(name) for name in "abc"), spacing=10) as home:
        home.site.takes_seconds = 4
        await home.clock.advance(40)
        assert home.site.attempts == [(1000, "a"), (1010, "b"), (1020, "c")]
        assert home.site.most_at_once == 1


async def test_a_sign_in_longer_than_the_spacing_is_waited_for() -> None:
    async with house(*(account(name) for name in "ab"), spacing=10, settle=False) as home:
        home.site.takes_seconds = 15
        await home.clock.advance(40)
        assert home.site.attempts == [(1000, "a"), (1015, "b")]
        assert home.site.most_at_once == 1


async def test_exits_do_not_wait_for_each_other() -> None:
    async with house(account("a"), account("b", "http://p"), spacing=10) as home:
        assert home.site.attempts == [(1000, "a"), (1000, "b")]


async def test_a_hundred_callers_wait_for_one_sign_in() -> None:
    async with house(account("a"), concurrency=0, settle=False) as home:
        home.site.takes_seconds = 4
        waiting = [await home.wait() for _ in range(100)]
        await home.clock.advance(5)
        assert home.site.names == ["a"]
        assert {(await task).credential.token.reveal() for task in waiting} == {"a-1"}


async def test_the_account_that_is_asked_for_is_signed_in_first() -> None:
    async with house(*(account(name) for name in "abc"), spacing=10) as home:
        waiter = await home.wait(only="c")
        await home.clock.advance(30)
        assert home.site.names == ["a", "c", "b"]
        (await waiter).end()


async def test_a_stored_token_is_used_without_signing_in() -> None:
    async with house(account("a")) as home:
        pass
    async with house(account("a"), kept=home.kept) as again:
        assert again.take().credential.token.reveal() == "a-1"
        assert again.site.attempts == []


async def test_a_wrong_password_is_not_asked_again_until_it_is_changed() -> None:
    async with house(account("a"), settle=False) as home:
        home.site.errors["a"] = [SignInRefused(SignInReason.WRONG_PASSWORD)]
        waiter = await home.wait()
        with pytest.raises(NoAccountUsable, match=r"1 refused at sign-in \(wrong_password\)"):
            await waiter
        await home.clock.advance(3 * DAY)
        assert home.site.names == ["a"]
        report = home.pool.snapshot()[0]
        assert (report.state, report.next_action) == ("sign_in_refused", "Correct the account's password.")
        await home.pool.put(account("a", password="better"))
        await home.clock.settle()
        assert home.take().credential.token.reveal() == "a-2"


async def test_an_operator_may_try_a_refused_account_again() -> None:
    async with house(account("a"), settle=False) as home:
        home.site.errors["a"] = [SignInRefused(SignInReason.WRONG_PASSWORD)] * 2
        await home.clock.settle()
        deadline = home.clock.monotonic() + 60
        with pytest.raises(SignInRefused):
            await home.pool.sign_in("a@x.org", deadline=deadline)
        await home.pool.sign_in("a@x.org", deadline=deadline)
        assert home.state("a") == "ready"
        with pytest.raises(NoAccountUsable):
            await home.pool.sign_in("b@x.org", deadline=deadline)


async def test_an_outage_loses_nobody() -> None:
    async with house(account("a"), account("b"), settle=False) as home:
        for name in "ab":
            home.site.errors[name] = [UpstreamUnavailable("HTTP 503")] * 4
        await home.clock.advance(29)
        assert home.site.names == ["a", "b"]
        assert [report.state for report in home.pool.snapshot()] == ["sign_in_failed"] * 2
        with pytest.raises(NoAccountUsable) as caught:
            await home.pool.take(home.want())
        assert caught.value.retry_after_seconds == 1
        await home.clock.advance(30 + 60 + 120 + 240)
        assert home.site.names == ["a", "b"] * 5
        assert [report.state for report in home.pool.snapshot()] == ["ready"] * 2


async def test_an_account_without_password_or_token_says_so() -> None:
    async with house(account("a", password=None)) as home:
        with pytest.raises(NoAccountUsable, match="no_password"):
            await home.pool.take(home.want())
        assert home.site.attempts == []


async def test_a_challenge_at_sign_in_rests_the_sign_ins_of_its_exit_only() -> None:
    async with house(account("a"), account("b"), account("c", "http://p"), spacing=1, settle=False) as home:
        home.site.errors["a"] = [UpstreamChallenged("html")]
        await home.clock.advance(50)
        assert home.site.names == ["a", "c"]
        assert [home.state(name) for name in "abc"] == ["sign_ins_rest", "sign_ins_rest", "ready"]
        with pytest.raises(AccountsChallenged):
            await home.pool.take(home.want(only="b"))
        await home.clock.advance(15)
        assert [home.state(name) for name in "abc"] == ["ready"] * 3


async def test_a_dead_proxy_rests_its_exit_and_is_tried_again() -> None:
    async with house(account("a", "http://u:pw@p:1"), settle=False) as home:
        home.site.errors["a"] = [ExitUnreachable("connection refused")]
        with pytest.raises(NoAccountUsable, match="on an exit that does not answer"):
            await home.pool.take(home.want())
        assert home.pool.exits()[0].exit == "http://p:1"
        await home.clock.advance(6)
        assert home.site.names == ["a", "a"]
        assert home.state("a") == "ready"


async def test_a_bug_in_the_sign_in_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with house(account("a"), account("b"), settle=False) as home:
        home.site.errors["a"] = [ValueError("a bug")]
        await home.clock.advance(1)
        assert "task failed" in caplog.text
        await home.clock.advance(60)
        assert home.state("a") == "ready"
        assert home.state("b") == "ready"


# --- rejected tokens ---------------------------------------------------------------------------------------


async def test_many_who_were_rejected_cause_one_sign_in() -> None:
    async with house(account("a"), concurrency=0) as home:
        home.use(OutcomeKind.SUCCEEDED)
        leases = [home.take() for _ in range(20)]
        home.site.takes_seconds = 4
        deadline = home.clock.monotonic() + 60
        renewals = [await home.start(home.pool.renew(lease.credential, deadline=deadline)) for lease in leases]
        await home.clock.advance(5)
        await asyncio.gather(*renewals)
        assert home.site.names == ["a", "a"]
        await home.pool.renew(leases[0].credential, deadline=deadline)  # someone else's news is old
        assert home.site.names == ["a", "a"]


async def test_a_late_report_about_an_old_token_does_not_cost_the_new_one() -> None:
    async with house(account("a")) as home:
        home.use(OutcomeKind.SUCCEEDED)
        early, late = home.take(), home.take()
        early.report(outcome(OutcomeKind.CREDENTIAL_REJECTED))
        await home.clock.settle()
        late.report(outcome(OutcomeKind.CREDENTIAL_REJECTED))
        assert home.state("a") == "busy"
        early.end()
        late.end()
        assert home.take().credential.token.reveal() == "a-2"


async def test_a_token_rejected_right_after_its_sign_in_backs_off() -> None:
    async with house(account("a")) as home:
        lease = home.take()
        with pytest.raises(CredentialRejected):
            await home.pool.renew(lease.credential, deadline=home.clock.monotonic() + 60)
        lease.end()
        assert home.state("a") == "sign_in_refused"
        await home.clock.advance(31)
        assert home.state("a") == "ready"
        home.use(OutcomeKind.CREDENTIAL_REJECTED)
        await home.clock.advance(31)
        assert home.state("a") == "sign_in_refused"  # for longer each time
        await home.clock.advance(30)
        home.use(OutcomeKind.SUCCEEDED)
        home.use(OutcomeKind.CREDENTIAL_REJECTED)
        await home.clock.settle()
        assert home.state("a") == "ready"  # it had worked: signed in at once


async def test_a_failed_renewal_tells_why() -> None:
    async with house(account("a")) as home:
        home.use(OutcomeKind.SUCCEEDED)
        home.site.errors["a"] = [SignInRefused(SignInReason.BANNED)]
        lease = home.take()
        with pytest.raises(SignInRefused, match="banned"):
            await home.pool.renew(lease.credential, deadline=home.clock.monotonic() + 60)
        lease.end()


async def test_a_renewal_has_a_deadline_and_can_be_cancelled() -> None:
    async with house(account("a")) as home:
        home.use(OutcomeKind.SUCCEEDED)
        stale = home.take().credential
        home.site.takes_seconds = 100
        start = home.clock.monotonic()
        late = await home.start(home.pool.renew(stale, deadline=start + 5))
        gone = await home.start(home.pool.renew(stale, deadline=start + 60))
        kept = await home.start(home.pool.renew(stale, deadline=start + 200))
        gone.cancel()
        await home.clock.advance(6)
        with pytest.raises(AccountsBusy):
            await late
        await home.clock.advance(100)
        await kept
        assert gone.cancelled()


async def test_one_who_leaves_as_the_sign_in_ends_is_quiet() -> None:
    async with house(account("a"), settle=False) as home:
        home.site.takes_seconds = 5
        deadline = home.clock.monotonic() + 60
        tasks = [await home.start(home.pool.sign_in("a@x.org", deadline=deadline)) for _ in range(2)]
        waking = await home.start(home.clock.advance(4.9))
        await waking
        tasks[0].cancel()
        await home.clock.advance(1)
        await tasks[1]
        assert tasks[0].cancelled()


async def test_leaving_the_pool_ends_renewals() -> None:
    async with house(account("a")) as home:
        home.use(OutcomeKind.SUCCEEDED)
        home.site.takes_seconds = 100
        renewal = await home.start(home.pool.renew(home.take().credential, deadline=home.clock.monotonic() + 60))
    with pytest.raises(ShuttingDown):
        await renewal


async def test_an_account_changed_while_it_is_signed_in_is_signed_in_anew() -> None:
    async with house(account("a"), settle=False) as home:
        home.site.takes_seconds = 4
        await home.clock.advance(1)
        await home.pool.put(account("a", password="better"))
        await home.clock.advance(10)
        assert home.site.names == ["a", "a"]
        assert home.take().credential.token.reveal() == "a-2"


async def test_an_account_removed_while_it_is_signed_in_or_queued_is_forgotten() -> None:
    async with house(account("a"), account("b"), spacing=10, settle=False) as home:
        home.site.takes_seconds = 4
        await home.clock.advance(1)
        await home.pool.remove("a@x.org")
        await home.pool.remove("b@x.org")
        await home.clock.advance(100)
        assert home.site.names == ["a"]
        assert home.pool.snapshot() == []
        assert await home.kept.book.all() == []


async def test_a_new_exit_holds_for_the_token_there_is() -> None:
    async with house(account("a")) as home:
        await home.pool.put(account("a", "http://p:1"))
        assert home.take().credential.exit == "http://p:1"
        assert home.site.names == ["a"]
        assert [report.exit for report in home.pool.exits()] == ["http://p:1"]


# --- refresh -----------------------------------------------------------------------------------------------


async def test_a_token_is_renewed_a_day_before_its_end_even_when_idle() -> None:
    async with house(account("a")) as home:
        await home.clock.advance(MONTH_SECONDS - DAY - 10)
        assert home.site.names == ["a"]
        await home.clock.advance(20)
        assert home.site.names == ["a", "a"]
        assert home.take().credential.token.reveal() == "a-2"


async def test_the_old_token_serves_while_its_renewal_fails() -> None:
    async with house(account("a")) as home:
        home.site.errors["a"] = [UpstreamUnavailable("HTTP 503")]
        await home.clock.advance(MONTH_SECONDS - DAY + 1)
        report = home.pool.snapshot()[0]
        assert (report.state, report.sign_in_state) == ("ready", SignInState.FAILED)
        assert home.take().credential.token.reveal() == "a-1"
        await home.clock.advance(31)
        assert home.pool.snapshot()[0].sign_in_state is SignInState.SUCCEEDED


async def test_renewals_are_spread() -> None:
    async with house(*(account(name) for name in "abcdef"), jitter=3600) as home:
        await home.clock.advance(MONTH_SECONDS - DAY + 1)
        times = sorted({at for at, _ in home.site.attempts[6:]})
        assert len(times) == 6
        assert times[-1] - times[0] > 600


async def test_passwords_and_tokens_are_not_in_reports_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with house(account("a", "http://me:canary-1@p:1", password="canary-2")) as home:
        assert home.take().credential.token == Secret("a-1")
        home.use(OutcomeKind.CHALLENGED)
        printed = repr((home.pool.snapshot(), home.pool.exits())) + caplog.text + repr(await home.kept.book.all())
    assert "canary-2" not in printed
    assert "a-1" not in printed
    assert "canary" not in repr((home.pool.snapshot(), home.pool.exits()))
