"""A chat request on its way: one attempt loop over backends and accounts, one budget of tries, one deadline."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext

from msgspec import structs

from qwen_proxy.accounts.model import Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.chat.counting import TokenCounter
from qwen_proxy.chat.events import Batch, Finish, Usage, UsageOrigin
from qwen_proxy.chat.models import Mode
from qwen_proxy.chat.request import ChatRequest, ImagePart, Sampling, TextPart, ToolResultPart
from qwen_proxy.config.keys import ClientKey
from qwen_proxy.gateway.api_budget import ApiBudget
from qwen_proxy.gateway.backend import Backend, BackendKind, account_name
from qwen_proxy.gateway.overflow import Line, moves_on
from qwen_proxy.gateway.permission import EVERYWHERE, Scope, find_route
from qwen_proxy.gateway.prompted_tools import ToolReply
from qwen_proxy.gateway.reply import ReplyShaper
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Route, Target, ordered, searching, share_of
from qwen_proxy.gateway.run import GatewayOptions, Run, last_word, renew
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.gateway.verdict import ReplyHeld, Verdict, hint_of, judge, outcome_of
from qwen_proxy.ground.errors import (
    Blame,
    NoAccountUsable,
    ProxyError,
    ReplyCut,
    ReplyUnfit,
    UnsupportedParameter,
)
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.tokens import count_request, counted_characters
from qwen_proxy.toolcalls.conversation import concerns_tools
from qwen_proxy.upstreams.base import Upstream

# Above this many characters the tokenizer would hold the event loop for milliseconds: it runs in a thread then.
COUNT_IN_THREAD_CHARS = 16_384

# As clients of several protocols spell what is read into Sampling.
SAMPLING_FIELDS = frozenset(
    (
        *("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty"),
        *("topP", "topK", "presencePenalty", "frequencyPenalty"),
    )
)


class ChatGateway:
    def __init__(
        self,
        router: Router,
        *,
        clock: Clock,
        ids: Ids,
        tokens: TokenCounter,
        load_tokens: Callable[[], None] = lambda: None,
        options: GatewayOptions,
    ) -> None:
        """`load_tokens` makes `tokens` ready; it may take half a second, and is called once, in a thread.

        `options` may be replaced at any time: a request keeps those it began with.
        """
        self._router = router
        self._clock = clock
        self._ids = ids
        self._tokens = tokens
        self._load_tokens = load_tokens
        self._can_count = False
        self.options = options

    async def resolve(
        self, request: ChatRequest, caller: ClientKey | None = None, scope: Scope = EVERYWHERE
    ) -> tuple[ChatRequest, Route]:
        """Where the request may go. The request that comes back is for the first target of the route.

        A client may want a search without a name that says so: `request.model.variant.search`.
        caller: whose key has to allow it; None: nobody's. Raises ModelNotFound, NotAllowed, NoAccountUsable (a route
        of which nothing is there), UnsupportedParameter, PromptTooLong, or why there is no list.
        """
        route = await find_route(self._router, request.model.base, caller, scope)
        if request.model.variant.search:
            route = searching(route)
        refusal: ProxyError | None = None
        for place, target in enumerate(route.targets):
            asked = structs.replace(request, model=target.name)
            try:
                self._check(asked, target)
            except ProxyError as error:
                refusal = refusal or error
                continue
            return asked, structs.replace(route, targets=route.targets[place:]) if place else route
        assert refusal is not None  # a route that was found has targets
        raise refusal

    def _check(self, request: ChatRequest, target: Target) -> None:
        """Raises UnsupportedParameter, PromptTooLong, NoAccountUsable."""
        _refuse_what_comes_later(request)
        self._backend(target).upstream.check(request)

    def _backend(self, target: Target) -> Backend:
        backend = self._router.find(target.backend)
        if backend is None:
            raise NoAccountUsable(f"the backend {target.backend!r} is not here any more")
        return backend

    async def count_prompt(self, request: ChatRequest) -> int:
        """Tokens of the prompt, counted here."""
        await self._ready_to_count()
        if counted_characters(request) > COUNT_IN_THREAD_CHARS:
            return await asyncio.to_thread(count_request, self._tokens, request)
        return count_request(self._tokens, request)

    def without_effect(self, fields: Sequence[str], request: ChatRequest, route: Route) -> list[str]:
        """Of the fields of a client's body that have none here, those that the route's upstream has no use for."""
        backend = self._router.find(route.targets[0].backend)
        if backend is None or not backend.upstream.forwards_fields:
            return list(fields)
        handed_on = SAMPLING_FIELDS | request.extra.keys()
        return [field for field in fields if field.rpartition(".")[2] not in handed_on]

    def warnings(self, request: ChatRequest, route: Route, *, wished: ChatRequest) -> list[str]:
        """What a client should know of how this request is asked, though it is no reason to refuse it; ASCII.

        wished: as it was before `resolve`.
        """
        told: list[str] = []
        if wished.model.variant.search and not request.model.variant.search:
            told.append("this model searches nothing")
        backend = self._router.find(route.targets[0].backend)
        if backend is None or backend.kind is not BackendKind.WEB:
            return told
        results = [part for message in request.messages for part in message.parts if isinstance(part, ToolResultPart)]
        if any(isinstance(inner, ImagePart) for result in results for inner in result.parts):
            told.append("images in the results of tools are not shown to the model")
        if (most := self.options.result_bytes) and any(_size_bytes(result) > most for result in results):
            told.append(f"results of tools that are longer than {most} bytes are cut in their middle")
        return told

    @property
    def follows_sessions(self) -> bool:
        """Whether it is of use to name the session of a request."""
        return self._router.follows_sessions

    def open(
        self,
        request: ChatRequest,
        route: Route,
        trace: Trace,
        *,
        session: str = "",
        in_one: bool = False,
        budget: ApiBudget | None = None,
    ) -> AbstractAsyncContextManager[AsyncGenerator[Batch]]:
        """Hand out the reply's batches; the first one that comes out carries content, or is the whole reply.

        Until then attempts may be repeated, and go on to the next target of the route; afterwards a failure is raised
        where it happened. `in_one` is for who does not stream: one batch, so that a try that fails behind its content
        is repeated too. Every reply has its Usage. `session`: see `gateway.sessions`. `trace` tells which backend it
        is. budget: of the caller's key, for tries on paid backends. Leaving the block closes the upstream's response
        and returns the lease. Raises ProxyError.
        """
        deadline = self._clock.monotonic() + self.options.deadline_seconds
        line = Line(self._in_order(route.targets, session))
        return aclosing(self._attempts(Run(request, self.options, line, deadline, budget), trace, session, in_one))

    async def _attempts(self, run: Run, trace: Trace, session: str, in_one: bool) -> AsyncGenerator[Batch]:
        while True:
            trace.tries += 1
            run.credential = None
            try:
                backend = self._enter(run, trace)
                if run.budget is not None and backend.kind is BackendKind.API:
                    run.share = await run.budget.reserve()
                async with backend.leasing.lease(
                    Feature.CHAT,
                    deadline=run.queue_deadline,
                    avoid_accounts=run.plan.avoid_accounts,
                    avoid_exits=run.plan.avoid_exits,
                    only_account=run.plan.only_account,
                    session=session,
                ) as lease:
                    credential = run.credential = lease.credential
                    run.asked += 1
                    trace.account_id = account_name(backend.name, credential.account_id)
                    outcome = Outcome(kind=OutcomeKind.CANCELLED)
                    try:
                        asked = run.sent.next_try(run.request)
                        # Judged replies come as they are streamed: both have to take the same way.
                        is_whole = in_one and not run.sent.is_judged
                        target = run.line.current
                        attempt = self._attempt(asked, target, backend.upstream, credential, run, trace, is_whole)
                        async with aclosing(attempt) as batches:
                            async for batch in batches:
                                sent = run.sent.sending(batch)
                                if isinstance(sent[-1], Finish):
                                    outcome = Outcome(kind=OutcomeKind.SUCCEEDED)
                                yield sent
                    except ProxyError as error:
                        outcome = outcome_of(error)
                        raise
                    finally:
                        lease.report(outcome)
                return
            except ProxyError as error:
                trace.failures.append(type(error).__name__)
                run.settle(trace, has_failed=True)
                await self._go_on(run, error, trace)
            finally:
                run.settle(trace, has_failed=False)

    def _enter(self, run: Run, trace: Trace) -> Backend:
        """The backend of this try. Raises ProxyError where it can't be asked this."""
        target = run.line.current
        backend = self._backend(target)
        run.leasing = backend.leasing
        trace.backend, trace.model = backend.name, target.model.id
        if run.request.model is not target.name:
            run.request = structs.replace(run.request, model=target.name)
            self._check(run.request, target)
        wait_seconds = run.options.queue_seconds
        if run.line.has_next:
            wait_seconds = min(wait_seconds, run.options.overflow_seconds)
        run.queue_deadline = min(run.deadline, self._clock.monotonic() + wait_seconds)
        return backend

    async def _go_on(self, run: Run, error: ProxyError, trace: Trace) -> None:
        """Prepare the next try after a failure, or raise what is to be told of it."""
        credential, plan = run.credential, run.plan
        past = run.past
        verdict = judge(error, past)
        if isinstance(error, ReplyUnfit):
            trace.verdicts.append(error.kind)
        stays = verdict is Verdict.RENEW or (isinstance(error, ReplyUnfit) and verdict is not Verdict.GIVE_UP)
        has_moved = not stays and not run.content_sent and run.line.has_next
        if has_moved and moves_on(error, was_asked=credential is not None, tries_left=past.tries_left):
            run.leave(error)
            trace.reply = None
            return
        if credential is None or run.leasing is None:
            raise error if run.failure is None or error.blame is not Blame.CLIENT else run.failure
        leasing = run.leasing
        if verdict is Verdict.GIVE_UP:
            tried = plan.avoid_accounts | {credential.account_id}
            told = await last_word(leasing, error, tried, self._clock.monotonic(), run)
            if told is error:
                raise error
            raise told from error
        plan.after(verdict, credential)
        run.sent.hint = hint_of(error)
        run.sent.asked_again += isinstance(error, ReplyUnfit)
        if verdict is Verdict.RENEW:
            await renew(leasing, credential, run, trace)
        elif verdict is Verdict.PAUSE:
            await self._clock.sleep(run.options.retry_backoff_seconds * 2 ** (run.asked - 1))

    def _in_order(self, targets: Sequence[Target], session: str) -> Sequence[Target]:
        """Where the conversation is not known, each request draws anew."""
        if len(targets) == 1:
            return targets
        seed = session or self._ids.token(16)
        return ordered(targets, lambda place: share_of(seed, place))

    async def _attempt(
        self,
        request: ChatRequest,
        target: Target,
        upstream: Upstream,
        credential: Credential,
        run: Run,
        trace: Trace,
        in_one: bool,
    ) -> AsyncGenerator[Batch]:
        """One try: batches that are not empty, the last of which ends with Finish; with `in_one` the only one.

        Raises ProxyError.
        """
        sampling = kept_here(request.sampling, upstream)
        if sampling.is_limited:
            await self._ready_to_count()
        shaper = trace.reply = ReplyShaper(
            sampling, run.delivery, self._tokens, one_call=not request.parallel_tool_calls
        )
        async with upstream.open(request, target.model, credential, run.deadline) as opened:
            trace.tools = opened if isinstance(opened, ToolReply) else None
            # Only a reply that was judged can be held: any other needs no generator of its own.
            is_held = concerns_tools(request) or request.output is not None
            gathered: Batch = []
            async with aclosing(_with_its_rest(opened, run, trace)) if is_held else nullcontext(opened) as reads:
                async for read in reads:
                    batch = shaper.take(read)
                    if in_one:
                        gathered += batch
                        batch = gathered
                    if shaper.finish is None:
                        if batch and not in_one:
                            yield batch
                        continue
                    if shaper.usage is None and batch and not in_one:
                        yield batch  # counting takes a while; what can go out does
                        batch = []
                    trace.usage = shaper.usage or await self._counted(request, shaper)
                    yield batch + shaper.end(trace.usage)
                    return
        raise ReplyCut  # an upstream that ends without Finish breaks its contract; never a success

    async def _counted(self, request: ChatRequest, shaper: ReplyShaper) -> Usage:
        """Usage of a reply for which the upstream gave none, or that was cut short here."""
        prompt_tokens = await self.count_prompt(request)
        reasoning_tokens = await self._count(shaper.reasoning)
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=await self._count(shaper.text + shaper.calls) + reasoning_tokens,
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


async def _with_its_rest(reads: AsyncIterator[Batch], run: Run, trace: Trace) -> AsyncGenerator[Batch]:
    """A try's reads; of a reply that is unfit and not asked for again what there is of it. Raises ReplyUnfit else."""
    try:
        async for read in reads:
            yield read
    except ReplyHeld as held:
        if not held.rest or judge(held.error, run.past) is not Verdict.GIVE_UP:
            raise held.error from held
        trace.verdicts.append(held.error.kind)
        yield held.rest


def kept_here(sampling: Sampling, upstream: Upstream) -> Sampling:
    """What of it is enforced here: an upstream that does so itself counts with its own tokenizer."""
    if not upstream.forwards_fields:
        return sampling
    return Sampling(stop=() if sampling.logprobs else sampling.stop)


def _size_bytes(result: ToolResultPart) -> int:
    texts = (inner.text for inner in result.parts if isinstance(inner, TextPart))
    return sum(len(text) if text.isascii() else len(text.encode(errors="surrogatepass")) for text in texts)


def _refuse_what_comes_later(request: ChatRequest) -> None:
    """Say by name what this version can't do yet, instead of dropping it. Raises UnsupportedParameter."""
    if request.model.variant.mode is not Mode.CHAT:
        raise UnsupportedParameter(
            f"model variant {request.model.variant.mode.value!r} is not served yet; "
            "use the model without that suffix, or with -thinking, -search or -thinking-search",
            param="model",
        )
