"""Tool calls as a server streams them, in the one order that chat/grammar.py allows: one call after the other. Pure.

| what comes | is |
|---|---|
| an index (without indices: an id) that was not there before; a known index with another id and a name | a new call |
| a known index; neither index, id nor name | more arguments of that call, or of the latest |

The first call streams as it comes. What comes behind it streams when the arguments before are whole JSON; until then
it is kept, since a server may go back and forth between its calls. Nothing is kept beyond the end.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from qwen_proxy.chat.events import Batch, ChatEvent, ToolArgumentsDelta, ToolCallStart
from qwen_proxy.ground.errors import UpstreamProtocolError
from qwen_proxy.upstreams.openai_api.wire import CallBody, FunctionBody

MOST_CALLS: Final = 1024

_parse: Final = msgspec.json.Decoder(msgspec.Raw).decode


class _Call:
    __slots__ = ("arguments", "id", "is_closed", "name", "waiting")

    def __init__(self, id: str) -> None:
        self.id = id
        self.name = ""
        self.arguments: list[str] = []
        self.waiting: list[str] = []  # of the arguments, what was not handed on yet
        self.is_closed = False

    @property
    def is_whole(self) -> bool:
        """Whether nothing can follow: asked only where something else wants its turn."""
        last = next((piece for piece in reversed(self.arguments) if piece.strip()), "")
        if not last.rstrip().endswith(("}", "]")):
            return False
        try:
            _parse("".join(self.arguments))
        except msgspec.DecodeError:
            return False
        return True


class CallStream:
    """`take` the calls of each delta, `put` every other event, `finish` at the end: each adds events to a batch.

    `take` raises UpstreamProtocolError for what fits no call."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._open: _Call | None = None
        self._behind: list[_Call | ChatEvent] = []  # what has to wait for the open call

    def take(self, bodies: list[CallBody], batch: Batch) -> None:
        for body in bodies:
            call = self._call_of(body)
            function = body.function or FunctionBody()
            call.name = call.name or function.name or ""
            arguments = _text(function.arguments)
            if call.is_closed and arguments.strip():
                raise UpstreamProtocolError("arguments of a tool call behind their end")
            if arguments:
                call.arguments.append(arguments)
                call.waiting.append(arguments)
            if call is self._open:
                self._flush(call, batch)
            if self._open is None or self._behind:
                self._go_on(batch)

    def put(self, event: ChatEvent, batch: Batch) -> None:
        """An event that is no call's: it has its turn at once unless a call is in the middle of its arguments."""
        if self._open is None and not self._behind:
            batch.append(event)
            return
        self._behind.append(event)
        self._go_on(batch)

    def finish(self, batch: Batch) -> None:
        """Hand on whatever is kept. Raises UpstreamProtocolError for a call that never had a name."""
        while self._open is not None or self._behind:
            self._close(batch)
            self._go_on(batch)
            if self._open is None and self._behind:
                raise UpstreamProtocolError("a tool call without a name")

    def _call_of(self, body: CallBody) -> _Call:
        is_named = body.function is not None and bool(body.function.name)
        if body.index is not None:
            found = self._by_index.get(body.index)
            is_another = found is not None and bool(body.id) and is_named and body.id != found.id
        else:
            found = self._by_id.get(body.id) if body.id else None if is_named or not self._calls else self._calls[-1]
            is_another = False
        return self._new(body) if found is None or is_another else found

    def _new(self, body: CallBody) -> _Call:
        if len(self._calls) == MOST_CALLS:
            raise UpstreamProtocolError(f"more than {MOST_CALLS} tool calls")
        call = _Call(body.id if body.id and body.id not in self._by_id else self._new_id())
        self._calls.append(call)
        if body.index is not None:
            self._by_index[body.index] = call
        self._by_id[call.id] = call
        self._behind.append(call)
        return call

    def _go_on(self, batch: Batch) -> None:
        """What waits has its turn as far as it can."""
        while self._behind:
            if self._open is not None:
                if not self._open.is_whole:
                    return
                self._close(batch)
            first = self._behind[0]
            if isinstance(first, _Call):
                if not first.name:
                    return
                self._open = first
                batch.append(ToolCallStart(first.id, first.name))
                self._flush(first, batch)
            else:
                batch.append(first)
            del self._behind[0]

    def _close(self, batch: Batch) -> None:
        call, self._open = self._open, None
        if call is not None:
            call.is_closed = True
            if not call.arguments:  # as OpenAI has it for a function without parameters
                batch.append(ToolArgumentsDelta("{}"))

    def _flush(self, call: _Call, batch: Batch) -> None:
        if call.waiting:
            batch.append(ToolArgumentsDelta("".join(call.waiting)))
            call.waiting.clear()


def _text(arguments: str | dict[str, object] | None) -> str:
    if isinstance(arguments, dict):
        return msgspec.json.encode(arguments).decode()
    return arguments or ""
