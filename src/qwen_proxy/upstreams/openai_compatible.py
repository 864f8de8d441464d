"""Any server that speaks OpenAI's chat completions, as an Upstream.

Source: upstream protocol §8.5 to §8.7, and `openai_api`, which reads and writes the protocol.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Final

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
from qwen_proxy.upstreams.transport import Response, Stream, Transport, read_all

CALL_ID_DIGITS: Final = 24


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
        self._own_headers = {name.lower(): value for name, value in options.headers}

    def check(self, request: ChatRequest) -> None:
        asking.check(request, self._options.thinking)

    def open(
        self, request: ChatRequest, model: Model, credential: Credential, deadline: float
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """One request; leaving the block closes its connection, which ends the generation."""
        return self._open(request, model, credential, deadline)

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

    @asynccontextmanager
    async def _open(
        self, request: ChatRequest, model: Model, credential: Credential, deadline: float
    ) -> AsyncGenerator[AsyncIterator[Batch]]:
        body = self._body(request, model)
        async with self._transport.stream(
            credential.exit,
            "POST",
            self._chat_url(credential),
            headers=self._headers(credential, "text/event-stream"),
            body=body,
            deadline=deadline,
        ) as stream:
            reader = ReplyReader(model.id, self._call_id, self._judge)
            async with aclosing(self._batches(stream, reader, model.id)) as batches:
                yield batches
            if reader.is_over and not stream.at_end:
                await self._drain(stream)

    async def _batches(self, stream: Stream, reader: ReplyReader, model_id: str) -> AsyncGenerator[Batch]:
        if stream.status != 200:
            retry_after = stream.headers.get("Retry-After")
            raise classify_answer(stream.status, await read_all(stream), model_id, retry_after, self._judge)
        chunk = await stream.read()
        if not is_stream(chunk):
            batch = reader.whole(chunk + await read_all(stream))
            if reader.failure is not None:
                raise reader.failure
            yield batch
            return
        is_clean = True
        try:
            while chunk:
                batch = reader.feed(chunk)
                if batch:
                    yield batch
                if reader.failure is not None:
                    raise reader.failure
                if reader.is_over:
                    return
                chunk = await stream.read()
        except ReplyCut:  # what came may be whole but for its end mark
            is_clean = False
        batch = reader.finish(is_clean=is_clean)
        if batch:
            yield batch
        if reader.failure is not None:
            raise reader.failure

    # what an upstream with ways of its own tells otherwise

    def _body(self, request: ChatRequest, model: Model) -> bytes:
        return encode_chat(request, model, self._options.thinking)

    def _chat_url(self, credential: Credential) -> str:
        return self._options.url("/chat/completions")

    def _judge(self, told: Told | None, model_id: str) -> ProxyError:
        """What an error object means, before a reply or inside it."""
        return classify(told, model_id)

    async def _drain(self, stream: Stream) -> None:
        """The end is near: take it, so that the connection can be used again. What comes late is given up."""
        try:
            async with asyncio.timeout(self._options.drain_seconds):
                while await stream.read():
                    pass
        except (TimeoutError, ProxyError):
            return

    def _headers(self, credential: Credential | None, accept: str) -> dict[str, str]:
        headers = {"accept": accept, "content-type": "application/json"}
        if credential is not None and credential.token:
            headers["authorization"] = f"Bearer {credential.token.reveal()}"
        return headers | self._own_headers

    def _no_list(self, response: Response) -> ProxyError:
        if response.status == 200:
            return UpstreamProtocolError("no list of models at its address: is the base URL right?")
        retry_after = response.headers.get("Retry-After")
        return classify_answer(response.status, response.body, "", retry_after, self._judge)

    def _call_id(self) -> str:
        return f"call_{self._ids.token(CALL_ID_DIGITS)}"
