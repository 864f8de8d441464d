"""Structured output from a model that knows no formats: what it is told, and what is made of its answer. Pure.

The answer that a client gets is bare JSON. Fences, prose around it and broken JSON are repaired; what is not valid by
the schema then is refused, with the errors as the model is told them.
"""

import json
import re
from typing import Final

from msgspec import Struct

from qwen_proxy.chat.request import OutputFormat
from qwen_proxy.ground.errors import InvalidRequest, UnsupportedParameter
from qwen_proxy.toolcalls import schemas
from qwen_proxy.toolcalls.coercion import Coercion
from qwen_proxy.toolcalls.repair import repaired
from qwen_proxy.toolcalls.values import Decoded, NotJson, encode

MAX_SCHEMA_BYTES: Final = 64 * 1024
PROSE: Final = "prose"
_FENCED: Final = re.compile(r"^(`{3,}|~{3,})[^\n]*\n(.*?)^\1", re.DOTALL | re.MULTILINE)
_OPENS: Final = re.compile(r"[{\[]")
_CITED: Final = re.compile(r"(?:\s*\[\[\d{1,3}\]\])+\s*\Z")  # the site's marks of sources (upstream protocol §5.1)
_SCHEMA: Final = (
    "Reply with one JSON value alone, which is valid by the JSON Schema below: nothing before it, nothing behind it, "
    "no code fence."
)
_OBJECT: Final = "Reply with one JSON object alone: nothing before it, nothing behind it, no code fence."
_CALLS: Final = " This does not concern calls of tools: make those first, where they are needed."
_WRONG: Final = "Your last reply was not what was asked for:\n{errors}\nReply once more, with the JSON alone."


class Fitted(Struct, frozen=True):
    """text: bare JSON. errors: why it is not what was asked for; empty if it is."""

    text: str
    repairs: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class OutputCheck:
    """One format, compiled. Raises InvalidRequest or UnsupportedParameter for a schema beyond all bounds."""

    def __init__(self, output: OutputFormat) -> None:
        self._schema = output.schema
        self._check: schemas.Compiled | None = None
        if output.schema is None:
            return
        try:
            schemas.measured(output.schema)
        except schemas.Refused as problem:
            raise InvalidRequest(f"the format of the output: {problem}") from problem
        self._written = json.dumps(output.schema, ensure_ascii=False)
        if len(self._written.encode(errors="surrogatepass")) > MAX_SCHEMA_BYTES:
            raise UnsupportedParameter(f"the schema of the output has more than {MAX_SCHEMA_BYTES} bytes")
        self._check = schemas.compiled(output.schema)
        if output.strict and self._check.unchecked:
            raise UnsupportedParameter(f"the schema of the output can't be checked: {self._check.unchecked}")

    def instruction(self, *, has_tools: bool) -> str:
        """What the model is told."""
        told = _OBJECT if self._schema is None else _SCHEMA
        if has_tools:
            told += _CALLS
        return told if self._schema is None else f"{told}\n{self._written}"

    def fit(self, text: str) -> Fitted:
        """What a whole answer comes to."""
        found: Fitted | None = None
        for candidate, repair in _candidates(text):
            try:
                decoded = repaired(candidate)
            except NotJson as problem:
                found = found or Fitted(text, (), (f"it is not JSON: {problem}",))
                continue
            fitted = self._fitted(decoded, repair)
            if not fitted.errors:
                return fitted
            found = fitted  # the last one looked at is the nearest
        return found or Fitted(text, (), ("it is empty",))

    def _fitted(self, decoded: Decoded, repair: tuple[str, ...]) -> Fitted:
        repairs = repair + decoded.repairs
        if self._schema is None or self._check is None:
            errors = () if isinstance(decoded.value, dict) else ("it is not a JSON object",)
            return Fitted(decoded.text, repairs, errors)
        errors = self._check.errors(decoded.value)
        if errors:
            coercion = Coercion(self._schema)
            value = coercion.value(decoded.value, self._schema)
            if coercion.reasons and not self._check.errors(value):
                return Fitted(encode(value), (*repairs, *coercion.reasons))
        return Fitted(decoded.text, repairs, errors)


def hint(errors: tuple[str, ...]) -> str:
    """What a further try tells the model."""
    return _WRONG.format(errors="\n".join(f"- {error}" for error in errors))


def _candidates(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Where the JSON may stand: the whole text, a fenced block of it, or from the first bracket to the last; and the
    same without what only cites the sources of a search."""
    text = text.strip()
    found: list[tuple[str, tuple[str, ...]]] = [(text, ())] if text else []
    found += _within(text)
    if (uncited := _CITED.sub("", text)) != text:
        found += [(uncited, (PROSE,)), *_within(uncited)]
    return found


def _within(text: str) -> list[tuple[str, tuple[str, ...]]]:
    found = [(match[2], (PROSE,)) for match in _FENCED.finditer(text)]
    if opened := _OPENS.search(text):
        end = max(text.rfind("}"), text.rfind("]")) + 1
        if end > opened.start():
            found.append((text[opened.start() : end], (PROSE,)))
    return found


class JsonPrefix:
    """Lets a JSON object or array through as it comes, and nothing before it or behind it."""

    _INTERESTING: Final = re.compile(r'["\\{}\[\]]')

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped_at = -1  # in the text at hand
        self.has_ended = False

    def feed(self, text: str) -> str:
        """What of the text belongs to the value."""
        if self.has_ended:
            return ""
        start = 0
        if not self._depth:
            opened = _OPENS.search(text)
            if opened is None:
                return ""
            start = opened.start()
        for found in self._INTERESTING.finditer(text, start):
            if found.start() == self._escaped_at:
                continue
            self._take(found[0], found.start())
            if self.has_ended:
                return text[start : found.end()]
        self._escaped_at -= len(text)
        return text[start:]

    def _take(self, character: str, at: int) -> None:
        if self._in_string:
            if character == "\\":
                self._escaped_at = at + 1
            self._in_string = character != '"'
        elif character == '"':
            self._in_string = True
        elif character != "\\":
            self._depth += 1 if character in "{[" else -1
            self.has_ended = not self._depth
