"""Sign-in, the token and its renewal (upstream protocol §1), through the whole program."""

import asyncio
import hashlib
from itertools import pairwise
from typing import Literal

import pytest

from qwen_proxy.accounts.health import SignInState
from qwen_proxy.accounts.report import AccountReport
from qwen_proxy.simulator import Account, Fault, Scenario, challenge
from qwen_proxy.simulator.replies import Reply, captcha_json, flat_error, hang, unauthorized, unavailable, waf_html
from qwen_proxy.simulator.scenario import Standing
from tests.support.asking import streamed, whole
from tests.support.running import Running, running
from tests.support.waiting import until

ANNA, BEN = "anna@example.com", "ben@example.com"
ONE = (f"{ANNA}:pw-a",)
TWO = (f"{ANNA}:pw-a", f"{BEN}:pw-b")


def site(standing: Standing = "good") -> Scenario:
    return Scenario(accounts={ANNA: Account("pw-a", standing), BEN: Account("pw-b")})


def report(gateway: Running, account: str = ANNA) -> AccountReport:
    return next(each for each in gateway.pool.snapshot() if each.account == account)


def sign_ins(gateway: Running, account: str | None = None) -> int:
    seen = gateway.simulator.seen("signin_v1") + gateway.simulator.seen("signin_v2")
    return sum(account in (None, each.account) for each in seen)


async def signed_in(gateway: Running, *accounts: str) -> None:
    await until(lambda: all(report(gateway, account).has_token for account in accounts))


@pytest.mark.parametrize("v2", ["body", "data", "cookie"])
@pytest.mark.parametrize("v1", ["body", "data", "cookie", "no_token", "not_found", "not_allowed"])
async def test_the_token_is_found_wherever_the_sign_in_left_it(
    v1: Literal["body", "data", "cookie", "no_token", "not_found", "not_allowed"],
    v2: Literal["body", "data", "cookie"],
) -> None:
    async with running(Scenario(signin_v1=v1, signin_v2=v2)) as gateway:
        assert (await whole(gateway)).status == 200
        asked_second = v1 in ("no_token", "not_found", "not_allowed")
        assert len(gateway.simulator.seen("signin_v1")) == 1
        assert len(gateway.simulator.seen("signin_v2")) == asked_second


async def test_a_site_that_gives_no_token_anywhere_is_asked_again_later() -> None:
    async with running(Scenario(signin_v1="not_found", signin_v2="no_token"), accounts=ONE) as gateway:
        reply = await whole(gateway)
        assert reply.status == 503
        assert report(gateway).sign_in_state is SignInState.FAILED
        assert report(gateway).until is not None


async def test_a_refresh_token_cookie_goes_along_with_every_later_call() -> None:
    async with running(Scenario(signin_v1="cookie")) as gateway:
        assert (await whole(gateway)).status == 200
        (completion,) = gateway.simulator.seen("completions")
        assert completion.cookies["refresh_token"] == "simulated-refresh"
        assert completion.cookies["token"] == completion.bearer


async def test_the_password_travels_as_its_hash_only() -> None:
    password = "correct:horse→battery"
    async with running(Scenario(accounts={ANNA: Account(password)}), accounts=(f"{ANNA}:{password}",)) as gateway:
        assert (await whole(gateway)).status == 200
        (seen,) = gateway.simulator.seen("signin_v1")
        assert seen.json == {"email": ANNA, "password": hashlib.sha256(password.encode()).hexdigest()}
        assert not any(password.encode() in each.body for each in gateway.simulator.requests)


@pytest.mark.parametrize("status", [400, 401])
async def test_a_wrong_password_stays_with_its_reason_and_is_not_asked_again(status: Literal[400, 401]) -> None:
    scenario = site("wrong_password")
    scenario.wrong_password_status = status
    async with running(scenario, accounts=ONE) as gateway:
        for _ in range(3):
            reply = await whole(gateway)
            assert reply.error is not None
            assert (reply.status, reply.error.code) == (503, "no_account")
            assert "wrong_password" in reply.error.message
        told = report(gateway)
        assert (told.sign_in_state, told.sign_in_reason, told.until) == (SignInState.REFUSED, "wrong_password", None)
        assert told.next_action == "Correct the account's password."
        assert sign_ins(gateway) == 1


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        ("unregistered", "not_registered"),
        ("pending", "not_activated"),
        ("pending_role", "not_activated"),
        ("banned", "banned"),
    ],
)
async def test_an_account_refused_at_sign_in_keeps_its_reason_and_the_others_serve(
    standing: Standing, reason: str
) -> None:
    async with running(site(standing), accounts=TWO) as gateway:
        assert (await whole(gateway)).status == 200
        await until(lambda: report(gateway).sign_in_state is SignInState.REFUSED)
        assert report(gateway).sign_in_reason == reason
        assert sign_ins(gateway, ANNA) == 1
        assert len(gateway.pool.snapshot()) == 2


async def test_an_account_banned_after_its_sign_in_gives_way_to_another() -> None:
    async with running(site(), accounts=TWO) as gateway:
        await signed_in(gateway, ANNA, BEN)
        gateway.scenario.accounts[ANNA].standing = "banned"
        for _ in range(4):
            assert (await whole(gateway)).status == 200


@pytest.mark.parametrize("reply", [waf_html(), waf_html(403), waf_html(405), captcha_json()])
async def test_a_challenge_at_sign_in_is_no_wrong_password_and_stops_the_exit_s_sign_ins(reply: Reply) -> None:
    faults = [Fault(reply, endpoint="signin_v1"), Fault(reply, endpoint="signin_v2")]
    async with running(Scenario(faults=faults), accounts=TWO) as gateway:
        told = await whole(gateway)
        assert told.error is not None
        assert (told.status, told.error.code) == (503, "upstream_verification_required")
        assert told.headers["retry-after"] == "60"
        assert sign_ins(gateway) == 1  # the second account did not run into the same wall
        assert report(gateway).state == "sign_ins_rest"
        assert len(gateway.pool.snapshot()) == 2


async def test_a_hundred_requests_at_once_make_one_sign_in() -> None:
    scenario = Scenario(latency={"signin_v1": 0.2})
    async with running(scenario, accounts=ONE, ACCOUNT_CONCURRENCY="0") as gateway:
        replies = await asyncio.gather(*(whole(gateway) for _ in range(100)))
        assert {reply.status for reply in replies} == {200}
        assert sign_ins(gateway) == 1
        assert len(gateway.simulator.seen("models")) == 1
        assert gateway.leases() == 0


async def test_a_token_rejected_later_is_renewed_once_and_the_client_sees_one_good_answer() -> None:
    async with running(accounts=ONE) as gateway:
        assert (await whole(gateway)).status == 200
        for count, fetch in enumerate((whole, streamed), start=1):
            gateway.simulator.revoke_tokens(ANNA)
            reply = await fetch(gateway)
            assert (reply.status, reply.finish, reply.error) == (200, "stop", None)
            assert sign_ins(gateway) == 1 + count


async def test_a_hundred_requests_with_a_rejected_token_make_one_sign_in() -> None:
    async with running(accounts=ONE, ACCOUNT_CONCURRENCY="0") as gateway:
        assert (await whole(gateway)).status == 200
        gateway.simulator.revoke_tokens(ANNA)
        gateway.scenario.latency["signin_v1"] = 0.2
        replies = await asyncio.gather(*(whole(gateway) for _ in range(100)))
        assert {reply.status for reply in replies} == {200}
        assert sign_ins(gateway) == 2


@pytest.mark.parametrize("actual", [401, None])
async def test_a_token_rejected_in_the_completion_itself_is_renewed_too(actual: int | None) -> None:
    async with running(accounts=ONE) as gateway:
        assert (await whole(gateway)).status == 200
        refusal = unauthorized()
        refusal.actual_status = actual
        gateway.scenario.faults = [Fault(refusal, times=1)]
        assert (await streamed(gateway)).done
        assert sign_ins(gateway) == 2


async def test_a_token_rejected_twice_gives_way_to_another_account() -> None:
    async with running(accounts=TWO, CHAT_RETRY_COUNT="2") as gateway:
        for _ in TWO:
            assert (await whole(gateway)).status == 200
        gateway.scenario.faults = [Fault(unauthorized(), endpoint="chats_new", account=ANNA)]
        for _ in range(3):
            assert (await whole(gateway)).status == 200
        assert sign_ins(gateway, ANNA) == 2
        assert sign_ins(gateway, BEN) == 1
        assert {seen.account for seen in gateway.simulator.seen("completions")[2:]} == {BEN}


async def test_a_token_rejected_twice_without_another_account_is_told() -> None:
    async with running(accounts=ONE) as gateway:
        assert (await whole(gateway)).status == 200
        gateway.scenario.faults = [Fault(unauthorized(), endpoint="chats_new")]
        reply = await whole(gateway)
        assert reply.error is not None
        assert (reply.status, reply.error.type, reply.error.code) == (502, "upstream_error", "upstream_auth")
        assert sign_ins(gateway) == 2
        again = await whole(gateway)
        assert again.error is not None
        assert (again.status, again.error.code) == (503, "no_account")
        assert "token_rejected_after_sign_in" in again.error.message
        assert sign_ins(gateway) == 2


RENEWALS: dict[str, tuple[Reply, str]] = {
    "outage": (unavailable(503), "not signed in, since the attempt failed"),
    "challenge": (waf_html(), "not signed in, since sign-ins were challenged"),
    "wrong password": (flat_error(400, "The email or password provided is incorrect."), "wrong_password"),
    "banned": (flat_error(403, "This account has been suspended."), "banned"),
}


@pytest.mark.parametrize("name", RENEWALS)
async def test_a_renewal_that_fails_gives_way_to_another_account_or_says_why(name: str) -> None:
    reply, why = RENEWALS[name]
    async with running(accounts=TWO) as gateway:
        for _ in TWO:
            assert (await whole(gateway)).status == 200
        gateway.simulator.revoke_tokens(ANNA)
        gateway.scenario.faults = [Fault(reply, endpoint="signin_v1")]
        for _ in range(3):
            assert (await whole(gateway)).status == 200
        assert {seen.account for seen in gateway.simulator.seen("completions")[2:]} == {BEN}
        assert sign_ins(gateway, ANNA) == 2
    async with running(accounts=ONE) as gateway:
        assert (await whole(gateway)).status == 200
        gateway.simulator.revoke_tokens(ANNA)
        gateway.scenario.faults = [Fault(reply, endpoint="signin_v1")]
        told = await whole(gateway)
        assert told.error is not None
        assert told.status == 503
        assert why in told.error.message


async def test_a_token_that_says_it_has_ended_is_used_until_it_is_rejected() -> None:
    """Our clock may be wrong: only the site's answer counts (§1.4)."""
    async with running(Scenario(clock_offset_seconds=-3600, token_lifetime_seconds=1800), accounts=ONE) as gateway:
        assert (await whole(gateway)).status == 200
        assert (report(gateway).token_expires_at or 0) < report(gateway).sign_in_attempted_at
        assert (await whole(gateway)).status == 200
        assert sign_ins(gateway) == 1


async def test_an_ended_token_is_replaced_when_the_site_says_so() -> None:
    """The site's clock is ahead: it ends tokens that we think are good."""
    async with running(Scenario(token_lifetime_seconds=1800), accounts=ONE) as gateway:
        assert (await whole(gateway)).status == 200
        gateway.scenario.clock_offset_seconds = 3600
        assert (await whole(gateway)).status == 200
        assert sign_ins(gateway) == 2


async def test_a_token_is_renewed_before_its_end_without_any_request_failing() -> None:
    """The real clock, with tokens that live two seconds and are renewed 0.72 s before their end, half-way at least."""
    scenario = Scenario(token_lifetime_seconds=2)
    async with running(scenario, accounts=ONE, REFRESH_BEFORE_HOURS="0.0002") as gateway:
        while sign_ins(gateway) < 4:
            reply = await whole(gateway)
            assert (reply.status, reply.error) == (200, None)
            await asyncio.sleep(0.05)
        new_chats = gateway.simulator.seen("chats_new")
        assert len(gateway.simulator.seen("completions")) == len(new_chats)  # none was rejected and tried again
        assert len({seen.bearer for seen in new_chats}) >= 3


async def test_a_token_whose_renewal_is_refused_serves_to_its_end() -> None:
    scenario = site()
    scenario.token_lifetime_seconds = 3
    async with running(scenario, accounts=ONE, REFRESH_BEFORE_HOURS="24") as gateway:
        assert (await whole(gateway)).status == 200
        scenario.accounts[ANNA].password = "changed"
        await until(lambda: sign_ins(gateway) == 2)
        await until(lambda: report(gateway).sign_in_reason == "wrong_password")
        assert report(gateway).state == "ready"
        assert (await whole(gateway)).status == 200
        scenario.clock_offset_seconds = 3  # now it has ended
        reply = await whole(gateway)
        assert reply.error is not None
        assert (reply.status, reply.error.code) == (503, "no_account")
        assert "wrong_password" in reply.error.message
        assert sign_ins(gateway) == 2


async def test_waiting_for_a_sign_in_ends_at_its_deadline_with_a_sentence() -> None:
    async with running(Scenario(latency={"signin_v1": 1.0}), accounts=ONE, QUEUE_SECONDS="0.2") as gateway:
        reply = await whole(gateway)
        assert reply.error is not None
        assert (reply.status, reply.error.code) == (503, "no_account")
        assert "1 waiting for sign-in" in reply.error.message


async def test_sign_ins_go_on_by_themselves_after_a_challenge() -> None:
    """The breaker of sign-ins with a real, shortened setting."""
    scenario = Scenario(faults=[challenge("html", endpoint="signin_v1", times=2)])
    async with running(scenario, accounts=TWO, CHALLENGE_REST_SECONDS="0.2") as gateway:
        await signed_in(gateway, ANNA, BEN)
        first, second, third, _ = (seen.at for seen in gateway.simulator.seen("signin_v1"))
        assert second - first >= 0.19
        assert third - second >= 0.39
        assert (await whole(gateway)).status == 200


async def test_sign_ins_on_one_exit_are_spaced_and_the_first_serves_meanwhile() -> None:
    accounts = tuple(f"{name}@example.com:pw" for name in "abcd")
    async with running(accounts=accounts, SIGNIN_SPACING_SECONDS="0.4") as gateway:
        assert (await whole(gateway)).status == 200
        assert sign_ins(gateway) == 1
        await until(lambda: all(each.has_token for each in gateway.pool.snapshot()))
        times = [seen.at for seen in gateway.simulator.seen("signin_v1")]
        assert all(later - earlier >= 0.2 for earlier, later in pairwise(times))
        assert len(times) == 4


async def test_one_sign_in_runs_at_a_time() -> None:
    accounts = tuple(f"{name}@example.com:pw" for name in "abc")
    async with running(Scenario(latency={"signin_v1": 0.3}), accounts=accounts) as gateway:
        await until(lambda: all(each.has_token for each in gateway.pool.snapshot()))
        times = [seen.at for seen in gateway.simulator.seen("signin_v1")]
        assert all(later - earlier >= 0.29 for earlier, later in pairwise(times))


@pytest.mark.parametrize("reply", [unavailable(503), flat_error(500, "oops")])
async def test_a_failing_site_at_sign_in_loses_no_account(reply: Reply) -> None:
    scenario = Scenario(faults=[Fault(reply, endpoint="signin_v1")])
    async with running(scenario, accounts=TWO) as gateway:
        told = await whole(gateway)
        assert told.error is not None
        assert (told.status, told.error.code) == (503, "no_account")
        assert int(told.headers["retry-after"]) <= 30
        for each in gateway.pool.snapshot():
            assert each.sign_in_state is SignInState.FAILED
            assert each.until is not None  # it is tried again by itself


async def test_an_outage_while_signing_in_loses_nobody() -> None:
    async with running(Scenario(faults=[Fault(hang(), endpoint="signin_v1")]), accounts=TWO) as gateway:
        await until(lambda: sign_ins(gateway) == 1)
        await gateway.simulator.stop()
        await until(lambda: all(each.sign_in_state is SignInState.FAILED for each in gateway.pool.snapshot()))
        assert (await whole(gateway)).status in (502, 503)
        gateway.scenario.faults = []
        await gateway.simulator.start()
        for account in (ANNA, BEN):
            await gateway.pool.sign_in(account, deadline=asyncio.get_running_loop().time() + 5)
        assert (await whole(gateway)).status == 200


async def test_an_outage_later_keeps_the_tokens() -> None:
    async with running(accounts=TWO) as gateway:
        await signed_in(gateway, ANNA, BEN)
        assert (await whole(gateway)).status == 200
        await gateway.simulator.stop()
        assert (await whole(gateway)).status == 502
        await gateway.simulator.start()
        assert (await whole(gateway)).status == 200
        assert sign_ins(gateway) == 2


async def test_a_sign_in_wall_of_the_site_is_not_hit_with_spacing() -> None:
    """The site allows one sign-in in 0.3 s from one address (§1.3); spacing keeps to it."""
    scenario = Scenario(signin_limit=(1, 0.3))
    async with running(scenario, accounts=TWO, SIGNIN_SPACING_SECONDS="0.4") as gateway:
        await signed_in(gateway, ANNA, BEN)
        assert sign_ins(gateway) == 2


async def test_a_challenged_request_does_not_sign_in_again() -> None:
    async with running(Scenario(faults=[challenge(account=ANNA)]), accounts=TWO) as gateway:
        await signed_in(gateway, ANNA, BEN)
        for _ in range(3):
            assert (await whole(gateway)).status == 200
        assert sign_ins(gateway) == 2


async def test_no_account_at_all_is_said() -> None:
    async with running(accounts=()) as gateway:
        reply = await whole(gateway)
        assert reply.error is not None
        assert (reply.status, reply.error.type, reply.error.code) == (503, "server_error", "no_account")
        assert "ACCOUNTS" in reply.error.message
