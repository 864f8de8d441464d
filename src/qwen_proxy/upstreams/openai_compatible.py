"""Any server that speaks OpenAI's chat completions, as an Upstream.

Source: upstream protocol §8.5 to §8.7, and `openai_api`, which reads and writes the protocol.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from qwen_proxy.accounts.model import Credential
from qwen_proxy.chat.events import Batch
from qwen_proxy.chat.models import Model
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.ground.errors import ProxyError, ReplyCut, UpstreamProtocolError
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.upstreams.base import ApiOptions
from qwen_proxy.upstreams.openai_api import asking
from qwen_proxy.upstreams.openai_api.asking import encode_chat
from qwen_proxy.upstreams.openai_api.errors import Told, classify, classify_answer
from qwen_proxy.upstreams.openai_api.listing import named, read_models
from qwen_proxy.upstreams.openai_api.reply import ReplyReader, is_stream
from qwen_proxy.upstreams.transport import Asking, Response, Stream, Transport, read_all

CALL_ID_DIGITS: Final = 24
MOST_KEPT: Final = 64  # credentials at a time


class OpenAICompatible:
    """Fits `Upstream`. The credential's token is the API key; an empty one is not sent, as local servers have it."""

    has_native_tools: bool = True
    has_native_output: bool = True
    forwards_fields: bool = True

    def __init__(self, transport: Transport, options: ApiOptions, *, clock: Clock, ids: Ids) -> None:
        self.name = options.name
        self._transport = transport
        self._options = options
        self._clock = clock
        self._ids = ids
        self._usual_chat_url = options.url("/chat/completions")
        self._kept: dict[str, _Kept] = {}
        self._own_headers = {name.lower(): value for name, value in options.headers}

    def check(self, request: ChatRequest) -> None:
        asking.check(request, self._options.thinking)

    def open(
        self, request: ChatRequest, model: Model, credential: Credential, deadline: float
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """One request; leaving the block closes its connection, which ends the generation."""
        asking, body = self._asking(credential), self._body(request, model)
        reader = ReplyReader(model.id, self._call_id, self._judge)
        return _Reply(self._transport, asking, body, deadline, reader, self._options.drain_seconds)

    async def models(self, credential: Credential | None, deadline: float) -> list[Model]:
        return named(self._options.models) if self._options.models else await self.listed(credential, deadline)

    async def listed(self, credential: Credential | None, deadline: float) -> list[Model]:
        """What the server lists, whatever is configured: also a proof of its address, and of the key where the list
        wants one. Raises as `models` does."""
        response = await self._transport.request(
            self._options.exit if credential is None else credential.exit,
            "GET",
            self._options.url("/models"),
            headers=self._headers(credential, "application/json"),
            timeout_seconds=max(0.0, min(self._options.models_seconds, deadline - self._clock.monotonic())),
        )
        found = read_models(response.body) if response.status == 200 else None
        if found is not None:
            return found
        if response.status in (404, 405, 501) and self._options.usual_models:
            return named(self._options.usual_models)
        raise self._no_list(response)

    # what an upstream with ways of its own tells otherwise

    def _body(self, request: ChatRequest, model: Model) -> bytes:
        return encode_chat(request, model, self._options.thinking)

    def _chat_url(self, credential: Credential) -> str:
        return self._usual_chat_url

    def _judge(self, told: Told | None, model_id: str) -> ProxyError:
        """What an error object means, before a reply or inside it."""
        return classify(told, model_id)

    def _headers(self, credential: Credential | None, accept: str) -> dict[str, str]:
        headers = {"accept": accept, "content-type": "application/json"}
        if credential is not None and credential.token:
            headers["authorization"] = f"Bearer {credential.token.reveal()}"
        return headers | self._own_headers

    def _asking(self, credential: Credential) -> Asking:
        """But for its body a question is the same each time, as long as the credential and its address are."""
        url = self._chat_url(credential)
        kept = self._kept.get(credential.account_id)
        if kept is not None and kept.credential is credential and kept.url == url:
            return kept.asking
        headers = self._headers(credential, "text/event-stream")
        asking = self._transport.asking(credential.exit, "POST", url, headers)
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[credential.account_id] = _Kept(credential, url, asking)
        return asking

    def _no_list(self, response: Response) -> ProxyError:
        if response.status == 200:
            return UpstreamProtocolError("no list of models at its address: is the base URL right?")
        retry_after = response.headers.get("Retry-After")
        return classify_answer(response.status, response.body, "", retry_after, self._judge)

    def _call_id(self) -> str:
        return f"call_{self._ids.token(CALL_ID_DIGITS)}"


class _Kept(Struct, frozen=True, eq=False):
    credential: Credential
    url: str
    asking: Asking


class _Reply:
    """A request's block, and its batches. No generators: each costs a request more than it costs to read one event."""

    __slots__ = ("_asking", "_body", "_deadline", "_drain_seconds", "_has_begun", "_reader", "_stream", "_transport")

    def __init__(
        self,
        transport: Transport,
        asking: Asking,
        body: bytes,
        deadline: float,
        reader: ReplyReader,
        drain_seconds: float,
    ) -> None:
        self._transport = transport
        self._asking = asking
        self._body = body
        self._deadline = deadline
        self._reader = reader
        self._drain_seconds = drain_seconds
        self._has_begun = False
        self._stream: Stream

    async def __aenter__(self) -> Self:
        self._stream = await self._transport.open(self._asking, self._body, self._deadline)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._reader.is_over and not self._stream.at_end:
                await self._drain()
        finally:
            self._transport.shut(self._stream)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        reader = self._reader
        while not reader.is_over:
            if not self._has_begun:
                batch = await self._first()
            else:
                try:
                    chunk = await self._stream.read()
                except ReplyCut:  # what came may be whole but for its end mark
                    batch = reader.finish(is_clean=False)
                else:
                    batch = reader.feed(chunk) if chunk else reader.finish()
            if batch:
                return batch
        if reader.failure is not None:
            raise reader.failure
        raise StopAsyncIteration

    async def _first(self) -> Batch:
        """The first read tells what the answer is."""
        self._has_begun = True
        stream, reader = self._stream, self._reader
        if stream.status != 200:
            raise reader.refused(stream.status, await read_all(stream), stream.headers.get("Retry-After"))
        chunk = await stream.read()
        if not chunk:
            return reader.finish()
        if is_stream(chunk):
            return reader.feed(chunk)
        batch = reader.whole(chunk + await read_all(stream))
        if reader.failure is not None:
            raise reader.failure
        return batch

    async def _drain(self) -> None:
        """The end is near: take it, so that the connection can be used again. What comes late is given up."""
        try:
            async with asyncio.timeout(self._drain_seconds):
                while await self._stream.read():
                    pass
        except (TimeoutError, ProxyError):
            return
