"""A response that is made for a client that waits for it, and stored at its end, however that comes.

| end | what is stored |
|---|---|
| whole | the response; a client is told of its end when it is stored |
| a failure that is told in the stream | the response as failed |
| a failure that is told by a status | nothing: the client has no id of it |
| the client leaves its stream | what had come, as cancelled |
"""

from collections.abc import Sequence
from typing import Final

from qwen_proxy.api.stored_responses import Found, KeptResponse, StoredResponses
from qwen_proxy.chat.events import Usage
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import ChatResult
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.protocols.base import ReplyFacts
from qwen_proxy.protocols.openai_responses import ResponsesCall
from qwen_proxy.protocols.openai_responses_body import Asked
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder, replayed
from qwen_proxy.protocols.openai_responses_kept import input_items
from qwen_proxy.protocols.openai_responses_output import response_id
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.serving.endpoint import Exchange


class Recording:
    """tasks: for what is written when the client has left."""

    def __init__(
        self, kept: StoredResponses, tasks: Tasks, exchange: Exchange, key_id: str, wanted: Asked, found: Found
    ) -> None:
        self._kept = kept
        self._tasks = tasks
        self._exchange = exchange
        self._key_id = key_id
        self._wanted = wanted
        self._found = found
        self._encoder: ResponseEncoder | None = None
        self._facts: ReplyFacts | None = None

    def made(self, encoder: ResponseEncoder, facts: ReplyFacts) -> None:
        """With this the reply is written."""
        self._encoder = encoder
        self._facts = facts

    async def keep(self) -> None:
        """Raises StoreUnavailable: who wants a response to be stored is not told that it is when it is not."""
        encoder, facts = self._encoder, self._facts
        if encoder is None or facts is None:
            return
        document = KeptResponse(
            key_id=self._key_id,
            response=encoder.last,
            input=input_items(self._wanted.kept, facts.reply_id, self._found.raw),
            previous=self._wanted.body.previous_response_id or "",
        )
        await self._kept.keep(response_id(facts.reply_id), document)

    def left(self) -> None:
        """The client has gone, which may have the id: what had come is kept, and says so. This task is at its end."""
        stream = self._exchange.stream
        if self._encoder is not None and stream is not None and stream.headers_sent:
            if not self._encoder.is_over:
                self._encoder.cancel()
            self._tasks.spawn(self.keep(), name="response of a client that has left")

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


class RecordedCall:
    """A call whose reply is recorded; fits `protocols.base.Call`."""

    def __init__(self, inner: ResponsesCall, recording: Recording) -> None:
        self._inner = inner
        self._recording = recording
        self.request: Final[ChatRequest] = inner.request
        self.stream: Final[bool] = inner.stream
        self.choices: Final[int] = inner.choices
        self.ignored_fields: Final[tuple[str, ...]] = inner.ignored_fields
        self.needs_prompt_tokens: Final[bool] = inner.needs_prompt_tokens
        self.session: Final[str] = inner.session

    def encoder(self, facts: ReplyFacts, index: int) -> ResponseEncoder:
        encoder = self._inner.encoder(facts, index)
        self._recording.made(encoder, facts)
        return encoder

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        return self._inner.trailer(facts, usage)

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        encoder = self.encoder(facts, 0)
        encoder.encode(replayed(results[0]))
        return encoder.last
