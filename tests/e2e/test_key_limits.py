"""What a key may do and how much, over the real server: refusals, headers, what is settled, and what a client that
leaves gives back."""

import json
import re
from collections.abc import Mapping

import pytest
from aiohttp import ClientSession
from msgspec.structs import replace

from qwen_proxy.app.machine import Machine
from qwen_proxy.config.keybook import KeyBook, NewKey
from qwen_proxy.config.keys import ClientKey, KeyLimits
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.ids import SystemIds
from tests.support.clock import FakeClock, MinuteClock
from tests.support.freed import freed, until
from tests.support.http import ADMIN_KEY, USER_KEY
from tests.support.replies import PATH, refusal
from tests.support.running import Running, ask, running

Headers = Mapping[str, str]

LONG_AGO = 1_600_000_000.0


async def new_key(gateway: Running, **limits: int) -> tuple[ClientKey, Headers]:
    """A key with these limits, and the header that carries it."""
    return await made(gateway, NewKey(limits=KeyLimits(**limits)))


async def made(gateway: Running, wish: NewKey) -> tuple[ClientKey, Headers]:
    key, secret = await gateway.commons.key_book.create(wish)
    return key, carried(secret)


def carried(secret: Secret) -> Headers:
    return {"Authorization": f"Bearer {secret.reveal()}"}


async def post(
    gateway: Running, headers: Headers, body: dict[str, object] | None = None
) -> tuple[int, Mapping[str, str], str]:
    """Status, headers and body of a chat completion, read to its end."""
    async with gateway.client.post(PATH, json=body or ask(), headers=headers) as response:
        return response.status, response.headers, await response.text()


# --- who may come in ---------------------------------------------------------------------------------------


async def test_a_key_that_does_not_work_any_more_is_told_why_whatever_carries_it() -> None:
    async with running() as gateway, ClientSession(gateway.url) as stranger:
        commons = gateway.commons
        revoked, first = await commons.key_book.create(NewKey())
        await commons.key_book.revoke(revoked.id)
        earlier = KeyBook(commons.store, commons.vault, FakeClock(now=LONG_AGO), SystemIds())
        _, second = await earlier.create(NewKey(expires_at=LONG_AGO + 60))
        for secret, why in ((first, "revoked"), (second, "expired at 2020-09-13T12:27:40Z")):
            for carrier in (carried(secret), {"x-api-key": secret.reveal()}):
                async with stranger.post(PATH, json=ask(), headers=carrier) as response:
                    assert await refusal(response) == (401, "invalid_api_key", None)
                    assert why in await response.text()


async def test_a_key_works_from_the_moment_it_is_made_and_its_changes_hold_soon() -> None:
    async with running() as gateway:
        key, headers = await made(gateway, NewKey())
        assert (await post(gateway, headers))[0] == 200
        book = gateway.commons.key_book
        await book.change(key.id, lambda record: replace(record, allowed_endpoints=("models",)))
        await gateway.commons.watch.catch_up()
        assert (await post(gateway, headers))[0] == 403
        await book.revoke(key.id)
        await gateway.commons.watch.catch_up()
        assert (await post(gateway, headers))[0] == 401


async def test_a_key_for_some_endpoints_is_refused_at_the_others_before_its_body_is_read() -> None:
    async with running() as gateway:
        _, headers = await made(gateway, NewKey(allowed_endpoints=("models",)))
        async with gateway.client.get("/v1/models", headers=headers) as response:
            assert response.status == 200
        async with gateway.client.post(PATH, data=b"no json", headers=headers) as response:
            assert await refusal(response) == (403, "permission_denied", None)
            assert "the endpoint 'chat'; it may use: models" in await response.text()
        _, headers = await made(gateway, NewKey(allowed_endpoints=("chat",)))
        assert (await post(gateway, headers))[0] == 200
        for path in ("/v1/models", "/v1/models/qwen3.7-plus"):
            async with gateway.client.get(path, headers=headers) as response:
                assert (await refusal(response))[0] == 403
        async with gateway.client.get("/models", headers=headers) as response:
            assert response.status == 200  # it is open to all


@pytest.mark.parametrize("stream", [True, False])
async def test_a_key_for_some_models_is_refused_the_others_and_sees_only_its_own(stream: bool) -> None:
    async with running(MODEL_MAP="gpt-4o=qwen3.7-plus") as gateway:
        _, headers = await made(gateway, NewKey(allowed_models=("qwen3.7-pl?s", "*-SEARCH")))
        for model, status in (
            ("qwen3.7-plus", 200),
            ("Qwen3.7-Plus-thinking", 200),
            ("gpt-4o", 200),
            ("qwen3.7-max", 403),
            ("qwen3.7-max-search", 200),
            ("no-such-model", 404),
        ):
            got, _, body = await post(gateway, headers, ask(model=model, stream=stream))
            assert got == status, (model, body)
            if status == 403:
                assert "the model 'qwen3.7-max'; it may use: qwen3.7-pl?s, *-SEARCH" in body
        async with gateway.client.get("/v1/models", headers=headers) as response:
            listed = {model["name"] for model in (await response.json())["data"]}
        assert {"qwen3.7-plus", "qwen3.7-plus-thinking", "qwen3.7-max-search"} <= listed
        assert not {"qwen3.7-max", "qwen3.7-max-thinking"} & listed
        for model, status in (("qwen3.7-plus", 200), ("qwen3.7-max", 403)):
            async with gateway.client.get(f"/v1/models/{model}", headers=headers) as response:
                assert response.status == status


# --- how much ----------------------------------------------------------------------------------------------


def in_a_minute() -> Machine:
    """A minute has just begun: what is counted in its window stays in it."""
    return Machine(clock=MinuteClock())


def remaining(headers: Headers, kind: str = "requests") -> int:
    return int(headers[f"x-ratelimit-remaining-{kind}"])


async def test_requests_of_a_minute_are_counted_told_and_refused_with_the_time_to_come_again() -> None:
    async with running(None, None, in_a_minute()) as gateway:
        _, headers = await new_key(gateway, requests_per_minute=3)
        for left in (2, 1, 0):
            status, told, _ = await post(gateway, headers, ask(stream=left == 1))
            assert (status, told["x-ratelimit-limit-requests"], remaining(told)) == (200, "3", left)
            assert re.fullmatch(r"(1m0|[0-9]+)s", told["x-ratelimit-reset-requests"])
            assert "x-ratelimit-limit-tokens" not in told
        for stream in (True, False):
            status, told, body = await post(gateway, headers, ask(stream=stream))
            error = json.loads(body)["error"]
            assert (status, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
            assert "requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in " in error["message"]
            assert remaining(told) == 0
            assert told["x-ratelimit-reset-requests"] in (f"{told['Retry-After']}s", "1m0s")
            assert 50 <= int(told["Retry-After"]) <= 60
        assert len(gateway.simulator.seen("completions")) == 3


async def test_headers_stand_on_failures_too() -> None:
    async with running(None, None, in_a_minute(), CHAT_RETRY_COUNT="0") as gateway:
        _, headers = await new_key(gateway, requests_per_minute=10)
        for left, body in ((9, ask(model="no-such-model")), (8, ask("[[sim error invalid_input]]"))):
            status, told, _ = await post(gateway, headers, body)
            assert 400 <= status < 500
            assert remaining(told) == left
        async with gateway.client.post(PATH, data=b"no json", headers=headers) as response:
            assert response.status == 400
            assert "x-ratelimit-remaining-requests" not in response.headers  # refused before it counted


async def test_both_carriers_spend_from_one_key() -> None:
    async with running(None, None, in_a_minute()) as gateway, ClientSession(gateway.url) as stranger:
        _, secret = await gateway.commons.key_book.create(NewKey(limits=KeyLimits(requests_per_minute=2)))
        statuses: list[int] = []
        for carrier in (carried(secret), {"x-api-key": secret.reveal()}, {"x-api-key": secret.reveal()}):
            async with stranger.post(PATH, json=ask(), headers=carrier) as response:
                statuses.append(response.status)
        assert statuses == [200, 200, 429]


async def test_users_have_limits_by_default_and_admins_have_none() -> None:
    async with running(None, None, in_a_minute(), KEY_RPM="2", KEY_CONCURRENCY="20") as gateway:
        admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
        user = {"Authorization": f"Bearer {USER_KEY}"}
        assert [(await post(gateway, user))[0] for _ in range(3)] == [200, 200, 429]
        for _ in range(3):
            status, told, _ = await post(gateway, admin)
            assert (status, [name for name in told if "ratelimit" in name.lower()]) == (200, [])
        await gateway.live.change({"KEY_RPM": "3"}, by="test")
        assert [(await post(gateway, user))[0] for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("stream", [True, False])
async def test_tokens_are_reserved_before_and_settled_after(stream: bool) -> None:
    async with running(None, None, in_a_minute()) as gateway:
        _, headers = await new_key(gateway, tokens_per_minute=100_000)
        body = ask(stream=stream, stream_options={"include_usage": True}, max_tokens=5000) if stream else ask()
        status, told, text = await post(gateway, headers, body)
        reserved = 2 + (5000 if stream else 1024)  # "hello" is 5 bytes
        assert (status, remaining(told, "tokens")) == (200, 100_000 - reserved)
        used = int(re.findall(r'"total_tokens":(\d+)', text)[-1])
        assert 0 < used != reserved
        _, told, _ = await post(gateway, headers, ask(max_tokens=10))
        assert remaining(told, "tokens") == 100_000 - used - 12


async def test_every_choice_of_a_request_counts() -> None:
    async with running(None, None, in_a_minute()) as gateway:
        _, headers = await new_key(gateway, tokens_per_minute=100_000)
        _, told, text = await post(gateway, headers, ask("[[sim repeat 20]]", n=3, max_tokens=100))
        assert remaining(told, "tokens") == 100_000 - 306
        usage = json.loads(text)["usage"]
        assert usage["completion_tokens"] >= 3 * 20
        _, told, _ = await post(gateway, headers, ask(max_tokens=1))
        assert remaining(told, "tokens") == 100_000 - usage["total_tokens"] - 3


async def test_a_prompt_beyond_the_limit_is_too_large_and_one_beyond_the_rest_has_to_wait() -> None:
    async with running(None, None, in_a_minute()) as gateway:
        _, headers = await new_key(gateway, tokens_per_minute=1000, requests_per_minute=100)
        status, told, body = await post(gateway, headers, ask("x" * 3003))
        assert status == 429
        assert "tokens per min (TPM): Limit 1000, Requested 1001" in body
        assert (told["x-should-retry"], "Retry-After" in told) == ("false", False)
        assert remaining(told, "tokens") == 1000
        status, told, _ = await post(gateway, headers, ask("x" * 2100, max_tokens=100))
        assert (status, remaining(told, "tokens")) == (200, 200)
        status, told, body = await post(gateway, headers, ask("x" * 2100, max_tokens=900))
        assert status == 429
        assert "Requested 1000" in body  # never more than the limit
        assert 0 < int(told["Retry-After"]) <= 60


async def test_a_failure_that_brings_nothing_takes_no_tokens() -> None:
    async with running(None, None, in_a_minute(), CHAT_RETRY_COUNT="0") as gateway:
        _, headers = await new_key(gateway, tokens_per_minute=5000)
        status, _, _ = await post(gateway, headers, ask("[[sim error invalid_input]]"))
        assert status == 400
        _, told, _ = await post(gateway, headers, ask(max_tokens=1))
        assert remaining(told, "tokens") == 4997


async def test_tokens_of_a_day_that_are_used_up_are_no_reason_for_an_sdk_to_try_again() -> None:
    async with running(None, None, in_a_minute()) as gateway:
        _, headers = await new_key(gateway, tokens_per_day=30)
        statuses: list[int] = []
        told: Mapping[str, str] = {}
        while 429 not in statuses and len(statuses) < 20:
            status, told, _ = await post(gateway, headers, ask("[[sim repeat 20]]"))
            statuses.append(status)
        assert statuses[-1] == 429
        if int(told["Retry-After"]) > 60:  # else a day ends within a minute
            assert told["x-should-retry"] == "false"


# --- at a time ---------------------------------------------------------------------------------------------


async def test_requests_at_a_time_are_limited_and_a_client_that_leaves_frees_its_place_within_a_second() -> None:
    async with running() as gateway:
        key, headers = await new_key(gateway, concurrent_requests=2, tokens_per_minute=100_000)
        body = ask("[[sim stall 5]] [[sim repeat 50]]", stream=True)
        first = await gateway.client.post(PATH, json=body, headers=headers)
        second = await gateway.client.post(PATH, json=body, headers=headers)
        assert (first.status, second.status) == (200, 200)
        await first.content.readuntil(b"word5")
        status, told, text = await post(gateway, headers)
        assert (status, told["Retry-After"]) == (429, "1")
        assert "concurrent requests: Limit 2, Used 2, Requested 1" in text
        first.close()
        assert await until(lambda: gateway.commons.purse.in_use(f"key:{key.id}") == 1, within_seconds=1.0)
        status, told, _ = await post(gateway, headers, ask(max_tokens=1))
        assert status == 200
        second.close()
        assert await freed(gateway)
        assert await until(lambda: gateway.commons.purse.in_use(f"key:{key.id}") == 0, within_seconds=1.0)


async def test_a_client_that_leaves_has_used_its_prompt_and_what_had_come() -> None:
    async with running(None, None, in_a_minute()) as gateway:
        key, headers = await new_key(gateway, concurrent_requests=2, tokens_per_minute=100_000)
        text = "[[sim stall 5]] [[sim repeat 50]]"
        leaver = await gateway.client.post(PATH, json=ask(text, stream=True), headers=headers)
        await leaver.content.readuntil(b"word5")
        leaver.close()
        assert await until(lambda: gateway.commons.purse.in_use(f"key:{key.id}") == 0)
        _, told, _ = await post(gateway, headers, ask(max_tokens=1))
        used = 100_000 - 3 - remaining(told, "tokens")
        prompt = -(-len(text) // 3)
        assert prompt < used <= prompt + 50
        await gateway.commons.usage.flush()
        rows = await gateway.commons.store.usage(0, MinuteClock().now() + 3600)
        (counts,) = [each for row, each in rows.items() if row.key == key.id]
        assert (counts.requests, counts.failures) == (2, 0)
        assert counts.prompt_tokens >= prompt
