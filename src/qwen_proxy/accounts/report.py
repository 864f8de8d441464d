"""Health in words: what an operator is told, and the error when no account can be taken. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from qwen_proxy.accounts.health import (
    WORTH_WAITING,
    Candidate,
    ExitHealth,
    Hindrance,
    Obstacle,
    SignInState,
    hindrance,
)
from qwen_proxy.accounts.model import DIRECT, Feature
from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsChallenged,
    AccountsOutOfQuota,
    NoAccountUsable,
    SignInReason,
)


class AccountReport(Struct, frozen=True, kw_only=True):
    """One account, for doctor, `/readyz` and the page; never a secret. `state` speaks of chat.

    `state` is "ready" or an `Obstacle`; `next_action` is a sentence, empty when there is nothing to do. `exit` is
    without user and password. `parked` names each parked feature and until when. Times are Unix seconds, 0: never.
    """

    account: str  # the id, which is the email: the caller masks it
    exit: str
    state: str
    reason: str
    next_action: str
    until: float | None
    in_use: int
    has_token: bool
    token_expires_at: float | None
    parked: Mapping[Feature, float]
    sign_in_state: SignInState
    sign_in_reason: str
    sign_in_attempted_at: float
    last_used_at: float
    last_error: str
    last_error_at: float
    succeeded: int
    failed: int


class ExitReport(Struct, frozen=True, kw_only=True):
    """`state`: "open", "half_open", "challenged", "unreachable" or "sign_ins_rest"."""

    exit: str
    state: str
    reason: str
    next_action: str
    until: float | None
    strikes: int
    accounts: int
    challenged_at: float


def exit_name(exit: str) -> str:
    """A proxy URL without its user and password; "direct" for none."""
    if exit == DIRECT:
        return "direct"
    parts = urlsplit(exit)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


# --- one account, one exit ---------------------------------------------------------------------------------

_OPEN_IN_BROWSER: Final = "Open chat.qwen.ai once by hand and complete the check there"

_ACTIONS: Final[Mapping[Obstacle, str]] = {
    Obstacle.BUSY: "",
    Obstacle.SIGNING_IN: "",
    Obstacle.EXIT_ON_TRIAL: "",
    Obstacle.OUT_OF_QUOTA: "Nothing to do; add another account if this happens often.",
    Obstacle.CHALLENGED: f"{_OPEN_IN_BROWSER}, signed in as this account.",
    Obstacle.EXIT_CHALLENGED: f"{_OPEN_IN_BROWSER}, from this exit, or give its accounts another exit.",
    Obstacle.EXIT_UNREACHABLE: "Check that this outbound proxy runs and takes the user and password given.",
    Obstacle.SIGN_INS_REST: f"{_OPEN_IN_BROWSER}, from this exit; sign-ins go on by themselves.",
    Obstacle.SIGN_IN_FAILED: "Nothing to do; the sign-in is tried again by itself.",
    Obstacle.SIGN_IN_REFUSED: "Sign in at chat.qwen.ai by hand to see what it says about this account.",
    Obstacle.DISABLED: "Enable the account to use it.",
}

_REFUSALS: Final[Mapping[str, str]] = {
    SignInReason.WRONG_PASSWORD.value: "Correct the account's password.",
    SignInReason.NOT_REGISTERED.value: "Check the account's email, or register it at chat.qwen.ai.",
    SignInReason.NOT_ACTIVATED.value: "Follow the link in the activation mail of this account.",
    SignInReason.BANNED.value: "The site has suspended this account; remove it.",
    SignInReason.NO_PASSWORD.value: "Give this account its password, since its token no longer works.",
}


def account_report(candidate: Candidate, now: float, limit: int) -> AccountReport:
    health, credential = candidate.health, candidate.credential
    found = hindrance(candidate, Feature.CHAT, now, limit)
    reason, action = "", ""
    if found is not None:
        reason = _reason(candidate, found)
        action = _ACTIONS[found.obstacle]
        if found.obstacle is Obstacle.SIGN_IN_REFUSED:
            action = _REFUSALS.get(reason, action)
    elif health.failing.until > now:
        reason = health.failing.reason
    return AccountReport(
        account=candidate.account.id,
        exit=exit_name(candidate.account.exit),
        state=found.obstacle.value if found else "ready",
        reason=reason,
        next_action=action,
        until=found.until if found else None,
        in_use=candidate.in_use,
        has_token=credential is not None,
        token_expires_at=credential.expires_at if credential else None,
        parked={feature: rest.until for feature, rest in health.parked.items() if rest.until > now},
        sign_in_state=health.sign_in.state,
        sign_in_reason=health.sign_in.reason,
        sign_in_attempted_at=health.sign_in.attempted_at,
        last_used_at=health.last_used_at,
        last_error=health.last_error,
        last_error_at=health.last_error_at,
        succeeded=health.succeeded,
        failed=health.failed,
    )


def _reason(candidate: Candidate, found: Hindrance) -> str:
    health, exit = candidate.health, candidate.exit.health
    match found.obstacle:
        case Obstacle.OUT_OF_QUOTA:
            return health.parked[Feature.CHAT].reason
        case Obstacle.CHALLENGED:
            return health.challenge.reason
        case Obstacle.EXIT_CHALLENGED | Obstacle.EXIT_ON_TRIAL:
            return exit.challenge.reason
        case Obstacle.EXIT_UNREACHABLE:
            return exit.unreachable.reason
        case Obstacle.SIGN_INS_REST:
            return exit.sign_in.reason
        case Obstacle.SIGN_IN_FAILED | Obstacle.SIGN_IN_REFUSED:
            return health.sign_in.reason
        case _:
            return ""


def exit_report(exit: str, health: ExitHealth, accounts: int, now: float) -> ExitReport:
    state, rest, action = "open", health.challenge, ""
    if health.challenge.until > now:
        state, action = "challenged", _ACTIONS[Obstacle.EXIT_CHALLENGED]
    elif health.unreachable.until > now:
        state, rest, action = "unreachable", health.unreachable, _ACTIONS[Obstacle.EXIT_UNREACHABLE]
    elif health.is_half_open(now):
        state = "half_open"
    elif health.sign_in.until > now:
        state, rest, action = "sign_ins_rest", health.sign_in, _ACTIONS[Obstacle.SIGN_INS_REST]
    return ExitReport(
        exit=exit_name(exit),
        state=state,
        reason=rest.reason,
        next_action=action,
        until=rest.until if rest.until > now else None,
        strikes=rest.strikes,
        accounts=accounts,
        challenged_at=health.challenged_at,
    )


# --- why none can be taken ---------------------------------------------------------------------------------

_PHRASES: Final[Mapping[Obstacle, str]] = {
    Obstacle.BUSY: "busy",
    Obstacle.SIGNING_IN: "waiting for sign-in",
    Obstacle.EXIT_ON_TRIAL: "waiting for a trial of the exit",
    Obstacle.OUT_OF_QUOTA: "out of quota",
    Obstacle.CHALLENGED: "resting after a challenge",
    Obstacle.EXIT_CHALLENGED: "on an exit that rests after challenges",
    Obstacle.EXIT_UNREACHABLE: "on an exit that does not answer",
    Obstacle.SIGN_INS_REST: "not signed in, since sign-ins were challenged",
    Obstacle.SIGN_IN_FAILED: "not signed in, since the attempt failed",
    Obstacle.SIGN_IN_REFUSED: "refused at sign-in",
    Obstacle.DISABLED: "disabled",
}

_KINDS: Final[Mapping[Obstacle, type[NoAccountUsable]]] = {
    Obstacle.BUSY: AccountsBusy,
    Obstacle.SIGNING_IN: AccountsBusy,
    Obstacle.EXIT_ON_TRIAL: AccountsBusy,
    Obstacle.OUT_OF_QUOTA: AccountsOutOfQuota,
    Obstacle.CHALLENGED: AccountsChallenged,
    Obstacle.EXIT_CHALLENGED: AccountsChallenged,
    Obstacle.SIGN_INS_REST: AccountsChallenged,
}


def shortage(candidates: Iterable[Candidate], feature: Feature, now: float, limit: int) -> NoAccountUsable:
    """The error that tells why none of these can be taken.

    Its kind follows the account that comes back first: one worth waiting for, else the one with the earliest time.
    `retry_after_seconds` is that time; none is known of a busy account.
    """
    found: dict[Obstacle, list[tuple[Candidate, float | None]]] = {}
    for candidate in candidates:
        hindered = hindrance(candidate, feature, now, limit) or Hindrance(Obstacle.BUSY)  # free again this moment
        found.setdefault(hindered.obstacle, []).append((candidate, hindered.until))
    if not found:
        return NoAccountUsable("no account is configured; set ACCOUNTS to email:password")
    times = {obstacle: _earliest(until for _, until in members) for obstacle, members in found.items()}
    first = min(times, key=lambda obstacle: (obstacle not in WORTH_WAITING, _or_never(times[obstacle])))
    back_at = None if first in WORTH_WAITING else times[first]
    total = sum(map(len, found.values()))
    told = ", ".join(_phrase(obstacle, members, times[obstacle], now) for obstacle, members in sorted(found.items()))
    kind = _KINDS.get(first, NoAccountUsable)
    retry_after = None if back_at is None else max(1.0, math.ceil(back_at - now))
    return kind(f"no account can be used for {feature} now: {_counted(total)}: {told}", retry_after)


def is_worth_waiting(candidates: Iterable[Candidate], feature: Feature, now: float, limit: int) -> bool:
    """Whether one of these comes free by itself soon."""
    found = (hindrance(candidate, feature, now, limit) for candidate in candidates)
    return any(each is None or each.obstacle in WORTH_WAITING for each in found)


def _phrase(
    obstacle: Obstacle, members: Sequence[tuple[Candidate, float | None]], until: float | None, now: float
) -> str:
    phrase = f"{len(members)} {_PHRASES[obstacle]}"
    if obstacle is Obstacle.SIGN_IN_REFUSED:
        reasons = sorted({candidate.health.sign_in.reason for candidate, _ in members})
        phrase += f" ({', '.join(reasons)})"
    return phrase if until is None else f"{phrase} until {clock_time(until, now)}"


def clock_time(at: float, now: float) -> str:
    """`14:00 UTC`, rounded up to the minute, seconds for less than two of them; with its date when not today."""
    if at - now < 120:
        return f"{datetime.fromtimestamp(math.ceil(at), UTC):%H:%M:%S} UTC"
    moment = datetime.fromtimestamp(math.ceil(at / 60) * 60, UTC)
    today = moment.date() == datetime.fromtimestamp(now, UTC).date()
    return f"{moment:%H:%M} UTC" if today else f"{moment:%Y-%m-%d %H:%M} UTC"


def _counted(accounts: int) -> str:
    return "1 account" if accounts == 1 else f"{accounts} accounts"


def _earliest(times: Iterable[float | None]) -> float | None:
    return min((at for at in times if at is not None), default=None)


def _or_never(at: float | None) -> float:
    return math.inf if at is None else at
