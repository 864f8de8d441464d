"""chat.qwen.ai as an Upstream. Source: upstream protocol §2 to §4."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from types import TracebackType
from typing import Final, Self

from qwen_proxy.accounts.model import Credential
from qwen_proxy.accounts.report import exit_name
from qwen_proxy.chat.events import Batch
from qwen_proxy.chat.models import Model
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.transcript import render
from qwen_proxy.ground.errors import ExitError, ProxyError, ReplyCut, UpstreamFailed, UpstreamProtocolError
from qwen_proxy.upstreams.qwen_web.asking import (
    chat_type,
    check_size,
    encode_completion,
    encode_new_chat,
    features,
    refuse_attachments,
    surely_fits,
)
from qwen_proxy.upstreams.qwen_web.cleanup import ChatCleanup
from qwen_proxy.upstreams.qwen_web.codec import ReplyCodec
from qwen_proxy.upstreams.qwen_web.errors import classify_answer, classify_body, is_event_stream
from qwen_proxy.upstreams.qwen_web.listing import read_models
from qwen_proxy.upstreams.qwen_web.recorder import Exchange
from qwen_proxy.upstreams.qwen_web.site import Site
from qwen_proxy.upstreams.qwen_web.wire import loads, members, text
from qwen_proxy.upstreams.refusals import refuse_log_probabilities
from qwen_proxy.upstreams.transport import Response, Stream, read_all

log = logging.getLogger(__name__)

MODEL_PATHS: Final = ("/api/models", "/api/v2/models/")


class QwenWeb:
    """Fits `Upstream`. Enter it: it owns the clean-up of chats."""

    name: str = "qwen_web"
    has_native_tools: bool = False
    has_native_output: bool = False
    forwards_fields: bool = False

    def __init__(self, site: Site) -> None:
        self._site = site
        self.cleanup = ChatCleanup(site)

    async def __aenter__(self) -> Self:
        await self.cleanup.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cleanup.__aexit__(kind, error, trace)

    def check(self, request: ChatRequest) -> None:
        chat_type(request)
        refuse_attachments(request.messages)
        refuse_log_probabilities(request.sampling)
        if not surely_fits(request.messages, self._site.options.max_prompt_bytes):
            check_size(render(request.messages), self._site.options.max_prompt_bytes)

    def open(
        self, request: ChatRequest, model: Model, credential: Credential, deadline: float
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """A new chat, one completion in it, and the chat handed to the clean-up when the block is left."""
        return self._open(request, model, credential, deadline)

    async def models(self, credential: Credential | None, deadline: float) -> list[Model]:
        """Through the credential's exit, else through the first general one that is neither dead nor challenged.

        No proof of a token: an expired one passes (§1.4).
        """
        exits = self._site.general_exits() if credential is None else (credential.exit,)
        for exit in exits[:-1]:
            try:
                return await self._models(credential, exit, deadline)
            except ExitError as error:
                log.warning("model list not had", extra={"exit": exit_name(exit), "reason": str(error)})
        return await self._models(credential, exits[-1], deadline)

    async def _models(self, credential: Credential | None, exit: str, deadline: float) -> list[Model]:
        """Of the first endpoint that answers with a list (§2.1)."""
        failure: ProxyError | None = None
        for path in MODEL_PATHS:
            response = await self._site.call(
                "GET",
                path,
                page="/",
                credential=credential,
                exit=exit,
                timeout_seconds=self._within(self._site.options.models_seconds, deadline),
            )
            failure = self._failure(response, "") or failure
            found = read_models(response.body) if self._site.status(response) == 200 else None
            if found:
                return found
        raise failure or UpstreamProtocolError("no list of models")

    async def capture(self, request: ChatRequest, model: Model, credential: Credential, deadline: float) -> Exchange:
        """The same exchange undecoded, for a recording; what came before a cut is kept."""
        chunks: list[bytes] = []
        chat_id, body = await self._prepare(request, model, credential, deadline)
        try:
            async with self._site.complete(credential, chat_id, body, deadline) as stream:
                try:
                    while chunk := await stream.read():
                        chunks.append(chunk)
                except ReplyCut:
                    log.info("the captured reply was cut")
                cookies = "" if credential.cookies is None else credential.cookies.reveal()
                values = (pair.partition("=")[2].strip() for pair in cookies.split(";"))
                return Exchange(
                    status=stream.status,
                    headers=tuple(stream.headers.items()),
                    chunks=tuple(chunks),
                    secrets=(credential.token.reveal(), credential.account_id, *values),
                )
        finally:
            self.cleanup.hand_over(credential, chat_id)

    @asynccontextmanager
    async def _open(
        self, request: ChatRequest, model: Model, credential: Credential, deadline: float
    ) -> AsyncGenerator[AsyncIterator[Batch]]:
        chat_id, body = await self._prepare(request, model, credential, deadline)
        try:
            async with self._site.complete(credential, chat_id, body, deadline) as stream:
                codec = ReplyCodec(self._site.drift, model=model.id, tools=request.taught)
                async with aclosing(self._batches(stream, codec, model.id)) as batches:
                    yield batches
                if codec.finished and not stream.at_end:
                    await self._drain(stream)
        finally:
            self.cleanup.hand_over(credential, chat_id)

    async def _prepare(
        self, request: ChatRequest, model: Model, credential: Credential, deadline: float
    ) -> tuple[str, bytes]:
        """A new chat, whose id is to be handed to the clean-up, and the body of the completion in it."""
        prompt = render(request.messages)
        check_size(prompt, self._site.options.max_prompt_bytes)
        mode = chat_type(request)
        chat_id = await self._new_chat(model.id, mode, credential, deadline)
        return chat_id, encode_completion(
            prompt,
            model_id=model.id,
            mode=mode,
            gear=features(request, model),
            chat_id=chat_id,
            ids=(self._site.ids.uuid(), self._site.ids.uuid()),
            now=self._site.clock.now(),
        )

    async def _new_chat(self, model_id: str, mode: str, credential: Credential, deadline: float) -> str:
        response = await self._site.call(
            "POST",
            "/api/v2/chats/new",
            page="/c/new-chat",
            credential=credential,
            body=encode_new_chat(model_id, mode, self._site.clock.now()),
            timeout_seconds=self._within(self._site.options.new_chat_seconds, deadline),
        )
        answer = members(_json(response.body))
        if answer.get("success") is not True and (failure := self._failure(response, model_id)) is not None:
            raise failure
        if not response.body.strip():
            raise UpstreamFailed("empty_body")
        chat_id = text(members(answer.get("data")).get("id"))
        if not chat_id.replace("-", "").isalnum() or not chat_id.isascii():
            raise UpstreamProtocolError("a new chat without an id")
        return chat_id

    async def _batches(self, stream: Stream, codec: ReplyCodec, model_id: str) -> AsyncGenerator[Batch]:
        chunk = await self._first_chunk(stream, model_id)
        is_clean = True
        try:
            while chunk:
                batch = codec.feed(chunk)
                if batch:
                    yield batch
                if codec.failure is not None:
                    raise codec.failure
                if codec.finished:
                    return
                chunk = await stream.read()
        except ReplyCut:  # what came may still tell why, or hold a whole answer of another candidate
            is_clean = False
        yield codec.finish(is_clean=is_clean)
        if codec.failure is not None:
            raise codec.failure

    async def _first_chunk(self, stream: Stream, model_id: str) -> bytes:
        """Look before anything is believed (§4.7): raises what a body that is no stream of events tells."""
        self._site.look_at(stream.headers, "headers of a completion")
        status = self._site.status(stream)
        first = await stream.read()
        if is_event_stream(status, stream.headers.get("Content-Type", ""), first):
            return first
        body = first + (await read_all(stream) if first else b"")
        raise classify_answer(status, body, model_id, self._site.drift)

    async def _drain(self, stream: Stream) -> None:
        """The end is near: take it, so that the connection can be used again. What comes late is given up."""
        try:
            async with asyncio.timeout(self._site.options.drain_seconds):
                while await stream.read():
                    pass
        except (TimeoutError, ProxyError):
            return

    def _failure(self, response: Response, model_id: str) -> ProxyError | None:
        return classify_body(self._site.status(response), response.body, model_id, self._site.drift)

    def _within(self, seconds: float, deadline: float) -> float:
        return max(0.0, min(seconds, deadline - self._site.clock.monotonic()))


def _json(body: bytes) -> object:
    try:
        return loads(body)
    except ValueError:
        return None
