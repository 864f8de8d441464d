"""Reading calls out of text in tests: any cut of the text, and a check of every stream on the way."""

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from qwen_proxy.chat.events import (
    Batch,
    ReasoningDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    merged,
)
from qwen_proxy.chat.request import Tool
from qwen_proxy.toolcalls.form import MARKERS
from qwen_proxy.toolcalls.reading import CallReading, ReadingOptions
from qwen_proxy.toolcalls.toolbox import Toolbox

NONCE = "7f3a"


def object_schema(required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


STRING = {"type": "string"}
TOOLS = (
    Tool("Write", "", object_schema(("file_path", "content"), file_path=STRING, content=STRING)),
    Tool(
        "Read",
        "",
        object_schema(("file_path",), file_path=STRING, limit={"type": "integer"}, offset={"type": "integer"}),
    ),
    Tool(
        "Bash",
        "",
        object_schema(("command",), command=STRING, timeout={"type": "number"}, background={"type": "boolean"}),
    ),
    Tool(
        "Edit",
        "",
        object_schema(
            ("path", "edits"),
            path=STRING,
            mode={"type": "string", "enum": ["replace", "insert_after"]},
            edits={
                "type": "array",
                "items": object_schema(("old", "new"), old=STRING, new=STRING),
            },
        ),
    ),
    Tool("list_files", "", object_schema()),
    Tool(
        "mcp__github__search_issues",
        "",
        object_schema(("query",), query=STRING, labels={"type": "array", "items": STRING}),
    ),
    Tool("tool_call", "", object_schema(("name", "arguments"), name=STRING, arguments={"type": "object"})),
)
TOOLBOX = Toolbox(TOOLS)


def reading(options: ReadingOptions | None = None, *, toolbox: Toolbox = TOOLBOX, nonce: str = NONCE) -> CallReading:
    counter = itertools.count(1)
    return CallReading(
        toolbox, form=MARKERS, nonce=nonce, options=options or ReadingOptions(), ids=lambda: f"call_{next(counter)}"
    )


class Reply:
    """What one reading gave: `text`, `calls` (name and arguments), `open` (arguments of a call that was cut)."""

    def __init__(self, pieces: Iterable[str], read: CallReading) -> None:
        checker = PrefixChecker()
        self.events: Batch = []
        for piece in pieces:
            batch = read.feed([TextDelta(piece)])
            checker.feed(batch)
            self.events += batch
        batch = read.finish()
        checker.feed(batch)
        self.events += batch
        self.events = merged(self.events)
        self.report = read.report
        self.calls = checker.finish(cut=read.report.cut)
        self.open = checker.open
        self.text = "".join(event.text for event in self.events if isinstance(event, TextDelta))


class PrefixChecker:
    """What was sent of a call's arguments has to be a prefix of valid JSON at any time, and whole at its end."""

    def __init__(self) -> None:
        self.open: str | None = None
        self._calls: list[tuple[str, str]] = []

    def feed(self, batch: Batch) -> None:
        deltas = 0
        for event in batch:
            deltas = deltas + 1 if isinstance(event, ToolArgumentsDelta) else 0
            assert deltas <= 1, "one delta a read"
            if isinstance(event, ToolCallStart):
                self._calls.append((event.name, ""))
            elif isinstance(event, ToolArgumentsDelta):
                assert event.text, "an empty delta"
                name, sent = self._calls[-1]
                self._calls[-1] = (name, sent + event.text)
            else:
                assert isinstance(event, TextDelta | ReasoningDelta)

    def finish(self, *, cut: bool) -> list[tuple[str, Any]]:
        calls = list(self._calls)
        if cut and calls and not is_json(calls[-1][1]):
            self.open = calls.pop()[1]
            assert is_prefix_of_object(self.open)
        return [(name, json.loads(sent)) for name, sent in calls]


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def is_prefix_of_object(text: str) -> bool:
    """Whether an object of strings and JSON values was cut here; within a string, or between members."""
    return any(is_json(text + closing) for closing in ('"}', "}", '":0}', ":0}", "0}"))


def read_whole(text: str, options: ReadingOptions | None = None, *, toolbox: Toolbox = TOOLBOX) -> Reply:
    return Reply([text], reading(options, toolbox=toolbox))


def read_split(text: str, size: int, options: ReadingOptions | None = None, *, toolbox: Toolbox = TOOLBOX) -> Reply:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    return Reply(pieces, reading(options, toolbox=toolbox))


def read(text: str, options: ReadingOptions | None = None, *, toolbox: Toolbox = TOOLBOX) -> Reply:
    """Read in one piece, and checked against readings in pieces of several sizes."""
    whole = read_whole(text, options, toolbox=toolbox)
    for size in (1, 2, 3, 7, 20):
        other = read_split(text, size, options, toolbox=toolbox)
        assert (other.events, other.report) == (whole.events, whole.report), f"in pieces of {size}"
    return whole
