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
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from msgspec import Struct

from qwen_proxy.accounts.model import Feature
from qwen_proxy.api.own_jobs import OwnJobs
from qwen_proxy.api.spool import Spool
from qwen_proxy.api.stored_responses import Job, KeptResponse, ResponseJob, StoredResponses
from qwen_proxy.chat.events import has_content
from qwen_proxy.config.keys import ClientKey
from qwen_proxy.gateway.admission import Permit
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.sizing import chat_size
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.gateway.traces import TraceBook
from qwen_proxy.gateway.usage import UsageRecorder
from qwen_proxy.ground.errors import InternalError, ProxyError
from qwen_proxy.protocols.base import ReplyFacts
from qwen_proxy.protocols.openai_responses import ResponsesCall
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder
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
        usage: UsageRecorder,
        traces: TraceBook,
        *,
        clock: Clock,
    ) -> None:
        self._kept = kept
        self._own = own
        self._gateway = gateway
        self._usage = usage
        self._traces = traces
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

    def take_up(self, run: Run, job: Job) -> None:
        """Make it anew: the job was taken over by this process."""
        self._own.begin(run.id)
        self._tasks.spawn(self._run(run, job), name="background response")

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
