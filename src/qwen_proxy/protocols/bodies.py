"""What the bodies of several protocols have in common: bytes to a shape, and what is refused in every one. Pure."""

import re
from collections.abc import Container, Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from qwen_proxy.ground.errors import InvalidRequest, UnsupportedParameter
from qwen_proxy.ground.shapes import shape_refusal
from qwen_proxy.protocols.base import ParseOptions

T = TypeVar("T")

MOST_EXTRA: Final = 40
MAX_STOPS: Final = 16  # OpenAI takes 4
MAX_STOP_CHARACTERS: Final = 1024  # each piece of a reply is looked through for beginnings of it

# Escaped backslashes, a pair of escapes, or (the group) half of one.
_SURROGATES: Final = re.compile(
    rb"(?:\\\\)+|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_MAY_BE_HALF: Final = re.compile(rb"\\u[dD]")
_PLAIN_NAME: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)
_MAX_IGNORED: Final = 40
_NAMES: Final = msgspec.json.Decoder(dict[str, Raw])


def decode(
    body: bytes, decoder: msgspec.json.Decoder[T], honoured: frozenset[str], wanted: str = "messages"
) -> tuple[T, tuple[str, ...]]:
    """The body, and the names of its top-level fields that are not `honoured`, in their order; `null` is absent.

    A name that is no plain word is given as `?`, since these names go into a header. wanted: the field without which
    there is no request. Raises InvalidRequest.
    """
    if not body.strip():
        raise InvalidRequest(f"the request body is empty; send a JSON object with `{wanted}`")
    body = whole_characters(body)
    try:
        decoded = decoder.decode(body)
        fields = _NAMES.decode(body)
    except msgspec.ValidationError as error:
        raise shape_refusal(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the request body is no valid JSON in UTF-8 ({error})") from error
    except RecursionError as error:
        raise InvalidRequest("the request body is nested too deeply") from error
    if honoured.issuperset(fields):
        return decoded, ()
    names = [name for name, value in fields.items() if name not in honoured and bytes(value) != b"null"]
    return decoded, tuple([name if is_plain_name(name) else "?" for name in names[:_MAX_IGNORED]])


def extra(body: bytes, own: Container[str]) -> dict[str, Raw]:
    """The fields that are not our `own`, for an upstream that may know them; `null` is absent. `body` was decoded."""
    every = read(Raw(whole_characters(body)), _NAMES) or {}
    found = {name: value for name, value in every.items() if name not in own and bytes(value) != b"null"}
    return dict(list(found.items())[:MOST_EXTRA])


def is_plain_name(name: str) -> bool:
    """Whether a field's name may be repeated in a header."""
    return _PLAIN_NAME.fullmatch(name) is not None


def read(value: Raw, decoder: msgspec.json.Decoder[T]) -> T | None:
    """None for another shape, or for what is not even text: for what is no reason to refuse a request."""
    try:
        return decoder.decode(value) if value else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def refuse_ignored(ignored: Sequence[str], options: ParseOptions) -> None:
    """Raises UnsupportedParameter where the operator wants no field to be ignored."""
    if options.strict and ignored:
        raise UnsupportedParameter(
            f"{ignored[0]} has no effect here, and this server is set to refuse such fields; leave it out",
            param=ignored[0],
        )


def checked_stops(stops: Sequence[str], param: str) -> tuple[str, ...]:
    """Each once. Raises InvalidRequest."""
    if not stops:
        return ()
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(f"{param} has {len(stops)} sequences; at most {MAX_STOPS} are taken", param=param)
    if "" in stops:
        raise InvalidRequest("a stop sequence must not be empty", param=param)
    if any(len(sequence) > MAX_STOP_CHARACTERS for sequence in stops):
        raise InvalidRequest(f"a stop sequence may have {MAX_STOP_CHARACTERS} characters", param=param)
    return tuple(dict.fromkeys(stops))


def whole_characters(body: bytes) -> bytes:
    """Half a character, which a client leaves that cuts a text between two of its own units, becomes U+FFFD.

    Whoever reads a body in a second way has to do this first: with half a character it is no JSON."""
    if b"\\" not in body or _MAY_BE_HALF.search(body) is None:  # a long body is not looked through twice
        return body
    return _SURROGATES.sub(lambda found: b"\\ufffd" if found[1] else found[0], body)
