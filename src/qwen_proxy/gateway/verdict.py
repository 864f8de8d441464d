"""What becomes of an attempt that failed: try again, and how, or give up. Pure; every reason to retry is a row here.

An upstream raises on empty and broken replies (upstreams/base.py). A whole one of a model that was taught tools, or
told to give JSON, may be unfit nevertheless (`unfit`): it is asked again, and told what was wrong, as long as no call
was sent. What it says then follows what the client has already (gateway/progress.py). In the end the client gets it as
it is, or an error if a call or JSON was demanded.

| error | next try |
|---|---|
| CredentialRejected, first time | the same account, signed in anew |
| CredentialRejected again, SignInRefused, QuotaExhausted | another account |
| UpstreamChallenged, first time | another account, on another exit if there is one |
| ExitUnreachable | another exit |
| UpstreamTimeout of the whole request | none: the deadline is the same |
| ReplyUnfit, first time | at once, told what was wrong |
| ReplyUnfit, second time, unless a call or JSON was demanded | another account, told what was wrong |
| ReplyUnfit of JSON that has begun to go out | none |
| any other UpstreamError: unavailable, overloaded, cut, empty, odd | after a pause, another account if there is one |
| the client's, ours, NoAccountUsable; a second challenge; content was sent | none |
"""

from enum import Enum, auto
from typing import Final

from msgspec import Struct

from qwen_proxy.accounts.health import QUOTA, THROTTLE
from qwen_proxy.accounts.model import Outcome, OutcomeKind
from qwen_proxy.chat.events import Batch
from qwen_proxy.chat.request import ToolChoice, ToolChoiceKind
from qwen_proxy.ground.errors import (
    Blame,
    CredentialRejected,
    ExitUnreachable,
    NoAccountUsable,
    ProxyError,
    QuotaExhausted,
    RateLimited,
    ReplyEmpty,
    ReplyUnfit,
    UpstreamChallenged,
    UpstreamTimeout,
)
from qwen_proxy.toolcalls.report import ReadingReport

MOST_TOLD: Final = 5  # invalid calls in one hint


class Verdict(Enum):
    GIVE_UP = auto()
    RENEW = auto()  # sign the same account in, then try it again
    OTHER_ACCOUNT = auto()
    OTHER_EXIT = auto()
    CHALLENGED = auto()  # once: another account, on another exit if there is one
    PAUSE = auto()  # back off, then take another account
    ASK_AGAIN = auto()  # at once, with a hint


INVALID_OUTPUT: Final = "output_invalid"
ASKED_AGAIN_ONCE: Final = ("required_call_missing", INVALID_OUTPUT)


class Past(Struct, frozen=True):
    """What the attempts before this failure used up. `tries_left` counts those that may still be made.

    call_sent: a part of a call has gone out. asked_again: how often the model was told that its reply was unfit, which
    is done `may_ask_again` times at most.
    """

    tries_left: int
    content_sent: bool = False
    renewed: bool = False
    challenged: bool = False
    call_sent: bool = False
    asked_again: int = 0
    may_ask_again: int = 2


def judge(error: ProxyError, past: Past) -> Verdict:
    if isinstance(error, ReplyUnfit):
        return _judge_unfit(error, past)
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


def _judge_unfit(error: ReplyUnfit, past: Past) -> Verdict:
    most = min(past.may_ask_again, 1 if error.kind in ASKED_AGAIN_ONCE else 2)
    if error.kind == INVALID_OUTPUT and past.content_sent:
        return Verdict.GIVE_UP  # JSON that is followed by another is none
    if past.call_sent or past.asked_again >= most:
        return Verdict.GIVE_UP
    return Verdict.OTHER_ACCOUNT if past.asked_again else Verdict.ASK_AGAIN


class ReplyHeld(Exception):
    """A whole reply that is unfit. `rest`: what the client is given of it if nothing better is to be had, up to its
    Finish; empty where only the error will do."""

    def __init__(self, error: ReplyUnfit, rest: Batch) -> None:
        super().__init__(str(error))
        self.error = error
        self.rest = rest


_ONCE_MORE: Final = " Make the call now, in the form you were taught; what you wrote before it is known already."


def unfit(report: ReadingReport, choice: ToolChoice) -> ReplyUnfit | None:
    """What is wrong with a whole reply of a model that was taught tools; None if it can be given to the client.

    | verdict | what was found, and no call that could be given |
    |---|---|
    | intercepted | the site took a call for one of its own tools |
    | call_invalid | a call of no offered tool, or with wrong arguments, or cut off |
    | result_invented | a result that the model made up |
    | call_in_thinking | a call in the thinking, where it is none |
    | required_call_missing | nothing, and a call was demanded |
    """
    if report.committed:
        return None
    if report.intercepted:
        return ReplyUnfit(
            "intercepted",
            "the site took the model's call of a tool for its own",
            "Your last call was lost: it was not in the form you were taught." + _ONCE_MORE,
        )
    if report.invalid:
        told = "\n".join(
            f"- {call.name or 'a call'}: {'; '.join(call.errors) or 'it can not be read'}"
            for call in report.invalid[:MOST_TOLD]
        )
        return ReplyUnfit(
            "call_invalid",
            "its call of a tool is not valid",
            f"Your last reply had a call that can not be made:\n{told}\nNothing was done.{_ONCE_MORE}",
        )
    if report.result_invented:
        return ReplyUnfit(
            "result_invented",
            "it invented the result of a call",
            "You wrote the result of a call yourself. Nothing was called, and that result is not true." + _ONCE_MORE,
        )
    if report.call_in_thinking:
        return ReplyUnfit(
            "call_in_thinking",
            "it called a tool in its thinking only",
            "You wrote a call in your thinking. Calls there are not made: nothing was done." + _ONCE_MORE,
        )
    if choice.kind is ToolChoiceKind.REQUIRED:
        return ReplyUnfit(
            "required_call_missing",
            "it calls no tool, and a call was demanded",
            "Your last reply called no tool, and this reply has to." + _ONCE_MORE,
        )
    return None


def hint_of(error: ProxyError) -> str:
    """What the next try tells the model about this one; mostly nothing, since it was not the model's fault."""
    match error:
        case ReplyUnfit():
            return error.hint
        case ReplyEmpty(kind="thinking_only"):
            return "Your last reply had thinking only, and no answer. Think briefly, then write the reply itself."
        case _:
            return ""


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
        case ReplyUnfit():
            kind = OutcomeKind.SUCCEEDED  # what a model says is not its account's fault
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
