"""Freeform tools, OpenAI's `custom`, whose input is a text of any form. Pure.

A model is taught each as a function with one string, `input`. Its call comes as JSON around that string: what follows
reads the text out of it while the JSON comes.

| state | what comes |
|---|---|
| before | what stands before the value: nothing of it is text |
| inside | the string's characters, until its closing quote |
| over | what stands behind it, or arguments of another form: nothing of it is text |

What was given out is a prefix of what `end` tells. Arguments of another form are told whole, by `end` alone.
"""

import json
import re
from typing import Any, Final

import msgspec

INPUT: Final = "input"
PARAMETERS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {INPUT: {"type": "string", "description": "The whole input, as plain text."}},
    "required": [INPUT],
    "additionalProperties": False,
}
MOST_BEFORE: Final = 200  # characters; the value of another form is not looked for without end
_BEGINNING: Final = re.compile(r'\s*\{\s*"' + INPUT + r'"\s*:\s*"')
# Whole characters: none that a quote, a backslash or half of a pair of surrogates would leave open.
_WHOLE: Final = re.compile(
    r'(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}'
    r"|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4})*+"
)


def described(description: str | None, syntax: str | None = None, definition: str | None = None) -> str:
    """What the model is told of such a tool. A grammar, in its `syntax`, is told too: nothing holds the model to it."""
    said = description or ""
    if definition:
        said += f"\n\nThe input has to follow this {syntax or ''} grammar:\n{definition}"
    return said.strip()


def arguments_with(text: str) -> str:
    """The JSON of a call with this input."""
    return msgspec.json.encode({INPUT: text}).decode()


class FreeformInput:
    """`feed` pieces of the arguments, then `end`."""

    def __init__(self) -> None:
        self._arguments: list[str] = []
        self._given: list[str] = []
        self._state = "before"
        self._held: str = ""

    def feed(self, piece: str) -> str:
        """What of the text is known by now and was not given out before."""
        self._arguments.append(piece)
        if self._state == "over":
            return ""
        piece = self._held + piece
        if self._state == "before":
            begun = _BEGINNING.match(piece)
            if begun is None:
                self._held = piece
                self._state = "before" if len(piece) < MOST_BEFORE else "over"
                return ""
            self._state, piece = "inside", piece[begun.end() :]
        return self._inside(piece)

    def end(self) -> str:
        """The whole text."""
        given = "".join(self._given)
        whole = text_in("".join(self._arguments))
        return whole if whole.startswith(given) else given

    def rest(self) -> str:
        """What of the whole text was not given out before."""
        return self.end()[len("".join(self._given)) :]

    def _inside(self, piece: str) -> str:
        whole = _WHOLE.match(piece)
        assert whole is not None  # it matches nothing, too
        self._held = piece[whole.end() :]
        if self._held.startswith('"'):
            self._state = "over"
        if not whole[0]:
            return ""
        text = msgspec.json.decode(f'"{whole[0]}"', type=str)
        self._given.append(text)
        return text


def text_in(arguments: str) -> str:
    """The value of `input`; of arguments without one, all of them."""
    try:
        value = json.loads(arguments)  # which, unlike msgspec, takes half a pair of surrogates
    except (ValueError, RecursionError):
        return arguments
    match value:
        case {"input": str(text)}:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case _:
            return arguments
