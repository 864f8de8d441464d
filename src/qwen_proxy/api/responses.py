"""`/v1/responses` and what belongs to it: responses kept, continued, fetched, run in the background, cancelled.

What is kept belongs to the key that made it: for every other one it is not there.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web
from msgspec import Struct

from qwen_proxy.api.background import BackgroundRuns, Run
from qwen_proxy.api.chat import ChatRoutes, effect_headers
from qwen_proxy.api.kept_responses import KeptResponseRoutes, json_answer, key_of
from qwen_proxy.api.own_jobs import OwnJobs
from qwen_proxy.api.recording import RecordedCall, Recording
from qwen_proxy.api.response_keeper import ResponseKeeper
from qwen_proxy.api.stored_responses import Found, KeptResponse, StoredResponses
from qwen_proxy.gateway.admission import Admission
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.sessions import session_name
from qwen_proxy.gateway.sizing import chat_size
from qwen_proxy.ground.errors import InternalError, ProxyError
from qwen_proxy.protocols.base import ReplyFacts
from qwen_proxy.protocols.bodies import refuse_ignored
from qwen_proxy.protocols.openai_responses import OpenAIResponses, ResponsesCall, call
from qwen_proxy.protocols.openai_responses_body import Asked
from qwen_proxy.protocols.openai_responses_extras import compacting, counted
from qwen_proxy.protocols.openai_responses_kept import input_items
from qwen_proxy.protocols.openai_responses_output import QUEUED, response, response_id
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.serving.endpoint import Exchange, Handler, incoming
from qwen_proxy.serving.streaming import Heartbeats

LAST_WRITE_SECONDS: Final = 5.0  # for what is to be kept of replies whose clients have left, at the end


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
        own: OwnJobs,
        runs: BackgroundRuns,
        keeper: ResponseKeeper,
        *,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.protocol: Final = OpenAIResponses()
        self._chat = chat
        self._gateway = gateway
        self._admission = admission
        self._kept = kept
        self._own = own
        self._runs = runs
        self._keeper = keeper
        self._of_kept = KeptResponseRoutes(kept, heartbeats, self.protocol, clock)
        self._clock = clock
        self._ids = ids
        self._tasks = Tasks()

    async def __aenter__(self) -> "ResponsesRoutes":
        await self._runs.__aenter__()
        await self._keeper.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._keeper.__aexit__(None, None, None)
        await self._tasks.settle(LAST_WRITE_SECONDS)
        await self._tasks.__aexit__(None, None, None)
        await self._runs.__aexit__(None, None, None)

    async def settle(self, timeout_seconds: float) -> None:
        """Wait for the responses in the background to end, at most so long."""
        await self._runs.settle(timeout_seconds)

    def handler(self, method: str, path: str) -> Handler:
        return {
            ("POST", "/v1/responses"): self.create,
            ("POST", "/v1/responses/input_tokens"): self.count,
            ("POST", "/v1/responses/compact"): self.compact,
            ("GET", "/v1/responses/{id}"): self._of_kept.fetch,
            ("DELETE", "/v1/responses/{id}"): self._of_kept.delete,
            ("GET", "/v1/responses/{id}/input_items"): self._of_kept.input_items,
            ("POST", "/v1/responses/{id}/cancel"): self._of_kept.cancel,
        }[method, path]

    # --- making them

    async def create(self, exchange: Exchange) -> web.StreamResponse:
        body, wanted, found = await self._read(exchange)
        meant = call(wanted, found.context)
        if wanted.body.store is False:
            return await self._chat.serve(exchange, self.protocol, meant)
        if wanted.body.background:
            return await self._in_background(exchange, body, wanted, found, meant)
        recording = Recording(self._kept, self._own, self._tasks, exchange, key_of(exchange), wanted, found)
        exchange.before_end = recording.keep
        try:
            answer = await self._chat.serve(exchange, self.protocol, RecordedCall(meant, recording))
        except (asyncio.CancelledError, ConnectionError):
            recording.left()
            raise
        except ProxyError as error:
            await recording.failed(error)
            raise
        except Exception:
            await recording.failed(InternalError())
            raise
        if not meant.stream:
            await recording.keep()
        return answer

    async def _read(self, exchange: Exchange) -> tuple[bytes, Asked, Found]:
        came = await incoming(exchange)
        wanted = self.protocol.read(came, self._chat.options)
        return came.body, wanted, await self._kept.context(wanted, key_of(exchange))

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
            warnings = self._gateway.warnings(request, route, wished=meant.request)
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
                told=tuple(effect_headers(ignored, warnings)),
            )
            run = Run(id=id, call=meant, facts=facts, kept=document, caller=caller, permit=permit, held=held.pop_all())
            async with AsyncExitStack() as until_it_runs:
                until_it_runs.push_async_exit(run.held)
                await self._runs.start(run, self._session(exchange, meant))
                until_it_runs.pop_all()
        if meant.stream:
            return await self._of_kept.follow(exchange, id, -1, document.told)
        limits = () if exchange.limits is None else self.protocol.limit_headers(exchange.limits)
        return json_answer(document.response, (*limits, *document.told))

    def _session(self, exchange: Exchange, meant: ResponsesCall) -> str:
        if not self._gateway.follows_sessions:
            return ""
        return session_name(key_of(exchange), exchange.http.headers, meant.session, meant.request)

    # --- beside them

    async def count(self, exchange: Exchange) -> web.StreamResponse:
        _, wanted, found = await self._read(exchange)
        refuse_ignored(wanted.ignored, self._chat.options)
        return json_answer(counted(await self._gateway.count_prompt(call(wanted, found.context).request)))

    async def compact(self, exchange: Exchange) -> web.StreamResponse:
        _, wanted, found = await self._read(exchange)
        return await self._chat.serve(exchange, self.protocol, compacting(call(wanted, found.context)))
