"""What becomes of an attempt that failed: try again, and how, or give up. Pure; every reason to retry is a row here.

An attempt that ended well needs no verdict: an upstream raises on empty and broken replies (upstreams/base.py).

| error | next try |
|---|---|
| CredentialRejected, first time | the same account, signed in anew |
| CredentialRejected again, SignInRefused, QuotaExhausted | another account |
| UpstreamChallenged, first time | another account, on another exit if there is one |
| ExitUnreachable | another exit |
| UpstreamTimeout of the whole request | none: the deadline is the same |
| any other UpstreamError: unavailable, overloaded, cut, empty, odd | after a pause, another account if there is one |
| the client's, ours, NoAccountUsable; a second challenge; content was sent | none |
"""

from enum import Enum, auto

from msgspec import Struct

from qwen_proxy.accounts.health import QUOTA, THROTTLE
from qwen_proxy.accounts.model import Outcome, OutcomeKind
from qwen_proxy.ground.errors import (
    Blame,
    CredentialRejected,
    ExitUnreachable,
    NoAccountUsable,
    ProxyError,
    QuotaExhausted,
    RateLimited,
    UpstreamChallenged,
    UpstreamTimeout,
)


class Verdict(Enum):
    GIVE_UP = auto()
    RENEW = auto()  # sign the same account in, then try it again
    OTHER_ACCOUNT = auto()
    OTHER_EXIT = auto()
    CHALLENGED = auto()  # once: another account, on another exit if there is one
    PAUSE = auto()  # back off, then take another account


class Past(Struct, frozen=True):
    """What the attempts before this failure used up. `tries_left` counts those that may still be made."""

    tries_left: int
    content_sent: bool = False
    renewed: bool = False
    challenged: bool = False


def judge(error: ProxyError, past: Past) -> Verdict:
    if past.content_sent or past.tries_left <= 0:
        return Verdict.GIVE_UP
    match error:
        case NoAccountUsable():
            return Verdict.GIVE_UP
        case CredentialRejected():
            return Verdict.OTHER_ACCOUNT if past.renewed else Verdict.RENEW
        case UpstreamChallenged():
            return Verdict.GIVE_UP if past.challenged else Verdict.CHALLENGED
        case ExitUnreachable():
            return Verdict.OTHER_EXIT
        case UpstreamTimeout(phase="total"):
            return Verdict.GIVE_UP
        case _ if error.blame is Blame.ACCOUNT:
            return Verdict.OTHER_ACCOUNT
        case _ if error.blame is Blame.UPSTREAM:
            return Verdict.PAUSE
        case _:
            return Verdict.GIVE_UP


_KINDS = {
    Blame.CLIENT: OutcomeKind.CLIENT_FAULT,
    Blame.UPSTREAM: OutcomeKind.UPSTREAM_FAILED,
    Blame.ACCOUNT: OutcomeKind.CREDENTIAL_REJECTED,
    Blame.EXIT: OutcomeKind.EXIT_UNREACHABLE,
    Blame.OURS: OutcomeKind.CANCELLED,
}


def outcome_of(error: ProxyError) -> Outcome:
    """What the account pool is told of a failed attempt."""
    kind, rest = _KINDS[error.blame], None
    match error:
        case RateLimited():
            kind, rest = OutcomeKind.THROTTLED, error.rest_seconds
        case QuotaExhausted():
            kind, rest = OutcomeKind.OUT_OF_QUOTA, error.rest_seconds
        case UpstreamChallenged():
            kind = OutcomeKind.CHALLENGED
        case _:
            pass
    return Outcome(kind=kind, rest_seconds=rest, detail=str(error))


def least_rest_seconds(error: ProxyError, challenge_rest_seconds: float) -> float | None:
    """How long what failed rests now at the least (accounts/health.py), for an error that does not say so itself."""
    match error:
        case RateLimited():
            return error.rest_seconds or THROTTLE.first_seconds
        case QuotaExhausted():
            return error.rest_seconds or QUOTA.first_seconds
        case UpstreamChallenged():
            return challenge_rest_seconds
        case _:
            return None
