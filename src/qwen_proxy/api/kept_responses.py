"""What may be done with a response that is stored: it is fetched, deleted, cancelled, and its events are told again.

Another key's is not there.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import msgspec
from aiohttp import web

from qwen_proxy.api.stored_responses import StoredResponses
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.protocols.openai_responses import OpenAIResponses
from qwen_proxy.protocols.openai_responses_kept import UNFINISHED, last_number, listed, status_of
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.serving.endpoint import Exchange
from qwen_proxy.serving.streaming import Heartbeats, StreamedReply

POLL_SECONDS: Final = 0.15  # how often a reader of a background response looks for more
LOOK_EVERY: Final = 10  # polls without events, until it is asked whether the response is there at all
MOST_NUMBER: Final = 999_999_999

Headers = Sequence[tuple[str, str]]


class KeptResponseRoutes:
    def __init__(self, kept: StoredResponses, heartbeats: Heartbeats, protocol: OpenAIResponses, clock: Clock) -> None:
        self._kept = kept
        self._heartbeats = heartbeats
        self._protocol = protocol
        self._clock = clock

    async def fetch(self, exchange: Exchange) -> web.StreamResponse:
        query = exchange.http.query
        kept = await self._kept.get(_id(exchange), key_of(exchange))
        if query.get("stream", "false") not in ("true", "1"):
            return json_answer(kept.response, kept.told)
        if not kept.is_background:
            raise InvalidRequest("only responses made with background=true can be streamed again", param="stream")
        return await self.follow(exchange, _id(exchange), _starting_after(query), kept.told)

    async def delete(self, exchange: Exchange) -> web.StreamResponse:
        id = _id(exchange)
        await self._kept.delete(id, key_of(exchange))
        return json_answer(msgspec.json.encode({"id": id, "object": "response", "deleted": True}))

    async def input_items(self, exchange: Exchange) -> web.StreamResponse:
        kept = await self._kept.get(_id(exchange), key_of(exchange))
        return json_answer(listed(kept.input, exchange.http.query))

    async def cancel(self, exchange: Exchange) -> web.StreamResponse:
        id, key_id = _id(exchange), key_of(exchange)
        kept = await self._kept.get(id, key_id)
        if not kept.is_background:
            raise InvalidRequest("only responses made with background=true can be cancelled")
        return json_answer((await self._kept.cancel(id, key_id)).response)

    async def follow(self, exchange: Exchange, id: str, after: int, told: Headers) -> web.StreamResponse:
        """The events of a background response, as they are written, until its last."""
        protocol = self._protocol
        headers = [
            ("Content-Type", protocol.stream_content_type),
            ("Cache-Control", "no-cache"),
            ("X-Accel-Buffering", "no"),
            ("x-request-id", exchange.request_id),
            *told,
        ]
        if exchange.limits is not None:
            headers += protocol.limit_headers(exchange.limits)
        reply = StreamedReply(exchange.http, headers, protocol.heartbeat, self._clock.monotonic())
        exchange.stream = reply
        exchange.tell = lambda _: b": broken off; go on with starting_after\n\n"
        with self._heartbeats.watch(reply):
            async with aclosing(self._pieces(id, key_of(exchange), after)) as pieces:
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
        return kept is None or status_of(kept.response) not in UNFINISHED


def json_answer(body: bytes, headers: Headers = ()) -> web.Response:
    response = web.Response(body=body, content_type="application/json")
    response.headers.extend(headers)
    return response


def key_of(exchange: Exchange) -> str:
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
