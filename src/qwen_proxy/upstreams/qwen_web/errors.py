"""What an answer that is no delta means: codes, texts, challenges and pages become our errors. Pure.

Source: upstream protocol §0.4, §1.3 and §4.7. Status and fields decide; text is the last resort.
"""

import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

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
from qwen_proxy.ground.sse import SseDecoder
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.wire import items, loads, members, text

EVENT_STREAM: Final = "text/event-stream"
EVENT_STARTS: Final = (b"data:", b"event:", b"id:", b":")
HTML_HEAD_BYTES: Final = 64 * 1024
CHALLENGE_MARKERS: Final = ("fail_sys_user_validate", "rgv587", "_____tmd_____", "/punish?", "x5sec", "baxia")
PAGE_MARKERS: Final = (*CHALLENGE_MARKERS, "aliyun_waf")
PAGE_STATUSES: Final = (200, 403, 405)  # with these a page is the firewall's, even without a marker (§1.5, §4.7 c)
OVERLOAD_TEXTS: Final = ("experiencing high demand", "request rate increased too quickly", "allocated quota exceeded")
STANDING_TEXTS: Final = (
    (SignInReason.NOT_ACTIVATED, ("pending activation", "please check your email", "not activated")),
    (
        SignInReason.BANNED,
        ("banned", "suspended", "blocked", "disabled", "risk control", "violat", "forbidden by policy"),
    ),
)
_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
TELLING_KEYS: Final = ("code", "data", "detail", "details", "message", "msg")
SECONDS_PER_HOUR: Final = 3600
MAX_HOURS: Final = 24 * 31


class Failure(Struct, frozen=True):
    """What a failed answer says. `status` is the effective one; `num` is hours to wait."""

    status: int = 200
    code: str = ""
    details: str = ""
    num: float | None = None
    model: str = ""


def effective_status(status: int, actual: str | None) -> int:
    """`x-actual-status-code` when it is a number, else HTTP's own (§0.4)."""
    return int(actual) if actual is not None and re.fullmatch(r"[1-5][0-9]{2}", actual.strip()) else status


def is_event_stream(status: int, content_type: str, first: bytes) -> bool:
    """Whether a body is to be read as events: by its type or, when that says otherwise, by its first bytes."""
    claims = content_type.lower().startswith(EVENT_STREAM)
    return status < 400 and (claims or first.lstrip().startswith(EVENT_STARTS))


def classify_body(status: int, body: bytes, model: str, drift: Drift) -> ProxyError | None:
    """The error in a whole body that is no stream of deltas; None where it tells of none.

    `status` is the effective one, `model` the id that was asked for.
    """
    if body.lstrip()[:1] == b"<":
        return _classify_page(status, body)
    try:
        value = loads(body)
    except ValueError:
        return _classify_status(status)
    return classify_value(status, value, model, drift) or _classify_status(status)


def classify_answer(status: int, body: bytes, model: str, drift: Drift) -> ProxyError:
    """The error in the body of a completion that is not to be read as a reply, whatever it is (§4.7 a, c, d)."""
    if body.lstrip().startswith(EVENT_STARTS):  # a failing status over a body of events: one of them may tell more
        decoder = SseDecoder()
        for payload in decoder.feed(body) + decoder.finish():
            if (error := classify_value(status, _json(payload), model, drift)) is not None:
                return error
    found = classify_body(status, body, model, drift)
    if found is None and not body.strip():
        return ReplyEmpty("nothing")
    return found or UpstreamProtocolError("an answer that is no stream of events")


def classify_value(status: int, value: object, model: str, drift: Drift) -> ProxyError | None:
    """The error in a JSON value: a challenge, a v2 envelope, an error event, a flat `detail`; None where none is."""
    envelope = members(value)
    if is_challenge(envelope):
        return UpstreamChallenged("json")
    failure = read_failure(status, envelope, model)
    return None if failure is None else classify(failure, drift)


def is_challenge(envelope: dict[str, object]) -> bool:
    """§4.7 c, the JSON form. Only its own fields are searched: a delta's text may speak of captchas."""
    said = [text(item) for item in items(envelope.get("ret"))]
    urls = [text(members(envelope.get("data")).get("url")), text(envelope.get("url"))]
    found = " ".join([*said, *urls]).lower()
    return any(marker in found for marker in CHALLENGE_MARKERS) or any("captcha" in url.lower() for url in urls)


def read_failure(status: int, envelope: dict[str, object], model: str = "") -> Failure | None:
    """What the envelope says went wrong: `code` and `details` stand in `data`, in `error` or at the top (§4.7 a, b)."""
    error = envelope.get("error")
    tells = status >= 400 and not envelope.keys().isdisjoint(TELLING_KEYS)
    if envelope.get("success") is not False and not error and not tells:
        return None
    places = (members(envelope.get("data")), members(error), envelope)

    def first(*names: str) -> str:
        return next((found for place in places for name in names if (found := text(place.get(name)))), "")

    num = next((place["num"] for place in places if "num" in place), None)
    hours = float(num) if isinstance(num, (int, float)) and 0 <= num <= MAX_HOURS else None
    details = first("details", "detail", "message", "msg") or text(error)
    return Failure(status, first("code"), details, hours, model)


def classify(failure: Failure, drift: Drift) -> ProxyError:
    """One failure as the error someone treats; what nobody knows is counted and called UpstreamFailed."""
    said = failure.details.lower()
    if failure.status == 401 or failure.code.lower() == "unauthorized":
        return CredentialRejected()
    if "chat is in progress" in said:
        return UpstreamFailed("chat_in_progress")
    if any(words in said for words in OVERLOAD_TEXTS):
        return UpstreamOverloaded()
    known = CODES.get(failure.code.lower())
    if known is not None:
        return known(failure)
    if "validation" in failure.code.lower():
        return InputRefused(clean(failure.code))
    if failure.status == 403 and (reason := standing(said)) is not None:
        return SignInRefused(reason)
    if said.startswith("internal error"):
        return UpstreamFailed("internal_error")
    drift.seen("code", failure.code or f"(none, status {failure.status})")
    return (None if failure.code else _classify_status(failure.status)) or UpstreamFailed(clean(failure.code))


def standing(said: str) -> SignInReason | None:
    """What a lower-case text says about an account (§1.3: keywords, no capture)."""
    return next((reason for reason, words in STANDING_TEXTS if any(word in said for word in words)), None)


def clean(code: str) -> str:
    """A code that may stand in a message: never upstream prose."""
    return code if _CODE.fullmatch(code) else "unknown"


def _quota(failure: Failure) -> ProxyError:
    return QuotaExhausted(None if failure.num is None else failure.num * SECONDS_PER_HOUR)


def _not_found(failure: Failure) -> ProxyError:
    said = failure.details.lower()
    if "chat" in said or "chat" in failure.code.lower():
        return UpstreamFailed("chat_not_found")
    return ModelNotFound(failure.model) if "model" in said else UpstreamFailed("not_found")


def _input_refused(failure: Failure) -> ProxyError:
    return InputRefused(clean(failure.code))


def _content_refused(failure: Failure) -> ProxyError:
    return ContentRefused(clean(failure.code))


def _failed(failure: Failure) -> ProxyError:
    return UpstreamFailed(clean(failure.code))


def _unavailable(failure: Failure) -> ProxyError:
    return UpstreamUnavailable(clean(failure.code))


CODES: Final[dict[str, Callable[[Failure], ProxyError]]] = {
    "ratelimited": _quota,
    "quota_limit": _quota,
    "not_found": _not_found,
    "chat_not_found": _not_found,
    "model_not_found": lambda failure: ModelNotFound(failure.model),
    "invalid_input": _input_refused,
    "data_inspection_failed": _content_refused,
    "datainspectionfailed": _content_refused,
    "bad_request": _failed,
    "internal_error": _failed,
    "service_unavailable": _unavailable,
}
"""Lower-case code -> error (§4.7 a)."""


def _json(payload: bytes) -> object:
    try:
        return loads(payload)
    except ValueError:
        return None


def _classify_page(status: int, body: bytes) -> ProxyError:
    page = body[:HTML_HEAD_BYTES].decode("utf-8", "replace").lower()
    if status in PAGE_STATUSES or any(marker in page for marker in PAGE_MARKERS):
        return UpstreamChallenged("html")
    return _classify_status(status) or UpstreamProtocolError(f"a page of HTML with status {status}")


def _classify_status(status: int) -> ProxyError | None:
    if status == 401:
        return CredentialRejected()
    if status == 429:
        return UpstreamOverloaded()
    if status >= 500:
        return UpstreamUnavailable(f"HTTP {status}")
    return UpstreamFailed(f"HTTP {status}") if status >= 400 else None
