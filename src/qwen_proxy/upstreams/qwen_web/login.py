"""Signing in, and asking whether a token still holds. Source: upstream protocol §1."""

import hashlib
from typing import Final

import msgspec

from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.ground.errors import (
    ProxyError,
    SignInReason,
    SignInRefused,
    UpstreamChallenged,
    UpstreamProtocolError,
)
from qwen_proxy.ground.secret import Secret
from qwen_proxy.upstreams.qwen_web.errors import (
    PAGE_MARKERS,
    classify_body,
    is_challenge,
    read_failure,
    standing,
)
from qwen_proxy.upstreams.qwen_web.headers import header_problem
from qwen_proxy.upstreams.qwen_web.site import Site
from qwen_proxy.upstreams.qwen_web.token import token_end
from qwen_proxy.upstreams.qwen_web.wire import SignInBody, loads, members, text
from qwen_proxy.upstreams.transport import Response

PATHS: Final = ("/api/v1/auths/signin", "/api/v2/auths/signin")
REFUSING: Final = (400, 401, 403, 422)
MOVED: Final = (404, 405)


class SignIn:
    """Call it with an account that has a password: its credential, or SignInRefused, or another ProxyError.

    The first endpoint is tried first; the second when that is gone (404, 405) or answers well without a token. Other
    cookies that the answer sets (a `refresh_token` was seen, use unknown) are kept when the owner gave none.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, account: Account) -> Credential:
        if account.password is None:
            raise SignInRefused(SignInReason.NO_PASSWORD)
        hashed = hashlib.sha256(account.password.reveal().encode()).hexdigest()
        body = msgspec.json.encode(SignInBody(account.email, hashed))
        for path in PATHS:
            response = await self._site.call(
                "POST",
                path,
                page="/auth",
                credential=None,
                exit=account.exit,
                body=body,
                timeout_seconds=self._site.options.sign_in_seconds,
            )
            if (credential := self._read(account, response)) is not None:
                return credential
        raise UpstreamProtocolError("a sign-in without a token")

    async def check(self, credential: Credential) -> bool | None:
        """Whether the site takes the token now (§1.5); None when a page or an outage hides it."""
        response = await self._site.call(
            "GET",
            "/api/v1/auths/",
            page="/",
            credential=credential,
            timeout_seconds=self._site.options.session_check_seconds,
        )
        status = self._site.status(response)
        if status in (401, 403) and not _is_page(response.body):
            return False
        if status != 200 or _is_page(response.body):
            return None
        return text(_json(response.body).get("role")) == "user"

    def _read(self, account: Account, response: Response) -> Credential | None:
        """The credential; None when the other endpoint is to be asked."""
        status = self._site.status(response)
        envelope = _json(response.body)
        if is_challenge(envelope):
            raise UpstreamChallenged("json")
        if status in MOVED and not _is_firewall(response.body):
            return None
        if _is_page(response.body):
            raise self._failure(status, response.body)
        failure = read_failure(status, envelope)
        if failure is not None and status in (200, *REFUSING):
            raise SignInRefused(refusal(failure.status, failure.details.lower()))
        if status != 200:
            raise self._failure(status, response.body)
        cookies = _cookies(response)
        token = (
            text(envelope.get("token")) or text(members(envelope.get("data")).get("token")) or cookies.pop("token", "")
        )
        if not token or header_problem(token) is not None:
            return None
        if "pending" in (text(envelope.get("role")), text(members(envelope.get("data")).get("role"))):
            raise SignInRefused(SignInReason.NOT_ACTIVATED)
        cookies.pop("token", None)
        line = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return Credential(
            account_id=account.id,
            token=Secret(token),
            exit=account.exit,
            cookies=account.cookies or (Secret(line) if line else None),
            expires_at=token_end(token),
        )

    def _failure(self, status: int, body: bytes) -> ProxyError:
        found = classify_body(status, body, "", self._site.drift)
        return found or UpstreamProtocolError(f"a sign-in answered with status {status}")


def refusal(status: int, said: str) -> SignInReason:
    """Why a sign-in was refused, from its lower-case text (§1.3: only keywords are known)."""
    if (reason := standing(said)) is not None:
        return reason
    if "not registered" in said or "not_registered" in said or "not exist" in said:
        return SignInReason.NOT_REGISTERED
    if "incorrect" in said or "password" in said or status == 401:
        return SignInReason.WRONG_PASSWORD
    return SignInReason.UNKNOWN


def _json(body: bytes) -> dict[str, object]:
    try:
        return members(loads(body))
    except ValueError:
        return {}


def _is_page(body: bytes) -> bool:
    return body.lstrip()[:1] == b"<"


def _is_firewall(body: bytes) -> bool:
    page = body.decode("utf-8", "replace").lower()
    return _is_page(body) and any(marker in page for marker in PAGE_MARKERS)


def _cookies(response: Response) -> dict[str, str]:
    """Names and values that the answer sets."""
    pairs = (line.partition(";")[0].partition("=") for line in response.headers.getall("Set-Cookie", []))
    return {name.strip(): value.strip() for name, _, value in pairs if header_problem(name + value) is None}
