"""Sign-in, session and settings: rows 1 to 4 and 20 of the endpoint index (upstream protocol §0.5, §1, §3.6)."""

import hashlib
import re

import msgspec

from qwen_proxy.simulator.records import SeenRequest
from qwen_proxy.simulator.replies import (
    Reply,
    failure,
    flat_error,
    json_reply,
    success,
    unauthorized,
    validation_error,
    waf_html,
)
from qwen_proxy.simulator.scenario import Account, SignInForm, Standing
from qwen_proxy.simulator.site import Site, Visitor

PASSWORD_HASH = re.compile(r"[0-9a-f]{64}")

REFUSALS: dict[Standing, tuple[int, str]] = {
    "unregistered": (400, "The email is not registered."),
    "pending": (400, "Your account is pending activation. Please check your email."),
    "banned": (403, "This account has been suspended due to a violation of our terms."),
}
"""Text of refused sign-ins (§1.3; the exact words are not published, the keywords are)."""

WRONG_PASSWORD = "The email or password provided is incorrect. Please check for typos and try logging in again."


class SignInBody(msgspec.Struct, frozen=True):
    """§1.1: password is the hex SHA-256 of the plain one."""

    email: str
    password: str


def record(site: Site, email: str, token: str | None) -> dict[str, object]:
    """The account record of §1.1 and §1.5; the role of an account that is not activated is `pending` (§1.3)."""
    account = site.account(email)
    role = "pending" if account is not None and account.standing == "pending_role" else "user"
    found: dict[str, object] = {
        "id": site.account_id(email),
        "email": email,
        "name": email.partition("@")[0],
        "role": role,
        "profile_image_url": "/user.png",
    }
    return found if token is None else found | {"token_type": "Bearer", "token": token}


def signin_v1(site: Site, seen: SeenRequest) -> Reply:
    """`POST /api/v1/auths/signin`: flat, token normally in the body (§1.1)."""
    form = _form(site, seen, "v1")
    if form in ("not_found", "not_allowed"):
        return flat_error(*((404, "Not Found") if form == "not_found" else (405, "Method Not Allowed")))
    if site.signs_in_too_fast(seen.peer[0]):
        return waf_html()
    body, account, refusal = _judge(site, seen)
    if body is None or account is None:
        return flat_error(*refusal)
    token = site.issue_token(body.email, _lifetime(site, account))
    match form:
        case "body":
            return json_reply(record(site, body.email, token))
        case "data":
            return json_reply({"data": {"token": token}} | record(site, body.email, None))
        case "cookie":
            return json_reply(record(site, body.email, None), cookies=_cookies(site, account, token))
        case _:
            return json_reply(record(site, body.email, None))


def signin_v2(site: Site, seen: SeenRequest) -> Reply:
    """`POST /api/v2/auths/signin`: enveloped, token normally only in a cookie (§1.2)."""
    form = _form(site, seen, "v2")
    if form in ("not_found", "not_allowed"):
        return flat_error(*((404, "Not Found") if form == "not_found" else (405, "Method Not Allowed")))
    if site.signs_in_too_fast(seen.peer[0]):
        return waf_html()
    body, account, refusal = _judge(site, seen)
    if body is None or account is None:
        # The code is not published (§1.3, last row).
        return failure("Bad_Request", refusal[1], refusal[0])
    token = site.issue_token(body.email, _lifetime(site, account))
    match form:
        case "cookie":
            return success(record(site, body.email, None), cookies=_cookies(site, account, token))
        case "data":
            return success(record(site, body.email, token))
        case "body":
            reply = {"success": True, "request_id": "$$request_id$$", "token": token}
            return json_reply(reply | {"data": record(site, body.email, None)}, actual_status=200)
        case _:
            return success(record(site, body.email, None))


def session(site: Site, seen: SeenRequest) -> Reply:
    """`GET /api/v1/auths/`: who am I, flat (§1.5)."""
    visitor = visitor_of(site, seen)
    if visitor is None:
        return flat_error(401, "Unauthorized")
    account = site.account(visitor.email)
    if account is not None and account.standing == "banned":
        return flat_error(*REFUSALS["banned"])
    return json_reply(record(site, visitor.email, visitor.token))


def user_info(site: Site, seen: SeenRequest) -> Reply:
    """`GET /api/v2/user/info` (§1.5; no shape is published, so the record in an envelope)."""
    visitor = visitor_of(site, seen)
    return refused(site, visitor) or success(record(site, visitor.email if visitor else "", None))


def read_settings(site: Site, seen: SeenRequest) -> Reply:
    """`GET /api/v2/users/user/settings` (§0.5 row 20)."""
    visitor = visitor_of(site, seen)
    return refused(site, visitor) or success(site.settings.get(visitor.email if visitor else "", {}))


def update_settings(site: Site, seen: SeenRequest) -> Reply:
    """`POST /api/v2/users/user/settings/update`: the memory switch (§3.6)."""
    visitor = visitor_of(site, seen)
    if visitor is None:
        return unauthorized()
    try:
        wanted = msgspec.json.decode(seen.body, type=dict[str, object])
    except msgspec.MsgspecError as error:
        return validation_error(str(error))
    site.settings[visitor.email] = site.settings.get(visitor.email, {}) | wanted
    return success(site.settings[visitor.email])


def visitor_of(site: Site, seen: SeenRequest) -> Visitor | None:
    """Whom the cookie or, lacking one, the bearer token proves: either will do except on completions (§9.2)."""
    return site.visitor(seen.cookies.get("token") or seen.bearer)


def refused(site: Site, visitor: Visitor | None) -> Reply | None:
    """The refusal of a visitor without a valid token or good standing, in the v2 envelope (§1.3, §4.7 a)."""
    if visitor is None:
        return unauthorized()
    account = site.account(visitor.email)
    match account.standing if account is not None else "good":
        case "banned":
            return failure("Forbidden", REFUSALS["banned"][1], 403)
        case "pending_role":
            return failure("Forbidden", REFUSALS["pending"][1], 403)
        case _:
            return None


def _form(site: Site, seen: SeenRequest, version: str) -> SignInForm:
    account = site.scenario.accounts.get(seen.account or "")
    if version == "v1":
        return (account and account.signin_v1) or site.scenario.signin_v1
    return (account and account.signin_v2) or site.scenario.signin_v2


def _lifetime(site: Site, account: Account) -> int:
    own = account.token_lifetime_seconds
    return site.scenario.token_lifetime_seconds if own is None else own


def _judge(site: Site, seen: SeenRequest) -> tuple[SignInBody | None, Account | None, tuple[int, str]]:
    """The body and account of a sign-in that may pass, else status and text of the refusal (§1.3)."""
    try:
        body = msgspec.json.decode(seen.body, type=SignInBody)
    except msgspec.MsgspecError as error:
        return None, None, (422, str(error))
    account = site.account(body.email)
    if account is None:
        return None, None, REFUSALS["unregistered"]
    if account.standing in REFUSALS:
        return None, None, REFUSALS[account.standing]
    hashed = hashlib.sha256(account.password.encode()).hexdigest()
    right = body.password == hashed if site.scenario.accounts else bool(PASSWORD_HASH.fullmatch(body.password))
    if not right or account.standing == "wrong_password":
        return None, None, (site.scenario.wrong_password_status, WRONG_PASSWORD)
    return body, account, (0, "")


def _cookies(site: Site, account: Account, token: str) -> tuple[str, ...]:
    """The token and a `refresh_token` of unknown use (§1.2)."""
    tail = f"; Path=/; Max-Age={_lifetime(site, account)}; HttpOnly; SameSite=Lax"
    return (f"token={token}{tail}", f"refresh_token=simulated-refresh{tail}")
