"""`[TOOL CALL]` and JSON behind it. Pure."""

from typing import ClassVar

from qwen_proxy.toolcalls.readers.json_body import JsonReader


class BracketReader(JsonReader):
    form: ClassVar[str] = "bracket"
    openings: ClassVar[tuple[str, ...]] = ("[tool call]", "[tool_call]", "[tool calls]", "[tool_calls]")
    separators: ClassVar[tuple[str, ...]] = ("\n[TOOL CALL", "\n[TOOL_CALL", "\n[tool call", "\n[tool_call")
    closings: ClassVar[tuple[str, ...]] = ("[/TOOL", "[/tool", "</tool_call>", *separators)
