"""Qwen Code's sign-in: the device flow with PKCE, its approval, and refreshes (upstream protocol §8.1 to §8.4)."""

import base64
import hashlib
import json
import secrets
from typing import TypeVar
from urllib.parse import parse_qs

import msgspec

from qwen_proxy.simulator.records import SeenRequest
from qwen_proxy.simulator.replies import JSON, Reply, json_reply, success, unauthorized, validation_error
from qwen_proxy.simulator.site import Device, PortalToken, Site

T = TypeVar("T")

CLIENT_ID = "f0304373b74a44d2b584a3fb70ca9e56"
DEVICE_SECONDS = 900
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
MOST_KEPT = 10_000
BROWSER = "somebody@browser.example"


class Approval(msgspec.Struct, frozen=True):
    approved: bool
    user_code: str


def begin(site: Site, seen: SeenRequest) -> Reply:
    """`POST /api/v1/oauth2/device/code` (§8.1)."""
    form = _form(seen)
    if form.get("client_id") != CLIENT_ID or form.get("code_challenge_method") != "S256":
        return _error(400, "invalid_request", "unknown client or method")
    if not form.get("code_challenge") or "model.completion" not in form.get("scope", "").split():
        return _error(400, "invalid_request", "code_challenge and scope are required")
    code, user_code = secrets.token_urlsafe(24), secrets.token_hex(4).upper()
    _keep(site.devices, code, Device(user_code, form["code_challenge"], site.now() + DEVICE_SECONDS))
    page = "https://chat.qwen.ai/authorize"
    return json_reply(
        {
            "device_code": code,
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={user_code}&client=qwen-code",
            "expires_in": DEVICE_SECONDS,
        }
    )


def authorize(site: Site, seen: SeenRequest) -> Reply:
    """`POST /api/v2/oauth2/authorize` with a web token as bearer (§8.2)."""
    visitor = site.visitor(seen.bearer)
    if visitor is None:
        return unauthorized()
    try:
        body = msgspec.json.decode(seen.body, type=Approval)
    except msgspec.MsgspecError as error:
        return validation_error(str(error))
    if not body.approved:
        return validation_error("approved: has to be true")
    device = next((each for each in site.devices.values() if each.user_code == body.user_code), None)
    if device is None or device.ends_at <= site.now():
        return validation_error("user_code: unknown or expired")
    device.approved_by = visitor.email
    return success({"approved": True})


def token(site: Site, seen: SeenRequest) -> Reply:
    """`POST /api/v1/oauth2/token`: a poll (§8.3) or a refresh (§8.4)."""
    form = _form(seen)
    if form.get("client_id") != CLIENT_ID:
        return _error(400, "invalid_client", "unknown client")
    if form.get("grant_type") == "refresh_token":
        return _refresh(site, form.get("refresh_token", ""))
    if form.get("grant_type") != DEVICE_GRANT:
        return _error(400, "unsupported_grant_type", "unknown grant")
    return _poll(site, form)


def _poll(site: Site, form: dict[str, str]) -> Reply:
    portal, code = site.scenario.portal, form.get("device_code", "")
    device = site.devices.get(code)
    if device is None or device.ends_at <= site.now():
        return _error(401, "invalid_grant", "the device code is invalid or expired")
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != device.challenge:
        return _error(400, "invalid_grant", "code_verifier does not fit")
    device.polls += 1
    if device.polls <= len(portal.slow_downs):
        return _error(portal.slow_downs[device.polls - 1], "slow_down", "polling too often")
    if portal.denied:
        return _error(400, portal.denied, "the sign-in is over")
    if not device.approved_by and portal.approves_after is not None and device.polls > portal.approves_after:
        device.approved_by = BROWSER
    if not device.approved_by:
        if portal.pending == "status":
            return json_reply({"status": "pending"})
        return _error(400, "authorization_pending", "the sign-in waits for its owner")
    del site.devices[code]
    return _tokens(site, is_first=True, with_refresh=True)


def _refresh(site: Site, refresh_token: str) -> Reply:
    form = site.scenario.portal.refresh
    if form == "dead_400":
        return Reply([b""], 400, content_type=JSON)
    if form == "dead_401":
        return Reply([b"<html>gone</html>"], 401, content_type="text/html")
    if form in ("not_json", "empty"):
        return Reply([b"" if form == "empty" else b"not JSON"], content_type=JSON)
    if refresh_token not in site.refresh_tokens:
        return _error(400, "invalid_grant", "the refresh token was used or never given")
    if form == "good":
        del site.refresh_tokens[refresh_token]
    return _tokens(site, is_first=False, with_refresh=form == "good")


def _tokens(site: Site, *, is_first: bool, with_refresh: bool) -> Reply:
    portal = site.scenario.portal
    access, refresh = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    lasts_seconds = portal.token_seconds
    if not is_first and portal.renewed_seconds is not None:
        lasts_seconds = portal.renewed_seconds
    _keep(site.portal_tokens, access, PortalToken(site.now() + lasts_seconds, is_first))
    answer: dict[str, object] = {
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": lasts_seconds,
        "scope": "openid profile email model.completion",
    }
    if with_refresh:
        _keep(site.refresh_tokens, refresh, None)
        answer["refresh_token"] = refresh
    if portal.tells_resource:
        answer["resource_url"] = portal.resource_url or "portal.qwen.ai"
    return Reply([json.dumps(answer).encode()], content_type=JSON)


def _error(status: int, error: str, description: str) -> Reply:
    return json_reply({"error": error, "error_description": description}, status=status)


def _form(seen: SeenRequest) -> dict[str, str]:
    if not seen.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    return {name: values[-1] for name, values in parse_qs(seen.body.decode("utf-8", "replace")).items()}


def _keep(kept: dict[str, T], name: str, value: T) -> None:
    kept[name] = value
    if len(kept) > MOST_KEPT:
        del kept[next(iter(kept))]
