"""What Qwen Code's sign-in and its service say and hear. Pure. Source: upstream protocol §8.

Sign-in is OAuth's device flow (RFC 8628) with PKCE (RFC 7636). Generation is chat completions, with a few things that
the service wants besides.
"""

import base64
import hashlib
from collections.abc import Callable
from enum import Enum
from typing import Final
from urllib.parse import urlencode

import msgspec
from msgspec import Raw, Struct

from qwen_proxy.accounts.model import Tokens
from qwen_proxy.chat.models import Model
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.config.backends import Thinking
from qwen_proxy.ground.errors import (
    CredentialRejected,
    ProxyError,
    QuotaExhausted,
    UpstreamFailed,
    UpstreamProtocolError,
)
from qwen_proxy.ground.redact import redacted
from qwen_proxy.ground.secret import Secret
from qwen_proxy.upstreams.openai_api.asking import Body, chat_body
from qwen_proxy.upstreams.openai_api.errors import Told, classify
from qwen_proxy.upstreams.openai_api.wire import count, members, word

CLIENT_ID: Final = "f0304373b74a44d2b584a3fb70ca9e56"  # the public client of the official command line
SCOPE: Final = "openid profile email model.completion"
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
DEVICE_SECONDS: Final = 900.0  # of a device code, where its answer does not say
TOKEN_SECONDS: Final = 3600.0  # of an access token, where its answer does not say
FIRST_INTERVAL_SECONDS: Final = 2.0
SLOWER: Final = 1.5
SLOWEST_SECONDS: Final = 10.0
ENDED: Final = (
    "Qwen Code's free tier ended on 2026-04-15: since then a free account can still sign in, but what it asks is"
    " refused with 401"
)
INSTEAD: Final = "use an API key instead, such as CODING_PLAN_API_KEY or MODEL_STUDIO_API_KEY"
PRUNED: Final = (
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "n",
    "seed",
    "service_tier",
    "user",
)  # what the service answers with 400; only at the top, for a tool may have parameters of these names
EPHEMERAL: Final[Body] = {"type": "ephemeral"}
EXPIRED_TEXTS: Final = ("invalid access token", "token expired", "invalid api key")


class Device(Struct, frozen=True, kw_only=True):
    """What begins a sign-in. complete_uri: a page that knows the code already."""

    device_code: Secret
    user_code: str
    uri: str
    complete_uri: str
    lasts_seconds: float


class Waiting(Enum):
    PENDING = "pending"
    SLOWER = "slower"


def challenge_of(verifier: str) -> str:
    """S256 of RFC 7636: base64url of the SHA-256, without padding."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def verifier_of(random: bytes) -> str:
    """43 characters of 32 bytes."""
    return base64.urlsafe_b64encode(random).rstrip(b"=").decode()


def device_form(verifier: str) -> bytes:
    return _form(client_id=CLIENT_ID, scope=SCOPE, code_challenge=challenge_of(verifier), code_challenge_method="S256")


def poll_form(device_code: Secret, verifier: Secret) -> bytes:
    return _form(
        grant_type=DEVICE_GRANT,
        client_id=CLIENT_ID,
        device_code=device_code.reveal(),
        code_verifier=verifier.reveal(),
    )


def refresh_form(refresh_token: Secret) -> bytes:
    return _form(grant_type="refresh_token", refresh_token=refresh_token.reveal(), client_id=CLIENT_ID)


def _form(**fields: str) -> bytes:
    return urlencode(fields).encode()


# --- answers of the sign-in


def read_device(status: int, body: bytes) -> Device:
    """Raises UpstreamFailed, UpstreamProtocolError."""
    said = _json(body)
    code, user_code, uri = (word(said.get(name)) for name in ("device_code", "user_code", "verification_uri"))
    if status != 200 or said.get("error"):
        raise _failed("a sign-in could not begin", status, said)
    if not code or not user_code or not uri:
        raise UpstreamProtocolError("the beginning of a sign-in without a code or an address")
    return Device(
        device_code=Secret(code),
        user_code=user_code,
        uri=uri,
        complete_uri=word(said.get("verification_uri_complete")) or uri,
        lasts_seconds=float(count(said.get("expires_in")) or DEVICE_SECONDS),
    )


def read_poll(status: int, body: bytes) -> Tokens | Waiting:
    """Raises CredentialRejected where the sign-in is over without success, else UpstreamFailed or
    UpstreamProtocolError."""
    said = _json(body)
    error = word(said.get("error"))
    if error == "slow_down" and status in (400, 429):
        return Waiting.SLOWER
    if (error == "authorization_pending" and status == 400) or (status == 200 and said.get("status") == "pending"):
        return Waiting.PENDING
    if error == "access_denied":
        raise CredentialRejected("the sign-in was refused on its page")
    if status == 401 or error == "expired_token":
        raise CredentialRejected("the sign-in's code has ended; begin again")
    if status == 429:
        raise CredentialRejected("too many sign-ins: wait a while, then begin again")
    if status != 200 or error:
        raise _failed("a sign-in failed", status, said)
    return _tokens(said)


def read_refresh(status: int, body: bytes) -> Tokens:
    """400 and 401 mean, with any body, that the refresh token is dead: CredentialRejected. Else raises UpstreamFailed,
    UpstreamProtocolError."""
    if status in (400, 401):
        raise CredentialRejected("Qwen Code takes its refresh token no more; sign in again: qwen-proxy qwen-code login")
    said = _json(body)
    if status != 200 or said.get("error"):
        raise _failed("a token could not be renewed", status, said)
    return _tokens(said)


def read_approval(status: int, body: bytes) -> None:
    """status: the effective one (§0.4). Raises CredentialRejected, UpstreamFailed."""
    said = _json(body)
    if status in (401, 403):
        raise CredentialRejected("the site does not let this account approve the sign-in")
    if not 200 <= status < 300 or said.get("success") is False:
        raise _failed("the sign-in was not approved", status, members(said.get("data")) or said)


def _tokens(said: dict[str, object]) -> Tokens:
    access = word(said.get("access_token"))
    if not access:
        raise UpstreamProtocolError("a sign-in without an access token")
    refresh = word(said.get("refresh_token"))
    return Tokens(
        access_token=Secret(access),
        refresh_token=Secret(refresh) if refresh else None,
        resource_url=word(said.get("resource_url")),
        lasts_seconds=float(count(said.get("expires_in")) or TOKEN_SECONDS),
    )


def _failed(what: str, status: int, said: dict[str, object]) -> ProxyError:
    why = word(said.get("error_description")) or word(said.get("details")) or word(said.get("error"))
    return UpstreamFailed(f"{what}: HTTP {status}" + (f", {redacted(why)[:200]}" if why else ""))


def _json(body: bytes) -> dict[str, object]:
    """Bodies may be empty, or a page."""
    try:
        return members(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def slower(interval_seconds: float) -> float:
    return min(SLOWEST_SECONDS, interval_seconds * SLOWER)


# --- generation


def base_of(resource_url: str, usual: str) -> str:
    """What `/chat/completions` is put behind. usual: where the sign-in told no address."""
    url = (resource_url.strip() or usual).rstrip("/")
    if "://" not in url:
        url = f"https://{url}"
    return url if url.endswith("/v1") else f"{url}/v1"


def agent(version: str, platform: str, architecture: str) -> str:
    return f"QwenCode/{version} ({platform}; {architecture})"


def portal_headers(said_agent: str) -> dict[str, str]:
    """Besides Authorization and Accept."""
    return {
        "user-agent": said_agent,
        "x-dashscope-useragent": said_agent,
        "x-dashscope-cachecontrol": "enable",
        "x-dashscope-authtype": "qwen-oauth",
    }


def prepared(request: ChatRequest, model: Model, session_id: str, new_id: Callable[[], str]) -> bytes:
    """The body of a generation."""
    body = chat_body(request, model, Thinking.DASHSCOPE)
    body["messages"] = _marked(_led(body["messages"]))
    body["metadata"] = {"sessionId": session_id, "promptId": new_id()}
    kept = {name: value for name, value in body.items() if name not in PRUNED and not _is_nothing(value)}
    return msgspec.json.encode(kept)


def judged(told: Told | None, model: str) -> ProxyError:
    """What an error object of the service means. A token that is refused is told by its status, by its code or, as the
    official client has it, by how its sentence begins, under whatever status (§8.6): begins, for behind that may stand
    what a client sent."""
    found = classify(told, model)
    begins = told is not None and told.message.lstrip().casefold().startswith(EXPIRED_TEXTS)
    is_refused = isinstance(found, CredentialRejected) or (begins and not isinstance(found, QuotaExhausted))
    return CredentialRejected(f"{ENDED}; {INSTEAD}") if is_refused else found


def _is_nothing(value: object) -> bool:
    if isinstance(value, Raw):
        return bytes(value).strip() in (b"null", b"[]", b"{}")
    return value is None or value == [] or value == {}


def _led(messages: list[Body]) -> list[Body]:
    """All that the system says in one message, which begins with an empty text to be cached: without that the service
    refuses plain requests with 400 (§8.5)."""
    said: list[Body] = [{"type": "text", "text": "", "cache_control": EPHEMERAL}]
    for message in messages:
        if message["role"] == "system":
            said += _parts(message["content"])
    return [{"role": "system", "content": said}, *(each for each in messages if each["role"] != "system")]


def _marked(messages: list[Body]) -> list[Body]:
    """The last text of the last message is cached too. A tool's result stays a plain text."""
    last = messages[-1]
    if last["role"] == "tool":
        return messages
    parts = _parts(last["content"])
    at = next((index for index in reversed(range(len(parts))) if parts[index]["type"] == "text"), None)
    if at is None:
        return messages
    parts[at] = {**parts[at], "cache_control": EPHEMERAL}
    return [*messages[:-1], {**last, "content": parts}]


def _parts(content: str | list[Body]) -> list[Body]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content)
