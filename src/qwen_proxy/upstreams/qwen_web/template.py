"""The frame that comes once a token, recognised by its bytes instead of decoded. Pure.

Frames of one reply differ in their text and in the digits of their counts and times only (upstream protocol §4.4 (4)).
So one of them, once decoded, is a pattern for the rest: the same bytes before the text, the same bytes behind it up to
the end of the response id, and behind that the same bytes but for digits. What fits can hold nothing that the decoded
one did not hold; anything else, such as a new key, does not fit and is decoded.
"""

from typing import Final, Self

import msgspec

CONTENT: Final = b'"content": "'
DIGITS: Final = b"0123456789"

_string: Final = msgspec.json.Decoder(str).decode


class FrameTemplate:
    """Made of one payload by `learn`; `content_of` another gives its text, or None when it has to be decoded."""

    __slots__ = ("_behind", "_head", "_head_length", "_tail", "_tail_length")

    def __init__(self, head: bytes, tail: bytes, behind: bytes) -> None:
        self._head = head
        self._head_length = len(head)
        self._tail = tail
        self._tail_length = len(tail)
        self._behind = behind

    @classmethod
    def learn(cls, payload: bytes, response_id: str | None) -> Self | None:
        """Of a frame that was decoded and holds nothing but text; None when it has no such pattern."""
        start = payload.find(CONTENT) + len(CONTENT)
        if start < len(CONTENT) or not response_id:
            return None
        end = _end_of_string(payload, start)
        response = f'"response_id": "{response_id}"'.encode()
        behind = payload.find(response, end) + len(response)
        if end < 0 or behind < len(response):
            return None
        return cls(payload[:start], payload[end:behind], payload[behind:].translate(None, DIGITS))

    def content_of(self, payload: bytes) -> str | None:
        if not payload.startswith(self._head):
            return None
        # A quote inside the text is written \" there, so these bytes can't stand in it.
        end = payload.find(self._tail, self._head_length)
        if end < 0 or payload[end + self._tail_length :].translate(None, DIGITS) != self._behind:
            return None
        said = payload[self._head_length : end]
        try:
            return _string(b'"%b"' % said) if b"\\" in said else said.decode()
        except ValueError:
            return None


def _end_of_string(payload: bytes, start: int) -> int:
    """Where the JSON string that begins at `start` has its closing quote; -1 when it has none."""
    end = payload.find(b'"', start)
    while end > 0:
        text = payload[start:end]
        if (len(text) - len(text.rstrip(b"\\"))) % 2 == 0:
            return end
        end = payload.find(b'"', end + 1)
    return -1
