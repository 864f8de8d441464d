"""Responses in the background: each in a task of the process that took the request, its events written as they come.

| what happens | what becomes of a response |
|---|---|
| its process is told to end | it has as long as requests have |
| its process is killed, or that was not long enough | another one asks again or ends it: see `api.response_keeper` |
| it is cancelled or deleted, through any process | whoever is at work on it finds out with its next write, or look |
| the store does not answer for a while | events are held, and the upstream waits when they are too many |

Readers get what is written, and nothing else: so the numbers of events are the same for everybody, whoever dies.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from msgspec import Struct

from qwen_proxy.accounts.model import Feature
from qwen_proxy.api.own_jobs import OwnJobs
from qwen_proxy.api.spool import Spool
from qwen_proxy.api.stored_responses import Job, KeptResponse, ResponseJob, StoredResponses, Taken
from qwen_proxy.chat.events import has_content
from qwen_proxy.config.keys import ClientKey
from qwen_proxy.gateway.admission import Admission, Permit
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.sizing import chat_size
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.gateway.traces import TraceBook
from qwen_proxy.gateway.usage import UsageRecorder
from qwen_proxy.ground.errors import InternalError, ProxyError, StoreUnavailable, Unauthenticated, Unreadable
from qwen_proxy.protocols.base import Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.openai_responses import OpenAIResponses, ResponsesCall, call
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder
from qwen_proxy.protocols.openai_responses_kept import facts_of
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks

log = logging.getLogger(__name__)


class Run(Struct, frozen=True, kw_only=True):
    """A response that is to be made. held: what is open until it is over, such as its permit."""

    id: str
    call: ResponsesCall
    facts: ReplyFacts
    kept: KeptResponse
    caller: ClientKey
    permit: Permit
    held: AsyncExitStack


class BackgroundRuns:
    """Those of this process; enter it before use."""

    def __init__(
        self,
        kept: StoredResponses,
        own: OwnJobs,
        gateway: ChatGateway,
        admission: Admission,
        usage: UsageRecorder,
        traces: TraceBook,
        find_key: Callable[[str], ClientKey | None],
        *,
        clock: Clock,
    ) -> None:
        self._kept = kept
        self._own = own
        self._gateway = gateway
        self._admission = admission
        self._usage = usage
        self._traces = traces
        self._find_key = find_key
        self._clock = clock
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is under way is left as a killed process leaves it: another one ends it, or this one's next start."""
        await self._tasks.__aexit__(kind, error, trace)

    async def settle(self, timeout_seconds: float) -> None:
        """Wait for what is under way to end, at most so long."""
        await self._tasks.settle(timeout_seconds)

    async def start(self, run: Run, session: str) -> None:
        """Raises StoreUnavailable."""
        self._own.begin(run.id)
        try:
            job = ResponseJob(owner=self._own.owner, session=session, request_id=run.facts.request_id)
            begun = await self._kept.begin(run.id, run.kept, job)
        except BaseException:
            self._own.end(run.id, is_known=False)
            raise
        self._tasks.spawn(self._run(run, begun), name="background response")

    async def ask_again(self, job: Job) -> bool:
        """Take over a job of which nobody has seen anything. False where it can't be asked again.

        Raises StoreUnavailable, Taken, and Unreadable.
        """
        kept = await self._kept.of_any_key(job.id)
        caller = None if kept is None else self._find_key(kept.key_id)
        if kept is None or not kept.is_background or caller is None:
            return False
        held = AsyncExitStack()
        try:
            if (why := caller.why_useless(self._clock.now())) is not None:
                raise Unauthenticated(why)
            incoming = Incoming(path="/v1/responses", query={}, headers={}, body=kept.body)
            wanted = OpenAIResponses().read(incoming, ParseOptions())
            meant = call(wanted, (await self._kept.context(wanted, kept.key_id)).context)
            permit = await held.enter_async_context(self._admission.admit(caller, lambda: chat_size(meant.request, 1)))
            job = await self._kept.take_over(job, self._own.owner)
        except (StoreUnavailable, Taken, Unreadable):
            await held.aclose()
            raise
        except ProxyError as error:
            await held.aclose()
            await self._kept.break_off(job, error)
            return True
        created_at, model = facts_of(kept.response)
        facts = ReplyFacts(
            reply_id=job.id.removeprefix("resp_"),
            request_id=job.value.request_id,
            created_at=created_at,
            model=model,
        )
        run = Run(id=job.id, call=meant, facts=facts, kept=kept, caller=caller, permit=permit, held=held)
        self._own.begin(run.id)
        self._tasks.spawn(self._run(run, job), name="background response")
        log.warning("background response taken over: its process is gone", extra={"id": job.id})
        return True

    async def _run(self, run: Run, job: Job) -> None:
        encoder = ResponseEncoder(run.facts, run.call.wishes, run.call.toolbox, is_queued=True)
        task = asyncio.current_task()
        assert task is not None
        spool = Spool(self._kept, job, run.kept, self._clock, task.cancel)
        writing = self._tasks.spawn(spool.run(), name="events of a background response")
        is_ended = False
        try:
            async with run.held:
                await self._make(run, job.value.session, encoder, spool)
            is_ended = await spool.end(encoder)
        except asyncio.CancelledError:
            if not spool.is_lost:
                raise
            is_ended = True
            task.uncancel()
            log.info("background response given up: it was cancelled, deleted or taken over", extra={"id": run.id})
        finally:
            writing.cancel()
            self._own.end(run.id, is_known=is_ended)

    async def _make(self, run: Run, session: str, encoder: ResponseEncoder, spool: Spool) -> None:
        trace = Trace(run.facts.request_id)
        error: ProxyError | None = None
        has_ended = False
        try:
            spool.open(encoder)
            request, route = await self._gateway.resolve(run.call.request, run.caller)
            trace.model = request.model.base
            budget = run.permit.api
            async with self._gateway.open(request, route, trace, session=session, budget=budget) as batches:
                async for batch in batches:
                    await spool.add(encoder.encode(batch), encoder, has_content=has_content(batch))
            has_ended = True
        except ProxyError as failure:
            error = failure
        except Exception:
            log.exception("background response failed", extra={"id": run.id})
            error = InternalError()
        finally:
            used = trace.used(lambda: chat_size(run.call.request, 1).prompt_tokens, has_left=error is None)
            run.permit.settle(0 if used is None else used.prompt_tokens + used.completion_tokens)
            if trace.tries:
                has_failed = not has_ended and error is not None
                self._traces.note(trace, key_id=run.caller.id, has_failed=has_failed)
                self._usage.note(
                    key_id=run.caller.id,
                    account_id=trace.account_id,
                    model=trace.model,
                    feature=Feature.CHAT,
                    usage=used,
                    has_failed=has_failed,
                )
        if error is not None:
            await spool.add(encoder.fail(error), encoder, has_content=False)
