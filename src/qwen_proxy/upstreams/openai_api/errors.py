"""What a failing answer of an OpenAI-compatible server means. Pure.

Source: upstream protocol §8.6, OpenAI's error objects, and the forms of the servers named below. Status and fields
decide; text is the last resort, and stands here beside the server that says it so.

| who | form |
|---|---|
| most | `{"error": {"message", "type", "code", "param"}}`, `code` a word or a status |
| older vLLM | `{"object": "error", "message", "type", "code"}` |
| DashScope's own | `{"code", "message", "request_id"}` |
| ModelScope | `{"errors": {"message"}, "request_id"}` |
| FastAPI, Ollama | `{"detail": "..."}`, `{"error": "..."}` |
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.ground.errors import (
    ContentRefused,
    CredentialRejected,
    InputRefused,
    ModelNotFound,
    PromptTooLong,
    ProxyError,
    QuotaExhausted,
    RateLimited,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from qwen_proxy.ground.redact import redacted
from qwen_proxy.upstreams.openai_api.wire import count, members, word

MOST_SAID: Final = 400  # characters of an upstream's sentence
_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
_NUMBERS: Final = re.compile(r"\d{2,9}")

NO_QUOTA: Final = frozenset(
    ("insufficient_quota", "allocationquota.freetieronly", "arrearage", "billing_hard_limit_reached")
)
NO_MODEL: Final = frozenset(
    ("model_not_found", "model_not_supported", "modelnotfound", "model.accessdenied", "notfounderror")
)
NOT_TAKEN: Final = frozenset(("invalid_api_key", "invalidapikey"))
TOO_OFTEN: Final = frozenset(("rate_limit_exceeded", "throttling"))  # and what begins with `throttling.`
TOO_LONG: Final = frozenset(("context_length_exceeded", "exceed_context_size_error", "string_above_max_length"))
REFUSED: Final = frozenset(
    ("data_inspection_failed", "datainspectionfailed", "content_policy_violation", "content_filter")
)
TOO_LONG_TEXTS: Final = (
    "maximum context length",
    "context size",
    "range of input length should be",
    "prompt is too long",
)
NO_MODEL_TEXTS: Final = ("is not supported", "not found", "does not exist", "not exist")  # behind the word `model`


class Told(Struct, frozen=True, kw_only=True):
    """What an error object says. `status`: HTTP's, or of the object where it came inside a stream. size, limit: tokens
    of a prompt that is too long. rest_seconds: of Retry-After."""

    status: int = 0
    code: str = ""
    type: str = ""
    message: str = ""
    param: str | None = None
    size: int = 0
    limit: int = 0
    rest_seconds: float | None = None

    @property
    def word(self) -> str:
        """The upstream's own name for it, as far as it can be shown."""
        return next((each for each in (self.code, self.type) if _WORD.fullmatch(each)), f"HTTP {self.status}")

    @property
    def why(self) -> str:
        """Its sentence: one line, without what has the shape of a secret."""
        return redacted(_CONTROL.sub(" ", self.message).strip())[:MOST_SAID]


Judge = Callable[[Told | None, str], ProxyError]  # `classify`, or what another service makes of it


def error_in(body: bytes) -> Told | None:
    """The error object in a body, or behind the `error:` that older llama.cpp writes into its stream; None: none."""
    body = body.strip().removeprefix(b"error:")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    outer = members(value)
    found = outer.get("error") or outer.get("errors")
    if found is None and (outer.get("object") == "error" or ("message" in outer and "code" in outer)):
        found = outer
    if found is None:
        found = outer.get("detail")
    if isinstance(found, str):
        return Told(message=found)
    inner = members(found)
    return _told(inner) if inner else None


def _told(inner: dict[str, object]) -> Told:
    code = inner.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 0
    return Told(
        status=status,
        code=code if isinstance(code, str) else "",
        type=word(inner.get("type")),
        message=word(inner.get("message")),
        param=word(inner.get("param")) or None,
        size=count(inner.get("n_prompt_tokens")) or 0,
        limit=count(inner.get("n_ctx")) or 0,
    )


def classify_answer(
    status: int, body: bytes, model: str, retry_after: str | None = None, judge: Judge | None = None
) -> ProxyError:
    """An answer with a failing status, or none that is a reply. judge: without it `classify`."""
    told = error_in(body)
    if told is None and (status in (401, 402, 429) or not body.lstrip().startswith(b"<")):
        told = Told()
    if told is None:
        return UpstreamUnavailable(f"HTTP {status} and a web page: is the base URL right?")
    return (judge or classify)(replace(told, status=status, rest_seconds=seconds_of(retry_after)), model)


def seconds_of(retry_after: str | None) -> float | None:
    """Of a Retry-After in seconds; its other form, a date, needs a clock, and no such server sends it."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e9 else None


def classify(told: Told | None, model: str) -> ProxyError:
    """`told` None: an error object of no known form."""
    if told is None:
        return UpstreamProtocolError("an error of no known form")
    words = {told.code.casefold(), told.type.casefold()}
    if words & NO_QUOTA or told.status == 402:
        return QuotaExhausted(told.rest_seconds)
    if words & NO_MODEL or _speaks_of_model(told):
        return ModelNotFound(model)
    if words & REFUSED:
        return ContentRefused(told.word, told.why)
    if words & TOO_LONG or (told.status in (0, 400, 413) and _has(told.message, TOO_LONG_TEXTS)):
        return _too_long(told)
    return _by_status(told) if told.status else _by_word(told, words)


def _by_word(told: Told, words: set[str]) -> ProxyError:
    """Inside a stream, or under status 200, no status may be told."""
    if words & NOT_TAKEN:
        return _not_taken(told)
    if words & TOO_OFTEN or any(word.startswith("throttling.") for word in words):
        return RateLimited()
    return UpstreamFailed(told.word if told.code or told.type else "an error inside its stream")


def _by_status(told: Told) -> ProxyError:
    match told.status:
        case 401 | 403:
            return _not_taken(told)
        case 429:
            return RateLimited(told.rest_seconds)
        case 404 | 405:
            return UpstreamUnavailable(f"HTTP {told.status} at its address: is the base URL right?")
        case 503 | 529 if "overload" in told.message.casefold():
            return UpstreamOverloaded()
        case status if 400 <= status < 500 or status == 501:
            return InputRefused(told.word, told.why, param=told.param)
        case status:
            return UpstreamUnavailable(f"HTTP {status}" + (f", {told.word}" if told.code or told.type else ""))


def _not_taken(told: Told) -> CredentialRejected:
    return CredentialRejected(f"the upstream refuses the API key ({told.word})")


def _too_long(told: Told) -> ProxyError:
    """With both sizes where they are told: in fields (llama.cpp), or "is 4096 tokens. However, ... 5000" (vLLM)."""
    if told.size and told.limit:
        return PromptTooLong(told.size, told.limit)
    numbers = [int(number) for number in _NUMBERS.findall(told.message)]
    if len(numbers) >= 2 and numbers[0] < numbers[1]:
        return PromptTooLong(numbers[1], numbers[0])
    return InputRefused("context_length_exceeded", told.why, param="messages")


def _speaks_of_model(told: Told) -> bool:
    """Ollama, vLLM and the portal say it in words (§8.5): ``model `x` is not supported.``"""
    said = told.message.casefold()
    return told.status in (400, 403, 404) and "model" in said and _has(said, NO_MODEL_TEXTS)


def _has(message: str, texts: tuple[str, ...]) -> bool:
    said = message.casefold()
    return any(text in said for text in texts)
