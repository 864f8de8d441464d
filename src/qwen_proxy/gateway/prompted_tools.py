"""An Upstream with tools around one without: what it is asked tells of them, and calls are read out of what it says.

A reply that is unfit ends with ReplyHeld instead of its Finish: see gateway/verdict.py for what is, and what follows.
"""

import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Final, Self

import msgspec
from msgspec import Struct

from qwen_proxy.accounts.model import Credential
from qwen_proxy.chat.events import (
    Batch,
    Finish,
    FinishReason,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
)
from qwen_proxy.chat.models import Model
from qwen_proxy.chat.request import ChatRequest, Tool, ToolChoiceKind
from qwen_proxy.gateway.verdict import ReplyHeld, unfit
from qwen_proxy.ground.errors import ReplyEmpty, ReplyUnfit
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.toolcalls.conversation import Compiled, Told, compile_tools, concerns_tools, hinted, tell
from qwen_proxy.toolcalls.form import MARKERS, Form
from qwen_proxy.toolcalls.history import RESULT_BYTES
from qwen_proxy.toolcalls.reading import CallReading, ReadingOptions
from qwen_proxy.toolcalls.report import ReadingReport
from qwen_proxy.upstreams.base import Upstream

log = logging.getLogger(__name__)

MAX_COMPILED: Final = 64  # lists of tools that are remembered; a coding agent has one or two
CALL_ID_DIGITS: Final = 24


class ToolOptions(Struct, frozen=True, kw_only=True):
    """forms_off: forms of calls that are not read (`toolcalls.reading.FOREIGN_FORMS`, `native`).

    result_bytes: longer results of tools are cut in their middle.
    """

    form: Form = MARKERS
    result_bytes: int = RESULT_BYTES
    forms_off: frozenset[str] = frozenset()


class PromptedTools:
    """Fits `Upstream`. `options` may be replaced at any time."""

    has_native_tools: bool = True

    def __init__(self, inner: Upstream, ids: Ids, options: ToolOptions | None = None) -> None:
        self.options = options or ToolOptions()
        self._inner = inner
        self._ids = ids
        self._compiled: dict[bytes, Compiled] = {}

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def has_native_output(self) -> bool:
        return self._inner.has_native_output

    @property
    def forwards_fields(self) -> bool:
        return self._inner.forwards_fields

    def check(self, request: ChatRequest) -> None:
        self._inner.check(self._told(request).request if concerns_tools(request) else hinted(request))

    async def models(self, credential: Credential | None, deadline: float) -> list[Model]:
        return await self._inner.models(credential, deadline)

    def open(
        self, request: ChatRequest, model: Model, credential: Credential, deadline: float
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Yields a ToolReply where tools may be called. Raises ReplyHeld, besides what the upstream raises."""
        if not concerns_tools(request):
            return self._inner.open(hinted(request), model, credential, deadline)
        told = self._told(request)
        if told.compiled is None:
            return self._inner.open(told.request, model, credential, deadline)
        return self._read(request, told, told.compiled, model, credential, deadline)

    @asynccontextmanager
    async def _read(
        self,
        request: ChatRequest,
        told: Told,
        compiled: Compiled,
        model: Model,
        credential: Credential,
        deadline: float,
    ) -> AsyncGenerator[AsyncIterator[Batch]]:
        options = ReadingOptions(
            stop_after_first=not request.parallel_tool_calls,
            withhold_text=request.tool_choice.kind is ToolChoiceKind.REQUIRED,
            forms_off=self.options.forms_off,
        )
        reading = CallReading(
            compiled.toolbox, form=self.options.form, nonce=told.nonce, options=options, ids=self._call_id
        )
        async with self._inner.open(told.request, model, credential, deadline) as reads:
            reply = ToolReply(reads, reading, request, told, compiled, self.options.form.id)
            async with aclosing(reply):
                yield reply

    def _call_id(self) -> str:
        return f"call_{self._ids.token(CALL_ID_DIGITS)}"

    def _told(self, request: ChatRequest) -> Told:
        options = self.options
        return tell(request, compiled=self._compile, form=options.form, result_bytes=options.result_bytes)

    def _compile(self, tools: Sequence[Tool]) -> Compiled:
        """What was compiled before, if these tools were: agents send the same ones with every request."""
        key = hashlib.sha256(msgspec.json.encode(tools)).digest()
        compiled = self._compiled.pop(key, None) or compile_tools(tools)
        if len(self._compiled) >= MAX_COMPILED:
            del self._compiled[next(iter(self._compiled))]
        self._compiled[key] = compiled  # the one used last stands last
        return compiled


class ToolReply:
    """One reply's batches, with calls as events. `told`, `compiled` and `report` are for the trace."""

    def __init__(
        self,
        reads: AsyncIterator[Batch],
        reading: CallReading,
        request: ChatRequest,
        told: Told,
        compiled: Compiled,
        form_id: str,
    ) -> None:
        self.told = told
        self.compiled = compiled
        self.form_id = form_id
        self._reads = reads
        self._reading = reading
        self._request = request
        self._native: ToolCallStart | None = None
        self._arguments = ""
        self._said = False
        self._batches = self._read()

    @property
    def report(self) -> ReadingReport:
        return self._reading.report

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        return await anext(self._batches)

    async def aclose(self) -> None:
        await self._batches.aclose()

    async def _read(self) -> AsyncGenerator[Batch]:
        try:
            async for read in self._reads:
                batch = self._take(read)
                has_ended = bool(batch) and isinstance(batch[-1], Finish)
                if not has_ended and not self._reading.done:
                    if batch:
                        self._has_said(batch)
                        yield batch
                    continue
                if not has_ended:  # what else the upstream has to say is not waited for
                    batch += [*self._reading.finish(), Finish(FinishReason.STOP)]
                for part in self._ended(batch):
                    yield part
                return
        except (ReplyEmpty, ReplyUnfit) as error:
            for part in self._failed(error):
                yield part

    def _take(self, read: Batch) -> Batch:
        """A read with calls in the place of their text, and of those that came as events."""
        if not any(isinstance(event, ToolCallStart | ToolArgumentsDelta) for event in read):
            return self._reading.feed(read)
        taken: Batch = []
        for event in read:
            if isinstance(event, ToolCallStart):
                self._native, self._arguments = event, ""
            elif isinstance(event, ToolArgumentsDelta) and self._native is not None:
                self._arguments += event.text
                taken += self._reading.snapshot(self._native.call_id, self._native.name, self._arguments)
            else:
                taken += self._reading.feed([event])
        return taken

    def _ended(self, batch: Batch) -> Iterator[Batch]:
        """The last parts of a whole reply: with its Finish, or without if it is unfit. Raises ReplyHeld then."""
        said: Batch = [event for event in batch if not isinstance(event, Usage | Finish)]
        end: Batch = [event for event in batch if isinstance(event, Usage)]
        finish = batch[-1]
        assert isinstance(finish, Finish)
        problem = (
            None if finish.reason is FinishReason.CONTENT_FILTER else unfit(self.report, self._request.tool_choice)
        )
        if problem is None:
            yield [*said, *end, self._finish(finish)]
            return
        if said:
            yield said
        rest: Batch = [TextDelta(self.report.unsent)] if self.report.unsent else []
        is_enough = not self._wants_call and (rest or self._has_said(said))
        raise ReplyHeld(problem, [*rest, *end, finish] if is_enough else [])

    def _failed(self, error: ReplyEmpty | ReplyUnfit) -> Iterator[Batch]:
        """A reply that the upstream itself found wanting: with calls it is one, else it is unfit."""
        said = self._reading.finish()
        if self.report.committed:
            yield [*said, self._finish(Finish(FinishReason.STOP))]
            return
        if any(isinstance(event, TextDelta) and event.text.strip() for event in said):
            yield said
        if isinstance(error, ReplyUnfit):
            self._reading.intercept()
        problem = unfit(self.report, self._request.tool_choice)
        raise error if problem is None else ReplyHeld(problem, [])

    def _has_said(self, batch: Batch) -> bool:
        """Whether the client has some text, with this batch."""
        self._said = self._said or any(isinstance(event, TextDelta) for event in batch)
        return self._said

    @property
    def _wants_call(self) -> bool:
        return self._request.tool_choice.kind is ToolChoiceKind.REQUIRED

    def _finish(self, finish: Finish) -> Finish:
        if self.report.cut and self.report.committed:
            return Finish(FinishReason.LENGTH)
        if self.report.committed and finish.reason is FinishReason.STOP:
            return Finish(FinishReason.TOOL_CALLS)
        return finish
