"""Calls and results in the taught form, as a conversation's history shows them to a model. Pure.

`reading.CallReading` reads back what `encode_call` wrote: `parse(encode(x)) == x` for every value that does not hold
a marker with the nonce.
"""

import json
from typing import Any, cast

from qwen_proxy.toolcalls.form import Form
from qwen_proxy.toolcalls.toolbox import MAX_NAME_CHARACTERS, OfferedTool, Toolbox
from qwen_proxy.toolcalls.values import decode_strictly


def encode_call(form: Form, nonce: str, toolbox: Toolbox, name: str, arguments: str) -> str:
    """A call, whatever form it came in, without a line feed at its end.

    arguments: the JSON text of the history. What is no JSON object stands alone between the markers, without the
    parameters' own.
    """
    head = form.call.format(nonce=nonce, name=name)
    end = form.end.format(nonce=nonce)
    value = decode_strictly(arguments.strip() or "{}")
    if not isinstance(value, dict) or not all(map(_fits_a_marker, cast(dict[str, Any], value))):
        return f"{head}\n{arguments}\n{end}"
    tool = toolbox.tools.get(name)
    lines = [head]
    for key, item in cast(dict[str, Any], value).items():
        lines += (form.arg.format(nonce=nonce, name=key), encode_value(tool, key, item))
    return "\n".join([*lines, end])


def _fits_a_marker(key: str) -> bool:
    """Whether a parameter's name can stand on a marker line, and be told apart there."""
    return 0 < len(key) <= MAX_NAME_CHARACTERS and key.isprintable() and key == key.strip() and "]" not in key


def encode_value(tool: OfferedTool | None, key: str, value: Any) -> str:
    """A string of a parameter that only takes strings as it is; anything else as JSON."""
    if isinstance(value, str) and is_raw(tool, key):
        return value
    return json.dumps(value, ensure_ascii=False)


def is_raw(tool: OfferedTool | None, key: str) -> bool:
    """Whether a parameter's value is written as it is: its schema says that it can only be a string."""
    return tool is not None and key in tool.parameters and tool.parameters[key].is_raw


def encode_result(form: Form, nonce: str, number: int, name: str, text: str, *, is_error: bool = False) -> str:
    """The result of the `number`th call of the conversation, from 1, without a line feed at its end."""
    head = (form.failed if is_error else form.result).format(nonce=nonce, number=number, name=name)
    return f"{head}\n{text}\n{form.end.format(nonce=nonce)}"
