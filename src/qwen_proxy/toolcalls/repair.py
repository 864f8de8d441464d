"""A JSON value out of text that is nearly one, from the cheapest repair to the dearest. Pure; nothing is evaluated.

Each step that was needed is named in `Decoded.repairs`:

| reason               | what was wrong                                                        |
|----------------------|-----------------------------------------------------------------------|
| `debris`             | a fence around it; brackets too many, semicolons behind it            |
| `control_characters` | line feeds and tabs within strings                                    |
| `closed`             | brackets missing                                                      |
| `quotes`             | single, curly, triple or no quotes; quotes within strings unescaped   |
| `commas`             | too many, or missing between members                                  |
| `literals`           | `True`, `None` and their like                                         |
| `escapes`            | backslashes before what needs none                                    |
| `comments`           | `//`, `#` and `/* */`                                                 |

Brackets that are open at the end are closed only where something showed that the value ends there (`ended`). A string
never is: a mark that seems to show its end may be a part of it.
"""

import re
from typing import Any, Final

from qwen_proxy.toolcalls.values import MAX_DEPTH, Decoded, NotJson, decode, encode, joined

DEBRIS: Final = "debris"
CLOSED: Final = "closed"
QUOTES: Final = "quotes"
COMMAS: Final = "commas"
LITERALS: Final = "literals"
ESCAPES: Final = "escapes"
COMMENTS: Final = "comments"

_FENCED: Final = re.compile(r"\A\s*(`{3,}|~{3,})[^\n]*\n(.*?)(?:\n?\s*\1\s*)?\Z", re.DOTALL)
_TRAILING: Final = re.compile(r"[\s}\]);,`]*\Z")
_SPACE: Final = re.compile(r"\s*")
_COMMENT: Final = re.compile(r"(?://|#)[^\n]*|/\*.*?\*/", re.DOTALL)
_NUMBER: Final = re.compile(r"[-+]?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?(?=\s*(?:[,;}\]]|\Z|//|/\*|#))")
_LITERAL: Final = re.compile(r"(true|false|null|none|undefined|nil)\b", re.IGNORECASE)
_LITERALS: Final = {"true": True, "false": False}
_NAME: Final = re.compile(r"[\w$][\w$.-]*")
_BARE: Final = re.compile(r"[^,;}\]\n\"'{\[]+")
_QUOTES: Final = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "”": "”"}
_STOPS: Final = {quote: re.compile(f"[{quote}\\\\]") for quote in _QUOTES.values()}
_ESCAPED: Final = {'"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_KEY: Final = r"""(?:"[^"\n]{1,128}"|'[^'\n]{1,128}'|“[^”\n]{1,128}”|[\w$][\w$.-]{0,127})\s*:"""
_ENDS_KEY: Final = re.compile(r"\s*[:=]")
_ENDS_MEMBER: Final = re.compile(
    rf"\s*(?:\Z|,\s*(?:\Z|\}}|//|/\*|#|{_KEY})|\}}\s*(?:\Z|[,}}\]);`<#]|//|/\*)|//|/\*|#)|\s+(?:\"[^\"\n]{{1,128}}\"\s*:)"
)
_ENDS_ITEM: Final = re.compile(
    r"""\s*(?:\Z|,\s*(?:["'“\[{\d\]-]|\Z|true|false|null|True|False|None)|\]\s*(?:\Z|[,}\]);`<#]|//|/\*)|//|/\*|#)"""
)
_ENDS_WHOLE: Final = re.compile(r"\s*\Z")


def repaired(text: str, *, ended: bool = True) -> Decoded:
    """The JSON value of a text, repaired as far as needed; raises NotJson."""
    repairs: list[str] = []
    if fenced := _FENCED.match(text):
        text, repairs = fenced[2], [DEBRIS]
    text = text.strip()
    for attempt in (_strictly, _with_debris, _with_control_characters):
        try:
            found = attempt(text)
        except NotJson:
            continue
        return Decoded(found.value, found.text, (*repairs, *found.repairs))
    value, reasons = Tolerant(text, ended=ended).whole()
    return Decoded(value, encode(value), tuple(dict.fromkeys([*repairs, *reasons])))


def _strictly(text: str) -> Decoded:
    return decode(text)


def _with_control_characters(text: str) -> Decoded:
    return decode(text, control_characters=True)


def _with_debris(text: str) -> Decoded:
    """One that brackets too many stand behind."""
    end = len(text)
    for _ in range(4):
        end = len(text[:end].rstrip("\t\r\n ;,`)"))
        if end == 0 or text[end - 1] not in "}]":
            break
        end -= 1
        try:
            found = decode(text[:end])
        except NotJson:
            continue
        return Decoded(found.value, found.text, (*found.repairs, DEBRIS))
    raise NotJson("no value with brackets too many")


class Tolerant:
    """Reads one value. `reasons`: what had to be repaired."""

    def __init__(self, text: str, *, ended: bool) -> None:
        self.reasons: list[str] = []
        self._text = text
        self._at = 0
        self._ended = ended
        self._depth = 0

    def whole(self) -> tuple[Any, list[str]]:
        self._skip()
        if self._at == len(self._text):
            raise NotJson("there is nothing")
        value = self._value(_ENDS_WHOLE)
        self._skip()
        rest = self._text[self._at :]
        if rest:
            if not _TRAILING.match(rest):
                raise NotJson("something else stands behind the value")
            self.reasons.append(DEBRIS)
        return value, self.reasons

    def _skip(self) -> None:
        while True:
            self._at = self._end_of(_SPACE)
            if not self._text.startswith(("//", "/*", "#"), self._at) or not (end := self._end_of(_COMMENT)):
                return
            self.reasons.append(COMMENTS)
            self._at = end

    def _end_of(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self._text, self._at)
        return found.end() if found else 0

    def _value(self, ends: re.Pattern[str]) -> Any:
        """`ends`: what has to follow a quote that ends a string here."""
        first = self._text[self._at : self._at + 1]
        if first == "{":
            return self._nested(self._object)
        if first == "[":
            return self._nested(self._array)
        if first in _QUOTES:
            return self._string(ends)
        return self._word()

    def _nested(self, read: Any) -> Any:  # one of the two below
        if self._depth == MAX_DEPTH:
            raise NotJson(f"it nests deeper than {MAX_DEPTH} levels")
        self._depth += 1
        self._at += 1
        value = read()
        self._depth -= 1
        return value

    def _object(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first = True
        while not self._closes("}", wrong="]", first=first):
            first = False
            key = self._key()
            self._skip()
            if not self._text.startswith((":", "="), self._at):
                raise NotJson(f"no colon behind the key {key[:40]!r}")
            self._at += 2 if self._text.startswith("=>", self._at) else 1
            self._skip()
            if self._is_over():
                raise NotJson(f"no value behind the key {key[:40]!r}")
            found.setdefault(key, self._value(_ENDS_MEMBER))
        return found

    def _array(self) -> list[Any]:
        found: list[Any] = []
        while not self._closes("]", wrong="}", first=not found):
            found.append(self._value(_ENDS_ITEM))
        return found

    def _closes(self, bracket: str, *, wrong: str, first: bool) -> bool:
        """Whether the bracket comes next, which is passed then; else what stands before the next member is."""
        self._skip()
        commas = 0
        while self._text.startswith((",", ";"), self._at):
            commas += 1
            self._at += 1
            self._skip()
        closes = self._text.startswith(bracket, self._at)
        missing = self._is_over() or self._text.startswith(wrong, self._at)
        if commas != (0 if first or closes or missing else 1):
            self.reasons.append(COMMAS)
        if closes:
            self._at += 1
        elif missing:
            if not self._ended:
                raise NotJson("it ends within brackets")
            self.reasons.append(CLOSED)
        return closes or missing

    def _is_over(self) -> bool:
        return self._at >= len(self._text)

    def _key(self) -> str:
        if self._text[self._at] in _QUOTES:
            return self._string(_ENDS_KEY)
        if not (end := self._end_of(_NAME)):
            raise NotJson("no key where one has to be")
        self.reasons.append(QUOTES)
        key, self._at = self._text[self._at : end], end
        return key

    def _string(self, ends: re.Pattern[str]) -> str:
        opening = self._text[self._at]
        if self._text.startswith('"""', self._at) and (end := self._text.find('"""', self._at + 3)) >= 0:
            value, self._at = self._text[self._at + 3 : end], end + 3
            self.reasons.append(QUOTES)
            return value
        quote = _QUOTES[opening]
        if opening != '"':
            self.reasons.append(QUOTES)
        self._at += 1
        parts: list[str] = []
        while stop := _STOPS[quote].search(self._text, self._at):
            parts.append(self._text[self._at : stop.start()])
            self._at = stop.end()
            if stop[0] == "\\":
                parts.append(self._escape())
            elif ends.match(self._text, self._at):
                return joined("".join(parts))
            else:
                self.reasons.append(QUOTES)
                parts.append(quote)
        raise NotJson("it ends within a string")

    def _escape(self) -> str:
        """What a backslash that was just passed stands for, with what is behind it."""
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        if letter == "u":
            digits = self._text[self._at : self._at + 4]
            if len(digits) == 4 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
                self._at += 4
                return chr(int(digits, 16))
        elif letter in _ESCAPED:
            return _ESCAPED[letter]
        self.reasons.append(ESCAPES)
        return "\\" + letter

    def _word(self) -> Any:
        if end := self._end_of(_NUMBER):
            word, self._at = self._text[self._at : end], end
            return decode(word.lstrip("+")).value
        if found := _LITERAL.match(self._text, self._at):
            self._at = found.end()
            if found[0] not in ("true", "false", "null"):
                self.reasons.append(LITERALS)
            return _LITERALS.get(found[0].lower())
        found = _BARE.match(self._text, self._at)
        if found is None or not self._depth or (found.end() == len(self._text) and not self._ended):
            raise NotJson("no value where one has to be")
        self.reasons.append(QUOTES)
        self._at = found.end()
        return found[0].strip()
