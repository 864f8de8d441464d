"""Calls out of a reply's text, for the client as events. Pure.

| state   | text goes to                         | until                                                        |
|---------|--------------------------------------|--------------------------------------------------------------|
| text    | the arbiter, and what it lets pass   | it says that a call begins                                   |
| taught  | readers/inline_ends.py, arguments.py | the end marker; streamed once it is committed                |
| foreign | another reader, which holds it all   | it has calls, or it is text after all                        |
| done    | nowhere                              | a result was invented, too many calls, or one was all wanted |

Behind the first call only further calls count; other text is dropped.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from qwen_proxy.chat.events import (
    Batch,
    Finish,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from qwen_proxy.chat.request import Tool
from qwen_proxy.toolcalls.arbiter import Arbiter, Begun, Kind
from qwen_proxy.toolcalls.arguments import TaughtCall
from qwen_proxy.toolcalls.form import Form
from qwen_proxy.toolcalls.markers import Markers
from qwen_proxy.toolcalls.outgoing import MAX_CALLS, Outgoing, ReadingOptions
from qwen_proxy.toolcalls.prepare import Prepared, from_pairs, from_value
from qwen_proxy.toolcalls.readers.bare_json import BareReader
from qwen_proxy.toolcalls.readers.base import MAX_CALL_CHARACTERS, CallsRead, NotACall, Outcome, Reader
from qwen_proxy.toolcalls.readers.bracket import BracketReader
from qwen_proxy.toolcalls.readers.fenced import FencedReader
from qwen_proxy.toolcalls.readers.inline_ends import InlineEnds
from qwen_proxy.toolcalls.readers.loose import read_loosely
from qwen_proxy.toolcalls.readers.tags import FunctionReader, InvokeReader
from qwen_proxy.toolcalls.readers.taught import LOOSE
from qwen_proxy.toolcalls.readers.tool_call_tag import ToolCallTagReader
from qwen_proxy.toolcalls.repair import repaired
from qwen_proxy.toolcalls.report import InvalidCall, ReadingReport
from qwen_proxy.toolcalls.toolbox import OfferedTool, Toolbox
from qwen_proxy.toolcalls.values import Joiner, NotJson

MAX_FAILED_READINGS: Final = 32  # foreign openings that were text; each costs one pass over what follows
TAUGHT: Final = "taught"
NATIVE: Final = "native"
NEAR_NONCE: Final = "near_nonce"
FENCE: Final = "fence"
SWALLOWED: Final = "opening_swallowed"
_READERS: Final = {
    "tool_call": ToolCallTagReader,
    "function": FunctionReader,
    "invoke": InvokeReader,
    "bracket": BracketReader,
    "bare": BareReader,
}
FOREIGN_FORMS: Final = tuple(_READERS)
_CLOSINGS: Final = {
    "tool_call": ("</tool_call>",),
    "function": ("</tool_call>",),
    "invoke": ("</function_calls>", "</tool_call>"),
    "bracket": ("[/toolcall]", "[/tool_call]", "[/toolcalls]", "[/tool_calls]"),
}
_IN_THINKING: Final = ("<tool_call>", "<function=", "[TOOL CALL]")


class _Taught(NamedTuple):
    """A call of the taught form that is being read. tool: None if it is not offered, or not known yet."""

    reader: InlineEnds
    call: TaughtCall
    tool: OfferedTool | None
    name: str
    repairs: tuple[str, ...]
    line: str
    is_swallowed: bool


class _Native(NamedTuple):
    call_id: str
    name: str
    arguments: str


class CallReading:
    """One reply. Feed its batches in order, `finish` once behind the last; what to send comes back.

    `done`: nothing that follows will be sent, so the upstream need not be read further. `report` grows meanwhile.
    ids makes the identifiers of calls.
    """

    def __init__(
        self, toolbox: Toolbox, *, form: Form, nonce: str, options: ReadingOptions, ids: Callable[[], str]
    ) -> None:
        self.report = ReadingReport()
        self.done = False
        self._toolbox = toolbox
        self._options = options
        self._markers = Markers(form, nonce, toolbox.longest_name)
        self._openings: dict[str, str] = {
            opening: name
            for name, reader in _READERS.items()
            if name != "bare" and name not in options.forms_off
            for opening in reader.openings
        }
        self._arbiter = Arbiter(self._markers, toolbox, self._openings, bare="bare" not in options.forms_off)
        self._joiner = Joiner()
        self._taught: _Taught | None = None
        self._source: list[str] = []  # of the taught call, while it is not committed
        self._source_size = 0
        self._foreign: Reader | None = None
        self._failed_readings = 0
        self._native: _Native | None = None
        self._outgoing = Outgoing(self.report, options, ids)
        self._debris = ""
        self._form = ""
        self._thinking_tail = ""
        self._call_head = form.call[: form.call.index("{name}")].format(nonce=nonce)

    def feed(self, batch: Batch) -> Batch:
        for event in batch:
            if isinstance(event, TextDelta):
                if self._native is not None and event.text.strip():
                    self._end_native(ended=True)
                self._text(self._joiner.feed(event.text))
            elif isinstance(event, Usage | Finish):
                self._finish()
                self._outgoing.event(event)
            else:
                if isinstance(event, ReasoningDelta):
                    self._notice_in_thinking(event.text)
                self._outgoing.event(event)
        return self._taken()

    def snapshot(self, call_id: str, name: str, arguments: str) -> Batch:
        """What the upstream's own frames tell of a call so far: `arguments` is all of it up to now, not a piece.

        It is a call once something else follows, or the reply ends with it being whole.
        """
        before = self._native
        if before is not None and (before.call_id, before.name) != (call_id, name):
            self._end_native(ended=True)
        if NATIVE not in self._options.forms_off and not self.done:
            self._native = _Native(call_id, name, arguments)
        return self._taken()

    def intercept(self) -> None:
        """The platform itself spoke as a tool (`role: function`)."""
        self.report.intercepted += 1

    def finish(self) -> Batch:
        """The reply has ended: what is held is a call, or text, or told in the report."""
        self._finish()
        return self._taken()

    def _taken(self) -> Batch:
        self.report.intercepted += self._arbiter.intercepted
        self._arbiter.intercepted = 0
        return self._outgoing.take()

    # Text

    def _text(self, text: str) -> None:
        while text and not self.done:
            if self._taught is not None:
                text = self._read_taught(self._taught, text)
            elif self._foreign is not None:
                outcome = self._foreign.feed(text)
                text = "" if outcome is None else self._end_foreign(outcome)
            else:
                text = self._search(text)

    def _search(self, text: str, *, ended: bool = False) -> str:
        found = self._arbiter.feed(text, ended=ended)
        self._debris += found.debris
        self._outgoing.debris(found.debris)
        self._outgoing.text(found.text)
        if found.begun is None:
            return ""
        return self._begin(found.begun, found.rest)

    def _begin(self, begun: Begun, rest: str) -> str:
        if begun.kind is Kind.RESULT:
            self.report.result_invented = True
            self._stop()
            return ""
        if self.report.committed >= MAX_CALLS:
            self.report.runaway = True
            self._stop()
            return ""
        if begun.kind is Kind.FOREIGN:
            reader: Reader = _READERS[begun.form](self._toolbox, begun.opening)
            if begun.fence or begun.is_doubtful:
                reader = FencedReader(reader, begun.fence, (*self._openings, self._call_head, "```"))
            self._foreign = reader
            return rest
        self._begin_taught(begun)
        return rest

    def _stop(self) -> None:
        self.done = True

    # The taught form

    def _begin_taught(self, begun: Begun) -> None:
        opening = begun.taught
        found = self._toolbox.resolve(opening.name) if opening else None
        tool, renamed = found or (None, "")
        is_held = tool is None or tool.strict or tool.name in self._options.strict
        is_held |= opening is None or not opening.is_exact
        name = opening.name if opening else ""
        spelling = opening.spelling if opening else self._markers.nonce
        repairs = (renamed, FENCE if begun.fence else "", "" if opening is None or opening.is_exact else NEAR_NONCE)
        self._taught = _Taught(
            InlineEnds(self._markers, spelling),
            TaughtCall(
                tool or OfferedTool(Tool(name)),
                commit_characters=None if is_held else self._options.commit_characters,
            ),
            tool,
            name,
            tuple(reason for reason in repairs if reason),
            self._markers.form.call.format(nonce=spelling, name=name) + "\n" if opening else "",
            opening is None,
        )
        self._source, self._source_size = [], 0

    def _read_taught(self, taught: _Taught, text: str) -> str:
        was_committed = taught.call.committed
        sent = taught.call.feed(taught.reader.feed(text))
        if taught.call.committed:
            self._send_taught(taught, sent, was_committed)
        else:
            self._source.append(text)
            self._source_size += len(text)
        rest = taught.reader.rest
        is_too_long = not taught.call.committed and self._source_size - len(rest or "") > MAX_CALL_CHARACTERS
        if rest is not None and not is_too_long:
            return self._end_taught(taught, rest)
        if is_too_long:
            self._taught = None
            self._outgoing.invalid(taught.name, TAUGHT, ("it is too long",), taught.line + "".join(self._source))
            self._stop()
        return ""

    def _send_taught(self, taught: _Taught, sent: str, was_committed: bool) -> None:
        if not was_committed and taught.tool is not None:
            self._outgoing.commit(taught.tool, TAUGHT, taught.repairs)
            self._source = []
        if sent:
            self._outgoing.arguments(sent)

    def _end_taught(self, taught: _Taught, rest: str) -> str:
        self._taught = None
        call = taught.call
        if call.committed:
            self.report.cut |= call.cut
            self.report.repairs.update(call.repairs)
            if call.errors:
                invalid = InvalidCall(name=taught.name, form=TAUGHT, errors=tuple(call.errors), committed=True)
                self.report.invalid.append(invalid)
            self._outgoing.call_over()
        else:
            source = "".join(self._source)
            rest = self._end_held(taught, source[: len(source) - len(rest)], rest)
        return self._behind_call(TAUGHT, rest)

    def _end_held(self, taught: _Taught, source: str, rest: str) -> str:
        """A call that was held to its end: given whole if it is valid, as it stands or read loosely."""
        call, tool = taught.call, taught.tool
        repairs = (*taught.repairs, *call.repairs)
        if tool is not None and call.prepared is not None and not call.prepared.errors:
            self._outgoing.whole_call(tool, call.prepared, TAUGHT, repairs)
            return rest
        found = self._loosely(taught, source, is_cut=call.cut)
        if found is not None:
            tool, prepared, end = found
            repairs = (*repairs, SWALLOWED if taught.is_swallowed else LOOSE)
            self._outgoing.whole_call(tool, prepared, TAUGHT, tuple(dict.fromkeys(repairs)))
            return source[end:] + rest if end >= 0 else rest
        errors = call.prepared.errors if call.prepared and tool is not None else ()
        if call.cut:
            self.report.cut = True
            errors = ("it was cut off",)
        elif tool is None:
            errors = (f"there is no tool `{taught.name}`" if taught.name else "no line names its tool",)
        self._outgoing.invalid(taught.name, TAUGHT, errors, taught.line + source)
        return rest

    def _loosely(self, taught: _Taught, source: str, *, is_cut: bool) -> tuple[OfferedTool, Prepared, int] | None:
        """The only tool whose call the text is, read loosely. A cut one needs an end marker at least."""
        if taught.tool is None and not taught.is_swallowed:
            return None
        fitting: list[tuple[OfferedTool, Prepared, int]] = []
        for tool in [taught.tool] if taught.tool else self._toolbox.tools.values():
            known = tool.parameters.__contains__
            pairs, end = read_loosely(self._markers, source, bool if taught.is_swallowed else known)
            if (end < 0 and is_cut) or not pairs or not all(known(name) for name, _ in pairs):
                continue
            prepared = from_pairs(tool, pairs)
            if not prepared.errors:
                fitting.append((tool, prepared, end))
        return fitting[0] if len(fitting) == 1 else None

    def _count_debris(self) -> None:
        """Of what stood behind a call, all but its own closing mark is debris."""
        left = "".join(self._debris.split()).lower()
        if left and left not in _CLOSINGS.get(self._form, ()):
            self.report.dropped["debris"] += 1
        self._debris = ""

    def _behind_call(self, form: str, rest: str) -> str:
        self._count_debris()
        self._form = form
        self._arbiter.resume()
        self._outgoing.prose_over()
        self.done |= self.report.runaway
        if self.report.committed and self._options.stop_after_first:
            self._stop()
        return rest

    # Foreign forms

    def _end_foreign(self, outcome: Outcome) -> str:
        self._foreign = None
        if isinstance(outcome, NotACall):
            self._failed_readings += 1
            if self._failed_readings == MAX_FAILED_READINGS:
                self._openings.clear()
                self.report.dropped["too_many_readings"] += 1
            self._outgoing.text(self._arbiter.skip(outcome.text, outcome.opaque))
            return outcome.text[outcome.opaque :]
        return self._foreign_calls(outcome)

    def _foreign_calls(self, found: CallsRead) -> str:
        for call in found.calls:
            if call.prepared.errors:
                self._outgoing.invalid(call.tool.name, found.form, call.prepared.errors, found.text)
                continue
            if self.report.committed >= MAX_CALLS:
                self.report.runaway = True
                self._stop()
            if not self.done:
                self._outgoing.whole_call(call.tool, call.prepared, found.form)
            self.done |= self._options.stop_after_first
        self.report.cut |= found.cut
        return self._behind_call(found.form, found.rest)

    # The upstream's own

    def _end_native(self, *, ended: bool) -> None:
        native, self._native = self._native, None
        if native is None or self.done or self._taught is not None or self._foreign is not None:
            return
        found = self._toolbox.resolve(native.name)
        if found is None:
            self.report.dropped["native_unknown"] += 1
            return
        self._search("", ended=True)
        tool, renamed = found
        try:
            prepared = from_value(tool, repaired(native.arguments or "{}", ended=ended))
        except NotJson as error:
            prepared = Prepared("", (), (str(error),))
            self.report.cut |= not ended
        if prepared.errors:
            self._outgoing.invalid(native.name, NATIVE, prepared.errors, "")
        elif self.report.committed >= MAX_CALLS:
            self.report.runaway = True
            self._stop()
        else:
            self._outgoing.whole_call(tool, prepared, NATIVE, (renamed,) if renamed else ())
        self._behind_call(NATIVE, "")

    def _notice_in_thinking(self, text: str) -> None:
        window = self._thinking_tail + text
        self._thinking_tail = window[-32:]
        if any(mark in window for mark in (self._call_head, *_IN_THINKING)):
            self.report.call_in_thinking = True

    # The end

    def _finish(self) -> None:
        self._text(self._joiner.finish())
        while not self.done:
            if self._taught is not None:
                self._finish_taught(self._taught)
            elif self._foreign is not None:
                self._text(self._end_foreign(self._foreign.finish()))
            else:
                self._text(self._search("", ended=True))
                if self._taught is None and self._foreign is None:
                    break
        self._end_native(ended=False)
        self._count_debris()
        self._outgoing.end()

    def _finish_taught(self, taught: _Taught) -> None:
        was_committed = taught.call.committed
        sent = taught.call.feed(taught.reader.finish())
        if taught.call.committed:
            self._send_taught(taught, sent, was_committed)
        self._text(self._end_taught(taught, taught.reader.rest or ""))
