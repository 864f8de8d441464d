"""What an answer that is no delta means."""

import json

import pytest

from qwen_proxy.ground.errors import (
    ContentRefused,
    CredentialRejected,
    InputRefused,
    ModelNotFound,
    ProxyError,
    QuotaExhausted,
    ReplyEmpty,
    SignInReason,
    SignInRefused,
    UpstreamChallenged,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from qwen_proxy.upstreams.qwen_web.codec import ReplyCodec
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.errors import classify_answer, classify_body, effective_status, is_event_stream

CREATED = b'data: {"response.created": {"response_id": "a", "response_index": "0"}}\n\n'
TEXT = b'data: {"choices": [{"delta": {"content": "Hi", "phase": "answer"}}], "response_id": "a"}\n\n'
CASES: list[tuple[int, str, str, type[ProxyError]]] = [
    (429, "RateLimited", "You've reached the upper limit", QuotaExhausted),
    (200, "quota_limit", "", QuotaExhausted),
    (200, "Bad_Request", "Internal error...", UpstreamFailed),
    (400, "Bad_Request", "The chat is in progress!", UpstreamFailed),
    (404, "Not_Found", "CHAT_NOT_FOUND: the chat does not exist.", UpstreamFailed),
    (404, "CHAT_NOT_FOUND", "", UpstreamFailed),
    (404, "Not_Found", "Model not found", ModelNotFound),
    (404, "model_not_found", "", ModelNotFound),
    (404, "Not_Found", "nothing", UpstreamFailed),
    (401, "anything", "", CredentialRejected),
    (200, "Unauthorized", "", CredentialRejected),
    (400, "internal_error", "Internal Error", UpstreamFailed),
    (400, "RequestValidationError", "body.chat_id: field required", InputRefused),
    (200, "invalid_input", "thinking must be enabled", InputRefused),
    (400, "data_inspection_failed", "", ContentRefused),
    (400, "DataInspectionFailed", "", ContentRefused),
    (503, "Service_Unavailable", "Service is currently experiencing high demand.", UpstreamOverloaded),
    (429, "Throttling", "Request rate increased too quickly", UpstreamOverloaded),
    (429, "AllocationQuota", "Allocated quota exceeded, please increase it", UpstreamOverloaded),
    (503, "Service_Unavailable", "", UpstreamUnavailable),
    (403, "Forbidden", "This account has been suspended", SignInRefused),
    (403, "Forbidden", "Please check your email", SignInRefused),
    (403, "Forbidden", "no", UpstreamFailed),
    (200, "Never_Seen", "", UpstreamFailed),
    (500, "", "what", UpstreamUnavailable),
    (429, "", "what", UpstreamOverloaded),
    (200, "", "Internal error!", UpstreamFailed),
    (200, "", "what", UpstreamFailed),
]


def drift() -> Drift:
    return Drift(lambda: 0.0)


def envelope(code: str, details: str) -> dict[str, object]:
    facts = {"code": code, "details": details} if code else {"details": details}
    return {"success": False, "request_id": "r", "data": facts | {"num": 6}}


@pytest.mark.parametrize(("status", "code", "details", "kind"), CASES)
def test_a_failure_means_the_same_wherever_it_stands(
    status: int, code: str, details: str, kind: type[ProxyError]
) -> None:
    data = envelope(code, details)
    top = {"success": False} | {key: value for key, value in (("code", code), ("details", details)) if value}
    in_event = {"error": {"code": code, "details": details}, "response_id": "a"}
    for value in (data, top, in_event):
        payload = json.dumps(value).encode()
        assert type(classify_body(status, payload, "m", drift())) is kind
        assert type(classify_answer(status, CREATED + b"data: " + payload, "m", drift())) is kind
        kind_in_stream = type(classify_body(200, payload, "m", drift()))
        bodies = [b"data: " + payload + b"\n\n", payload, payload + b"\n"]
        for body in [place + body for place in (b"", CREATED, CREATED + 3 * TEXT) for body in bodies]:
            codec = ReplyCodec(drift(), model="m")
            with pytest.raises(ProxyError) as caught:
                for at in range(0, len(body), 7):
                    codec.feed(body[at : at + 7])
                codec.finish()
                codec.finish()
            assert type(caught.value) is kind_in_stream


@pytest.mark.parametrize(
    ("num", "seconds"), [(6, 21600.0), (1.5, 5400.0), (None, None), ("6", None), (-1, None), (1e99, None)]
)
def test_hours_become_seconds(num: object, seconds: float | None) -> None:
    body = json.dumps({"success": False, "data": {"code": "RateLimited", "num": num}}).encode()
    error = classify_body(200, body, "m", drift())
    assert isinstance(error, QuotaExhausted) and error.rest_seconds == seconds


def test_codes_are_told_apart() -> None:
    for code, details, told in [
        ("Bad_Request", "The chat is in progress!", "chat_in_progress"),
        ("Not_Found", "CHAT_NOT_FOUND", "chat_not_found"),
        ("Bad_Request", "", "Bad_Request"),
        ("we think\nthat", "", "unknown"),
        ("", "Internal error!", "internal_error"),
    ]:
        error = classify_body(200, json.dumps(envelope(code, details)).encode(), "m", drift())
        assert isinstance(error, UpstreamFailed) and error.code == told
        assert details == "" or details not in str(error)


def test_a_missing_model_is_named() -> None:
    error = classify_body(404, json.dumps(envelope("Not_Found", "Model not found")).encode(), "qwen9", drift())
    assert isinstance(error, ModelNotFound) and error.model == "qwen9"


def test_standing_has_its_reason() -> None:
    for details, reason in [("account banned", SignInReason.BANNED), ("not activated", SignInReason.NOT_ACTIVATED)]:
        error = classify_body(403, json.dumps(envelope("Forbidden", details)).encode(), "m", drift())
        assert isinstance(error, SignInRefused) and error.reason is reason


def test_unknown_codes_are_counted_by_name() -> None:
    counted = drift()
    classify_body(200, json.dumps(envelope("Never_Seen", "")).encode(), "m", counted)
    classify_body(403, json.dumps(envelope("", "what")).encode(), "m", counted)
    assert [(note.kind, note.name) for note in counted.snapshot()] == [
        ("code", "Never_Seen"),
        ("code", "(none, status 403)"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"ret": ["FAIL_SYS_USER_VALIDATE", "RGV587_ERROR::SM::x"]},
        {"ret": ["x"], "data": {"url": "https://chat.qwen.ai:443//x/_____tmd_____/punish?x5secdata=1"}},
        {"url": "https://x/?action=captcha"},
        {"ret": "FAIL", "data": {"url": "https://x/punish?a"}},
    ],
)
def test_challenges_as_json(value: object) -> None:
    error = classify_body(200, json.dumps(value).encode(), "m", drift())
    assert isinstance(error, UpstreamChallenged) and error.form == "json"


@pytest.mark.parametrize(
    ("status", "page", "kind"),
    [
        (200, "<!doctypehtml><html>", UpstreamChallenged),
        (403, " <html>", UpstreamChallenged),
        (405, "<html>", UpstreamChallenged),
        (503, "<html>aliyun_waf_aa", UpstreamChallenged),
        (503, "<html>Service Unavailable", UpstreamUnavailable),
        (401, "<html>", CredentialRejected),
        (404, "<html>nginx", UpstreamFailed),
        (302, "<html>", UpstreamProtocolError),
    ],
)
def test_pages(status: int, page: str, kind: type[ProxyError]) -> None:
    assert type(classify_body(status, page.encode(), "m", drift())) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"", ReplyEmpty),
        (200, b"  ", ReplyEmpty),
        (500, b"", UpstreamUnavailable),
        (200, b'{"success": true}', UpstreamProtocolError),
        (200, b"hello", UpstreamProtocolError),
        (400, b'{"detail": "?"}', UpstreamFailed),
        (400, b"{}", UpstreamFailed),
        (400, b"data: x\n\ndata: {}\n\n", UpstreamFailed),
        (200, b"[" * 100_000, UpstreamProtocolError),
    ],
)
def test_a_completion_that_is_no_stream_is_always_an_error(status: int, body: bytes, kind: type[ProxyError]) -> None:
    assert type(classify_answer(status, body, "m", drift())) is kind


def test_an_answer_that_tells_of_no_failure_is_none() -> None:
    assert classify_body(200, b'{"success": true, "error": null}', "m", drift()) is None
    assert classify_body(200, b"[1]", "m", drift()) is None


@pytest.mark.parametrize(
    ("http", "actual", "effective"),
    [(200, None, 200), (200, "401", 401), (200, " 429 ", 429), (200, "x", 200), (503, "", 503)],
)
def test_the_effective_status(http: int, actual: str | None, effective: int) -> None:
    assert effective_status(http, actual) == effective


@pytest.mark.parametrize(
    ("status", "content_type", "first", "is_stream"),
    [
        (200, "text/event-stream; charset=utf-8", b"{", True),
        (200, "", b"\n data: {}", True),
        (200, "text/plain", b": hello", True),
        (200, "application/json", b"{", False),
        (401, "text/event-stream", b"data: {}", False),
    ],
)
def test_what_is_read_as_events(status: int, content_type: str, first: bytes, is_stream: bool) -> None:
    assert is_event_stream(status, content_type, first) is is_stream
