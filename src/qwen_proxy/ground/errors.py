"""Every error this program tells someone about: one shallow tree.

A class exists because someone treats it differently: the attempt loop (by `blame`), a client protocol (its
status and type), or the account pool. An error carries facts; `str(error)` is the one sentence made of them, fit to
be shown to a client: it never holds a secret or upstream content.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from math import ceil
from typing import ClassVar, Final, Literal

from qwen_proxy.ground.limits import LimitFacts, LimitName


class Blame(Enum):
    """Whose fault a failure is, which decides whether another try can help."""

    CLIENT = "client"  # no retry
    ACCOUNT = "account"  # rest the account for that feature, take another
    EXIT = "exit"  # suspect the address; accounts/health.py decides from who else was challenged
    UPSTREAM = "upstream"  # back off, try again
    OURS = "ours"  # a bug, or nothing left to try with


class ProxyError(Exception):
    """The root. `retry_after_seconds` is a fact learned from upstream or from our own clocks, never invented."""

    blame: ClassVar[Blame] = Blame.OURS
    retry_after_seconds: float | None = None


MOST_TOLD: Final = 20  # names in one sentence
PLACE_SECONDS: Final = 1.0  # when to come again for a place: our own word; a request may end at any moment


# --- the client's ------------------------------------------------------------------------------------------


class ClientError(ProxyError):
    blame = Blame.CLIENT


class InvalidRequest(ClientError):
    """The request is malformed. `param` is the field's path as the client wrote it, such as `messages[0].role`."""

    def __init__(self, problem: str, *, param: str | None = None) -> None:
        super().__init__(problem)
        self.param = param


class UnsupportedParameter(InvalidRequest):
    """A field that is known and legal, and that this gateway can't honour for this model."""


class Unauthenticated(ClientError):
    """`why`: of a key that is known and does not work any more."""

    def __init__(self, why: str | None = None) -> None:
        super().__init__(
            why or "no valid API key was given; send one as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
        )


class PermissionDenied(ClientError):
    def __init__(self, needs: str) -> None:
        super().__init__(f"this API key may not do that: it needs {needs}")


class NotAllowed(ClientError):
    """The key is for others of this kind only."""

    def __init__(self, kind: Literal["model", "endpoint", "backend"], asked: str, allowed: Sequence[str]) -> None:
        more = f", and {len(allowed) - MOST_TOLD} more" if len(allowed) > MOST_TOLD else ""
        super().__init__(
            f"this API key may not use the {kind} {asked!r}; it may use: {', '.join(allowed[:MOST_TOLD])}{more}"
        )
        self.kind = kind
        self.allowed = tuple(allowed)


class KeyLimitReached(ClientError):
    """A limit of the key is used up. `facts`: of all its limits.

    resets_at: Unix seconds; None where it is no window that ends: requests at a time.
    """

    def __init__(
        self, name: LimitName, limit: int, used: int, requested: int, *, facts: LimitFacts, resets_at: float | None
    ) -> None:
        message = f"rate limit reached for this API key on {name}: Limit {limit}, Used {used}, Requested {requested}."
        if resets_at is None:
            self.retry_after_seconds = PLACE_SECONDS
            message += " Please try again when one of them has ended."
        else:
            self.retry_after_seconds = max(0.0, resets_at - facts.at)
            message += (
                f" Please try again in {ceil(self.retry_after_seconds)}s:"
                f" the limit resets at {datetime.fromtimestamp(ceil(resets_at), UTC):%Y-%m-%dT%H:%M:%SZ}."
            )
        super().__init__(message)
        self.name = name
        self.limit = limit
        self.used = used
        self.requested = requested
        self.resets_at = resets_at
        self.facts = facts


class LimitTooSmall(KeyLimitReached):
    """The request alone is more than the whole limit: waiting does not help."""

    def __init__(self, name: LimitName, limit: int, requested: int, *, facts: LimitFacts) -> None:
        super().__init__(name, limit, 0, requested, facts=facts, resets_at=None)
        self.retry_after_seconds = None
        self.args = (
            f"request too large for this API key on {name}: Limit {limit}, Requested {requested}. The prompt must be"
            " shorter.",
        )


class NotFound(ClientError):
    """`what` is a noun and its name, such as `key 'key_1'`."""

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no {what}")


class ThreadNotFound(NotFound):
    """Of Anthropic's message threads none is kept; a client that hears of it sends the whole conversation."""

    def __init__(self, message_id: str) -> None:
        super().__init__(f"message thread that ends with {message_id[:100]!r}; send the whole conversation in messages")


class ResponseNotFound(NotFound):
    """A response that is to be continued, or has been to get here, is not kept (any more), or is another key's."""

    def __init__(self, id: str) -> None:
        super().__init__(
            f"response {id[:80]!r} to go on from: it was never stored, is over its time, or is another key's"
        )


class AlreadyExists(ClientError):
    def __init__(self, what: str) -> None:
        super().__init__(f"{what} exists already")


class OriginRefused(ClientError):
    """A browser sent this request, and not for a page of this server; the message is the whole sentence."""


class TooManyAttempts(ClientError):
    """Too many wrong keys came from this address, or from all together."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("too many wrong API keys; wait before the next attempt")
        self.retry_after_seconds = retry_after_seconds


class ModelNotFound(ClientError):
    """`near` are the nearest known names, best first."""

    def __init__(self, model: str, near: Sequence[str] = ()) -> None:
        hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ";"
        super().__init__(f"unknown model {model!r}{hint} GET /v1/models lists them")
        self.model = model
        self.near = tuple(near)


class RouteNotFound(ClientError):
    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"there is no {method} {path} here")


class MethodNotAllowed(ClientError):
    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{path} does not take {method}; it takes {', '.join(allowed)}")
        self.allowed = tuple(allowed)


class BodyTooLarge(ClientError):
    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the request body is larger than this route takes ({limit_bytes} bytes)")
        self.limit_bytes = limit_bytes


class RequestTooSlow(ClientError):
    """The body did not come whole within the time for it."""

    def __init__(self, limit_seconds: float) -> None:
        super().__init__(f"the request body did not come whole within {limit_seconds:g} seconds")
        self.limit_seconds = limit_seconds


class PromptTooLong(ClientError):
    """The rendered prompt does not fit. `size` and `limit` are in `unit`."""

    def __init__(self, size: int, limit: int, unit: Literal["bytes", "tokens"] = "tokens") -> None:
        super().__init__(f"prompt is too long: {size} {unit} > {limit} maximum")
        self.size = size
        self.limit = limit


class InputRefused(ClientError):
    """The upstream refuses this very request (§4.7: `invalid_input`, validation); another try would too.

    why: the upstream's own sentence, where it comes from a server that the operator chose and speaks of the request.
    param: the field that it names.
    """

    def __init__(self, code: str, why: str = "", *, param: str | None = None) -> None:
        super().__init__(f"the upstream refuses this request ({code})" + (f": {why}" if why else ""))
        self.code = code
        self.param = param


class ContentRefused(InputRefused):
    """The upstream's content inspection (§4.7: `data_inspection_failed`)."""


# --- an account's ------------------------------------------------------------------------------------------


class AccountError(ProxyError):
    blame = Blame.ACCOUNT


class CredentialRejected(AccountError):
    """An effective 401 (§1.4): the token is not taken, whatever its own expiry says."""

    def __init__(self, why: str = "the upstream rejects the account's token") -> None:
        super().__init__(why)


class SignInReason(Enum):
    WRONG_PASSWORD = "wrong_password"
    NOT_REGISTERED = "not_registered"
    NOT_ACTIVATED = "not_activated"
    BANNED = "banned"
    NO_PASSWORD = "no_password"
    UNKNOWN = "unknown"


class SignInRefused(AccountError):
    """The upstream looked at the email and password and said no (§1.3); asking again changes nothing."""

    def __init__(self, reason: SignInReason) -> None:
        super().__init__(f"the upstream refuses to sign the account in ({reason.value})")
        self.reason = reason


class QuotaExhausted(AccountError):
    """`RateLimited` or `quota_limit` (§4.7). `rest_seconds` is None when the upstream did not say how long."""

    def __init__(self, rest_seconds: float | None = None) -> None:
        super().__init__("the account's quota for this feature is used up")
        self.rest_seconds = rest_seconds
        self.retry_after_seconds = rest_seconds


class RateLimited(QuotaExhausted):
    """The upstream wants this key, or account, to ask less often for a moment (§8.6): its quota is not at its end."""

    def __init__(self, rest_seconds: float | None = None) -> None:
        super().__init__(rest_seconds)
        self.args = ("the upstream limits how often it may be asked",)


class QuotaElsewhere(QuotaExhausted):
    """Every account that this request tried turned out to have no quota left, and others are free."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.args = ("the accounts tried have no quota left; others have: send the request again",)


# --- an exit's ---------------------------------------------------------------------------------------------


class ExitError(ProxyError):
    blame = Blame.EXIT


class UpstreamChallenged(ExitError):
    """The site asks for a human (§4.7 c): a captcha as JSON, or a firewall's HTML page. Never to be solved."""

    def __init__(self, form: Literal["json", "html"]) -> None:
        super().__init__(
            "the site asks for a verification by hand; the account's owner has to open it in a browser once"
        )
        self.form = form


class ExitUnreachable(ExitError):
    """The operator's proxy does not answer or refuses; nothing was sent directly instead."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the configured outbound proxy can't be used ({problem})")


# --- the upstream's ----------------------------------------------------------------------------------------


class UpstreamError(ProxyError):
    blame = Blame.UPSTREAM


class UpstreamUnavailable(UpstreamError):
    """No connection, a reset, or a 5xx. `problem` is a short fact such as `connection refused` or `HTTP 503`."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the upstream is unavailable ({problem})")
        self.problem = problem


class UpstreamOverloaded(UpstreamError):
    def __init__(self) -> None:
        super().__init__("the upstream says that it is overloaded")


class UpstreamTimeout(UpstreamError):
    def __init__(self, phase: Literal["connect", "headers", "idle", "total"], seconds: float) -> None:
        super().__init__(f"the upstream did not answer in time ({phase}: {seconds:g} s)")
        self.phase: Literal["connect", "headers", "idle", "total"] = phase


class UpstreamProtocolError(UpstreamError):
    """An answer of no known shape. `problem` names the shape, never the content."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the upstream's answer has an unknown shape ({problem})")
        self.problem = problem


class UpstreamFailed(UpstreamError):
    """The upstream told of a failure of its own in an envelope or event. `code` is its word."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the upstream reports a failure ({code})")
        self.code = code


class ReplyEmpty(UpstreamError):
    """A reply that ended well and said nothing, or only thought (§4.7 d)."""

    def __init__(self, kind: Literal["nothing", "thinking_only"]) -> None:
        super().__init__("the upstream's reply was empty" + (" but for its thinking" if kind != "nothing" else ""))
        self.kind = kind


class ReplyUnfit(UpstreamError):
    """A whole reply that can't be what was asked for. `kind` is the verdict's name.

    problem: one clause for the client, without the reply's content. hint: what the model is told of it.
    """

    def __init__(self, kind: str, problem: str, hint: str = "") -> None:
        super().__init__(f"the model's reply can't be used: {problem}")
        self.kind = kind
        self.hint = hint


class ReplyCut(UpstreamError):
    """The stream ended or was reset before its end mark (§4.4)."""

    def __init__(self) -> None:
        super().__init__("the upstream's reply broke off before its end")


# --- ours --------------------------------------------------------------------------------------------------


BUSY_SECONDS: Final = 5.0


class NoAccountUsable(ProxyError):
    """Nothing to lease. `why` is a whole clause for the operator and the client."""

    def __init__(self, why: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_seconds = retry_after_seconds


class AccountsOutOfQuota(NoAccountUsable):
    """Every account is parked for this feature."""


class AccountsChallenged(NoAccountUsable):
    """Every account or its exit rests after a challenge."""


class AccountsBusy(NoAccountUsable):
    """Every usable account has as many generations as it may, and none ended before the deadline.

    When to come again is our own word, not the upstream's: soon, since a generation may end at any moment.
    """

    def __init__(self, why: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(why, BUSY_SECONDS if retry_after_seconds is None else retry_after_seconds)


class StoreUnavailable(ProxyError):
    """The store that keys, limits and accounts are kept in can't be reached: what needs it is refused, never let
    through unchecked. `problem` is a short fact for the operator, without an address."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the gateway's store can't be used now ({problem})")
        self.problem = problem


class Unreadable(ProxyError):
    """A stored document was changed, was sealed with another data key, or has a form unknown to this version.
    `problem` is a whole sentence, with no more of an email than a log may have."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)


class NotOffered(ProxyError):
    """A route that clients know and that no backend here can serve. `what` is a plural, `instead` a clause."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"this server offers no {what}: {instead}")


class ShuttingDown(ProxyError):
    """why: of what had to end with the process that it was in; a whole clause."""

    def __init__(self, why: str = "this server is shutting down") -> None:
        super().__init__(f"{why}; send the request again")


class InternalError(ProxyError):
    """A bug of ours; what it was stands in the log under the request id, not in the answer."""

    def __init__(self) -> None:
        super().__init__("an internal error; the server's log has it under this request id")
