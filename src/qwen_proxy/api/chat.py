"""Every chat-like protocol: one route each, the same path behind it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeVar

from aiohttp import web

from qwen_proxy.chat.events import Finish
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import ChatResult, Folder, total_usage
from qwen_proxy.gateway.catalogue import Resolved
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.protocols.base import Call, ClientProtocol, EventEncoder, ParseOptions, ReplyFacts
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.serving.endpoint import Exchange, Handler, incoming
from qwen_proxy.serving.streaming import Heartbeats, StreamedReply

T = TypeVar("T")


class ChatRoutes:
    """Makes a handler per protocol."""

    def __init__(
        self, gateway: ChatGateway, heartbeats: Heartbeats, options: ParseOptions, *, clock: Clock, ids: Ids
    ) -> None:
        self._gateway = gateway
        self._heartbeats = heartbeats
        self._options = options
        self._clock = clock
        self._ids = ids

    def handler(self, protocol: ClientProtocol) -> Handler:
        async def handle(exchange: Exchange) -> web.StreamResponse:
            call = protocol.parse(await incoming(exchange), self._options)
            request, resolved = await self._gateway.resolve(call.request)
            exchange.trace.model = resolved.name.base
            facts = ReplyFacts(
                reply_id=self._ids.token(32),
                request_id=exchange.request_id,
                created_at=int(self._clock.now()),
                model=resolved.name.base,
                prompt_tokens=await self._gateway.count_prompt(request) if call.needs_prompt_tokens else None,
            )
            if call.stream:
                return await self._stream(exchange, protocol, call, request, resolved, facts)
            return await self._fold(exchange, call, request, resolved, facts)

        return handle

    async def _fold(
        self, exchange: Exchange, call: Call, request: ChatRequest, resolved: Resolved, facts: ReplyFacts
    ) -> web.StreamResponse:
        if call.choices == 1:
            results = [await self._folded(request, resolved, exchange.trace)]
        else:
            traces = [Trace(exchange.request_id) for _ in range(call.choices)]
            try:
                results = await _together([self._folded(request, resolved, trace) for trace in traces])
            finally:
                exchange.trace.take_up(traces)
        response = web.Response(body=call.result(facts, results), content_type="application/json")
        response.headers.extend(_headers(exchange, call))
        return response

    async def _folded(self, request: ChatRequest, resolved: Resolved, trace: Trace) -> ChatResult:
        folder = Folder()
        async with self._gateway.open(request, resolved, trace, in_one=True) as batches:
            async for batch in batches:
                folder.feed(batch)
        return folder.result()

    async def _stream(
        self,
        exchange: Exchange,
        protocol: ClientProtocol,
        call: Call,
        request: ChatRequest,
        resolved: Resolved,
        facts: ReplyFacts,
    ) -> web.StreamResponse:
        headers = [
            ("Content-Type", protocol.stream_content_type),
            ("Cache-Control", "no-cache"),
            ("X-Accel-Buffering", "no"),
            *_headers(exchange, call),
        ]
        reply = StreamedReply(exchange.http, headers, protocol.heartbeat, self._clock.monotonic())
        encoders = [call.encoder(facts, index) for index in range(call.choices)]
        exchange.stream, exchange.tell = reply, encoders[0].fail
        with self._heartbeats.watch(reply):
            if call.choices == 1:
                trace = exchange.trace

                async def end(piece: bytes) -> None:
                    await reply.end(piece + _trailer(call, facts, [trace]))

                await self._write_choice(reply, encoders[0], request, resolved, trace, end)
            else:
                traces = [Trace(exchange.request_id) for _ in encoders]
                endings: list[bytes] = []

                async def keep(piece: bytes) -> None:
                    endings.append(piece)

                try:
                    await _together(
                        [
                            self._write_choice(reply, encoder, request, resolved, trace, keep)
                            for encoder, trace in zip(encoders, traces, strict=True)
                        ]
                    )
                finally:
                    exchange.trace.take_up(traces)
                await reply.end(b"".join(endings) + _trailer(call, facts, traces))
        return reply.response

    async def _write_choice(
        self,
        reply: StreamedReply,
        encoder: EventEncoder,
        request: ChatRequest,
        resolved: Resolved,
        trace: Trace,
        end: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """Write a choice; `end` gets its last piece, so that it can go out together with what ends the stream.

        The upstream's own end is waited for after that: a client is not made to wait for it.
        """
        opening = encoder.start()
        now = self._clock.monotonic
        async with self._gateway.open(request, resolved, trace) as batches:
            async for batch in batches:
                piece = opening + encoder.encode(batch) if opening else encoder.encode(batch)
                if isinstance(batch[-1], Finish):
                    await end(piece)
                elif piece:
                    await reply.write(piece, now())
                    opening = b""


def _trailer(call: Call, facts: ReplyFacts, traces: Sequence[Trace]) -> bytes:
    return call.trailer(facts, total_usage([trace.usage for trace in traces if trace.usage is not None]))


def _headers(exchange: Exchange, call: Call) -> list[tuple[str, str]]:
    headers = [("x-request-id", exchange.request_id)]
    if call.ignored_fields:
        # Names come from the client's body: only what is safe in a header goes into one.
        names = [name for name in call.ignored_fields if name.isascii() and name.isprintable()]
        headers.append(("x-qwen-proxy-ignored", ", ".join(names)[:1000]))
    return headers


async def _together(coroutines: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """Run them at once; the first failure ends the others and is raised as itself, not as a group."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]
