"""Signing in at the simulated site, and reading tokens."""

import hashlib

import pytest

from qwen_proxy.ground.errors import (
    ProxyError,
    SignInReason,
    SignInRefused,
    UpstreamChallenged,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from qwen_proxy.ground.secret import Secret
from qwen_proxy.simulator import Simulator
from qwen_proxy.simulator.replies import Reply, captcha_json, flat_error, json_reply, unavailable, waf_html
from qwen_proxy.simulator.scenario import Account, Endpoint, Fault, Scenario, SignInForm, Standing
from qwen_proxy.upstreams.qwen_web.login import refusal
from tests.support.web import PASSWORD, account, web


@pytest.mark.parametrize(
    ("v1", "v2", "paths"),
    [
        ("body", "cookie", ["v1"]),
        ("data", "cookie", ["v1"]),
        ("cookie", "cookie", ["v1"]),
        ("not_found", "cookie", ["v1", "v2"]),
        ("not_allowed", "data", ["v1", "v2"]),
        ("no_token", "body", ["v1", "v2"]),
    ],
)
async def test_the_token_is_found_wherever_it_is(v1: SignInForm, v2: SignInForm, paths: list[str]) -> None:
    async with Simulator(Scenario(signin_v1=v1, signin_v2=v2)) as simulator, web(simulator) as made:
        credential = await made.sign_in(account(cookies="cna=mine"))
        assert [seen.endpoint.removeprefix("signin_") for seen in simulator.requests] == paths
        body = simulator.requests[0].json
        assert body == {"email": "alice@example.com", "password": hashlib.sha256(PASSWORD.encode()).hexdigest()}
        assert credential.account_id == "alice@example.com"
        assert credential.expires_at is not None and credential.expires_at > 1_700_000_000
        assert credential.cookies == Secret("cna=mine")
        assert await made.sign_in.check(credential) is True


async def test_cookies_of_the_sign_in_are_kept_when_the_owner_gave_none() -> None:
    async with Simulator(Scenario(signin_v1="cookie")) as simulator, web(simulator) as made:
        credential = await made.sign_in(account())
        assert credential.cookies == Secret("refresh_token=simulated-refresh")


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        ("wrong_password", SignInReason.WRONG_PASSWORD),
        ("unregistered", SignInReason.NOT_REGISTERED),
        ("pending", SignInReason.NOT_ACTIVATED),
        ("pending_role", SignInReason.NOT_ACTIVATED),
        ("banned", SignInReason.BANNED),
    ],
)
@pytest.mark.parametrize("v1", ["body", "not_found"])
async def test_a_refusal_has_its_reason(standing: Standing, reason: SignInReason, v1: SignInForm) -> None:
    scenario = Scenario(accounts={"alice@example.com": Account(PASSWORD, standing)}, signin_v1=v1)
    async with Simulator(scenario) as simulator, web(simulator) as made:
        with pytest.raises(SignInRefused) as caught:
            await made.sign_in(account())
        assert caught.value.reason is reason


async def test_an_account_without_a_password_asks_nobody() -> None:
    async with Simulator() as simulator, web(simulator) as made:
        with pytest.raises(SignInRefused) as caught:
            await made.sign_in(account(password=None))
        assert caught.value.reason is SignInReason.NO_PASSWORD
        assert simulator.requests == []


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (waf_html(), UpstreamChallenged),
        (waf_html(403), UpstreamChallenged),
        (waf_html(405), UpstreamChallenged),
        (captcha_json(), UpstreamChallenged),
        (unavailable(), UpstreamUnavailable),
        (flat_error(503, "down"), UpstreamUnavailable),
        (flat_error(302, "elsewhere"), UpstreamProtocolError),
    ],
)
async def test_what_is_no_verdict_on_the_account(reply: Reply, error: type[ProxyError]) -> None:
    async with Simulator(Scenario(faults=[Fault(reply, "signin_v1")])) as simulator, web(simulator) as made:
        with pytest.raises(error):
            await made.sign_in(account())
        assert len(simulator.requests) == 1


async def test_a_site_without_any_sign_in() -> None:
    scenario = Scenario(signin_v1="not_found", signin_v2="not_found")
    async with Simulator(scenario) as simulator, web(simulator) as made:
        with pytest.raises(UpstreamProtocolError):
            await made.sign_in(account())


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (json_reply({"role": "pending"}), False),
        (flat_error(401, "Unauthorized"), False),
        (flat_error(403, "Forbidden"), False),
        (waf_html(), None),
        (waf_html(403), None),
        (unavailable(), None),
        (flat_error(404, "Not Found"), None),
    ],
)
async def test_whether_a_token_holds_is_not_always_known(reply: Reply, verdict: bool | None) -> None:
    endpoint: Endpoint = "session"
    async with Simulator(Scenario(faults=[Fault(reply, endpoint)])) as simulator, web(simulator) as made:
        assert await made.sign_in.check(made.credential()) is verdict


async def test_a_revoked_token_does_not_hold() -> None:
    async with Simulator() as simulator, web(simulator) as made:
        credential = made.credential()
        simulator.revoke_tokens()
        assert await made.sign_in.check(credential) is False


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (401, "", SignInReason.WRONG_PASSWORD),
        (400, "the email or password provided is incorrect", SignInReason.WRONG_PASSWORD),
        (400, "user does not exist", SignInReason.NOT_REGISTERED),
        (403, "risk control", SignInReason.BANNED),
        (400, "something else", SignInReason.UNKNOWN),
    ],
)
def test_why_a_sign_in_is_refused(status: int, said: str, reason: SignInReason) -> None:
    assert refusal(status, said) is reason
