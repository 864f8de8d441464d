"""Every chat-like protocol: one route each, the same path behind it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Final, TypeVar

from aiohttp import web
from msgspec import Struct, structs

from qwen_proxy.accounts.model import Feature
from qwen_proxy.chat.events import Batch, Finish, FinishReason, ReplyStart, Usage, UsageOrigin
from qwen_proxy.chat.request import ChatRequest, Sampling
from qwen_proxy.chat.result import ChatResult, Folder, usage_of_all
from qwen_proxy.config.keys import ClientKey
from qwen_proxy.gateway.admission import Admission, Permit
from qwen_proxy.gateway.api_budget import ApiBudget
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.permission import EVERYWHERE, Scope
from qwen_proxy.gateway.routing import Route
from qwen_proxy.gateway.sessions import session_name
from qwen_proxy.gateway.sizing import Size, chat_size
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.gateway.traces import TraceBook, tools_header
from qwen_proxy.gateway.usage import UsageRecorder
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.protocols.base import Call, ClientProtocol, EventEncoder, ParseOptions, ReplyFacts
from qwen_proxy.protocols.bodies import refuse_ignored
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.serving.endpoint import Exchange, Handler, incoming
from qwen_proxy.serving.streaming import Heartbeats, StreamedReply

T = TypeVar("T")
SAMPLING: Final = frozenset(Sampling.__struct_fields__)  # every protocol that has them calls them so


class ChatRoutes:
    """Makes a handler per protocol. `options` may be replaced at any time."""

    def __init__(
        self,
        gateway: ChatGateway,
        heartbeats: Heartbeats,
        admission: Admission,
        usage: UsageRecorder,
        traces: TraceBook,
        options: ParseOptions,
        *,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._gateway = gateway
        self._admission = admission
        self._usage = usage
        self._traces = traces
        self._heartbeats = heartbeats
        self.options = options
        self._clock = clock
        self._ids = ids

    def handler(self, protocol: ClientProtocol, scope: Scope = EVERYWHERE) -> Handler:
        return lambda exchange: self.serve(exchange, protocol, None, scope)

    async def serve(
        self, exchange: Exchange, protocol: ClientProtocol, call: Call | None, scope: Scope = EVERYWHERE
    ) -> web.StreamResponse:
        """Answer a call; None: it is to be read yet. Raises ProxyError before anything is sent, and behind it through
        `exchange`.

        Here and below few coroutines wait for each other: each is gone through for every token of a stream.
        """
        asked = protocol.parse(await incoming(exchange), self.options) if call is None else call
        caller = exchange.caller
        assert caller is not None  # the routes want a key
        has_ended = has_left = False
        async with self._admission.admit(caller, lambda: _size(asked)) as permit:
            exchange.limits = permit.facts()
            try:
                answering = self._stream if asked.stream else self._fold
                answer = await answering(exchange, protocol, asked, scope, permit.api)
                has_ended = True
                return answer
            except (asyncio.CancelledError, ConnectionError):
                has_left = True
                raise
            finally:
                self._settle(exchange.trace, caller, asked, permit, has_left=has_left, has_ended=has_ended)

    def _settle(
        self, trace: Trace, caller: ClientKey, call: Call, permit: Permit, *, has_left: bool, has_ended: bool
    ) -> None:
        """What the request has used, for the caller's limits and for the operator."""
        used = trace.used(lambda: _size(call).prompt_tokens, has_left=has_left)
        permit.settle(0 if used is None else used.prompt_tokens + used.completion_tokens)
        if not trace.tries:  # what was never tried is nobody's use of a model
            return
        has_failed = not (has_ended or has_left)
        self._usage.note(
            key_id=caller.id,
            account_id=trace.account_id,
            model=trace.model,
            feature=Feature.CHAT,
            usage=used,
            has_failed=has_failed,
        )
        self._traces.note(trace, key_id=caller.id, has_failed=has_failed)

    async def _questions(
        self, exchange: Exchange, call: Call, scope: Scope, budget: ApiBudget | None
    ) -> list["_Question"]:
        """What is to be asked, for each choice; may wait for the model list.

        Raises ModelNotFound, NotAllowed, or why there is no list.
        """
        first = await self._question(exchange, call, call.request, scope, budget)
        if call.choices == 1 and not call.further:
            return [first]
        others = [await self._question(exchange, call, each, scope, budget) for each in call.further]
        asked = [first, *(structs.replace(each, facts=first.facts) for each in others)]
        return [question for question in asked for _ in range(call.choices)]

    async def _question(
        self, exchange: Exchange, call: Call, wished: ChatRequest, scope: Scope, budget: ApiBudget | None
    ) -> "_Question":
        request, route = await self._gateway.resolve(wished, exchange.caller, scope)
        exchange.trace.model = request.model.base
        prompt_tokens = await self._gateway.count_prompt(request) if call.needs_prompt_tokens else None
        session = self._session(exchange, call, wished) if self._gateway.follows_sessions else ""
        ignored: list[str] = []
        if call.ignored_fields:
            ignored = self._gateway.without_effect(call.ignored_fields, request, route)
            refuse_ignored(ignored, self.options)
        warnings = self._gateway.warnings(request, route, wished=wished)
        told = effect_headers(ignored, warnings) if ignored or warnings else ()
        return _Question(request, route, self._facts(exchange, route.name, prompt_tokens), session, told, budget)

    def _session(self, exchange: Exchange, call: Call, request: ChatRequest) -> str:
        key = "" if exchange.caller is None else exchange.caller.id
        return session_name(key, exchange.http.headers, call.session, request)

    def _facts(self, exchange: Exchange, model: str, prompt_tokens: int | None) -> ReplyFacts:
        return ReplyFacts(
            reply_id=self._ids.token(32),
            request_id=exchange.request_id,
            created_at=int(self._clock.now()),
            model=model,
            prompt_tokens=prompt_tokens,
            elapsed_seconds=lambda: self._clock.monotonic() - exchange.started_at,
        )

    async def _fold(
        self, exchange: Exchange, protocol: ClientProtocol, call: Call, scope: Scope, budget: ApiBudget | None
    ) -> web.StreamResponse:
        questions = await self._questions(exchange, call, scope, budget)
        first = questions[0]
        if len(questions) == 1:
            results = [await self._folded(first, exchange.trace)]
        else:
            traces = [Trace(exchange.request_id) for _ in questions]
            jobs = [partial(self._folded, *each) for each in zip(questions, traces, strict=True)]
            try:
                results = await _together(jobs, self.options.max_choices)
            finally:
                exchange.trace.take_up(traces, call.choices)
        headers = [("Content-Type", "application/json"), *_served(exchange.trace), *first.told]
        if exchange.limits is not None:
            headers += protocol.limit_headers(exchange.limits)
        return web.Response(body=call.result(first.facts, results), headers=headers)

    async def _folded(self, question: "_Question", trace: Trace) -> ChatResult:
        folder = Folder()
        async with self._open(question, trace, in_one=True) as batches:
            async for batch in batches:
                folder.feed(batch)
        return folder.result()

    def _open(
        self, question: "_Question", trace: Trace, *, in_one: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        if question.request.sampling.max_tokens == 0:
            return aclosing(self._nothing(question.request, trace))
        return self._gateway.open(
            question.request,
            question.route,
            trace,
            session=question.session,
            in_one=in_one,
            budget=question.budget,
        )

    async def _nothing(self, request: ChatRequest, trace: Trace) -> AsyncGenerator[Batch]:
        """The reply to who wants no token of it, as Anthropic's clients do to fill a cache: nobody is asked."""
        prompt_tokens = await self._gateway.count_prompt(request)
        trace.usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=0, origin=UsageOrigin.COUNTED)
        yield [ReplyStart(), trace.usage, Finish(FinishReason.LENGTH)]

    async def _stream(
        self, exchange: Exchange, protocol: ClientProtocol, call: Call, scope: Scope, budget: ApiBudget | None
    ) -> web.StreamResponse:
        headers = [
            ("Content-Type", protocol.stream_content_type),
            ("Cache-Control", "no-cache"),
            ("X-Accel-Buffering", "no"),
            *_headers(exchange, protocol),
        ]
        reply = StreamedReply(exchange.http, headers, protocol.heartbeat, self._clock.monotonic())

        def tell(error: ProxyError) -> bytes:
            return call.encoder(self._facts(exchange, call.request.model.base, None), 0).fail(error)

        exchange.stream, exchange.tell = reply, tell
        with self._heartbeats.watch(reply):
            questions = await self._questions(exchange, call, scope, budget)
            first = questions[0]
            if not reply.headers_sent:
                reply.response.headers.extend(first.told)
            encoders = [call.encoder(first.facts, index) for index in range(len(questions))]
            exchange.tell = encoders[0].fail
            if len(questions) == 1:
                end = self._ending(exchange, reply, call, first)
                await self._write_choice(reply, encoders[0], first, exchange.trace, end)
            else:
                await self._stream_several(exchange, reply, call, questions, encoders)
        return reply.response

    def _ending(
        self, exchange: Exchange, reply: StreamedReply, call: Call, question: "_Question"
    ) -> Callable[[bytes], Awaitable[None]]:
        """Of a single choice: its last piece goes out in one write with what ends the stream."""

        async def end(piece: bytes) -> None:
            if exchange.before_end is not None:
                await exchange.before_end()
            await reply.end(piece + _trailer(call, question.facts, [exchange.trace]))

        return end

    async def _stream_several(
        self,
        exchange: Exchange,
        reply: StreamedReply,
        call: Call,
        questions: Sequence["_Question"],
        encoders: Sequence[EventEncoder],
    ) -> None:
        """Many at once, each writing its own chunks as they come."""
        traces = [Trace(exchange.request_id) for _ in encoders]

        async def end(piece: bytes) -> None:
            await reply.write(piece, self._clock.monotonic())

        jobs = [
            partial(self._write_choice, reply, encoder, question, trace, end)
            for encoder, question, trace in zip(encoders, questions, traces, strict=True)
        ]
        try:
            await _together(jobs, self.options.max_choices)
        finally:
            exchange.trace.take_up(traces, call.choices)
        await reply.end(_trailer(call, questions[0].facts, traces))

    async def _write_choice(
        self,
        reply: StreamedReply,
        encoder: EventEncoder,
        question: "_Question",
        trace: Trace,
        end: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """Write a choice; `end` writes its last piece.

        The upstream's own end is waited for after that: a client is not made to wait for it.
        """
        opening = encoder.start()
        now = self._clock.monotonic
        is_first = True
        async with self._open(question, trace) as batches:
            async for batch in batches:
                if is_first and not reply.headers_sent:
                    reply.response.headers.extend(_served(trace))
                is_first = False
                piece = opening + encoder.encode(batch) if opening else encoder.encode(batch)
                if type(batch[-1]) is Finish:
                    await end(piece)
                elif piece:
                    await reply.write(piece, now())
                    opening = b""


class _Question(Struct, frozen=True):
    request: ChatRequest
    route: Route
    facts: ReplyFacts
    session: str
    told: Sequence[tuple[str, str]]
    budget: ApiBudget | None


def _size(call: Call) -> Size:
    return chat_size(call.request, call.choices, call.further)


def _trailer(call: Call, facts: ReplyFacts, traces: Sequence[Trace]) -> bytes:
    usage = usage_of_all([trace.usage for trace in traces], call.choices)
    assert usage is not None  # every reply that has come to its end has one
    return call.trailer(facts, usage)


def _headers(exchange: Exchange, protocol: ClientProtocol) -> list[tuple[str, str]]:
    names = dict.fromkeys(("x-request-id", protocol.request_id_header))
    headers = [(name, exchange.request_id) for name in names]
    if exchange.limits is not None:
        headers += protocol.limit_headers(exchange.limits)
    return headers


def effect_headers(ignored: Sequence[str], warnings: Sequence[str]) -> list[tuple[str, str]]:
    """What of a request has no effect, or another than it may seem."""
    headers: list[tuple[str, str]] = []
    if ignored:
        # Names come from the client's body: only what is safe in a header goes into one.
        names = [name for name in ignored if name.isascii() and name.isprintable()]
        headers.append(("x-qwen-proxy-ignored", ", ".join(names)[:1000]))
    if warnings:
        headers.append(("x-qwen-proxy-warnings", "; ".join(warnings)))
    return headers


def _served(trace: Trace) -> list[tuple[str, str]]:
    """Who answers, if anybody does. A model's id comes from elsewhere: only what is safe in a header goes into one."""
    if not trace.backend:
        return []
    model = trace.model if trace.model.isascii() and trace.model.isprintable() else ""
    told = [("x-qwen-proxy-tools", tools_header(trace.tools))] if trace.tools is not None else []
    return [("x-qwen-proxy-backend", trace.backend), *([("x-qwen-proxy-model", model)] if model else []), *told]


async def _together(jobs: Sequence[Callable[[], Awaitable[T]]], most: int) -> list[T]:
    """Run them, so many at once; the first failure ends the others and is raised as itself, not as a group."""
    turns = asyncio.Semaphore(most)

    async def run(job: Callable[[], Awaitable[T]]) -> T:
        async with turns:
            return await job()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(job)) for job in jobs]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]
