"""One request's way over backends and accounts: what was tried, what the next try should do otherwise, what is told."""

from collections.abc import Set

from msgspec import Struct

from qwen_proxy.accounts.health import CHALLENGE
from qwen_proxy.accounts.leasing import Leasing
from qwen_proxy.accounts.model import Credential, Feature
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.gateway.api_budget import ApiBudget
from qwen_proxy.gateway.delivery import Delivery, of_json
from qwen_proxy.gateway.overflow import Line
from qwen_proxy.gateway.progress import Progress
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.gateway.verdict import Past, Verdict, least_rest_seconds
from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsOutOfQuota,
    NoAccountUsable,
    ProxyError,
    QuotaElsewhere,
    QuotaExhausted,
)
from qwen_proxy.state.allowances import Share


class GatewayOptions(Struct, frozen=True, kw_only=True):
    """retry_count: tries beyond the first, after failures. ask_again_count: tries beyond them in which a model is told
    that its reply was unfit. queue_seconds: how long a request may wait for a free account; overflow_seconds: the same
    while another backend is left for it.

    challenge_rest_seconds: what the account pool orders, for Retry-After. result_bytes: longer results of tools are cut
    for the site (gateway/prompted_tools.py); 0: nobody is told.
    """

    retry_count: int = 1
    ask_again_count: int = 2
    retry_backoff_seconds: float = 0.4
    queue_seconds: float = 60.0
    overflow_seconds: float = 2.0
    deadline_seconds: float = 1800.0
    challenge_rest_seconds: float = CHALLENGE.first_seconds
    result_bytes: int = 0
    delivery: Delivery


class Plan(Struct):
    """What the next try of one request should do otherwise than the ones before."""

    avoid_accounts: frozenset[str] = frozenset()
    avoid_exits: frozenset[str] = frozenset()
    only_account: str | None = None
    renewed: bool = False
    challenged: bool = False

    def after(self, verdict: Verdict, credential: Credential) -> None:
        self.only_account = None
        if verdict is Verdict.RENEW:
            self.renewed = True
            self.only_account = credential.account_id
            return
        if verdict is Verdict.ASK_AGAIN:
            return
        self.avoid_accounts |= {credential.account_id}
        if verdict in (Verdict.OTHER_EXIT, Verdict.CHALLENGED):
            self.avoid_exits |= {credential.exit}
        self.challenged = self.challenged or verdict is Verdict.CHALLENGED


class Run:
    """One request's way. request: for the current target. asked: how often one went out. deadlines: monotonic.

    plan, leasing: of the current backend. credential: of the current try, None while none is leased. failure: for which
    the first backend was left. share: of the budget, reserved for the current try.
    """

    __slots__ = (
        "asked",
        "budget",
        "credential",
        "deadline",
        "delivery",
        "failure",
        "leasing",
        "line",
        "options",
        "plan",
        "queue_deadline",
        "request",
        "sent",
        "share",
    )

    def __init__(
        self, request: ChatRequest, options: GatewayOptions, line: Line, deadline: float, budget: ApiBudget | None
    ) -> None:
        self.request = request
        self.options = options
        self.delivery = options.delivery if request.output is None else of_json(options.delivery)
        self.line = line
        self.deadline = deadline
        self.queue_deadline = deadline
        self.budget = budget
        self.share: Share | None = None
        self.plan = Plan()
        self.leasing: Leasing | None = None
        self.credential: Credential | None = None
        self.asked = 0
        self.sent = Progress(request)
        self.failure: ProxyError | None = None

    def settle(self, trace: Trace, *, has_failed: bool) -> None:
        """What the try has used of the budget that was reserved for it; once."""
        budget, share, self.share = self.budget, self.share, None
        if budget is not None and share is not None:
            has_left = not has_failed and self.credential is not None
            used = trace.used(lambda: budget.prompt_tokens, has_left=has_left)
            budget.settle(share, 0 if used is None else used.prompt_tokens + used.completion_tokens)

    @property
    def content_sent(self) -> bool:
        return self.sent.content

    @property
    def past(self) -> Past:
        """A try because of an unfit reply is none of those that failures may cost."""
        return Past(
            tries_left=self.options.retry_count + 1 + self.sent.asked_again - self.asked,
            content_sent=self.sent.content,
            renewed=self.plan.renewed,
            challenged=self.plan.challenged,
            call_sent=self.sent.call,
            asked_again=self.sent.asked_again,
            may_ask_again=self.options.ask_again_count,
        )

    def leave(self, error: ProxyError) -> None:
        """The current backend, for the next one."""
        self.failure = self.failure or error
        self.line.advance(error)
        self.plan = Plan()
        self.sent.hint = ""


async def last_word(leasing: Leasing, error: ProxyError, tried: Set[str], now: float, run: Run) -> ProxyError:
    """What to tell when nothing more is tried: the failure, with the time to wait where that is known.

    How long the accounts without quota rest that were tried is no reason to wait while others are free. now: monotonic.
    """
    if isinstance(error, QuotaExhausted) and not run.content_sent:
        try:
            async with leasing.lease(Feature.CHAT, deadline=now, avoid_accounts=tried) as lease:
                if lease.credential.account_id not in tried:
                    return QuotaElsewhere()
        except AccountsBusy:
            return QuotaElsewhere()
        except AccountsOutOfQuota as all_are_out:
            return all_are_out
        except NoAccountUsable:
            pass  # the others are of no use for reasons of their own
    if error.retry_after_seconds is None:
        error.retry_after_seconds = least_rest_seconds(error, run.options.challenge_rest_seconds)
    return error


async def renew(leasing: Leasing, stale: Credential, run: Run, trace: Trace) -> None:
    try:
        await leasing.renew(stale, deadline=run.queue_deadline)
    except ProxyError as error:  # the account is lost for this request; another may do
        trace.failures.append(type(error).__name__)
        run.plan.only_account = None
        run.plan.avoid_accounts |= {stale.account_id}
