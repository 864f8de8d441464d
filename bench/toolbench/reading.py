"""Hands texts to the gateway's reader, and tells what came out of it."""

import itertools
import json
from collections.abc import Iterator, Sequence
from functools import cache

from bench.toolbench.corpus import Case
from bench.toolbench.failures import NATIVE
from bench.toolbench.judging import Read
from bench.toolbench.kit import BY_NAME, KIT, Arguments
from qwen_proxy.chat.events import Batch, TextDelta, ToolArgumentsDelta, ToolCallStart
from qwen_proxy.chat.request import Tool
from qwen_proxy.simulator.forms import FOREIGN, taught_block
from qwen_proxy.simulator.roles import Call
from qwen_proxy.simulator.taught import Taught
from qwen_proxy.toolcalls.form import MARKERS
from qwen_proxy.toolcalls.reading import CallReading, ReadingOptions
from qwen_proxy.toolcalls.toolbox import Toolbox

NONCE = "7f3a"
FORM = Taught(NONCE, MARKERS.call, MARKERS.arg, MARKERS.end)


@cache
def toolbox() -> Toolbox:
    return Toolbox(tuple(Tool(tool.name, "", tool.schema) for tool in KIT))


def reading(nonce: str) -> CallReading:
    numbers = itertools.count(1)
    return CallReading(
        toolbox(), form=MARKERS, nonce=nonce, options=ReadingOptions(), ids=lambda: f"call_{next(numbers)}"
    )


def read(case: Case | str, pieces: Sequence[str], *, nonce: str | None = None) -> Read:
    """The calls and the text that a client gets of these pieces, and what the reading says about the rest."""
    reader = reading(nonce or (NONCE if isinstance(case, str) else case.taught.nonce))
    if isinstance(case, Case) and case.form == NATIVE:
        batches = list(_snapshots(reader, case.text))
    else:
        batches = [reader.feed([TextDelta(piece)]) for piece in pieces]
    batches.append(reader.finish())
    return _told(reader, batches)


def _snapshots(reader: CallReading, text: str) -> Iterator[Batch]:
    """Each call as frames that hold all of its arguments so far; the last frame comes twice."""
    calls: list[tuple[str, str]] = json.loads(text)
    for number, (name, arguments) in enumerate(calls):
        ends = (0, len(arguments) // 3, len(arguments), len(arguments))
        for end in ends:
            yield reader.snapshot(f"upstream_{number}", name, arguments[:end])


def _told(reader: CallReading, batches: Sequence[Batch]) -> Read:
    names: list[str] = []
    sent: list[str] = []
    text = ""
    for event in itertools.chain.from_iterable(batches):
        if isinstance(event, TextDelta):
            text += event.text
        elif isinstance(event, ToolCallStart):
            names.append(event.name)
            sent.append("")
        elif isinstance(event, ToolArgumentsDelta):
            sent[-1] += event.text
    calls: list[tuple[str, Arguments]] = []
    unfinished: list[str] = []
    for name, arguments in zip(names, sent, strict=True):
        try:
            calls.append((name, json.loads(arguments)))
        except ValueError:
            unfinished.append(f"{name}: {arguments[-80:]!r} is left unfinished")
    report = reader.report
    told = [f"{one.name}: {one.errors}" for one in report.invalid]
    told += [word for word in ("cut", "result_invented", "runaway") if getattr(report, word)]
    told += [reason for reason in ("native_unknown",) if report.dropped[reason]]
    # A call may be left unfinished only where the reading says that it was cut, or what is wrong with it.
    broken = unfinished if unfinished and not told else unfinished[1:]
    return Read(tuple(calls), text, tuple(told), bool(unfinished), tuple(broken))


def large_call(content: str) -> Call:
    """A call that writes a file of this content."""
    return Call("Write", {"file_path": "/srv/app/file.py", "content": content})


def call_text(form: str, call: Call) -> str:
    if form in FOREIGN:
        return str(FOREIGN[form](call))
    return str(taught_block(call, FORM, BY_NAME[call.name].raw()))


def read_cost(pieces: Sequence[str]) -> None:
    """What is timed: nothing but the reading."""
    reader = reading(NONCE)
    for piece in pieces:
        reader.feed([TextDelta(piece)])
    reader.finish()
