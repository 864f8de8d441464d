"""A chat request on its way: one attempt loop within one budget of tries and one deadline."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Set
from contextlib import AbstractAsyncContextManager, aclosing

from msgspec import Struct, structs

from qwen_proxy.accounts.health import CHALLENGE
from qwen_proxy.accounts.leasing import Leasing
from qwen_proxy.accounts.model import Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.chat.counting import TokenCounter
from qwen_proxy.chat.events import Batch, Finish, Usage, UsageOrigin
from qwen_proxy.chat.models import Mode
from qwen_proxy.chat.request import ChatRequest, FilePart, ImagePart, ToolChoiceKind
from qwen_proxy.gateway.catalogue import CatalogueSource, Resolved
from qwen_proxy.gateway.delivery import Delivery
from qwen_proxy.gateway.reply import ReplyShaper
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.gateway.verdict import Past, Verdict, judge, least_rest_seconds, outcome_of
from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsOutOfQuota,
    NoAccountUsable,
    ProxyError,
    QuotaElsewhere,
    QuotaExhausted,
    ReplyCut,
    UnsupportedParameter,
)
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.tokens import count_request, counted_characters
from qwen_proxy.upstreams.base import Upstream

# Above this many characters the tokenizer would hold the event loop for milliseconds: it runs in a thread then.
COUNT_IN_THREAD_CHARS = 16_384


class GatewayOptions(Struct, frozen=True, kw_only=True):
    """retry_count: tries beyond the first. queue_seconds: how long a request may wait for a free account.

    challenge_rest_seconds: what the account pool orders, for Retry-After.
    """

    retry_count: int = 1
    retry_backoff_seconds: float = 0.4
    queue_seconds: float = 60.0
    deadline_seconds: float = 1800.0
    challenge_rest_seconds: float = CHALLENGE.first_seconds
    delivery: Delivery


class ChatGateway:
    def __init__(
        self,
        upstream: Upstream,
        leasing: Leasing,
        catalogue: CatalogueSource,
        *,
        clock: Clock,
        tokens: TokenCounter,
        load_tokens: Callable[[], None] = lambda: None,
        options: GatewayOptions,
    ) -> None:
        """`load_tokens` makes `tokens` ready; it may take half a second, and is called once, in a thread.

        `options` may be replaced at any time: a request keeps those it began with.
        """
        self._upstream = upstream
        self._leasing = leasing
        self._catalogue = catalogue
        self._clock = clock
        self._tokens = tokens
        self._load_tokens = load_tokens
        self._can_count = False
        self.options = options

    async def resolve(self, request: ChatRequest) -> tuple[ChatRequest, Resolved]:
        """Give the model its upstream id. Raises ModelNotFound, UnsupportedParameter, PromptTooLong, or why there is no
        list."""
        resolved = (await self._catalogue.get()).resolve(request.model.base)
        request = structs.replace(request, model=resolved.name)
        _refuse_what_comes_later(request, self._upstream)
        self._upstream.check(request)
        return request, resolved

    async def count_prompt(self, request: ChatRequest) -> int:
        """Tokens of the prompt, counted here."""
        await self._ready_to_count()
        if counted_characters(request) > COUNT_IN_THREAD_CHARS:
            return await asyncio.to_thread(count_request, self._tokens, request)
        return count_request(self._tokens, request)

    @property
    def follows_sessions(self) -> bool:
        """Whether it is of use to name the session of a request."""
        return self._leasing.follows_sessions

    def open(
        self, request: ChatRequest, resolved: Resolved, trace: Trace, *, session: str = "", in_one: bool = False
    ) -> AbstractAsyncContextManager[AsyncGenerator[Batch]]:
        """Hand out the reply's batches; the first one that comes out carries content, or is the whole reply.

        Until then attempts may be repeated; afterwards a failure is raised where it happened. `in_one` is for who does
        not stream: one batch, so that a try that fails behind its content is repeated too. Every reply has its Usage.
        `session`: see `gateway.sessions`. Leaving the block closes the upstream's response and returns the lease.
        Raises ProxyError.
        """
        return aclosing(self._attempts(request, resolved, trace, session, in_one))

    async def _attempts(
        self, request: ChatRequest, resolved: Resolved, trace: Trace, session: str, in_one: bool
    ) -> AsyncGenerator[Batch]:
        options = self.options
        deadline = self._clock.monotonic() + options.deadline_seconds
        plan = _Plan()
        content_sent = False
        while True:
            trace.tries += 1
            queue_deadline = min(deadline, self._clock.monotonic() + options.queue_seconds)
            credential: Credential | None = None
            try:
                async with self._leasing.lease(
                    Feature.CHAT,
                    deadline=queue_deadline,
                    avoid_accounts=plan.avoid_accounts,
                    avoid_exits=plan.avoid_exits,
                    only_account=plan.only_account,
                    session=session,
                ) as lease:
                    credential = lease.credential
                    trace.account_id = credential.account_id
                    outcome = Outcome(kind=OutcomeKind.CANCELLED)
                    try:
                        attempt = self._attempt(request, resolved, credential, deadline, trace, options.delivery)
                        async with aclosing(_joined(attempt) if in_one else attempt) as batches:
                            async for batch in batches:
                                content_sent = True
                                if isinstance(batch[-1], Finish):
                                    outcome = Outcome(kind=OutcomeKind.SUCCEEDED)
                                yield batch
                    except ProxyError as error:
                        outcome = outcome_of(error)
                        raise
                    finally:
                        lease.report(outcome)
                return
            except ProxyError as error:
                trace.failures.append(type(error).__name__)
                past = Past(options.retry_count + 1 - trace.tries, content_sent, plan.renewed, plan.challenged)
                verdict = judge(error, past)
                if credential is None:
                    raise
                if verdict is Verdict.GIVE_UP:
                    tried = plan.avoid_accounts | {credential.account_id}
                    told = await self._last_word(error, tried, content_sent, options.challenge_rest_seconds)
                    if told is error:
                        raise
                    raise told from error
                plan.after(verdict, credential)
            if verdict is Verdict.RENEW:
                await self._renew(credential, queue_deadline, plan, trace)
            elif verdict is Verdict.PAUSE:
                await self._clock.sleep(options.retry_backoff_seconds * 2 ** (trace.tries - 1))

    async def _attempt(
        self,
        request: ChatRequest,
        resolved: Resolved,
        credential: Credential,
        deadline: float,
        trace: Trace,
        delivery: Delivery,
    ) -> AsyncGenerator[Batch]:
        """One try: batches that are not empty, the last of which ends with Finish. Raises ProxyError."""
        if request.sampling.is_limited:
            await self._ready_to_count()
        shaper = trace.reply = ReplyShaper(request.sampling, delivery, self._tokens)
        async with self._upstream.open(request, resolved.model, credential, deadline) as reads:
            async for read in reads:
                batch = shaper.take(read)
                if shaper.finish is None:
                    if batch:
                        yield batch
                    continue
                if shaper.usage is None and batch:
                    yield batch  # counting takes a while; what can go out does
                    batch = []
                trace.usage = shaper.usage or await self._counted(request, shaper)
                yield batch + shaper.end(trace.usage)
                return
        raise ReplyCut  # an upstream that ends without Finish breaks its contract; never a success

    async def _last_word(
        self, error: ProxyError, tried: Set[str], content_sent: bool, challenge_rest_seconds: float
    ) -> ProxyError:
        """What to tell when nothing more is tried: the failure, with the time to wait where that is known.

        How long the accounts without quota rest that were tried is no reason to wait while others are free.
        """
        if isinstance(error, QuotaExhausted) and not content_sent:
            try:
                now = self._clock.monotonic()
                async with self._leasing.lease(Feature.CHAT, deadline=now, avoid_accounts=tried) as lease:
                    if lease.credential.account_id not in tried:
                        return QuotaElsewhere()
            except AccountsBusy:
                return QuotaElsewhere()
            except AccountsOutOfQuota as all_are_out:
                return all_are_out
            except NoAccountUsable:
                pass  # the others are of no use for reasons of their own
        if error.retry_after_seconds is None:
            error.retry_after_seconds = least_rest_seconds(error, challenge_rest_seconds)
        return error

    async def _renew(self, stale: Credential, deadline: float, plan: "_Plan", trace: Trace) -> None:
        try:
            await self._leasing.renew(stale, deadline=deadline)
        except ProxyError as error:  # the account is lost for this request; another may do
            trace.failures.append(type(error).__name__)
            plan.only_account = None
            plan.avoid_accounts.add(stale.account_id)

    async def _counted(self, request: ChatRequest, shaper: ReplyShaper) -> Usage:
        """Usage of a reply for which the upstream gave none, or that was cut short here."""
        prompt_tokens = await self.count_prompt(request)
        reasoning_tokens = await self._count(shaper.reasoning)
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=await self._count(shaper.text) + reasoning_tokens,
            reasoning_tokens=reasoning_tokens,
            origin=UsageOrigin.COUNTED,
        )

    async def _ready_to_count(self) -> None:
        if not self._can_count:
            await asyncio.to_thread(self._load_tokens)
            self._can_count = True

    async def _count(self, text: str) -> int:
        if len(text) > COUNT_IN_THREAD_CHARS:
            return await asyncio.to_thread(self._tokens.count, text)
        return self._tokens.count(text)


async def _joined(attempt: AsyncGenerator[Batch]) -> AsyncGenerator[Batch]:
    reply: Batch = []
    async with aclosing(attempt):
        async for batch in attempt:
            reply += batch
    yield reply


class _Plan:
    """What the next try of one request should do otherwise than the ones before."""

    def __init__(self) -> None:
        self.avoid_accounts: set[str] = set()
        self.avoid_exits: set[str] = set()
        self.only_account: str | None = None
        self.renewed = False
        self.challenged = False

    def after(self, verdict: Verdict, credential: Credential) -> None:
        self.only_account = None
        if verdict is Verdict.RENEW:
            self.renewed = True
            self.only_account = credential.account_id
            return
        self.avoid_accounts.add(credential.account_id)
        if verdict in (Verdict.OTHER_EXIT, Verdict.CHALLENGED):
            self.avoid_exits.add(credential.exit)
        self.challenged = self.challenged or verdict is Verdict.CHALLENGED


def _refuse_what_comes_later(request: ChatRequest, upstream: Upstream) -> None:
    """Say by name what this version can't do yet, instead of dropping it. Raises UnsupportedParameter."""
    if request.model.variant.mode is not Mode.CHAT:
        raise UnsupportedParameter(
            f"model variant {request.model.variant.mode.value!r} is not served yet; "
            "use the model without that suffix, or with -thinking, -search or -thinking-search",
            param="model",
        )
    if request.tools and not upstream.has_native_tools and request.tool_choice.kind is not ToolChoiceKind.NONE:
        raise UnsupportedParameter(
            "tools are not supported yet; leave them out, or set tool_choice to 'none'", param="tools"
        )
    for index, message in enumerate(request.messages):
        for part in message.parts:
            if isinstance(part, ImagePart | FilePart):
                raise UnsupportedParameter(
                    "images and files are not supported yet; send text only", param=f"messages[{index}].content"
                )
