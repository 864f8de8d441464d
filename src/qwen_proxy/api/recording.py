"""A response that is made for a client that waits for it, and stored, however it ends.

| what happens | what is stored |
|---|---|
| the first piece of its stream goes out, with its id | the response as in progress: beside, nobody waits for it |
| it ends | the response; a client is told of its end when it is stored |
| a failure that is told in the stream | the response as failed |
| a failure that is told by a status, or a client that leaves before it has the id | nothing |
| the client leaves its stream | what had come, as cancelled |
| its process is killed | nothing more: the keeper ends it as failed (`api.response_keeper`) |

One that is not streamed is written once, at its end. So is one whose stream is a single piece.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from msgspec import structs

from qwen_proxy.api.own_jobs import OwnJobs
from qwen_proxy.api.stored_responses import Found, KeptResponse, ResponseJob, StoredResponses
from qwen_proxy.chat.events import Batch, Finish, Usage
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import ChatResult
from qwen_proxy.ground.errors import ProxyError, StoreUnavailable
from qwen_proxy.protocols.base import EventEncoder, ReplyFacts
from qwen_proxy.protocols.openai_responses import ResponsesCall
from qwen_proxy.protocols.openai_responses_body import Asked
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder, replayed
from qwen_proxy.protocols.openai_responses_kept import input_items
from qwen_proxy.protocols.openai_responses_output import response_id
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.serving.endpoint import Exchange

log = logging.getLogger(__name__)


class Recording:
    """tasks: for what is written beside the stream, and when the client has left."""

    def __init__(
        self,
        kept: StoredResponses,
        own: OwnJobs,
        tasks: Tasks,
        exchange: Exchange,
        key_id: str,
        wanted: Asked,
        found: Found,
    ) -> None:
        self._kept = kept
        self._own = own
        self._tasks = tasks
        self._exchange = exchange
        self._key_id = key_id
        self._wanted = wanted
        self._found = found
        self._encoder: ResponseEncoder | None = None
        self._id = ""
        self._is_told = False
        self._beginning: asyncio.Task[None] | None = None
        self._was_begun = False
        self._document: KeptResponse | None = None
        self._written = b""

    def made(self, encoder: ResponseEncoder, facts: ReplyFacts) -> None:
        """With this the reply is written."""
        self._encoder = encoder
        self._id = response_id(facts.reply_id)

    def begin(self, *, is_whole: bool) -> None:
        """The client is about to have its id, or all of it."""
        self._is_told = True
        if not is_whole:
            assert self._encoder is not None
            self._own.begin(self._id)
            beginning = self._begin(self._encoder.last)
            self._beginning = self._tasks.spawn(beginning, name="beginning of a stored response")

    async def _begin(self, response: bytes) -> None:
        job = ResponseJob(owner=self._own.owner, request_id=self._exchange.request_id)
        try:
            await self._kept.begin(self._id, self._with(response), job)
            self._was_begun = True
        except StoreUnavailable as error:
            log.warning("beginning of a response not stored", extra={"id": self._id, "reason": str(error)})

    async def keep(self) -> None:
        """Raises StoreUnavailable: who wants a response to be stored is not told that it is when it is not."""
        if self._encoder is None or self._encoder.last is self._written:
            return
        response = self._encoder.last
        if self._beginning is None:
            await self._kept.keep(self._id, self._with(response))
        else:
            await self._finish(self._beginning, response)
        self._written = response

    async def _finish(self, beginning: asyncio.Task[None], response: bytes) -> None:
        is_known = False
        try:
            await asyncio.wait([beginning])
            await self._kept.finish(self._id, self._with(response), was_begun=self._was_begun)
            is_known = True
        finally:
            self._own.end(self._id, is_known=is_known)

    def left(self) -> None:
        """The client has gone, which may have the id: what had come is kept, and says so. This task is at its end."""
        if self._encoder is not None and self._is_told:
            self._tasks.spawn(self._keep_what_came(self._encoder), name="response of a client that has left")

    async def _keep_what_came(self, encoder: ResponseEncoder) -> None:
        if not encoder.is_over:  # else it was this process that wanted to end, and has told so
            encoder.cancel()
        try:
            await self.keep()
        except StoreUnavailable as error:
            log.warning("end of a response not stored", extra={"id": self._id, "reason": str(error)})

    async def failed(self, error: ProxyError) -> None:
        """Told in the stream, it is kept too; told by a status, the client has no id of it."""
        exchange = self._exchange
        if exchange.stream is None or exchange.tell is None or not exchange.stream.headers_sent:
            return
        told = exchange.tell(error)
        exchange.tell = lambda _: told
        try:
            await self.keep()
        except ProxyError:
            return  # it may be this very failure

    def _with(self, response: bytes) -> KeptResponse:
        if self._document is None:
            items = input_items(self._wanted.kept, self._id.removeprefix("resp_"), self._found.raw)
            previous = self._wanted.body.previous_response_id or ""
            self._document = KeptResponse(key_id=self._key_id, response=b"", input=items, previous=previous)
        return structs.replace(self._document, response=response)


class RecordedStream:
    """An encoder whose first piece begins a recording; fits `protocols.base.EventEncoder`."""

    def __init__(self, inner: ResponseEncoder, recording: Recording) -> None:
        self._inner = inner
        self._recording: Recording | None = recording

    def start(self) -> bytes:
        return self._inner.start()

    def encode(self, batch: Batch) -> bytes:
        piece = self._inner.encode(batch)
        if self._recording is not None:
            self._recording.begin(is_whole=isinstance(batch[-1], Finish))
            self._recording = None
        return piece

    def fail(self, error: ProxyError) -> bytes:
        return self._inner.fail(error)


class RecordedCall:
    """A call whose reply is recorded; fits `protocols.base.Call`."""

    def __init__(self, inner: ResponsesCall, recording: Recording) -> None:
        self._inner = inner
        self._recording = recording
        self.request: Final[ChatRequest] = inner.request
        self.further: Final[tuple[ChatRequest, ...]] = inner.further
        self.stream: Final[bool] = inner.stream
        self.choices: Final[int] = inner.choices
        self.ignored_fields: Final[tuple[str, ...]] = inner.ignored_fields
        self.needs_prompt_tokens: Final[bool] = inner.needs_prompt_tokens
        self.session: Final[str] = inner.session

    def encoder(self, facts: ReplyFacts, index: int) -> EventEncoder:
        return RecordedStream(self._made(facts), self._recording)

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        return self._inner.trailer(facts, usage)

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        encoder = self._made(facts)
        encoder.encode(replayed(results[0]))
        return encoder.last

    def _made(self, facts: ReplyFacts) -> ResponseEncoder:
        encoder = self._inner.encoder(facts, 0)
        self._recording.made(encoder, facts)
        return encoder
