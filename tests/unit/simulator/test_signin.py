"""Sign-in, tokens and sessions: upstream protocol §1."""

import base64
import json
from typing import Any

import pytest

from qwen_proxy.simulator import Account, Scenario, Simulator
from qwen_proxy.simulator.records import Endpoint
from qwen_proxy.simulator.scenario import SignInForm, Standing
from tests.unit.simulator.visitor import Answer, Visitor, hashed

V1 = "/api/v1/auths/signin"
V2 = "/api/v2/auths/signin"
BODY = {"email": "a@x", "password": hashed("pw")}


def claims(token: str) -> Any:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def cookie(answer: Answer) -> bool:
    return "set-cookie" in answer.headers


async def test_v1_gives_a_flat_record_with_the_token(stranger: Visitor) -> None:
    answer = await stranger.call("POST", V1, BODY)
    assert answer.status == 200
    assert answer.json.keys() >= {"id", "email", "name", "role", "profile_image_url", "token_type", "token"}
    assert answer.json["role"] == "user"


async def test_token_is_a_jwt_of_thirty_days_without_iat(stranger: Visitor, simulator: Simulator) -> None:
    token = (await stranger.call("POST", V1, BODY)).json["token"]
    assert claims(token).keys() == {"id", "exp", "last_password_change"}
    assert claims(token)["exp"] == int(simulator.requests[-1].at) + 2_592_000
    assert 200 <= len(token) <= 220


async def test_v2_gives_an_envelope_and_the_token_only_as_a_cookie(stranger: Visitor) -> None:
    answer = await stranger.call("POST", V2, BODY)
    assert answer.json["success"] is True
    assert "token" not in answer.json["data"]
    assert cookie(answer)


@pytest.mark.parametrize(
    ("path", "form", "place"),
    [
        (V1, "body", "body"),
        (V1, "data", "data"),
        (V1, "cookie", "cookie"),
        (V1, "no_token", ""),
        (V2, "body", "body"),
        (V2, "data", "data"),
        (V2, "cookie", "cookie"),
        (V2, "no_token", ""),
    ],
)
async def test_token_is_where_the_scenario_puts_it(
    stranger: Visitor, simulator: Simulator, path: str, form: SignInForm, place: str
) -> None:
    simulator.scenario.signin_v1 = simulator.scenario.signin_v2 = form
    answer = await stranger.call("POST", path, BODY)
    assert answer.actual_status == 200
    places = {"body": "token" in answer.json, "data": "token" in answer.json.get("data", {}), "cookie": cookie(answer)}
    assert [name for name, holds in places.items() if holds] == ([place] if place else [])


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize(("form", "status"), [("not_found", 404), ("not_allowed", 405)])
async def test_an_endpoint_may_be_gone(
    stranger: Visitor, simulator: Simulator, path: str, form: SignInForm, status: int
) -> None:
    simulator.scenario.signin_v1 = simulator.scenario.signin_v2 = form
    assert (await stranger.call("POST", path, BODY)).status == status


async def test_plain_password_is_a_wrong_password(stranger: Visitor) -> None:
    answer = await stranger.call("POST", V1, {"email": "a@x", "password": "pw"})
    assert answer.status == 400
    assert "incorrect" in answer.json["detail"]


async def test_listed_accounts_need_their_password(stranger: Visitor, simulator: Simulator) -> None:
    simulator.scenario = Scenario(accounts={"a@x": Account("pw")}, wrong_password_status=401)
    assert (await stranger.call("POST", V1, BODY)).status == 200
    assert (await stranger.call("POST", V1, BODY | {"password": hashed("other")})).status == 401
    assert (await stranger.call("POST", V1, BODY | {"email": "b@x"})).json["detail"].endswith("not registered.")


@pytest.mark.parametrize(
    ("standing", "status", "word"),
    [
        ("unregistered", 400, "not registered"),
        ("wrong_password", 400, "incorrect"),
        ("pending", 400, "pending activation"),
        ("banned", 403, "suspended"),
    ],
)
async def test_accounts_in_bad_standing_are_refused_with_the_known_words(
    stranger: Visitor, simulator: Simulator, standing: Standing, status: int, word: str
) -> None:
    simulator.scenario.accounts = {"a@x": Account("pw", standing)}
    flat = await stranger.call("POST", V1, BODY)
    enveloped = await stranger.call("POST", V2, BODY)
    assert flat.status == status
    assert word in flat.json["detail"]
    assert (enveloped.status, enveloped.actual_status, enveloped.json["success"]) == (200, status, False)


async def test_pending_role_signs_in_and_is_refused_later(stranger: Visitor, simulator: Simulator) -> None:
    simulator.scenario.accounts = {"a@x": Account("secret", "pending_role")}
    assert (await stranger.sign_in("a@x")).json["role"] == "pending"
    answer = await stranger.call("POST", "/api/v2/chats/new", {})
    assert "pending activation" in answer.json["data"]["details"]


async def test_account_banned_after_sign_in_is_refused_everywhere(stranger: Visitor, simulator: Simulator) -> None:
    simulator.scenario.accounts = {"a@x": Account("secret")}
    await stranger.sign_in("a@x")
    simulator.scenario.accounts["a@x"].standing = "banned"
    assert (await stranger.call("GET", "/api/v1/auths/")).status == 403
    assert (await stranger.call("POST", "/api/v2/chats/new", {})).actual_status == 403


@pytest.mark.parametrize("path", [V1, V2])
async def test_quick_sign_ins_from_one_address_meet_the_firewall(
    stranger: Visitor, simulator: Simulator, path: str
) -> None:
    simulator.scenario.signin_limit = (2, 60.0)
    answers = [await stranger.call("POST", path, BODY) for _ in range(3)]
    assert ["html" in answer.headers["content-type"] for answer in answers] == [False, False, True]
    assert answers[2].status == 200
    assert b"aliyun_waf" in answers[2].body


async def test_sign_ins_are_allowed_again_after_the_window(stranger: Visitor, simulator: Simulator) -> None:
    simulator.scenario.signin_limit = (1, 0.0)
    for _ in range(2):
        assert (await stranger.call("POST", V1, BODY)).status == 200


async def test_sign_in_body_without_password_is_refused(stranger: Visitor) -> None:
    answer = await stranger.call("POST", V1, {"email": "a@x"})
    assert answer.status == 422
    assert "password" in answer.json["detail"]


async def test_session_check_says_who_one_is(visitor: Visitor) -> None:
    by_cookie = await visitor.call("GET", "/api/v1/auths/")
    by_bearer = await visitor.call("GET", "/api/v1/auths/", drop="cookie", authorization=f"Bearer {visitor.token}")
    nobody = await visitor.call("GET", "/api/v1/auths/", drop="cookie")
    assert by_cookie.json["email"] == by_bearer.json["email"] == "demo@simulated"
    assert (nobody.status, nobody.json) == (401, {"detail": "Unauthorized"})


async def test_user_info_is_enveloped(visitor: Visitor) -> None:
    assert (await visitor.call("GET", "/api/v2/user/info")).json["data"]["email"] == "demo@simulated"
    assert (await visitor.call("GET", "/api/v2/user/info", drop="cookie")).actual_status == 401


async def test_ended_revoked_and_foreign_tokens_are_refused(visitor: Visitor, simulator: Simulator) -> None:
    revoked = visitor.token
    simulator.revoke_tokens("demo@simulated")
    simulator.revoke_tokens("nobody@x")
    fresh = simulator.issue_token("demo@simulated")
    ended = simulator.issue_token("demo@simulated", -1)
    assert fresh != revoked
    for token, status in [(revoked, 401), (ended, 401), ("ab.cd.ef", 401), ("é", 401), (fresh, 200)]:
        answer = await visitor.call("GET", "/api/v1/auths/", drop="cookie", authorization=f"Bearer {token}")
        assert answer.status == status


async def test_all_tokens_can_be_revoked_at_once(visitor: Visitor, simulator: Simulator) -> None:
    simulator.revoke_tokens()
    assert (await visitor.call("GET", "/api/v1/auths/")).status == 401
    await visitor.sign_in()
    assert (await visitor.call("GET", "/api/v1/auths/")).status == 200


async def test_account_that_vanished_has_no_session(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.accounts = {"other@x": Account("pw")}
    assert (await visitor.call("GET", "/api/v1/auths/")).status == 401


async def test_an_account_has_its_own_token_lifetime_and_form(stranger: Visitor, simulator: Simulator) -> None:
    simulator.scenario.accounts = {"a@x": Account("pw", token_lifetime_seconds=60, signin_v1="data", signin_v2="data")}
    for path in (V1, V2):
        token = (await stranger.call("POST", path, BODY)).json["data"]["token"]
        assert claims(token)["exp"] == int(simulator.requests[-1].at) + 60


async def test_settings_are_kept_per_account(visitor: Visitor) -> None:
    off = {"memory": {"enable_memory": False, "enable_history_memory": False}}
    update = "/api/v2/users/user/settings/update"
    assert (await visitor.call("POST", update, off)).actual_status == 200
    assert (await visitor.call("GET", "/api/v2/users/user/settings")).json["data"] == off
    assert (await visitor.call("POST", update, [1])).actual_status == 400
    assert (await visitor.call("POST", update, off, drop="cookie")).actual_status == 401
    assert (await visitor.call("GET", "/api/v2/users/user/settings", drop="cookie")).actual_status == 401


async def test_requests_are_seen_with_endpoint_and_account(visitor: Visitor, simulator: Simulator) -> None:
    await visitor.call("GET", "/api/v1/auths/")
    expected: list[tuple[Endpoint, str]] = [("signin_v1", "demo@simulated"), ("session", "demo@simulated")]
    assert [(seen.endpoint, seen.account) for seen in simulator.requests] == expected
    assert simulator.requests[0].peer[0] == "127.0.0.1"
    assert simulator.requests[0].json["email"] == "demo@simulated"
    assert simulator.requests[1].json is None
    assert simulator.seen("session") == simulator.requests[1:]
