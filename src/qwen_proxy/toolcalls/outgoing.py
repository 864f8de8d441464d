"""What a reading sends, in order: text until the first call, calls, and what has to wait. Pure.

| text comes                            | it is                                             |
|---------------------------------------|---------------------------------------------------|
| before a call                         | sent; held, with `withhold_text`, until one comes |
| as blanks before anything else        | held, and dropped if a call comes first           |
| behind an invalid call, without valid | kept, and told in the report                      |
| behind a call                         | dropped, counted once until the next              |
"""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from qwen_proxy.chat.events import Batch, ChatEvent, TextDelta, ToolArgumentsDelta, ToolCallStart
from qwen_proxy.toolcalls.arguments import COMMIT_CHARACTERS
from qwen_proxy.toolcalls.prepare import Prepared
from qwen_proxy.toolcalls.report import CallFacts, InvalidCall, ReadingReport
from qwen_proxy.toolcalls.toolbox import OfferedTool

MAX_CALLS: Final = 24


class ReadingOptions(Struct, frozen=True, kw_only=True):
    """stop_after_first: the client wants one call at most. withhold_text: no text before the first call is sent; it
    goes out before that call, or stays in the report.

    forms_off: of FOREIGN_FORMS and `native`, those that are not read. strict: names of tools whose calls are told
    whole, besides those that say so. invalid_as_text: what could not be made a call is given as text at the end,
    if there is no call at all; else it is in the report alone. commit_characters: how much of a call that still lacks
    something is held.
    """

    stop_after_first: bool = False
    withhold_text: bool = False
    forms_off: frozenset[str] = frozenset()
    strict: frozenset[str] = frozenset()
    invalid_as_text: bool = False
    commit_characters: int = COMMIT_CHARACTERS


class Outgoing:
    """Events to send; `take` empties it. The report is kept with it."""

    def __init__(self, report: ReadingReport, options: ReadingOptions, ids: Callable[[], str]) -> None:
        self._report = report
        self._options = options
        self._ids = ids
        self._batch: Batch = []
        self._is_open = False  # a call of which only a part was sent
        self._deferred: Batch = []  # what has to wait until it ends
        self._lead = ""  # blanks before anything else
        self._withheld: list[str] = []
        self._unsent: list[str] = []  # invalid calls and what stands behind them
        self._has_told_text = False
        self._is_in_prose = False

    def take(self) -> Batch:
        batch, self._batch = self._batch, []
        return batch

    def event(self, event: ChatEvent) -> None:
        """What is neither text nor a call of ours."""
        (self._deferred if self._is_open else self._batch).append(event)

    def text(self, text: str) -> None:
        if not text:
            return
        if self._unsent and not self._report.committed:
            self._unsent.append(text)
        elif self._report.committed:
            if text.strip() and not self._is_in_prose:
                self._is_in_prose = True
                self._report.dropped["prose"] += 1
        elif self._options.withhold_text:
            self._withheld.append(text)
        elif self._has_told_text or text.strip():
            self._tell(self._lead + text)
            self._lead = ""
        else:
            self._lead += text

    def prose_over(self) -> None:
        """Text that comes now stands behind another call than before."""
        self._is_in_prose = False

    def debris(self, text: str) -> None:
        """What a call left over: a part of it only if it is told as it was written."""
        if self._unsent and text:
            self._unsent.append(text)

    def commit(self, tool: OfferedTool, form: str, repairs: tuple[str, ...]) -> None:
        """Send the beginning of a call; from here on there is no way back."""
        report = self._report
        if not report.committed:
            if self._withheld:
                self._tell("".join(self._withheld))
            if self._unsent:
                report.dropped["invalid"] += len(report.invalid)
            self._withheld, self._unsent, self._lead = [], [], ""
        report.committed += 1
        call_id = self._ids()
        self._batch.append(ToolCallStart(call_id, tool.name))
        self._is_open = True
        report.calls.append(CallFacts(call_id=call_id, name=tool.name, form=form, repairs=repairs))
        report.repairs.update(repairs)

    def arguments(self, text: str) -> None:
        last = self._batch[-1] if self._batch else None
        if isinstance(last, ToolArgumentsDelta):
            self._batch[-1] = ToolArgumentsDelta(last.text + text)
        else:
            self._batch.append(ToolArgumentsDelta(text))

    def whole_call(self, tool: OfferedTool, prepared: Prepared, form: str, repairs: tuple[str, ...] = ()) -> None:
        self.commit(tool, form, (*repairs, *prepared.repairs))
        self.arguments(prepared.arguments)
        self.call_over()

    def call_over(self) -> None:
        self._is_open = False
        self._batch += self._deferred
        self._deferred = []

    def invalid(self, name: str, form: str, errors: tuple[str, ...], text: str) -> None:
        """A call that can't be given as one. Too many of them are a runaway."""
        report = self._report
        report.invalid.append(InvalidCall(name=name, form=form, errors=errors, text=text))
        report.runaway |= len(report.invalid) > MAX_CALLS
        if report.committed:
            report.dropped["invalid"] += 1
        else:
            self._unsent.append(text)

    def end(self) -> None:
        """The reply has ended."""
        self._report.withheld = "".join(self._withheld)
        if not self._report.committed:
            if self._unsent:
                self._report.unsent = self._lead + "".join(self._unsent)
            if self._unsent and self._options.invalid_as_text:
                self._tell(self._report.unsent)
            elif self._lead and not self._unsent:
                self._tell(self._lead)
            self._unsent, self._lead = [], ""
        self.call_over()

    def _tell(self, text: str) -> None:
        self._has_told_text = True
        last = self._batch[-1] if self._batch else None
        if isinstance(last, TextDelta):
            self._batch[-1] = TextDelta(last.text + text)
        else:
            self._batch.append(TextDelta(text))
