"""A request's reply, over as many tries as it takes: one attempt loop over backends and accounts, one budget of tries.

| what a try holds | taken by | given back, in this order |
|---|---|---|
| an account, or a key | `_take_account` | last: with how the try ended |
| the upstream's response | `_ask` | before that |
| what reads it to its end where a reply may be held | `_ask` | first |

Written as a class with `__anext__`, and not with generators: a generator, and the block that closes it, cost a short
request more than what they hold.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

from msgspec import structs

from qwen_proxy.accounts.leasing import Lease
from qwen_proxy.accounts.model import Feature, Outcome, OutcomeKind
from qwen_proxy.chat.events import Batch
from qwen_proxy.chat.models import Mode
from qwen_proxy.chat.request import ChatRequest, Sampling
from qwen_proxy.gateway.backend import Backend, BackendKind, account_name
from qwen_proxy.gateway.counter import Counter
from qwen_proxy.gateway.overflow import moves_on
from qwen_proxy.gateway.prompted_tools import ToolReply
from qwen_proxy.gateway.reply import ReplyShaper
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Target
from qwen_proxy.gateway.run import Run, last_word, renew
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
from qwen_proxy.toolcalls.conversation import concerns_tools
from qwen_proxy.upstreams.base import Upstream

LEFT: Final = Outcome(kind=OutcomeKind.CANCELLED)
SUCCEEDED: Final = Outcome(kind=OutcomeKind.SUCCEEDED)


class Attempts:
    """The block of one reply, and its batches: not empty, the last of which ends with Finish.

    in_one: that one is the only one. The upstream's response is closed, and the lease returned, when another batch is
    asked for behind the last, or when the block is left. Raises ProxyError.
    """

    __slots__ = (
        "_clock",
        "_counter",
        "_gathered",
        "_has_ended",
        "_held",
        "_in_one",
        "_is_whole",
        "_lease",
        "_leasing",
        "_opening",
        "_outcome",
        "_reads",
        "_request",
        "_router",
        "_run",
        "_session",
        "_shaper",
        "_trace",
    )

    def __init__(
        self, run: Run, trace: Trace, session: str, in_one: bool, router: Router, counter: Counter, clock: Clock
    ) -> None:
        self._run = run
        self._trace = trace
        self._session = session
        self._in_one = in_one
        self._router = router
        self._counter = counter
        self._clock = clock
        self._has_ended = False  # the last batch went out
        # Of the current try.
        self._request = run.request
        self._outcome = LEFT
        self._leasing: AbstractAsyncContextManager[Lease] | None = None
        self._lease: Lease | None = None
        self._opening: AbstractAsyncContextManager[AsyncIterator[Batch]] | None = None
        self._held: AsyncGenerator[Batch] | None = None
        self._shaper: ReplyShaper | None = None  # None until there is something to read
        self._reads: AsyncIterator[Batch]
        self._is_whole = False  # its batches are gathered
        self._gathered: Batch = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is None and self._run.share is None:
            return
        # Whatever ended the block, to an upstream it is a client that left: its errors are not the client's.
        left = GeneratorExit()
        try:
            await self._close(left)
        finally:
            await self._give_back(left, has_failed=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while True:
            try:
                if self._has_ended:
                    await self._close(None)
                    await self._give_back(None, has_failed=False)
                    break
                shaper = self._shaper or await self._begin()
                if shaper.finish is not None:
                    return await self._last([], shaper)
                async for read in self._reads:
                    batch = shaper.take(read)
                    if shaper.finish is not None:
                        return await self._last(batch, shaper)
                    if self._is_whole:
                        self._gathered += batch
                    elif batch:
                        return self._run.sent.sending(batch)
                raise ReplyCut  # an upstream that ends without Finish breaks its contract; never a success
            except ProxyError as error:
                await self._failed(error)
        raise StopAsyncIteration

    async def _begin(self) -> ReplyShaper:
        """The next try, as far as there is something to read."""
        self._outcome = LEFT
        backend = await self._take_account()
        run, trace = self._run, self._trace
        request = self._request = run.sent.next_try(run.request)
        # Judged replies come as they are streamed: both have to take the same way.
        self._is_whole = self._in_one and not run.sent.is_judged
        self._gathered = []
        sampling = kept_here(request.sampling, backend.upstream)
        if sampling.is_limited:
            await self._counter.ready()
        shaper = trace.reply = ReplyShaper(
            sampling, run.delivery, self._counter.tokens, one_call=not request.parallel_tool_calls
        )
        await self._ask(request, backend.upstream)
        self._shaper = shaper
        return shaper

    async def _take_account(self) -> Backend:
        run, trace = self._run, self._trace
        trace.tries += 1
        run.credential = None
        backend = self._enter()
        if run.budget is not None and backend.kind is BackendKind.API:
            run.share = await run.budget.reserve()
        leasing = backend.leasing.lease(
            Feature.CHAT,
            deadline=run.queue_deadline,
            avoid_accounts=run.plan.avoid_accounts,
            avoid_exits=run.plan.avoid_exits,
            only_account=run.plan.only_account,
            session=self._session,
        )
        self._lease = await leasing.__aenter__()
        self._leasing = leasing
        run.credential = self._lease.credential
        run.asked += 1
        trace.account_id = account_name(backend.name, run.credential.account_id)
        return backend

    def _enter(self) -> Backend:
        """The backend of this try. Raises ProxyError where it can't be asked this."""
        run, trace = self._run, self._trace
        target = run.line.current
        backend = backend_of(self._router, target)
        run.leasing = backend.leasing
        trace.backend, trace.model = backend.name, target.model.id
        if run.request.model is not target.name:
            run.request = structs.replace(run.request, model=target.name)
            check(run.request, backend)
        wait_seconds = run.options.queue_seconds
        if run.line.has_next:
            wait_seconds = min(wait_seconds, run.options.overflow_seconds)
        run.queue_deadline = min(run.deadline, self._clock.monotonic() + wait_seconds)
        return backend

    async def _ask(self, request: ChatRequest, upstream: Upstream) -> None:
        run, trace = self._run, self._trace
        assert run.credential is not None
        opening = upstream.open(request, run.line.current.model, run.credential, run.deadline)
        opened = self._reads = await opening.__aenter__()
        self._opening = opening
        trace.tools = opened if isinstance(opened, ToolReply) else None
        # Only a reply that was judged can be held: any other needs no generator of its own.
        if run.sent.is_judged or concerns_tools(request):
            self._reads = self._held = _with_its_rest(opened, run, trace)

    async def _last(self, batch: Batch, shaper: ReplyShaper) -> Batch:
        """What goes out when the upstream has told how the reply ended."""
        if self._is_whole:
            batch = self._gathered + batch
        elif shaper.usage is None and batch:
            return self._run.sent.sending(batch)  # counting takes a while; what can go out does
        usage = self._trace.usage = shaper.usage or await self._counter.usage(self._request, shaper)
        sent = self._run.sent.sending(batch + shaper.end(usage))
        self._outcome = SUCCEEDED
        self._has_ended = True
        return sent

    async def _failed(self, error: ProxyError) -> None:
        """The try's end; then prepare the next, or raise what is to be told."""
        self._has_ended = False
        try:
            await self._close(error)
        except ProxyError as told:  # as an upstream puts it
            error = told
        self._outcome = outcome_of(error)
        await self._give_back(error, has_failed=True)
        self._trace.failures.append(type(error).__name__)
        await self._go_on(error)

    async def _close(self, error: BaseException | None) -> None:
        """What reads the response, and the response. error: for which; None when it was read to its end."""
        held, opening = self._held, self._opening
        self._held = self._opening = self._shaper = None
        try:
            if held is not None:
                await held.aclose()
        finally:
            if opening is not None:
                await _leave(opening, error)

    async def _give_back(self, error: BaseException | None, *, has_failed: bool) -> None:
        """The account, and what of the budget the try has not used."""
        lease, leasing = self._lease, self._leasing
        self._lease = self._leasing = None
        try:
            if lease is not None and leasing is not None:
                lease.report(self._outcome)
                await _leave(leasing, error)
        finally:
            self._run.settle(self._trace, has_failed=has_failed)

    async def _go_on(self, error: ProxyError) -> None:
        """Prepare the next try after a failure, or raise what is to be told of it."""
        run, trace = self._run, self._trace
        credential, plan, past = run.credential, run.plan, run.past
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


async def _leave(block: AbstractAsyncContextManager[object], error: BaseException | None) -> None:
    if error is None:
        await block.__aexit__(None, None, None)
    else:
        await block.__aexit__(type(error), error, error.__traceback__)


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


def backend_of(router: Router, target: Target) -> Backend:
    """Raises NoAccountUsable."""
    backend = router.find(target.backend)
    if backend is None:
        raise NoAccountUsable(f"the backend {target.backend!r} is not here any more")
    return backend


def check(request: ChatRequest, backend: Backend) -> None:
    """Whether it could be asked this: what this version can't do yet is said by name, not dropped.

    Raises UnsupportedParameter, PromptTooLong.
    """
    mode = request.model.variant.mode
    if mode is not Mode.CHAT:
        raise UnsupportedParameter(
            f"model variant {mode.value!r} is not served yet; "
            "use the model without that suffix, or with -thinking, -search or -thinking-search",
            param="model",
        )
    backend.upstream.check(request)


def kept_here(sampling: Sampling, upstream: Upstream) -> Sampling:
    """What of it is enforced here: an upstream that does so itself counts with its own tokenizer."""
    if not upstream.forwards_fields:
        return sampling
    return Sampling(stop=() if sampling.logprobs else sampling.stop)
