"""Calls as JSON objects, in the shapes that models write them in. Pure."""

from typing import Any, Final, cast

from qwen_proxy.toolcalls.prepare import from_value
from qwen_proxy.toolcalls.readers.base import Written
from qwen_proxy.toolcalls.toolbox import Toolbox
from qwen_proxy.toolcalls.values import Decoded, NotJson, encode

NAMES: Final = ("name", "tool", "function", "tool_name", "function_name")
ARGUMENTS: Final = ("arguments", "parameters", "args", "input", "params", "tool_input")
OTHERS: Final = frozenset({"id", "type", "index", "tool_calls", "call_id", "tool_call_id"})
FIRST_KEYS: Final = frozenset({*NAMES, *ARGUMENTS, *OTHERS})
MAX_LISTED: Final = 64  # more of one array are left out; no reply may have so many
FLAT: Final = "flat"


def calls_in(decoded: Decoded, toolbox: Toolbox) -> tuple[Written, ...]:
    """The calls that a value tells: one, an array of them, or `tool_calls`. None if any of it is something else."""
    value = decoded.value
    if isinstance(value, dict) and isinstance(listed := cast(dict[str, Any], value).get("tool_calls"), list):
        value = cast(list[Any], listed)
    if not isinstance(value, list):
        call = _call(value, decoded.repairs, toolbox)
        return (call,) if call else ()
    calls = [_call(item, decoded.repairs, toolbox) for item in cast(list[Any], value)[:MAX_LISTED]]
    return tuple(call for call in calls if call) if all(calls) else ()


def _call(value: Any, repairs: tuple[str, ...], toolbox: Toolbox) -> Written | None:
    if not isinstance(value, dict):
        return None
    members = cast(dict[str, Any], value)
    if isinstance(inner := members.get("function"), dict):
        members = cast(dict[str, Any], inner)
    name_key = next((key for key in NAMES if isinstance(members.get(key), str)), None)
    found = toolbox.resolve(members[name_key]) if name_key else None
    if name_key is None or found is None:
        return None
    tool, renamed = found
    reasons = (*repairs, renamed) if renamed else repairs
    key = next((key for key in ARGUMENTS if key in members), None)
    if key is not None:
        arguments = members[key]
    else:
        arguments = {key: item for key, item in members.items() if key != name_key and key not in OTHERS}
        reasons = (*reasons, FLAT) if arguments else reasons
    try:
        return Written(tool, from_value(tool, Decoded(arguments, encode(arguments), reasons)))
    except NotJson:
        return None
