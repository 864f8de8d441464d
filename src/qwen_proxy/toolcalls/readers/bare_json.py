"""An object that names a tool and its arguments, with nothing around it. Pure."""

from typing import ClassVar

from qwen_proxy.toolcalls.readers.json_body import JsonReader


class BareReader(JsonReader):
    """Only for the start of an answer, and behind a call: anywhere else an object is text."""

    form: ClassVar[str] = "bare"
    openings: ClassVar[tuple[str, ...]] = ("{", "[")
    separators: ClassVar[tuple[str, ...]] = ('\n{"name"', "\n{'name'")
    closings: ClassVar[tuple[str, ...]] = ("</tool_call>", "\n[[end", "\n```", *separators)
    is_marked: ClassVar[bool] = False
