"""`<tool_call>`, with JSON or with further tags in it. Pure.

Never taught, since the site takes it for itself; models write it nevertheless.
"""

from typing import ClassVar, Final

from qwen_proxy.toolcalls.readers.base import NotACall, Outcome, Reader
from qwen_proxy.toolcalls.readers.json_body import JsonReader
from qwen_proxy.toolcalls.readers.tags import FunctionReader, InvokeReader
from qwen_proxy.toolcalls.toolbox import Toolbox

_MAX_BLANKS: Final = 160


class ToolCallJson(JsonReader):
    form: ClassVar[str] = "tool_call"
    closings: ClassVar[tuple[str, ...]] = ("</tool_call>",)


class ToolCallTagReader:
    openings: ClassVar[tuple[str, ...]] = ("<tool_call>",)

    def __init__(self, toolbox: Toolbox, opening: str) -> None:
        self._toolbox = toolbox
        self._opening = opening
        self._head = ""
        self._inner: Reader | None = None

    def feed(self, text: str) -> Outcome | None:
        if self._inner is not None:
            return self._inner.feed(text)
        self._head += text
        inside = self._head[len(self._opening) :].lstrip()
        while inside.startswith(self.openings[0]):  # opened twice
            inside = inside[len(self.openings[0]) :].lstrip()
        if not inside and len(self._head) < _MAX_BLANKS:
            return None
        if inside.startswith("<"):
            if any(tag.startswith(inside) for tag in ("<function=", *self.openings)):
                return None
            kind = FunctionReader if inside.startswith("<function=") else InvokeReader
            self._inner = kind(self._toolbox, self._opening)
        elif inside:
            self._inner = ToolCallJson(self._toolbox, self._head[: len(self._head) - len(inside)])
        else:
            return NotACall(self._head)
        return self._inner.feed(self._head)

    def finish(self) -> Outcome:
        return self._inner.finish() if self._inner else NotACall(self._head)
