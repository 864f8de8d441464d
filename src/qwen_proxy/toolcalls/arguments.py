"""A call of the taught form on its way to the client: held until it is sure enough, then streamed. Pure.

| state     | leaves it when                                                                        | for         |
|-----------|---------------------------------------------------------------------------------------|-------------|
| held      | it is complete                                                                        | given whole |
| held      | it has text of a value that may be streamed, what is complete is valid, and it either | committed   |
|           | lacks no other required parameter or is long                                          |             |
| committed | it ends; a value that is left open then is never closed                               | over        |

A tool that is strict is only ever told whole. What was sent is at any time a prefix of the final JSON.
"""

from typing import Final

from qwen_proxy.toolcalls.coercion import NULL
from qwen_proxy.toolcalls.prepare import Prepared, from_pairs, from_value, parameter_value, resolve_key
from qwen_proxy.toolcalls.readers.taught import CUT, ArgumentOpened, ArgumentText, CallEnded, TaughtEvent
from qwen_proxy.toolcalls.repair import repaired
from qwen_proxy.toolcalls.toolbox import OfferedTool
from qwen_proxy.toolcalls.values import DUPLICATE, NotJson, encode, escaped

COMMIT_CHARACTERS: Final = 8192
BODY: Final = "body"
_SELF_DELIMITING: Final = ('"', "}", "]", "e", "l")  # how a JSON value ends that can't go on: all but a number


class TaughtCall:
    """One call of one tool. Feed what its reader tells; what is to be sent comes back.

    committed: a part of it was sent, so that there is no way back. cut: it ended within a value, or before it was
    sure that nothing is missing. prepared: the whole of a call that ended uncommitted. commit_characters: how long it
    may be before it is committed with something missing; None holds it to its end.
    """

    def __init__(self, tool: OfferedTool, *, commit_characters: int | None) -> None:
        self.committed = False
        self.is_over = False
        self.cut = False
        self.prepared: Prepared | None = None
        self.repairs: list[str] = []
        self.errors: list[str] = []
        self._tool = tool
        self._commit_at = commit_characters
        self._body: list[str] = []
        self._pairs: list[tuple[str, str]] = []
        self._key: str | None = None  # as it was written
        self._value: list[str] = []
        self._held = 0
        self._is_sound = True
        self._seen: set[str] = set()
        self._left_out = 0  # of those, what is not sent
        self._is_streamable = False  # the open value may be sent before its end
        self._streams = False  # and is
        self._lacks_nothing = False  # once the open value is there, all that is required is
        self._sent = ""  # what of the arguments is to be sent next

    def feed(self, events: list[TaughtEvent]) -> str:
        """The JSON to send now, as far as the call is committed."""
        if self._streams and len(events) == 1 and isinstance(event := events[0], ArgumentText):
            return escaped(event.text)
        self._sent = ""
        for event in events:
            if isinstance(event, ArgumentText):
                self._text(event.text)
            elif isinstance(event, ArgumentOpened):
                self._close_value()
                self._open_value(event.name)
            else:
                self._end(event)
        return self._sent

    def _text(self, text: str) -> None:
        if self._streams:
            self._sent += escaped(text)
            return
        if self._key is None:
            self._body.append(text)
        else:
            self._value.append(text)
        if self.committed or self._commit_at is None:
            return
        self._held += len(text)
        if self._may_commit(self._commit_at):
            self._commit()

    def _may_commit(self, size: int) -> bool:
        is_sure = self._is_streamable and self._is_sound and not self._body
        return is_sure and (self._lacks_nothing or self._held >= size)

    def _completes(self, key: str) -> bool:
        """Whether with this parameter all is given that the schema asks for, and nothing that it does not name.

        Of a schema that says more than that, such as `anyOf`, only the whole can tell.
        """
        given = self._seen | {resolve_key(self._tool, key, self._seen)}
        return self._tool.is_plain and given.issuperset(self._tool.required) and given.issubset(self._tool.parameters)

    def _may_stream(self, key: str) -> bool:
        meant = resolve_key(self._tool, key, self._seen)
        return meant not in self._seen and meant in self._tool.parameters and self._tool.parameters[meant].streams

    def _commit(self) -> None:
        """Send what was held; the open value goes on."""
        self.committed = True
        self._sent = "{"
        pairs, self._pairs, self._seen = self._pairs, [], set()
        key, value = self._key or "", "".join(self._value)
        for name, text in pairs:
            self._member(name, text)
        self._stream_value(key)
        self._sent += escaped(value)

    def _open_value(self, key: str) -> None:
        self._key, self._value, self._streams = key, [], False
        self._is_streamable = self._may_stream(key)
        if not self.committed:
            self._lacks_nothing = self._is_streamable and self._completes(key)
        elif self._is_streamable:
            self._stream_value(key)

    def _stream_value(self, written: str) -> None:
        self._sent += self._separator() + encode(self._take_key(written)) + ':"'
        self._streams = True
        self._value = []

    def _separator(self) -> str:
        return "," if len(self._seen) > self._left_out else ""

    def _take_key(self, written: str) -> str:
        key = resolve_key(self._tool, written, self._seen)
        if key != written:
            self.repairs.append("key")
        self._seen.add(key)
        return key

    def _member(self, written: str, text: str) -> None:
        """Send a whole member."""
        key = resolve_key(self._tool, written, self._seen)
        if key in self._seen:
            self.repairs.append(DUPLICATE)
            return
        separator = self._separator()
        self._take_key(written)
        value = parameter_value(self._tool, key, text)
        if value.value is None and self._may_be_left_out(key):
            self._left_out += 1
            self.repairs.append(NULL)
            return
        self.repairs += value.repairs
        self.errors += self._tool.parameter_errors(key, value.value)
        self._sent += f"{separator}{encode(key)}:{value.text}"

    def _may_be_left_out(self, key: str) -> bool:
        parameter = self._tool.parameters.get(key)
        return parameter is not None and key not in self._tool.required and "null" not in parameter.types

    def _close_value(self) -> None:
        if self._key is None:
            return
        if self._streams:
            self._sent += '"'
        elif self.committed:
            self._member(self._key, "".join(self._value))
        else:
            self._keep(self._key, "".join(self._value))
        self._key, self._streams = None, False

    def _keep(self, written: str, text: str) -> None:
        self._pairs.append((written, text))
        key = resolve_key(self._tool, written, self._seen)
        self._seen.add(key)
        self._is_sound &= not self._tool.parameter_errors(key, parameter_value(self._tool, key, text).value)

    def _end(self, event: CallEnded) -> None:
        self.is_over = True
        if event.how == CUT and not self._is_whole(event.behind_line):
            self.cut = True
            return
        if event.how:
            self.repairs.append("missing_end" if event.how == CUT else event.how)
        self._close_value()
        if not self.committed:
            self.prepared = self._prepare()
            return
        self._sent += "}"
        self.errors += [f'"{name}" is a required property' for name in self._tool.required if name not in self._seen]

    def _is_whole(self, behind_line: bool) -> bool:
        """Of a call without its end marker: whether its last value is JSON that can't go on."""
        if self._streams:
            return False
        if self._key is None:
            text = "".join(self._body).strip()
            return text.endswith("}") or (not text and not self._tool.parameters)
        key = resolve_key(self._tool, self._key, self._seen)
        parameter = self._tool.parameters.get(key)
        written = "".join(self._value)
        text = written.strip()
        if parameter is None or "string" in parameter.types or not text:
            return False
        if not (behind_line or written.endswith("\n") or text.endswith(_SELF_DELIMITING)):
            return False
        try:
            value = repaired(text, ended=False).value
        except NotJson:
            return False
        return not self._tool.parameter_errors(key, value)

    def _prepare(self) -> Prepared:
        body = "".join(self._body)
        if self._pairs or not body.strip():
            return from_pairs(self._tool, self._pairs)
        try:
            decoded = repaired(body)
        except NotJson:
            decoded = None
        if decoded is not None and isinstance(decoded.value, dict):
            prepared = from_value(self._tool, decoded)
            if not prepared.errors:
                return prepared._replace(repairs=(BODY, *prepared.repairs))
        return self._from_bare_body(body)

    def _from_bare_body(self, body: str) -> Prepared:
        """A value without its parameter's name: the only one that has to be there, or that there is."""
        names = self._tool.required if len(self._tool.required) == 1 else tuple(self._tool.parameters)
        if len(names) != 1:
            return Prepared("{}", (), ("no line names a parameter",))
        prepared = from_pairs(self._tool, [(names[0], body)])
        return prepared._replace(repairs=(BODY, *prepared.repairs))
