"""What a simulated upstream is like: a `Scenario`, changed freely by tests between requests.

The default is a healthy site that accepts any e-mail address with any password.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from qwen_proxy.simulator.catalogue import Model, default_models
from qwen_proxy.simulator.records import Endpoint, SeenRequest
from qwen_proxy.simulator.replies import Reply, captcha_json, overloaded, rate_limited, waf_html

SignInForm = Literal["body", "data", "cookie", "no_token", "not_found", "not_allowed"]
"""Where a sign-in leaves the token (§1.2), or that the endpoint is gone: 404, 405."""

RefreshForm = Literal["good", "same_token", "dead_400", "dead_401", "not_json", "empty"]
"""How a refresh is answered (§8.4): "same_token" gives no new refresh token; the dead ones without JSON."""

Standing = Literal["good", "wrong_password", "unregistered", "pending", "pending_role", "banned"]
"""`pending` is refused at sign-in; `pending_role` signs in, and is refused later (§1.3)."""

MONTH_SECONDS = 2_592_000
"""Lifetime of a token (§1.4)."""


@dataclass(slots=True)
class Account:
    """One account the site knows. Once a scenario lists accounts, it knows no others."""

    password: str
    standing: Standing = "good"
    token_lifetime_seconds: int | None = None
    signin_v1: SignInForm | None = None
    signin_v2: SignInForm | None = None


@dataclass(slots=True)
class Fault:
    """An answer given instead of the normal one. The first fault that fits wins.

    account, address (of the peer), feature ("chat", "image", "video"; completions only), text (in the request's body):
    None fits all. `skip` requests that fit pass first; then `times` are answered (None: all that follow).
    """

    reply: Reply
    endpoint: Endpoint = "completions"
    account: str | None = None
    address: str | None = None
    feature: str | None = None
    text: str | None = None
    skip: int = 0
    times: int | None = None
    when: Callable[[SeenRequest], bool] | None = None

    def takes(self, seen: SeenRequest) -> bool:
        """Whether this request gets the fault; counts it if so."""
        if not self._fits(seen) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def _fits(self, seen: SeenRequest) -> bool:
        return (
            self.endpoint in ("any", seen.endpoint)
            and self.account in (None, seen.account)
            and self.address in (None, seen.peer[0])
            and self.feature in (None, seen.feature)
            and (self.text is None or self.text in seen.body.decode(errors="replace"))
            and (self.when is None or self.when(seen))
        )


def challenge(
    form: Literal["json", "html"] = "json",
    *,
    status: int = 200,
    endpoint: Endpoint = "completions",
    account: str | None = None,
    address: str | None = None,
    skip: int = 0,
    times: int | None = None,
) -> Fault:
    """The firewall asks this account or address for a human (§4.7 c)."""
    reply = captcha_json() if form == "json" else waf_html(status)
    return Fault(reply, endpoint, account, address, skip=skip, times=times)


def quota(
    account: str | None = None,
    *,
    feature: str | None = "chat",
    num: int | None = 6,
    actual_status: int | None = 429,
    skip: int = 0,
    times: int | None = None,
) -> Fault:
    """An account's daily limit for a feature is reached, after `skip` more requests (§4.7 a, §12.1 16)."""
    reply = rate_limited(num, actual_status=actual_status)
    return Fault(reply, account=account, feature=feature, skip=skip, times=times)


def overload(*, times: int | None = None, endpoint: Endpoint = "completions") -> Fault:
    """The service is too busy for everybody (§4.7 a)."""
    return Fault(overloaded(), endpoint, times=times)


def _accounts() -> dict[str, Account]:
    return {}


def _faults() -> list[Fault]:
    return []


def _replies() -> list[Reply]:
    return []


def _gates() -> dict[Endpoint, asyncio.Event]:
    return {}


def _latencies() -> dict[Endpoint, float]:
    return {}


@dataclass(slots=True)
class Portal:
    """How Qwen Code's sign-in and service behave (§8, §12.1 scenarios 14 and 15).

    approves_after: polls that are pending before a browser's owner approves by himself; None: only by the endpoint.
    slow_downs: statuses (400, 429) of the first polls, answered with slow_down. pending: how the others are told.
    tells_resource: whether `resource_url` is told; resource_url: what, empty for the real one. token_seconds: how long
    an access token lasts; renewed_seconds: one that a refresh gave, None for as long. refused: what is refused with
    401: nothing, each sign-in's first token, or every token, as since 2026-04-16.
    """

    approves_after: int | None = None
    slow_downs: tuple[int, ...] = ()
    pending: Literal["error", "status"] = "error"
    denied: Literal["", "access_denied", "expired_token"] = ""
    tells_resource: bool = True
    resource_url: str = ""
    token_seconds: int = 21_600
    renewed_seconds: int | None = None
    refresh: RefreshForm = "good"
    refused: Literal["none", "first", "all"] = "none"
    out_of_quota: bool = False
    models: tuple[str, ...] = ("coder-model", "qwen3-coder-plus", "qwen3-coder-flash", "qwen3.6-plus")


@dataclass(slots=True)
class Scenario:
    """Everything about the simulated site that a test or a person may decide.

    accounts: e-mail -> Account; empty accepts anybody.
    replies: scripted completions, each used once, the first that fits; then directives; then the default answer.
    faults: see `Fault`; asked before anything else but the missing User-Agent and the body limit.
    latency: seconds before an endpoint answers. gates: it answers no sooner than this is set.
    clock_offset_seconds: how far the site's clock (Date header, token ends) is ahead of ours.
    pause_seconds: between the deltas of an answer composed here.
    signin_limit: (sign-ins, seconds) allowed for one address; above it the firewall's page (§1.3).
    dropped_generation_seconds: how long a chat stays "in progress" after its client left (§4.9).
    missing_timezone: what completions without the header get (§4.7 d: hang; §9.1: a challenge, says another source).
    thinking: how default reasoning grows: in place, by whole elements, or by finished-summary events (§4.5).
    search: which carrier brings the results of a search (§5.1).
    path_prefix: the site lives below this path, as behind a reverse proxy (§0.3).
    """

    accounts: dict[str, Account] = field(default_factory=_accounts)
    signin_v1: SignInForm = "body"
    signin_v2: SignInForm = "cookie"
    wrong_password_status: Literal[400, 401] = 400
    token_lifetime_seconds: int = MONTH_SECONDS
    signin_limit: tuple[int, float] | None = None
    models: list[Model] = field(default_factory=default_models)
    replies: list[Reply] = field(default_factory=_replies)
    faults: list[Fault] = field(default_factory=_faults)
    portal: Portal = field(default_factory=Portal)
    latency: dict[Endpoint, float] = field(default_factory=_latencies)
    gates: dict[Endpoint, asyncio.Event] = field(default_factory=_gates)
    clock_offset_seconds: float = 0.0
    pause_seconds: float = 0.0
    answer_text: str | None = None
    thinking: Literal["grow", "append", "finished"] = "grow"
    search: Literal["one", "two", "both"] = "one"
    missing_timezone: Literal["hang", "challenge", "ignore"] = "hang"
    dropped_generation_seconds: float = 5.0
    body_limit_bytes: int = 131_072
    path_prefix: str = ""
