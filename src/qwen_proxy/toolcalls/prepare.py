"""A call as a model wrote it, made into arguments that the tool's schema lets pass. Pure."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from qwen_proxy.toolcalls.coercion import KEY, MAX_GUESSED_KEYS, Coercion, close_key
from qwen_proxy.toolcalls.repair import repaired
from qwen_proxy.toolcalls.toolbox import OfferedTool
from qwen_proxy.toolcalls.values import DUPLICATE, Decoded, NotJson, decode, encode

UNQUOTED: Final = "unquoted"
STRINGIFIED: Final = "stringified"


class Prepared(NamedTuple):
    """arguments: their JSON text. errors: why they are no valid arguments; empty if they are."""

    arguments: str
    repairs: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def from_value(tool: OfferedTool, decoded: Decoded) -> Prepared:
    """Arguments that came as one JSON value."""
    value, text, repairs = decoded
    if isinstance(value, str):
        try:
            inner = repaired(value)
        except NotJson:
            return Prepared(text, repairs, ("the arguments are no object",))
        value, text, repairs = inner.value, inner.text, (*repairs, STRINGIFIED, *inner.repairs)
    if value is None:
        value, text = {}, "{}"
    if not isinstance(value, dict):
        return Prepared(text, repairs, ("the arguments are no object",))
    given = cast(dict[str, Any], value)
    errors = tool.errors(given)
    if not errors and (tool.takes_others or all(key in tool.parameters for key in given)):
        return Prepared(text, repairs)
    coercion = Coercion(tool.root)
    fitted = coercion.value(given, tool.root)
    if coercion.reasons and not (left := tool.errors(fitted)):
        return Prepared(encode(fitted), (*repairs, *coercion.reasons), left)
    return Prepared(text, repairs, errors)


def from_pairs(tool: OfferedTool, pairs: Sequence[tuple[str, str]]) -> Prepared:
    """Arguments that came one by one, each a key and the text of its value."""
    members: list[str] = []
    repairs: list[str] = []
    seen: set[str] = set()
    for written, text in pairs:
        key = resolve_key(tool, written, seen)
        if key != written:
            repairs.append(KEY)
        if key in seen:
            repairs.append(DUPLICATE)
            continue
        seen.add(key)
        value = parameter_value(tool, key, text)
        repairs += value.repairs
        members.append(f"{encode(key)}:{value.text}")
    arguments = "{" + ",".join(members) + "}"
    whole = from_value(tool, decode(arguments))
    return Prepared(whole.arguments, (*repairs, *whole.repairs), whole.errors)


def resolve_key(tool: OfferedTool, written: str, seen: set[str]) -> str:
    """The parameter that a key means: itself if there is such a one, else the one close one not given yet."""
    if written in tool.parameters or tool.takes_others or len(seen) > MAX_GUESSED_KEYS:
        return written
    return close_key(written, [name for name in tool.parameters if name not in seen]) or written


def parameter_value(tool: OfferedTool, key: str, text: str) -> Decoded:
    """The value of one parameter, out of its text, with the coercion that its schema asks for.

    What is declared to be a string is one, whatever it holds. Anything else is JSON, or a string if it is none.
    """
    parameter = tool.parameters.get(key)
    if parameter is not None and parameter.is_raw:
        decoded = Decoded(text, encode(text))
    else:
        decoded = _json_or_text(text, takes_strings=parameter is None or "string" in parameter.types)
    if parameter is None or not tool.parameter_errors(key, decoded.value):
        return decoded
    for value in (decoded.value, text):
        coercion = Coercion(tool.root)
        fitted = coercion.value(value, parameter.schema)
        if not tool.parameter_errors(key, fitted):
            return Decoded(fitted, encode(fitted), (*decoded.repairs, *(coercion.reasons or [UNQUOTED])))
    return decoded


def _json_or_text(text: str, *, takes_strings: bool) -> Decoded:
    stripped = text.strip()
    looks_json = stripped[:1] in ('"', "{", "[")
    try:
        decoded = repaired(stripped)
    except NotJson:
        return Decoded(text, encode(text), (UNQUOTED,))
    if takes_strings and decoded.repairs and not (looks_json and isinstance(decoded.value, dict | list)):
        return Decoded(text, encode(text), (UNQUOTED,))
    return decoded
