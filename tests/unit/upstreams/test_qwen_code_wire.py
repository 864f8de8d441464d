"""What Qwen Code's sign-in and service say and hear."""

import base64
import hashlib
from itertools import count
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
from msgspec import Raw

from qwen_proxy.accounts.model import Tokens
from qwen_proxy.chat.models import Model, ModelName
from qwen_proxy.chat.request import (
    ChatRequest,
    ImagePart,
    Message,
    Part,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from qwen_proxy.ground.errors import CredentialRejected, ProxyError, UpstreamFailed, UpstreamProtocolError
from qwen_proxy.ground.secret import Secret
from qwen_proxy.upstreams import qwen_code_wire as wire

CACHED = {"type": "ephemeral"}
DEVICE = {
    "device_code": "dc",
    "user_code": "4ZC5FMLQ",
    "verification_uri": "https://chat.qwen.ai/authorize",
    "verification_uri_complete": "https://chat.qwen.ai/authorize?user_code=4ZC5FMLQ&client=qwen-code",
    "expires_in": 900,
}
TOKENS = {"access_token": "at", "refresh_token": "rt", "token_type": "Bearer", "expires_in": 21600}


def coded(body: object) -> bytes:
    return msgspec.json.encode(body)


def form(body: bytes) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}


# --- the sign-in


def test_the_verifier_and_its_challenge() -> None:
    verifier = wire.verifier_of(bytes(range(32)))
    assert len(verifier) == 43 and "=" not in verifier
    # RFC 7636, appendix B
    assert wire.challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == (
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )


def test_the_forms() -> None:
    begun = form(wire.device_form("v"))
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"v").digest()).rstrip(b"=").decode()
    assert begun == {
        "client_id": "f0304373b74a44d2b584a3fb70ca9e56",
        "scope": "openid profile email model.completion",
        "code_challenge": digest,
        "code_challenge_method": "S256",
    }
    polled = form(wire.poll_form(Secret("dc"), Secret("v")))
    assert polled["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code"
    assert (polled["device_code"], polled["code_verifier"]) == ("dc", "v")
    assert form(wire.refresh_form(Secret("rt"))) == {
        "grant_type": "refresh_token",
        "refresh_token": "rt",
        "client_id": wire.CLIENT_ID,
    }


def test_the_beginning_is_read() -> None:
    device = wire.read_device(200, coded(DEVICE))
    assert (device.device_code.reveal(), device.user_code, device.lasts_seconds) == ("dc", "4ZC5FMLQ", 900.0)
    assert device.complete_uri.endswith("client=qwen-code")
    bare = {name: DEVICE[name] for name in ("device_code", "user_code", "verification_uri")}
    device = wire.read_device(200, coded(bare))
    assert (device.complete_uri, device.lasts_seconds) == (device.uri, 900.0)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, b"<html>", UpstreamFailed),
        (200, coded({"error": "invalid_request", "error_description": "no"}), UpstreamFailed),
        (200, coded({"device_code": "x"}), UpstreamProtocolError),
        (200, b"[]", UpstreamProtocolError),
    ],
)
def test_a_beginning_that_is_none_is_told(status: int, body: bytes, kind: type[ProxyError]) -> None:
    with pytest.raises(kind):
        wire.read_device(status, body)


@pytest.mark.parametrize(
    ("status", "body", "means"),
    [
        (200, {"status": "pending"}, wire.Waiting.PENDING),
        (400, {"error": "authorization_pending"}, wire.Waiting.PENDING),
        (429, {"error": "slow_down"}, wire.Waiting.SLOWER),
        (400, {"error": "slow_down"}, wire.Waiting.SLOWER),
    ],
)
def test_polls_that_wait(status: int, body: object, means: wire.Waiting) -> None:
    assert wire.read_poll(status, coded(body)) is means


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, coded({"error": "access_denied"}), "refused on its page"),
        (400, coded({"error": "expired_token"}), "has ended"),
        (401, b"", "has ended"),
        (429, b"", "too many"),
        (429, coded({"error": "rate_limited"}), "too many"),
    ],
)
def test_polls_that_are_the_end(status: int, body: bytes, words: str) -> None:
    with pytest.raises(CredentialRejected, match=words):
        wire.read_poll(status, body)


def test_polls_that_fail_otherwise_may_be_repeated() -> None:
    for status, body in ((500, b"x"), (400, coded({"error": "invalid_grant"})), (200, coded({"error": "odd"}))):
        with pytest.raises(UpstreamFailed):
            wire.read_poll(status, body)
    with pytest.raises(UpstreamProtocolError):
        wire.read_poll(200, b"{}")


def test_tokens_are_read_and_what_is_left_out() -> None:
    told = wire.read_poll(200, coded({**TOKENS, "resource_url": "portal.qwen.ai"}))
    assert isinstance(told, Tokens) and told.refresh_token is not None
    assert (told.access_token.reveal(), told.refresh_token.reveal()) == ("at", "rt")
    assert (told.resource_url, told.lasts_seconds) == ("portal.qwen.ai", 21600.0)
    least = wire.read_refresh(200, coded({"access_token": "at"}))
    assert (least.refresh_token, least.resource_url, least.lasts_seconds) == (None, "", 3600.0)


@pytest.mark.parametrize("body", [b"", b"<html>", coded({"error": "invalid_grant"})])
@pytest.mark.parametrize("status", [400, 401])
def test_a_dead_refresh_token(status: int, body: bytes) -> None:
    with pytest.raises(CredentialRejected, match="sign in again"):
        wire.read_refresh(status, body)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"", UpstreamProtocolError),
        (200, b"not JSON", UpstreamProtocolError),
        (200, coded({"error": "odd"}), UpstreamFailed),
        (503, b"", UpstreamFailed),
    ],
)
def test_a_refresh_that_fails_otherwise_kills_nothing(status: int, body: bytes, kind: type[ProxyError]) -> None:
    with pytest.raises(kind):
        wire.read_refresh(status, body)


def test_an_approval_is_judged_by_its_envelope_too() -> None:
    wire.read_approval(200, coded({"success": True}))
    wire.read_approval(204, b"")
    with pytest.raises(CredentialRejected):
        wire.read_approval(401, b"")
    for status, body in (
        (200, {"success": False, "data": {"details": "unknown code"}}),
        (400, {"success": False, "details": "unknown code"}),
    ):
        with pytest.raises(UpstreamFailed, match="unknown code"):
            wire.read_approval(status, coded(body))


def test_polling_slows_down_to_a_limit() -> None:
    intervals = [wire.FIRST_INTERVAL_SECONDS]
    for _ in range(6):
        intervals.append(wire.slower(intervals[-1]))
    assert intervals[:3] == [2.0, 3.0, 4.5] and intervals[-1] == 10.0


# --- generation


@pytest.mark.parametrize(
    ("resource", "base"),
    [
        ("portal.qwen.ai", "https://portal.qwen.ai/v1"),
        ("https://portal.qwen.ai/v1/", "https://portal.qwen.ai/v1"),
        ("http://127.0.0.1:9/qwen", "http://127.0.0.1:9/qwen/v1"),
        (" ", "https://usual.example/x/v1"),
    ],
)
def test_the_address_of_the_service(resource: str, base: str) -> None:
    assert wire.base_of(resource, "https://usual.example/x") == base


def test_the_headers() -> None:
    told = wire.agent("0.24.0", "linux", "x64")
    assert told == "QwenCode/0.24.0 (linux; x64)"
    assert wire.portal_headers(told) == {
        "user-agent": told,
        "x-dashscope-useragent": told,
        "x-dashscope-cachecontrol": "enable",
        "x-dashscope-authtype": "qwen-oauth",
    }


def body(*messages: Message, **fields: Any) -> dict[str, Any]:
    ids = (f"id-{number}" for number in count(1))
    request = ChatRequest(model=ModelName("public"), messages=messages, **fields)
    sent = wire.prepared(request, Model(id="coder-model", display_name="C"), "session", lambda: next(ids))
    return msgspec.json.decode(sent)


def said(role: Role, *parts: Part | str) -> Message:
    return Message(role, tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def text(words: str, *, cached: bool = False) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "text", "text": words}
    return part | {"cache_control": CACHED} if cached else part


def test_a_plain_question() -> None:
    assert body(said(Role.USER, "hi")) == {
        "model": "coder-model",
        "messages": [
            {"role": "system", "content": [text("", cached=True)]},
            {"role": "user", "content": [text("hi", cached=True)]},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "metadata": {"sessionId": "session", "promptId": "id-1"},
    }


def test_the_systems_messages_are_one_and_lead() -> None:
    messages = body(
        said(Role.SYSTEM, "a"),
        said(Role.USER, "hi"),
        said(Role.SYSTEM, "b"),
        said(Role.SYSTEM, ""),
        said(Role.USER, "x"),
    )["messages"]
    assert messages[0]["content"] == [text("", cached=True), text("a"), text("b")]
    assert [each["role"] for each in messages] == ["system", "user", "user"]
    assert body(said(Role.SYSTEM, "a"))["messages"] == [
        {"role": "system", "content": [text("", cached=True), text("a", cached=True)]}
    ]


def test_the_last_text_of_the_last_message_is_cached() -> None:
    picture = ImagePart("https://e.com/a.png")
    last = body(said(Role.USER, "see", picture))["messages"][-1]["content"]
    assert [part.get("cache_control") for part in last] == [CACHED, None]
    last = body(said(Role.USER, picture))["messages"][-1]["content"]
    assert [part["type"] for part in last] == ["image_url"] and "cache_control" not in last[0]
    messages = body(
        said(Role.ASSISTANT, ToolCallPart("c", "f", "{}")), said(Role.USER, ToolResultPart("c", (TextPart("42"),)))
    )["messages"]
    assert messages[-1] == {"role": "tool", "tool_call_id": "c", "content": "42"}


def test_what_the_service_refuses_is_pruned_at_the_top_only() -> None:
    names = {name: {"type": "number"} for name in wire.PRUNED}
    tool = Tool(name="f", parameters={"type": "object", "properties": names, "required": []})
    sampling = Sampling(
        temperature=0.5, seed=1, presence_penalty=0.1, frequency_penalty=0.1, logprobs=True, top_logprobs=2
    )
    extra = {name: Raw(b"1") for name in ("user", "service_tier", "logit_bias")}
    sent = body(said(Role.USER, "hi"), tools=(tool,), sampling=sampling, extra=extra)
    assert not set(wire.PRUNED) & set(sent) and sent["temperature"] == 0.5
    assert sent["tools"][0]["function"]["parameters"]["properties"] == names
    assert sent["tools"][0]["function"]["parameters"]["required"] == []


def test_nothing_empty_is_sent_at_the_top() -> None:
    extra = {"a": Raw(b" null"), "b": Raw(b"[]"), "c": Raw(b"{}"), "d": Raw(b"0"), "metadata": Raw(b'{"x":1}')}
    sent = body(said(Role.USER, "hi"), extra=extra)
    assert {"a", "b", "c"}.isdisjoint(sent) and sent["d"] == 0
    assert sent["metadata"] == {"sessionId": "session", "promptId": "id-1"}
