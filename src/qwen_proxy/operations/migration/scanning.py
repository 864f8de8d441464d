"""The whole accounts in a JSON file that is not whole itself: cut, doubled, half overwritten. Pure.

An account is found by its key `"email"`, which can't stand inside a JSON string; it begins at the brace that encloses
the key. Its members are read one by one, so that of a broken one all is had that stands before the fault.

Time is bounded: every pattern is possessive, nesting is capped by the pattern itself, a member by MOST_ACCOUNT_BYTES,
and all braces that are looked back at by a budget that grows with the file.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec
from msgspec import Raw, Struct

MOST_ACCOUNT_BYTES: Final = 1024**2
MOST_NESTING: Final = 8
LOOK_BACK_BYTES: Final = 64 * 1024
LOOK_BACK_STEP_BYTES: Final = 512
BYTES_A_BRACE: Final = 8  # a file with more braces than that, before its emails, is none of the original's
MOST_ACCOUNTS: Final = 200_000

_SPACE: Final = rb"[ \t\r\n]*+"
_STRING: Final = rb'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"'
_SCALAR: Final = rb"-?+\d[\d.eE+-]*+|true|false|null"


def _nested(depth: int) -> bytes:
    deeper = rb"|" + _nested(depth - 1) if depth > 1 else b""
    return rb'[{\[](?:[^{}\[\]"]++|' + _STRING + deeper + rb")*+[}\]]"


_VALUE: Final = rb"(?:" + _STRING + rb"|" + _SCALAR + rb"|" + _nested(MOST_NESTING) + rb")"
_MEMBER: Final = re.compile(
    _SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE + rb"(" + _VALUE + rb")" + _SPACE + rb"([,}])"
)
_LAST: Final = re.compile(
    _SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE + rb"(" + _STRING + rb")" + _SPACE + rb"\Z"
)
_END: Final = re.compile(_SPACE + rb"}")
_EMAIL: Final = re.compile(rb'"email"')
_FIRST: Final = re.compile(rb"{" + _SPACE)
_BRACE: Final = re.compile(rb"[{}]")
_SETTINGS: Final = re.compile(rb'"settings"' + _SPACE + rb":" + _SPACE + rb"(" + _nested(MOST_NESTING) + rb")")

# What stands between accounts in a file that is in order, as far as it does not matter.
_BETWEEN: Final = re.compile(
    rb"(?:[\s,\[\]{}]++|\"(?:defaultHeaders|defaultCookie|accounts)\"" + _SPACE + rb":|null|"
    rb'"(?:settings|defaultHeaders|defaultCookie)"' + _SPACE + rb":" + _SPACE + _VALUE + rb")*+"
)


class Piece(Struct, frozen=True):
    """An account's members, each a JSON value as it stands there. `end`: behind what was read."""

    start: int
    end: int
    members: dict[bytes, bytes]
    is_whole: bool


class Scanned(Struct, frozen=True):
    """`settings`: the JSON objects of that name. `unreadable`: from where to where nothing could be made of it."""

    pieces: tuple[Piece, ...]
    settings: tuple[bytes, ...]
    unreadable: tuple[tuple[int, int], ...]


def scan(data: bytes, most: int = MOST_ACCOUNTS) -> Scanned:
    """At most so many accounts; never raises. Offsets are bytes of `data`."""
    pieces = tuple(islice(_pieces(data), most))
    settings = tuple(match[1] for match in _SETTINGS.finditer(data))
    return Scanned(pieces, settings, tuple(_unreadable(data, pieces)))


def _pieces(data: bytes) -> Iterator[Piece]:
    end = 0
    budget = len(data) // BYTES_A_BRACE + LOOK_BACK_BYTES
    for match in _EMAIL.finditer(data):
        email_at = match.start()
        if email_at < end:
            continue
        low = max(end, email_at - LOOK_BACK_BYTES)
        start = data.rfind(b"{", low, email_at)
        if start >= 0 and _FIRST.fullmatch(data, start, email_at) is None and budget > 0:
            start, looked_at = _enclosing(data, low, email_at)
            budget -= looked_at
        if start >= 0 and (piece := _piece(data, start, email_at)) is not None:
            yield piece
            end = piece.end


def _enclosing(data: bytes, low: int, email_at: int) -> tuple[int, int]:
    """Where the object begins that holds a key there, -1 for nowhere; and how many braces were looked at."""
    depth = looked_at = 0
    high = email_at
    while high > low:
        begin = max(low, high - LOOK_BACK_STEP_BYTES)
        braces = list(_BRACE.finditer(data, begin, high))
        looked_at += len(braces)
        for match in reversed(braces):
            if match[0] == b"}":
                depth += 1
            elif depth:
                depth -= 1
            else:
                return match.start(), looked_at
        high = begin
    return -1, looked_at


def _piece(data: bytes, start: int, email_at: int) -> Piece | None:
    """None when the key there is not a member of the object that begins at `start`."""
    members: dict[bytes, bytes] = {}
    has_email = False
    position, limit = start + 1, start + MOST_ACCOUNT_BYTES
    while (match := _MEMBER.match(data, position, limit)) is not None and _is_of_one(match[2]):
        has_email = has_email or match.start(1) == email_at
        members[match[1]] = match[2]
        position = match.end()
        if match[3] == b"}":
            return Piece(start, position, members, True) if has_email else None
    if not has_email:
        return None
    if (ending := _END.match(data, position)) is not None:  # a comma before it, by a hand
        return Piece(start, ending.end(), members, True)
    if limit >= len(data) and (last := _LAST.match(data, position)) is not None:  # cut off just behind it
        members[last[1]] = last[2]
        position = last.end()
    return Piece(start, position, members, False)


def _is_of_one(value: bytes) -> bool:
    """Not so when the brackets of a broken account close in the next one, with that one inside."""
    if value[:1] not in (b"{", b"["):
        return True
    if _EMAIL.search(value) is not None:
        return False
    try:
        msgspec.json.decode(value, type=Raw)
    except msgspec.DecodeError:
        return False
    return True


def _unreadable(data: bytes, pieces: tuple[Piece, ...]) -> Iterator[tuple[int, int]]:
    begin = 0
    for end, behind in [*((piece.start, piece.end) for piece in pieces), (len(data), len(data))]:
        match = _BETWEEN.match(data, begin, end)
        if match is not None and match.end() < end:
            yield match.end(), end
        begin = behind
