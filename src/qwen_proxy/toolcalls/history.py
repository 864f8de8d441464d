"""Earlier calls and their results as text, in the form that is taught, whatever they came as. Pure.

Calls are numbered over the conversation, and results carry the number of their call. Nothing is dropped in silence: a
result whose call is not there has the number 0 and says so, a call without a result gets one that says so.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.chat.request import (
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from qwen_proxy.toolcalls.encoding import encode_call, encode_result
from qwen_proxy.toolcalls.form import Form
from qwen_proxy.toolcalls.toolbox import Toolbox

RESULT_BYTES: Final = 24 * 1024
REPEATS_TOLD: Final = 2
NO_CALL: Final = "(The call of this result is not in the conversation.)"
NO_RESULT: Final = "(No result was given.)"
NO_IMAGE: Final = "(An image stood here. Images in results can't be shown to you.)"
TRIMMED: Final = "\n(... {count} bytes of this result are left out here ...)\n"
REPEATED: Final = (
    "The call #{number} {name} had the same arguments and gave the same result as #{before}. Do not make it once more: "
    "use the result, or do something else."
)


class History(Struct, frozen=True, kw_only=True):
    """`hint` tells of a call that was repeated in vain, empty where none was. The counts are for the trace."""

    messages: tuple[Message, ...]
    hint: str
    trimmed_results: int
    hidden_images: int
    unpaired: int


def retell(
    messages: Sequence[Message], form: Form, nonce: str, toolbox: Toolbox, *, result_bytes: int = RESULT_BYTES
) -> History:
    """The same conversation with text in the place of calls and results. A longer result is cut in its middle."""
    return _Teller(messages, form, nonce, toolbox, result_bytes).told()


class _Call(Struct):
    number: int
    name: str
    arguments: str
    turn: int
    result: str | None = None


class _Teller:
    def __init__(
        self, messages: Sequence[Message], form: Form, nonce: str, toolbox: Toolbox, result_bytes: int
    ) -> None:
        self._messages = messages
        self._form = form
        self._nonce = nonce
        self._toolbox = toolbox
        self._result_bytes = result_bytes
        self._calls: list[_Call] = []
        self._call_of: dict[int, _Call] = {}  # by the id() of the result, which the messages keep alive
        self._trimmed = 0
        self._images = 0
        self._orphans = 0

    def told(self) -> History:
        self._pair()
        told: list[Message] = []
        untold = deque(call for call in self._calls if call.result is None)
        unpaired = len(untold)
        for turn, message in enumerate(self._messages):
            parts = [self._part(part) for part in message.parts]
            if message.role is Role.USER:
                missing: list[Part] = []
                while untold and untold[0].turn < turn:
                    missing.append(TextPart(self._block(untold.popleft(), NO_RESULT, is_error=True)))
                parts = missing + parts
            _append(told, self._messages[:turn], message, tuple(parts))
        if untold:
            parts = tuple(TextPart(self._block(call, NO_RESULT, is_error=True)) for call in untold)
            told.append(Message(Role.USER, parts))
        return History(
            messages=tuple(told),
            hint=self._hint(),
            trimmed_results=self._trimmed,
            hidden_images=self._images,
            unpaired=unpaired + self._orphans,
        )

    def _pair(self) -> None:
        """Give every call its number, and every result the first call of its id that has none yet."""
        waiting: defaultdict[str, deque[_Call]] = defaultdict(deque)
        for turn, message in enumerate(self._messages):
            for part in message.parts:
                if isinstance(part, ToolCallPart):
                    call = _Call(len(self._calls) + 1, part.name, part.arguments, turn)
                    self._calls.append(call)
                    waiting[part.call_id].append(call)
                elif isinstance(part, ToolResultPart) and waiting[part.call_id]:
                    call = self._call_of[id(part)] = waiting[part.call_id].popleft()
                    call.result = "\n".join(inner.text for inner in part.parts if isinstance(inner, TextPart))

    def _part(self, part: Part) -> Part:
        if isinstance(part, ToolCallPart):
            return TextPart(encode_call(self._form, self._nonce, self._toolbox, part.name, part.arguments))
        if isinstance(part, ToolResultPart):
            return TextPart(self._result(part))
        return part

    def _result(self, part: ToolResultPart) -> str:
        call = self._call_of.get(id(part))
        content = "\n".join(self._inner(part))
        size_bytes = len(content.encode(errors="surrogatepass"))
        if size_bytes > self._result_bytes:
            self._trimmed += 1
            content = trimmed(content, size_bytes, self._result_bytes)
        if call is None:
            self._orphans += 1
            call = _Call(0, "unknown", "", 0)
            content = f"{NO_CALL}\n{content}"
        return self._block(call, content, is_error=part.is_error)

    def _inner(self, part: ToolResultPart) -> Iterator[str]:
        for inner in part.parts:
            if isinstance(inner, ImagePart):
                self._images += 1
                yield NO_IMAGE
            else:
                yield inner.text

    def _block(self, call: _Call, content: str, *, is_error: bool) -> str:
        return encode_result(self._form, self._nonce, call.number, call.name, content, is_error=is_error)

    def _hint(self) -> str:
        """Of the last turn's calls, one that gave before what it gives now; calls side by side are no repetition."""
        seen: Counter[tuple[str, str, str]] = Counter()
        first: dict[tuple[str, str, str], _Call] = {}
        last_turn = self._calls[-1].turn if self._calls else 0
        for call in self._calls:
            if call.result is None:
                continue
            key = (call.name, _canonical(call.arguments), call.result)
            before = first.setdefault(key, call)
            if before is call or before.turn != call.turn:
                seen[key] += 1
            if call.turn == last_turn and seen[key] >= REPEATS_TOLD:
                return REPEATED.format(number=call.number, name=call.name, before=before.number)
        return ""


def _append(told: list[Message], before: Sequence[Message], message: Message, parts: tuple[Part, ...]) -> None:
    """Results that came one a message are one turn of the user."""
    if told and before and _has_only_results(before[-1]) and _has_only_results(message):
        told[-1] = Message(Role.USER, told[-1].parts + parts)
    else:
        told.append(Message(message.role, parts))


def _has_only_results(message: Message) -> bool:
    return bool(message.parts) and all(isinstance(part, ToolResultPart) for part in message.parts)


def _canonical(arguments: str) -> str:
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments), order="deterministic").decode()
    except (msgspec.MsgspecError, RecursionError):
        return arguments


def trimmed(text: str, size_bytes: int, limit_bytes: int) -> str:
    """The beginning and the end of a text, with a note between; about `limit_bytes` together."""
    data = text.encode(errors="surrogatepass")
    head = data[: limit_bytes * 2 // 3].decode(errors="ignore")
    tail = data[size_bytes - limit_bytes // 3 :].decode(errors="ignore")
    return head + TRIMMED.format(count=size_bytes - len(head.encode()) - len(tail.encode())) + tail
