"""JSON as a call's arguments need it: strict, the first of equal keys, no lone surrogates. Pure."""

import json
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple, cast

from qwen_proxy.toolcalls.schemas import depth_of

MAX_DEPTH: Final = 64
DUPLICATE: Final = "duplicate_key"
SURROGATE: Final = "surrogate"
CONTROL: Final = "control_characters"


class NotJson(Exception):
    """The text is no JSON value, or one that nests too deeply."""


class Decoded(NamedTuple):
    """text: valid JSON of `value`, as it was written wherever that was valid."""

    value: Any  # any JSON
    text: str
    repairs: tuple[str, ...] = ()


def decode(text: str, *, control_characters: bool = False) -> Decoded:
    """A JSON text; raises NotJson. control_characters: whether strings may hold them unescaped."""
    duplicates: list[str] = []

    def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(reversed(pairs))
        if len(found) == len(pairs):
            return dict(pairs)
        duplicates.append(DUPLICATE)
        return {key: found[key] for key, _ in pairs}

    try:
        value = json.loads(
            text, object_pairs_hook=first_wins, parse_constant=_no_constant, strict=not control_characters
        )
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error
    if depth_of(value, MAX_DEPTH) > MAX_DEPTH:
        raise NotJson(f"it nests deeper than {MAX_DEPTH} levels")
    repairs = duplicates
    if "\\ud" in text.lower() and (whole := without_lone_surrogates(value)) != value:
        value, repairs = whole, [*repairs, SURROGATE]
    if control_characters:
        repairs = [*repairs, CONTROL]
    return Decoded(value, encode(value) if repairs else text.strip(), tuple(dict.fromkeys(repairs)))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def decode_strictly(text: str) -> object:
    """The value of a JSON text; the text itself if it is none."""
    try:
        return decode(text).value
    except NotJson:
        return text


def encode(value: Any) -> str:
    """JSON with its text unescaped. Raises NotJson for an infinite number."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise NotJson(str(error)) from error


def escaped(text: str) -> str:
    """A piece of a JSON string, without quotes."""
    return encode_basestring(text)[1:-1]


def without_lone_surrogates(value: Any) -> Any:
    """The same with each half of a pair that stands alone replaced, and halves that stand together joined."""
    if isinstance(value, str):
        return joined(value)
    if isinstance(value, list):
        return [without_lone_surrogates(item) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return {joined(key): without_lone_surrogates(item) for key, item in items}
    return value


def joined(text: str) -> str:
    """A text that can be encoded: surrogate pairs as one character, halves that stand alone replaced."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class Joiner:
    """Joins surrogate pairs that pieces of a text cut apart."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, piece: str) -> str:
        if piece.isascii() and not self._half:
            return piece
        piece = self._half + piece
        self._half = piece[-1:] if "\ud800" <= piece[-1:] <= "\udbff" else ""
        return joined(piece[: len(piece) - len(self._half)])

    def finish(self) -> str:
        half, self._half = self._half, ""
        return joined(half)
