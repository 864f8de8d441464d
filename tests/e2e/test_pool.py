"""Choosing, resting and queueing accounts, readiness, and the deletion of chats, through the whole program."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

import qwen_proxy.simulator.frames as frames
from qwen_proxy.accounts.report import AccountReport, ExitReport, exit_name
from qwen_proxy.simulator import (
    Account,
    Fault,
    Pause,
    Reply,
    Reset,
    Scenario,
    SendHeaders,
    Stall,
    challenge,
    quota,
    stream,
)
from qwen_proxy.simulator.replies import empty_body, unavailable
from tests.support.asking import PATH, streamed, whole
from tests.support.proxies import HttpProxy
from tests.support.running import Running, ask, running
from tests.support.waiting import until

A, B, C, D = (f"{name}@example.com" for name in "abcd")


def lines(*accounts: str) -> tuple[str, ...]:
    return tuple(f"{account}:pw" for account in accounts)


def report(gateway: Running, account: str) -> AccountReport:
    return next(each for each in gateway.pool.snapshot() if each.account == account)


def exit_of(gateway: Running, url: str = "") -> ExitReport:
    return next(each for each in gateway.pool.exits() if each.exit == exit_name(url))


def served_by(gateway: Running) -> list[str | None]:
    return [seen.account for seen in gateway.simulator.seen("completions")]


async def signed_in(gateway: Running) -> None:
    await until(lambda: all(each.has_token for each in gateway.pool.snapshot()))


async def readiness(gateway: Running) -> tuple[int, str]:
    async with gateway.client.get("/readyz") as response:
        return response.status, await response.text()


# --- strategies


async def test_a_conversation_keeps_to_its_account_with_the_session_strategy() -> None:
    async with running(accounts=lines(A, B, C, D), ACCOUNT_STRATEGY="session") as gateway:
        await signed_in(gateway)
        for number in range(5):
            for text in ("first", f"then {number}"):
                body = ask(messages=[{"role": "user", "content": text}], metadata={"session_id": f"s{number}"})
                async with gateway.client.post(PATH, json=body) as response:
                    assert response.status == 200
        served = served_by(gateway)
        assert served[0::2] == served[1::2]
        assert len(set(served)) > 1
        assert (gateway.pool.sessions.hits, gateway.pool.sessions.sessions) == (10, 5)


async def test_the_account_added_first_is_filled_first() -> None:
    async with running(accounts=lines(D, A), ACCOUNT_STRATEGY="fill_first") as gateway:
        await signed_in(gateway)
        for _ in range(3):
            async with gateway.client.post(PATH, json=ask()) as response:
                assert response.status == 200
        assert served_by(gateway) == [D] * 3


# --- seats and the queue


async def test_an_account_has_so_many_replies_at_a_time_and_the_rest_wait_in_order() -> None:
    held = [stream(frames.answer("x"), Stall()) for _ in range(2)]
    short = [stream(Pause(0.05), frames.answer("x"), frames.finished()) for _ in range(6)]
    async with running(Scenario(replies=held + short), accounts=lines(A), ACCOUNT_CONCURRENCY="2") as gateway:
        async with AsyncExitStack() as stack:
            for _ in held:
                await stack.enter_async_context(gateway.client.post(PATH, json=ask(stream=True)))
            asking: list[asyncio.Future[int]] = []
            for number in range(6):
                asking.append(asyncio.ensure_future(_status(gateway, f"number {number}")))  # noqa: TID251
                await until(lambda number=number: gateway.pool.waiting == number + 1)
        most = 0
        while not all(each.done() for each in asking):
            most = max(most, gateway.leases())
            await asyncio.sleep(0.002)
        assert [each.result() for each in asking] == [200] * 6
        assert most == 2
        texts = [seen.json["messages"][0]["content"] for seen in gateway.simulator.seen("completions")[2:]]
        pairs = [sorted(texts[at : at + 2]) for at in range(0, 6, 2)]
        assert pairs == [[f"number {at}", f"number {at + 1}"] for at in range(0, 6, 2)]


async def _status(gateway: Running, text: str) -> int:
    return (await whole(gateway, text)).status


async def test_no_limit_means_none() -> None:
    held = [stream(frames.answer("x"), Stall()) for _ in range(20)]
    async with running(Scenario(replies=held), accounts=lines(A), ACCOUNT_CONCURRENCY="0") as gateway:
        async with AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(gateway.client.post(PATH, json=ask(stream=True)))
            assert gateway.simulator.open_generations == gateway.leases() == 20


async def test_waiting_for_a_busy_account_ends_at_its_deadline_with_a_sentence() -> None:
    settings = {"ACCOUNT_CONCURRENCY": "1", "QUEUE_SECONDS": "0.2"}
    scenario = Scenario(replies=[stream(frames.answer("x"), Stall())])
    async with running(scenario, accounts=lines(A), **settings) as gateway:
        async with gateway.client.post(PATH, json=ask(stream=True)) as stalled:
            await stalled.content.readline()
            reply = await whole(gateway)
            assert reply.error is not None
            assert (reply.status, reply.error.type, reply.error.code) == (503, "server_error", "no_account")
            assert reply.error.message == "no account can be used for chat now: 1 account: 1 busy"
        await until(lambda: gateway.leases() == 0)
        assert (await whole(gateway)).status == 200


async def test_the_accounts_take_turns() -> None:
    async with running(accounts=lines(A, B, C)) as gateway:
        await signed_in(gateway)
        for _ in range(6):
            assert (await whole(gateway)).status == 200
        assert served_by(gateway) == [A, B, C, A, B, C]


async def test_the_account_with_fewer_replies_is_taken() -> None:
    scenario = Scenario(replies=[stream(frames.answer("x"), Stall())])
    async with running(scenario, accounts=lines(A, B)) as gateway:
        await signed_in(gateway)
        async with gateway.client.post(PATH, json=ask(stream=True)) as stalled:
            await stalled.content.readline()
            for _ in range(3):
                assert (await whole(gateway)).status == 200
        assert served_by(gateway) == [A, B, B, B]


# --- quota


@pytest.mark.parametrize(("num", "seconds"), [(2, 7200), (6, 21600), (None, 900)])
async def test_an_account_without_quota_is_parked_and_another_answers(num: int | None, seconds: int) -> None:
    async with running(Scenario(faults=[quota(A, num=num)]), accounts=lines(A, B)) as gateway:
        await signed_in(gateway)
        for _ in range(3):
            assert (await whole(gateway)).status == 200
        assert served_by(gateway) == [A, B, B, B]
        told = report(gateway, A)
        assert told.state == "out_of_quota"
        assert told.until is not None
        assert told.until - told.last_used_at == pytest.approx(seconds, abs=1)


@pytest.mark.parametrize(("num", "seconds"), [(6, 21600), (None, 900)])
async def test_all_accounts_without_quota_is_a_429_that_says_when(num: int | None, seconds: int) -> None:
    async with running(Scenario(faults=[quota(num=num)]), accounts=lines(A, B)) as gateway:
        await signed_in(gateway)
        for tries in (2, 0, 0):
            before = len(gateway.simulator.seen("completions"))
            reply = await streamed(gateway)
            assert reply.error is not None
            assert (reply.status, reply.error.type, reply.error.code) == (429, "rate_limit_error", "upstream_quota")
            assert int(reply.headers["retry-after"]) == pytest.approx(seconds, abs=5)
            assert len(gateway.simulator.seen("completions")) - before == tries
        status, text = await readiness(gateway)
        assert status == 503
        assert "2 out of quota until" in text


async def test_a_search_draws_on_the_quota_of_chat() -> None:
    async with running(Scenario(faults=[quota(times=1)]), accounts=lines(A), CHAT_RETRY_COUNT="0") as gateway:
        assert (await whole(gateway, model="qwen3.7-plus-search")).status == 429
        assert (await whole(gateway)).status == 429
        assert len(gateway.simulator.seen("completions")) == 1


async def test_the_first_to_come_back_is_what_the_client_is_told() -> None:
    scenario = Scenario(faults=[quota(A, num=3), quota(B, num=1)])
    async with running(scenario, accounts=lines(A, B), CHAT_RETRY_COUNT="2") as gateway:
        reply = await whole(gateway)
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) == pytest.approx(3600, abs=5)


# --- challenges and exits


async def test_a_first_challenge_rests_the_account_and_tries_one_other_on_another_exit() -> None:
    async with HttpProxy() as proxy:
        other = f"{C}:pw|http://127.0.0.1:{proxy.port}"
        async with running(Scenario(faults=[challenge(account=A)]), accounts=(*lines(A, B), other)) as gateway:
            await signed_in(gateway)
            assert (await whole(gateway)).status == 200
            assert served_by(gateway) == [A, C]
            assert report(gateway, A).state == "challenged"
            assert exit_of(gateway).state == "open"
            for _ in range(4):
                assert (await whole(gateway)).status == 200
            assert set(served_by(gateway)[2:]) == {B, C}


async def test_without_another_exit_a_challenge_tries_another_account_of_the_same() -> None:
    async with running(Scenario(faults=[challenge("html", account=A)]), accounts=lines(A, B)) as gateway:
        await signed_in(gateway)
        assert (await whole(gateway)).status == 200
        assert served_by(gateway) == [A, B]


async def test_a_second_challenge_ends_the_request_whatever_the_budget() -> None:
    async with running(Scenario(faults=[challenge()]), accounts=lines(A, B, C, D), CHAT_RETRY_COUNT="8") as gateway:
        await signed_in(gateway)
        reply = await whole(gateway)
        assert reply.error is not None
        assert (reply.status, reply.error.code) == (503, "upstream_verification_required")
        assert reply.headers["retry-after"] == "60"
        assert len(gateway.simulator.seen("completions")) == 2


async def test_two_accounts_challenged_on_one_exit_rest_the_exit_and_others_go_on() -> None:
    async with HttpProxy() as proxy:
        far = [f"{account}:pw|http://127.0.0.1:{proxy.port}" for account in (A, B, C)]
        scenario = Scenario(faults=[challenge(account=A), challenge(account=B)])
        async with running(scenario, accounts=(*far, f"{D}:pw"), CHAT_RETRY_COUNT="1") as gateway:
            await signed_in(gateway)
            for _ in range(6):
                assert (await whole(gateway)).status == 200
            assert exit_of(gateway, f"http://127.0.0.1:{proxy.port}").state == "challenged"
            assert exit_of(gateway).state == "open"
            challenged = len([account for account in served_by(gateway) if account in (A, B)])
            assert challenged == 2
            resting = served_by(gateway).index(B) + 1
            assert set(served_by(gateway)[resting:]) == {D}  # C was never challenged, but its exit rests
            assert (await readiness(gateway))[0] == 200


async def test_an_exit_that_rests_alone_is_said_and_let_through_again_by_one_trial() -> None:
    """The breaker with real, shortened settings."""
    scenario = Scenario(faults=[challenge()])
    settings = {"CHALLENGE_REST_SECONDS": "0.6", "CHAT_RETRY_COUNT": "1"}
    async with running(scenario, accounts=lines(A, B, C), **settings) as gateway:
        await signed_in(gateway)
        assert (await whole(gateway)).status == 503
        assert exit_of(gateway).state == "challenged"
        reply = await whole(gateway)
        assert reply.error is not None
        assert (reply.status, reply.error.code) == (503, "upstream_verification_required")
        assert reply.headers["retry-after"] == "1"
        assert (await readiness(gateway))[0] == 503
        assert len(gateway.simulator.seen("completions")) == 2

        await until(lambda: exit_of(gateway).state == "half_open")
        assert (await whole(gateway)).status == 503  # the trial meets the wall again: twice as long a rest
        assert len(gateway.simulator.seen("completions")) == 3
        rest = exit_of(gateway)
        assert (rest.state, rest.strikes) == ("challenged", 2)
        assert rest.until is not None
        assert rest.until - rest.challenged_at == pytest.approx(1.2, abs=0.1)

        await until(lambda: exit_of(gateway).state == "half_open")
        gateway.scenario.faults = []
        gateway.scenario.latency["completions"] = 0.2
        replies = await asyncio.gather(*(whole(gateway) for _ in range(5)))
        assert {reply.status for reply in replies} == {200}
        assert exit_of(gateway).state == "open"
        assert (await readiness(gateway))[0] == 200


async def test_only_one_request_tries_a_half_open_exit() -> None:
    scenario = Scenario(faults=[challenge(times=2)])
    settings = {"CHALLENGE_REST_SECONDS": "0.3", "CHAT_RETRY_COUNT": "1"}
    async with running(scenario, accounts=lines(A, B, C), **settings) as gateway:
        await signed_in(gateway)
        assert (await whole(gateway)).status == 503
        await until(lambda: exit_of(gateway).state == "half_open")
        gateway.scenario.replies = [stream(frames.answer("x"), Stall())]
        async with gateway.client.post(PATH, json=ask(stream=True)) as trial:
            await trial.content.readline()
            asking = asyncio.gather(*(_status(gateway, "x") for _ in range(3)))
            await until(lambda: gateway.pool.waiting == 3)
            assert gateway.simulator.open_generations == gateway.leases() == 1
        assert await asking == [200] * 3


# --- readiness


async def test_ready_with_one_usable_account() -> None:
    scenario = Scenario(accounts={A: Account("other"), B: Account("pw")}, latency={"signin_v1": 0.2})
    async with running(scenario, accounts=lines(A, B)) as gateway:
        status, text = await readiness(gateway)
        assert status == 503
        assert "waiting for sign-in" in text
        await until(lambda: report(gateway, B).has_token)
        assert (await readiness(gateway))[0] == 200
        gateway.scenario.faults = [quota(B)]
        assert (await whole(gateway)).status == 429
        status, text = await readiness(gateway)
        assert status == 503
        assert "refused at sign-in (wrong_password)" in text
        assert "1 out of quota until" in text


async def test_busy_is_ready() -> None:
    scenario = Scenario(replies=[stream(frames.answer("x"), Stall())])
    async with running(scenario, accounts=lines(A), ACCOUNT_CONCURRENCY="1") as gateway:
        async with gateway.client.post(PATH, json=ask(stream=True)) as stalled:
            await stalled.content.readline()
            assert (await readiness(gateway))[0] == 200


async def test_an_upstream_that_fails_often_makes_no_account_unusable() -> None:
    async with running(Scenario(faults=[Fault(unavailable(503))]), accounts=lines(A), CHAT_RETRY_COUNT="0") as gateway:
        for _ in range(8):
            assert (await whole(gateway)).status == 502
        assert len(gateway.simulator.seen("completions")) == 8
        gateway.scenario.faults = []
        assert (await whole(gateway)).status == 200


async def test_an_account_that_fails_often_is_taken_last() -> None:
    fault = Fault(unavailable(503), account=A)
    async with running(Scenario(faults=[fault]), accounts=lines(A, B)) as gateway:
        await signed_in(gateway)
        for _ in range(12):
            assert (await whole(gateway)).status == 200
        assert served_by(gateway).count(A) == 5
        assert report(gateway, A).state == "ready"


# --- deletion of chats


def left(gateway: Running) -> int:
    """Chats that are there and not deleted."""
    return sum(not chat.deleted for chat in gateway.simulator.chats.values())


async def test_a_chat_is_deleted_after_use_and_never_before_its_end() -> None:
    words = [step for word in "abcd" for step in (frames.answer(word), Pause(0.1))]
    async with running(Scenario(replies=[stream(*words, frames.finished())])) as gateway:
        async with gateway.client.post(PATH, json=ask(stream=True)) as response:
            while await response.content.readline():
                if gateway.simulator.open_generations:
                    assert gateway.simulator.seen("chat_delete") == []
        await until(lambda: left(gateway) == 0)
        assert len(gateway.simulator.seen("chat_delete")) == len(gateway.simulator.chats) == 1
        assert gateway.simulator.warnings == []


async def test_chats_are_kept_where_the_operator_wants_them() -> None:
    async with running(CHAT_CLEANUP="keep") as gateway:
        for _ in range(3):
            assert (await whole(gateway)).status == 200
        assert left(gateway) == 3
    assert gateway.simulator.seen("chat_delete") == []


async def test_chats_are_deleted_after_the_time_the_operator_sets() -> None:
    """With a real, shortened setting: 0.01 minutes."""
    async with running(CHAT_CLEANUP="0.01") as gateway:
        assert (await whole(gateway)).status == 200
        (completion,) = gateway.simulator.seen("completions")
        await until(lambda: left(gateway) == 0)
        (deletion,) = gateway.simulator.seen("chat_delete")
        assert deletion.at - completion.at >= 0.59
        assert deletion.account == completion.account


async def test_chats_that_wait_for_their_deletion_are_deleted_at_the_end_of_the_program() -> None:
    async with running(CHAT_CLEANUP="60") as gateway:
        assert (await whole(gateway)).status == 200
        assert left(gateway) == 1
    assert left(gateway) == 0


REPLIES: Sequence[Reply] = (unavailable(503), empty_body(), stream(SendHeaders(), Reset()))


@pytest.mark.parametrize("reply", REPLIES)
async def test_a_deletion_that_fails_harms_nobody(reply: Reply) -> None:
    async with running(Scenario(faults=[Fault(reply, endpoint="chat_delete")]), accounts=lines(A)) as gateway:
        for _ in range(3):
            assert (await whole(gateway)).status == 200
        await until(lambda: len(gateway.simulator.seen("chat_delete")) == 3)
        assert report(gateway, A).state == "ready"
        assert report(gateway, A).failed == 0


async def test_the_chats_of_failed_tries_are_deleted_too() -> None:
    async with running(Scenario(replies=[stream(Reset()), stream()]), CHAT_RETRY_COUNT="2") as gateway:
        assert (await whole(gateway)).status == 200
        await until(lambda: len(gateway.simulator.chats) == 3 and left(gateway) == 0)


async def test_the_chat_of_a_client_that_left_is_deleted_too() -> None:
    async with running(Scenario(replies=[stream(frames.answer("x"), Stall())])) as gateway:
        async with gateway.client.post(PATH, json=ask(stream=True)) as response:
            await response.content.readline()
            response.close()
        await until(lambda: left(gateway) == 0)
        assert gateway.leases() == 0
