"""Reads out of a prompt which tools are offered: signatures in the style of TypeScript, or JSON descriptions."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

MOST_CHARACTERS = 40_000
"""A signature longer than this is none."""

_HEAD = re.compile(
    r"^[ \t]*(?:[-*] +|#+ +|\d+\. +)?(?:(?:export|declare|async|function|tool|type|interface) +)*"
    r"[`*]*([A-Za-z_](?:[\w.:/-]*\w)?)[`*]*[ ]*=?[ ]*([({])",
    re.MULTILINE,
)
_PARAMETER = re.compile(r"""\s*["'`]?([A-Za-z_$][\w.$-]*)["'`]?(\?)?\s*:\s*(.+)""", re.DOTALL)
_COMMENT = re.compile(r"/\*.*?\*/|(?<![:\w])//[^\n]*", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_OPEN, _CLOSE = "([{<", ")]}>"


def _no_parameters() -> dict[str, "Parameter"]:
    return {}


@dataclass(frozen=True, slots=True)
class Parameter:
    """type: as the prompt writes it, without comments."""

    type: str
    is_required: bool

    @property
    def is_string(self) -> bool:
        """Strings and choices of strings are written raw; anything else is JSON."""
        kind = self.type.strip().rstrip(",;")
        alternatives = [part.strip() for part in kind.split("|")]
        return all(part.startswith(("string", '"', "'", "`")) and not part.endswith("[]") for part in alternatives)


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool and its parameters in their order."""

    name: str
    parameters: dict[str, Parameter] = field(default_factory=_no_parameters)

    def raw(self) -> dict[str, bool]:
        """For each parameter, whether its strings are written raw."""
        return {name: parameter.is_string for name, parameter in self.parameters.items()}


def offers(prompt: str) -> dict[str, Offer]:
    """Every tool that the prompt describes. Of two of a name the one that tells more parameters counts."""
    found: dict[str, Offer] = {}
    for offer in [*_signatures(prompt), *_described(prompt)]:
        known = found.get(offer.name)
        if known is None or len(offer.parameters) > len(known.parameters):
            found[offer.name] = offer
    return found


def _signatures(prompt: str) -> list[Offer]:
    found: list[Offer] = []
    for head in _HEAD.finditer(prompt):
        inside = _enclosed(prompt, head.end() - 1)
        if inside is not None:
            found.append(Offer(head[1], _parameters(inside)))
    return found


def _enclosed(text: str, start: int) -> str | None:
    """What stands between the bracket at `start` and the one that closes it, comments and quotations skipped."""
    depth = 0
    at = start
    end = min(len(text), start + MOST_CHARACTERS)
    while at < end:
        skipped = (_COMMENT.match(text, at) if text[at] == "/" else None) or (
            _QUOTED.match(text, at) if text[at] == '"' else None
        )
        if skipped is not None:
            at = skipped.end()
            continue
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : at]
        at += 1
    return None


def _parameters(inside: str) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for item in _items(_COMMENT.sub("", inside)):
        match = _PARAMETER.match(item)
        if match is not None:
            found[match[1]] = Parameter(match[3].strip(), match[2] is None)
    if len(found) == 1:
        # `(args: { path: string })`: the parameters are those of the only argument.
        (only,) = found.values()
        if only.type.startswith("{") and only.type.rstrip(";, \n").endswith("}"):
            return _parameters(only.type.strip()[1:-1])
    return found


def _items(inside: str) -> list[str]:
    """The text in pieces at commas, semicolons and line ends outside of brackets and quotations."""
    pieces, depth, start, at = list[str](), 0, 0, 0
    while at < len(inside):
        quoted = _QUOTED.match(inside, at) if inside[at] == '"' else None
        if quoted is not None:
            at = quoted.end()
            continue
        character = inside[at]
        if character in _OPEN:
            depth += 1
        elif character in _CLOSE and inside[at - 1 : at + 1] != "=>":
            depth = max(0, depth - 1)
        elif depth == 0 and character in ",;\n":
            pieces.append(inside[start:at])
            start = at + 1
        at += 1
    return [*pieces, inside[start:]]


def _described(prompt: str) -> list[Offer]:
    """Tools told as JSON objects with `name` and `parameters`, a line each or in a list."""
    found: list[Offer] = []
    decoder = json.JSONDecoder()
    for match in re.finditer(r'\{\s*"(?:type|name|function)"\s*:', prompt):
        try:
            value: Any = decoder.raw_decode(prompt, match.start())[0]
        except ValueError:
            continue
        tool = json_object(json_object(value).get("function", value))
        schema = tool.get("parameters", tool.get("input_schema"))
        if schema is not None and isinstance(tool.get("name"), str):
            found.append(Offer(str(tool["name"]), _of_schema(json_object(schema))))
    return found


def json_object(value: object) -> dict[str, Any]:
    """What came out of JSON, if it is an object; else an empty one."""
    try:
        return msgspec.convert(value, dict[str, Any])
    except msgspec.ValidationError:
        return {}


def _of_schema(schema: Mapping[str, Any]) -> dict[str, Parameter]:
    required: list[str] = schema.get("required") or []
    return {
        name: Parameter(str(json_object(value).get("type", "any")), name in required)
        for name, value in json_object(schema.get("properties")).items()
    }
