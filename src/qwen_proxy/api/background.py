"""Responses in the background: each in a task of the process that took the request, its events written as they come.

| what happens | what becomes of a response |
|---|---|
| its process is killed before any of the reply was written | the keeper asks again; the opening events stay |
| its process is killed later | the keeper ends it as failed |
| it is cancelled or deleted, through any process | whoever is at work on it finds out with its next write, or look |
| the store does not answer for a while | events are held, and the upstream waits when they are too many |

Readers get what is written, and nothing else: so the numbers of events are the same for everybody, whoever dies.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Final, Self

from msgspec import Struct, structs

from qwen_proxy.accounts.model import Feature
from qwen_proxy.api.stored_responses import Job, KeptResponse, ResponseJob, StoredResponses, Taken
from qwen_proxy.chat.events import has_content
from qwen_proxy.config.keys import ClientKey
from qwen_proxy.gateway.admission import Admission, Permit
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.sizing import chat_size
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.gateway.traces import TraceBook
from qwen_proxy.gateway.usage import UsageRecorder
from qwen_proxy.ground.errors import (
    InternalError,
    ProxyError,
    ShuttingDown,
    StoreUnavailable,
    Unauthenticated,
    Unreadable,
)
from qwen_proxy.protocols.base import Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.openai_responses import OpenAIResponses, ResponsesCall, call
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder
from qwen_proxy.protocols.openai_responses_kept import behind, facts_of
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 0.15  # between two writes of events: what a reader is behind at most, besides its own pause
LOOK_SECONDS: Final = 1.0  # how soon a cancelled response without events, or one without a process, is found
MOST_HELD_BYTES: Final = 1 << 20  # of events that are not written yet
LAST_TRIES: Final = 60  # to write the end, a second apart, when the store does not answer
GONE: Final = "the process that was at work on this response has ended"


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
    """Those of this process; enter it before use. is_keeper: whether this process looks after what others left."""

    def __init__(
        self,
        kept: StoredResponses,
        gateway: ChatGateway,
        admission: Admission,
        usage: UsageRecorder,
        traces: TraceBook,
        find_key: Callable[[str], ClientKey | None],
        *,
        owner: str,
        living: Callable[[], Awaitable[set[str]]],
        is_keeper: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._kept = kept
        self._gateway = gateway
        self._admission = admission
        self._usage = usage
        self._traces = traces
        self._find_key = find_key
        self._owner = owner
        self._living = living
        self._is_keeper = is_keeper
        self._clock = clock
        self._tasks = Tasks()
        self._running: set[str] = set()

    async def __aenter__(self) -> Self:
        self._tasks.spawn(self._look_after(), name="background responses")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is under way is left as a killed process leaves it: another one ends it, or this one's next start."""
        await self._tasks.__aexit__(kind, error, trace)

    async def start(self, run: Run, session: str) -> None:
        """Raises StoreUnavailable."""
        self._running.add(run.id)
        try:
            job = ResponseJob(owner=self._owner, session=session, request_id=run.facts.request_id)
            begun = await self._kept.begin(run.id, run.kept, job)
        except BaseException:
            self._running.discard(run.id)
            raise
        self._tasks.spawn(self._run(run, begun), name="background response")

    async def _run(self, run: Run, job: Job) -> None:
        encoder = ResponseEncoder(run.facts, run.call.wishes, run.call.toolbox, is_queued=True)
        task = asyncio.current_task()
        assert task is not None
        spool = Spool(self._kept, job, run.kept, self._clock, task.cancel)
        writing = self._tasks.spawn(spool.run(), name="events of a background response")
        try:
            async with run.held:
                await self._make(run, job.value.session, encoder, spool)
            await spool.end(encoder)
        except asyncio.CancelledError:
            if not spool.is_lost:
                raise
            task.uncancel()
            log.info("background response given up: it was cancelled, deleted or taken over", extra={"id": run.id})
        finally:
            writing.cancel()
            self._running.discard(run.id)

    async def _make(self, run: Run, session: str, encoder: ResponseEncoder, spool: "Spool") -> None:
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

    # --- what others left

    async def _look_after(self) -> None:
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except StoreUnavailable as error:
                log.warning("background responses not looked after", extra={"reason": str(error)})

    async def look(self) -> None:
        """Take care of the jobs that nobody is at work on. Raises StoreUnavailable."""
        jobs = [job for job in await self._kept.jobs() if job.id not in self._running]
        if not jobs:
            return
        living = await self._living()
        for job in jobs:
            is_ours = job.value.owner == self._owner
            if is_ours or (job.value.owner not in living and self._is_keeper()):
                with suppress(Taken):
                    await self._take_care(job, may_be_asked_again=not is_ours and not job.value.has_content)

    async def _take_care(self, job: Job, *, may_be_asked_again: bool) -> None:
        """Raises Taken and StoreUnavailable."""
        try:
            if may_be_asked_again and await self._again(job):
                return
            await self._kept.break_off(job, ShuttingDown(GONE))
            log.warning("background response ended: its process is gone", extra={"id": job.id})
        except Unreadable as error:
            log.warning("background response given up", extra={"id": job.id, "reason": str(error)})
            await self._kept.drop(job)

    async def _again(self, job: Job) -> bool:
        """Ask again for what nobody has seen anything of. False where it can't be."""
        kept = await self._kept.of_any_key(job.id)
        caller = None if kept is None else self._find_key(kept.key_id)
        if kept is None or caller is None:
            return False
        held = AsyncExitStack()
        try:
            if (why := caller.why_useless(self._clock.now())) is not None:
                raise Unauthenticated(why)
            incoming = Incoming(path="/v1/responses", query={}, headers={}, body=kept.body)
            wanted = OpenAIResponses().read(incoming, ParseOptions())
            meant = call(wanted, (await self._kept.context(wanted, kept.key_id)).context)
            permit = await held.enter_async_context(self._admission.admit(caller, lambda: chat_size(meant.request, 1)))
            job = await self._kept.take_over(job, self._owner)
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
        self._running.add(job.id)
        self._tasks.spawn(self._run(run, job), name="background response")
        log.warning("background response taken over: its process is gone", extra={"id": job.id})
        return True


class Spool:
    """A response's events on their way to the store, some at a time.

    lost: called when another hand is at work on it.
    """

    def __init__(
        self, kept: StoredResponses, job: Job, document: KeptResponse, clock: Clock, lost: Callable[[], object]
    ) -> None:
        self._kept = kept
        self._job = job
        self._document = document
        self._clock = clock
        self._lost = lost
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._last = job.value.last
        self._has_content = job.value.has_content
        self._writing = asyncio.Lock()
        self._is_over = False
        self.is_lost = False

    def open(self, encoder: ResponseEncoder) -> None:
        """The opening events; those that are written already, by a process that is gone, are not written again."""
        self._pieces.append(behind(encoder.start(), self._last))
        self._note(encoder)

    async def add(self, piece: bytes, encoder: ResponseEncoder, *, has_content: bool) -> None:
        self._pieces.append(piece)
        self._size_bytes += len(piece)
        self._has_content = self._has_content or has_content
        self._note(encoder)
        if encoder.is_over:
            self._is_over = True  # the last events are written with the end, not before
        elif self._size_bytes > MOST_HELD_BYTES:
            await self._flush_at_last()

    async def run(self) -> None:
        """Write what has come, now and then, until it is over."""
        since_look = 0.0
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            since_look += FLUSH_SECONDS
            try:
                async with self._writing:
                    if self._is_over:
                        return
                    if any(self._pieces):
                        await self._flush()
                        since_look = 0.0
                    elif since_look >= LOOK_SECONDS:
                        since_look = 0.0
                        await self._look()
            except StoreUnavailable as error:
                log.warning("events of a response not written yet", extra={"reason": str(error)})
            except Taken:
                self.is_lost = True
                self._lost()
                return

    async def end(self, encoder: ResponseEncoder) -> None:
        """Write what is left, and the response as it stays. Gives up, and leaves it to be ended, when the store does
        not answer for long."""
        final = structs.replace(self._document, response=encoder.last, body=b"")
        async with self._writing:
            self._is_over = True
            for _ in range(LAST_TRIES):
                try:
                    await self._kept.end(self._job, final, b"".join(self._pieces), encoder.last_number)
                    return
                except StoreUnavailable as error:
                    log.warning("the end of a response not written yet", extra={"reason": str(error)})
                    await self._clock.sleep(1.0)
                except Taken:
                    return

    def _note(self, encoder: ResponseEncoder) -> None:
        self._last = encoder.last_number
        self._document = structs.replace(self._document, response=encoder.last)

    async def _flush_at_last(self) -> None:
        """However long it takes: what comes from upstream waits."""
        while not self.is_lost:
            try:
                async with self._writing:
                    await self._flush()
                return
            except StoreUnavailable:
                await self._clock.sleep(FLUSH_SECONDS)
            except Taken:
                self.is_lost = True
                raise asyncio.CancelledError from None

    async def _flush(self) -> None:
        events, last = b"".join(self._pieces), self._last
        if not events:
            return
        count = len(self._pieces)
        has_content, document = self._has_content, self._document
        wanted = structs.replace(self._job.value, last=last, has_content=has_content)
        try:
            self._job = await self._kept.add(self._job, events, last, has_content=has_content, response=document)
        except Taken:
            job = await self._kept.job(self._job.id)
            if job is None or job.value != wanted:
                raise
            self._job = job  # an earlier try of this very write had come through
        del self._pieces[:count]
        self._size_bytes = sum(map(len, self._pieces))

    async def _look(self) -> None:
        job = await self._kept.job(self._job.id)
        if job is None or job.version != self._job.version:
            raise Taken
