"""`/v1/responses` and what belongs to it: responses kept, continued, fetched, run in the background, cancelled.

What is kept belongs to the key that made it: for every other one it is not there.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final

import msgspec
from aiohttp import web
from msgspec import Struct

from qwen_proxy.api.background import BackgroundRuns, Run
from qwen_proxy.api.chat import ChatRoutes
from qwen_proxy.api.stored_responses import Found, KeptResponse, StoredResponses
from qwen_proxy.chat.events import Usage
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import ChatResult
from qwen_proxy.gateway.admission import Admission
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.sessions import session_name
from qwen_proxy.gateway.sizing import chat_size
from qwen_proxy.ground.errors import InternalError, InvalidRequest, ProxyError
from qwen_proxy.protocols.base import ReplyFacts
from qwen_proxy.protocols.bodies import refuse_ignored
from qwen_proxy.protocols.openai_responses import OpenAIResponses, ResponsesCall, call
from qwen_proxy.protocols.openai_responses_body import Asked
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder, replayed
from qwen_proxy.protocols.openai_responses_extras import compacting, counted
from qwen_proxy.protocols.openai_responses_kept import input_items, last_number, listed, status_of
from qwen_proxy.protocols.openai_responses_output import QUEUED, response, response_id
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.serving.endpoint import Exchange, Handler, incoming
from qwen_proxy.serving.streaming import Heartbeats, StreamedReply

POLL_SECONDS: Final = 0.15  # how often a reader of a background response looks for more
LOOK_EVERY: Final = 10  # polls without events, until it is asked whether the response is there at all
LAST_WRITE_SECONDS: Final = 5.0  # for what is to be kept of replies whose clients have left, at the end
MOST_NUMBER: Final = 999_999_999


_Keep = Callable[[], Coroutine[None, None, None]]


class ResponsesRoute(Struct, frozen=True):
    method: str
    path: str
    summary: str


ROUTES: Final = (
    ResponsesRoute("POST", "/v1/responses/input_tokens", "Counts the input of a response, costs nothing"),
    ResponsesRoute("POST", "/v1/responses/compact", "Makes a conversation shorter"),
    ResponsesRoute("GET", "/v1/responses/{id}", "A response that was stored, whole or its events"),
    ResponsesRoute("DELETE", "/v1/responses/{id}", "Forgets a stored response"),
    ResponsesRoute("GET", "/v1/responses/{id}/input_items", "The items that a stored response answers"),
    ResponsesRoute("POST", "/v1/responses/{id}/cancel", "Ends a response in the background"),
)


class ResponsesRoutes:
    """Enter it before use."""

    def __init__(
        self,
        chat: ChatRoutes,
        gateway: ChatGateway,
        admission: Admission,
        heartbeats: Heartbeats,
        kept: StoredResponses,
        runs: BackgroundRuns,
        *,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.protocol: Final = OpenAIResponses()
        self._chat = chat
        self._gateway = gateway
        self._admission = admission
        self._heartbeats = heartbeats
        self._kept = kept
        self._runs = runs
        self._clock = clock
        self._ids = ids
        self._tasks = Tasks()

    async def __aenter__(self) -> "ResponsesRoutes":
        await self._runs.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._tasks.settle(LAST_WRITE_SECONDS)
        await self._tasks.__aexit__(None, None, None)
        await self._runs.__aexit__(None, None, None)

    def handler(self, method: str, path: str) -> Handler:
        return {
            ("POST", "/v1/responses"): self.create,
            ("POST", "/v1/responses/input_tokens"): self.count,
            ("POST", "/v1/responses/compact"): self.compact,
            ("GET", "/v1/responses/{id}"): self.fetch,
            ("DELETE", "/v1/responses/{id}"): self.delete,
            ("GET", "/v1/responses/{id}/input_items"): self.input_items,
            ("POST", "/v1/responses/{id}/cancel"): self.cancel,
        }[method, path]

    # --- making them

    async def create(self, exchange: Exchange) -> web.StreamResponse:
        body, wanted, found = await self._read(exchange)
        meant = call(wanted, found.context)
        if wanted.body.store is False:
            return await self._chat.serve(exchange, self.protocol, meant)
        if wanted.body.background:
            return await self._in_background(exchange, body, wanted, found, meant)
        recorded = RecordedCall(meant)
        keep = self._keeper(exchange, wanted, found, recorded)
        exchange.before_end = keep
        try:
            answer = await self._chat.serve(exchange, self.protocol, recorded)
        except (asyncio.CancelledError, ConnectionError):
            self._left(exchange, recorded, keep)
            raise
        except ProxyError as error:
            await self._failed(exchange, recorded, keep, error)
            raise
        except Exception:
            await self._failed(exchange, recorded, keep, InternalError())
            raise
        if not meant.stream:
            await keep()
        return answer

    async def _read(self, exchange: Exchange) -> tuple[bytes, Asked, Found]:
        came = await incoming(exchange)
        wanted = self.protocol.read(came, self._chat.options)
        return came.body, wanted, await self._kept.context(wanted, _key(exchange))

    def _keeper(self, exchange: Exchange, wanted: Asked, found: Found, recorded: "RecordedCall") -> "_Keep":
        key_id = _key(exchange)

        async def keep() -> None:
            """Raises StoreUnavailable: who wants a response to be stored is not told that it is when it is not."""
            encoder, facts = recorded.encoder_made, recorded.facts
            if encoder is None or facts is None:
                return
            document = KeptResponse(
                key_id=key_id,
                response=encoder.last,
                input=input_items(wanted.kept, facts.reply_id, found.raw),
                previous=wanted.body.previous_response_id or "",
            )
            await self._kept.keep(response_id(facts.reply_id), document)

        return keep

    def _left(self, exchange: Exchange, recorded: "RecordedCall", keep: "_Keep") -> None:
        """The client has gone, which may have the id: what had come is kept, and says so. This task is at its end."""
        encoder = recorded.encoder_made
        if encoder is not None and exchange.stream is not None and exchange.stream.headers_sent:
            if not encoder.is_over:
                encoder.cancel()
            self._tasks.spawn(keep(), name="response of a client that has left")

    async def _failed(self, exchange: Exchange, recorded: "RecordedCall", keep: "_Keep", error: ProxyError) -> None:
        """Told in the stream, it is kept too; told by a status, the client has no id of it."""
        if exchange.stream is None or exchange.tell is None or not exchange.stream.headers_sent:
            return
        told = exchange.tell(error)
        exchange.tell = lambda _: told
        try:
            await keep()
        except ProxyError:
            return  # it may be this very failure

    async def _in_background(
        self, exchange: Exchange, body: bytes, wanted: Asked, found: Found, meant: ResponsesCall
    ) -> web.StreamResponse:
        caller = exchange.caller
        assert caller is not None  # the routes want a key
        async with AsyncExitStack() as held:
            permit = await held.enter_async_context(
                self._admission.admit(caller, lambda: chat_size(meant.request, meant.choices))
            )
            exchange.limits = permit.facts()
            request, route = await self._gateway.resolve(meant.request, caller)
            ignored = self._gateway.without_effect(meant.ignored_fields, request, route)
            refuse_ignored(ignored, self._chat.options)
            facts = ReplyFacts(
                reply_id=self._ids.token(32),
                request_id=exchange.request_id,
                created_at=int(self._clock.now()),
                model=route.name,
            )
            id = response_id(facts.reply_id)
            document = KeptResponse(
                key_id=caller.id,
                response=response(facts, meant.wishes, QUEUED),
                input=input_items(wanted.kept, facts.reply_id, found.raw),
                previous=wanted.body.previous_response_id or "",
                body=body,
                is_background=True,
            )
            run = Run(id=id, call=meant, facts=facts, kept=document, caller=caller, permit=permit, held=held.pop_all())
            async with AsyncExitStack() as until_it_runs:
                until_it_runs.push_async_exit(run.held)
                await self._runs.start(run, self._session(exchange, meant))
                until_it_runs.pop_all()
        if meant.stream:
            return await self._follow(exchange, id, -1)
        return _json(document.response)

    def _session(self, exchange: Exchange, meant: ResponsesCall) -> str:
        if not self._gateway.follows_sessions:
            return ""
        return session_name(_key(exchange), exchange.http.headers, meant.session, meant.request)

    # --- beside them

    async def count(self, exchange: Exchange) -> web.StreamResponse:
        _, wanted, found = await self._read(exchange)
        refuse_ignored(wanted.ignored, self._chat.options)
        return _json(counted(await self._gateway.count_prompt(call(wanted, found.context).request)))

    async def compact(self, exchange: Exchange) -> web.StreamResponse:
        _, wanted, found = await self._read(exchange)
        return await self._chat.serve(exchange, self.protocol, compacting(call(wanted, found.context)))

    # --- those that are kept

    async def fetch(self, exchange: Exchange) -> web.StreamResponse:
        query = exchange.http.query
        kept = await self._kept.get(_id(exchange), _key(exchange))
        if query.get("stream", "false") not in ("true", "1"):
            return _json(kept.response)
        if not kept.is_background:
            raise InvalidRequest("only responses made with background=true can be streamed again", param="stream")
        return await self._follow(exchange, _id(exchange), _starting_after(query))

    async def delete(self, exchange: Exchange) -> web.StreamResponse:
        id = _id(exchange)
        await self._kept.delete(id, _key(exchange))
        return _json(msgspec.json.encode({"id": id, "object": "response", "deleted": True}))

    async def input_items(self, exchange: Exchange) -> web.StreamResponse:
        kept = await self._kept.get(_id(exchange), _key(exchange))
        return _json(listed(kept.input, exchange.http.query))

    async def cancel(self, exchange: Exchange) -> web.StreamResponse:
        id, key_id = _id(exchange), _key(exchange)
        kept = await self._kept.get(id, key_id)
        if not kept.is_background:
            raise InvalidRequest("only responses made with background=true can be cancelled")
        return _json((await self._kept.cancel(id, key_id)).response)

    async def _follow(self, exchange: Exchange, id: str, after: int) -> web.StreamResponse:
        """The events of a background response, as they are written, until its last."""
        protocol = self.protocol
        headers = [
            ("Content-Type", protocol.stream_content_type),
            ("Cache-Control", "no-cache"),
            ("X-Accel-Buffering", "no"),
            ("x-request-id", exchange.request_id),
        ]
        if exchange.limits is not None:
            headers += protocol.limit_headers(exchange.limits)
        reply = StreamedReply(exchange.http, headers, protocol.heartbeat, self._clock.monotonic())
        exchange.stream = reply
        exchange.tell = lambda _: b": broken off; go on with starting_after\n\n"
        with self._heartbeats.watch(reply):
            async with aclosing(self._pieces(id, _key(exchange), after)) as pieces:
                async for piece in pieces:
                    await reply.write(piece, self._clock.monotonic())
            await reply.end()
        return reply.response

    async def _pieces(self, id: str, key_id: str, after: int) -> AsyncGenerator[bytes]:
        """Ends with the last event, or when the response is deleted."""
        idle = 0
        while True:
            found = await self._kept.events(id, after)
            for piece in found:
                if piece.events:
                    yield piece.events
                    after = max(after, last_number(piece.events))
                if piece.is_last:
                    return
            idle = 0 if found else idle + 1
            if idle % LOOK_EVERY == 1 and await self._has_ended(id, key_id) and not await self._kept.events(id, after):
                return  # what there is to tell comes before `after`
            if not found:
                await self._clock.sleep(POLL_SECONDS)

    async def _has_ended(self, id: str, key_id: str) -> bool:
        kept = await self._kept.find(id, key_id)
        return kept is None or status_of(kept.response) not in ("queued", "in_progress")


class RecordedCall:
    """A call that knows afterwards how its reply was written; fits `protocols.base.Call`."""

    def __init__(self, inner: ResponsesCall) -> None:
        self._inner = inner
        self.encoder_made: ResponseEncoder | None = None
        self.facts: ReplyFacts | None = None
        self.request: ChatRequest = inner.request
        self.stream: bool = inner.stream
        self.choices: int = inner.choices
        self.ignored_fields: tuple[str, ...] = inner.ignored_fields
        self.needs_prompt_tokens: bool = inner.needs_prompt_tokens
        self.session: str = inner.session

    def encoder(self, facts: ReplyFacts, index: int) -> ResponseEncoder:
        self.facts = facts
        self.encoder_made = self._inner.encoder(facts, index)
        return self.encoder_made

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        return self._inner.trailer(facts, usage)

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        encoder = self.encoder(facts, 0)
        encoder.encode(replayed(results[0]))
        return encoder.last


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _key(exchange: Exchange) -> str:
    assert exchange.caller is not None  # the routes want a key
    return exchange.caller.id


def _id(exchange: Exchange) -> str:
    return exchange.http.match_info["id"]


def _starting_after(query: Mapping[str, str]) -> int:
    said = query.get("starting_after", "")
    if not said:
        return -1
    if not (said.isascii() and said.isdigit()) or int(said[:12]) > MOST_NUMBER:
        raise InvalidRequest("starting_after must be the number of an event", param="starting_after")
    return int(said)
