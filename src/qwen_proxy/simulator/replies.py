"""What the simulator answers: one `Reply` for every response, whether a JSON envelope or a scripted stream.

A reply is a list of steps. Text is one SSE frame, bytes go out as they are, and the rest are things that happen
to a connection. The response headers leave with the first bytes, or at a `SendHeaders` step, so that
`[Stall()]` hangs before the headers and `[SendHeaders(), Stall()]` after them.

Source of the shapes: upstream protocol §0.4, §4.4 and §4.7.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EVENT_STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class SendHeaders:
    """The status line and headers go out now, though no body is ready."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is sent for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """The body ends here, cleanly for HTTP: what follows is never sent (upstream protocol §4.7 d)."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection is closed (FIN) without the end of the body."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset (RST)."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing more is sent until the client leaves or the simulator stops."""


Step = str | bytes | SendHeaders | Pause | Cut | Drop | Reset | Stall
"""`str`: the JSON text of one frame, sent as `data: <text>` and an empty line. `bytes`: raw."""

Chunking = Literal["frame", "one"] | int
"""One write per step, everything in one write, or writes of this many bytes."""

Encoding = Literal["identity", "gzip", "deflate", "zstd"]


def no_headers() -> dict[str, str]:
    return {}


@dataclass(slots=True)
class Reply:
    """One HTTP answer, step by step.

    In text and bytes the names `$$chat_id$$`, `$$response_id$$`, `$$other_response_id$$`, `$$parent_id$$`,
    `$$request_id$$`, `$$message_id$$` and `$$timestamp$$` (seconds, a bare number) stand for this exchange's own.

    account, text: take this scripted reply only for that account, or when the user text contains that text.
    encoding: used if the client's Accept-Encoding allows it, else the body goes out as it is. Each write is flushed.
    trailing_blank_line: without it the last frame ends after its own line.
    done: a last `data: [DONE]`, which the real site does not send.
    cookies: values of Set-Cookie headers.
    """

    steps: list[Step]
    status: int = 200
    actual_status: int | None = None
    headers: dict[str, str] = field(default_factory=no_headers)
    cookies: tuple[str, ...] = ()
    content_type: str = EVENT_STREAM
    chunking: Chunking = "frame"
    newline: Literal["\n", "\r\n"] = "\n"
    trailing_blank_line: bool = True
    done: bool = False
    encoding: Encoding = "identity"
    account: str | None = None
    text: str | None = None


def json_reply(
    payload: object, *, status: int = 200, actual_status: int | None = None, cookies: tuple[str, ...] = ()
) -> Reply:
    """Any JSON body, with the header `x-actual-status-code` if `actual_status` is given (§0.4)."""
    body = json.dumps(payload, ensure_ascii=False).encode()
    return Reply([body], status, actual_status, cookies=cookies, content_type=JSON)


def success(data: object, *, cookies: tuple[str, ...] = ()) -> Reply:
    """The v2 envelope of an answer that went well (§0.4)."""
    payload = {"success": True, "request_id": "$$request_id$$", "data": data}
    return json_reply(payload, actual_status=200, cookies=cookies)


def failure_payload(
    code: str,
    details: str,
    *,
    num: int | None = None,
    extra: Mapping[str, object] | None = None,
    top_level: bool = False,
) -> dict[str, object]:
    """The body of a v2 failure: `code` and `details` inside `data`, or beside `success` (§4.7 a, variants)."""
    facts: dict[str, object] = {"code": code, "details": details}
    if num is not None:
        facts |= {"template": details + " Please wait {{num}} hours.", "num": num}
    facts |= extra or {}
    head: dict[str, object] = {"success": False, "request_id": "$$request_id$$"}
    return head | facts if top_level else head | {"data": facts}


def failure(
    code: str,
    details: str,
    actual_status: int | None,
    *,
    status: int = 200,
    num: int | None = None,
    extra: Mapping[str, object] | None = None,
    top_level: bool = False,
) -> Reply:
    """A v2 failure: HTTP 200, the real status in `x-actual-status-code` or, with None, nowhere (§0.4, §4.7 a)."""
    payload = failure_payload(code, details, num=num, extra=extra, top_level=top_level)
    return json_reply(payload, status=status, actual_status=actual_status)


def flat_error(status: int, detail: str) -> Reply:
    """A v1 failure: flat JSON with `detail` (§0.4)."""
    return json_reply({"detail": detail}, status=status)


def rate_limited(num: int | None = 6, *, actual_status: int | None = 429, top_level: bool = False) -> Reply:
    """The account's daily limit for this feature; `num` is hours to wait (§4.7 a)."""
    details = "You've reached the upper limit for today's usage."
    return failure("RateLimited", details, actual_status, num=num, top_level=top_level)


def unauthorized() -> Reply:
    """An unknown, expired or withdrawn token, or none (§4.7 a)."""
    return failure("Unauthorized", "Your session has expired or is invalid. Please log in again.", 401)


def not_found(details: str) -> Reply:
    """No such chat, task or model (§4.7 a)."""
    return failure("Not_Found", details, 404)


def validation_error(details: str) -> Reply:
    """The body lacks a field or has a wrong one; `details` names it (§4.1, §4.7 a)."""
    return failure("RequestValidationError", details, 400)


def in_progress() -> Reply:
    """The chat's previous generation still runs, or was dropped without being read (§4.7 a)."""
    return failure("Bad_Request", "The chat is in progress!", 400)


def missing_version() -> Reply:
    """No `version` header on completions: 200, `code` at top level (§4.7 a, §9.1)."""
    return failure("Bad_Request", "Internal error...", None, top_level=True)


def internal_error() -> Reply:
    """A dead end such as an unsupported mode (§4.7 a)."""
    return failure("internal_error", "Internal Error", 400)


def overloaded(
    details: str = "Service is currently experiencing high demand. Please try again later.", actual_status: int = 503
) -> Reply:
    """The service is too busy; only the text tells (§4.7 a, overload texts)."""
    return failure("Service_Unavailable", details, actual_status)


def unavailable(status: int = 503) -> Reply:
    """A bare failing status from a gateway in front of the site (§2.1, §4.7 d)."""
    return Reply([b"<html><body>Service Unavailable</body></html>"], status, content_type="text/html")


def captcha_payload() -> dict[str, object]:
    """The body that asks for a human, as JSON (§4.7 c)."""
    url = (
        "https://chat.qwen.ai:443//api/v2/chat/completions/_____tmd_____/punish"
        "?x5secdata=xcSIMULATED0123456789&x5step=2&action=captcha&pureCaptcha="
    )
    words = "RGV587_ERROR::SM::哎哟喂,被挤爆啦,请稍后重试"
    return {"ret": ["FAIL_SYS_USER_VALIDATE", words], "data": {"url": url}}


def captcha_json() -> Reply:
    """The firewall asks for a human, as JSON with HTTP 200 (§4.7 c, §9.2)."""
    reply = json_reply(captcha_payload())
    reply.content_type = "application/json;charset=utf-8"
    return reply


WAF_PAGE = (
    b'<!doctypehtml><html lang="zh-cn"><head><meta charset="utf-8"><meta name="aliyun_waf_aa" '
    b'content="0123456789abcdef0123456789abcdef"></head><body><textarea id="renderData" style="display:none">'
    b'{"_waf_bd8ce2ce37":"SIMULATED"}</textarea><script>var aliyun_waf=1</script></body></html>'
)


def waf_html(status: int = 200) -> Reply:
    """The firewall's page, HTTP 200, 403 or 405 (§1.3, §4.7 c)."""
    return Reply([WAF_PAGE], status, content_type="text/html")


def empty_body() -> Reply:
    """HTTP 200 and nothing at all (§3.1, failures)."""
    return Reply([b""], content_type=JSON)


def hang() -> Reply:
    """No status line, ever (§4.7 d)."""
    return Reply([Stall()])


def stream(*steps: Step) -> Reply:
    """An event stream of these steps (§4.4)."""
    return Reply(list(steps))
