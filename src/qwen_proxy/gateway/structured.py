"""An Upstream with formats of output around one without: JSON is demanded in the prompt, and checked.

The answer is held whole (heartbeats go on), repaired and checked; one that is not what was demanded is asked for again,
once, and is an error then. With `streams` it goes out as it comes, which leaves nothing but the error.

A reply with calls of tools is none of these: its text passes as it is.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from msgspec import structs

from qwen_proxy.accounts.model import Credential
from qwen_proxy.chat.events import Batch, ChatEvent, Finish, FinishReason, TextDelta, ToolCallStart, Usage
from qwen_proxy.chat.models import Model
from qwen_proxy.chat.request import ChatRequest, OutputFormat
from qwen_proxy.gateway.verdict import INVALID_OUTPUT
from qwen_proxy.ground.errors import ReplyUnfit
from qwen_proxy.toolcalls.conversation import hinted, with_system
from qwen_proxy.toolcalls.output import JsonPrefix, OutputCheck, hint
from qwen_proxy.toolcalls.prompt import offered
from qwen_proxy.upstreams.base import Upstream


class StructuredOutput:
    """Fits `Upstream`. `streams` may be replaced at any time."""

    has_native_output: bool = True

    def __init__(self, inner: Upstream, *, streams: bool = False) -> None:
        self.streams = streams
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def has_native_tools(self) -> bool:
        return self._inner.has_native_tools

    @property
    def forwards_fields(self) -> bool:
        return self._inner.forwards_fields

    def check(self, request: ChatRequest) -> None:
        """Raises InvalidRequest, too, for a schema beyond all bounds."""
        self._inner.check(request if request.output is None else _told(request, OutputCheck(request.output)))

    async def models(self, credential: Credential | None, deadline: float) -> list[Model]:
        return await self._inner.models(credential, deadline)

    def open(
        self, request: ChatRequest, model: Model, credential: Credential, deadline: float
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        if request.output is None:
            return self._inner.open(request, model, credential, deadline)
        return self._checked(request, request.output, model, credential, deadline)

    @asynccontextmanager
    async def _checked(
        self, request: ChatRequest, output: OutputFormat, model: Model, credential: Credential, deadline: float
    ) -> AsyncGenerator[AsyncIterator[Batch]]:
        check = OutputCheck(output)
        async with self._inner.open(_told(request, check), model, credential, deadline) as reads:
            reply = _Streamed(check) if self.streams else _Held(check)
            async with aclosing(_through(reads, reply)) as batches:
                yield batches


async def _through(reads: AsyncIterator[Batch], reply: "_Held") -> AsyncGenerator[Batch]:
    async for read in reads:
        if batch := reply.take(read):
            yield batch


def _told(request: ChatRequest, check: OutputCheck) -> ChatRequest:
    demand = check.instruction(has_tools=bool(offered(request)))
    return hinted(structs.replace(with_system(request, demand), output=None))


class _Held:
    """One reply, its text held to the end."""

    def __init__(self, check: OutputCheck) -> None:
        self._check = check
        self._text: list[str] = []
        self._usage: Usage | None = None
        self._calls = False

    def take(self, read: Batch) -> Batch:
        """What may go out. Raises ReplyUnfit for a whole answer that is not what was demanded."""
        batch: Batch = []
        for event in read:
            batch += self._one(event)
        return batch

    def _one(self, event: ChatEvent) -> Batch:
        if isinstance(event, TextDelta) and not self._calls:
            return self._said(event.text)
        if isinstance(event, ToolCallStart):
            held = self._as_it_is()
            self._calls = True
            return [*held, event]
        if isinstance(event, Usage):
            self._usage = event
            return []
        if isinstance(event, Finish):
            end: Batch = [event] if self._usage is None else [self._usage, event]
            return [*self._ended(event), *end]
        return [event]

    def _said(self, text: str) -> Batch:
        self._text.append(text)
        return []

    def _as_it_is(self) -> Batch:
        text = "".join(self._text)
        self._text = []
        return [TextDelta(text)] if text else []

    def _ended(self, finish: Finish) -> Batch:
        """An answer that was cut off is told as such: its reason says that it is no whole JSON."""
        if self._calls:
            return []
        if finish.reason is not FinishReason.STOP:
            return self._as_it_is()
        return [TextDelta(self._fitted())]

    def _fitted(self) -> str:
        fitted = self._check.fit("".join(self._text))
        if fitted.errors:
            raise ReplyUnfit(INVALID_OUTPUT, "it is not the JSON that was demanded", hint(fitted.errors))
        return fitted.text


class _Streamed(_Held):
    """One reply, its text going out as far as it is JSON."""

    def __init__(self, check: OutputCheck) -> None:
        super().__init__(check)
        self._prefix = JsonPrefix()

    def _said(self, text: str) -> Batch:
        passed = self._prefix.feed(text)
        self._text.append(passed)
        return [TextDelta(passed)] if passed else []

    def _as_it_is(self) -> Batch:
        return []  # it has gone out already

    def _ended(self, finish: Finish) -> Batch:
        if finish.reason is FinishReason.STOP and not self._calls and self._fitted() != "".join(self._text).strip():
            raise ReplyUnfit(INVALID_OUTPUT, "it is not the JSON that was demanded")  # repaired, but what is out is out
        return []
