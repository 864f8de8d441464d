"""What msgspec says of a document of the wrong shape, as a refusal that names the field and what is right. Pure."""

import re
from typing import Final

from qwen_proxy.ground.errors import InvalidRequest

_AT: Final = re.compile(r"(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_JSON_NAMES: Final = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def shape_refusal(message: str, whole: str = "the request body", *, at: str = "") -> InvalidRequest:
    """From the text of a `msgspec.ValidationError`: the client's path, and JSON's own names of types.

    at: the path of what was decoded, where that is a part of the document."""
    found = _AT.fullmatch(message)
    problem, path = (found["problem"], found["path"] or "") if found else (message, "")
    if at:
        path = _joined(at, path) if path else at
    if missing := _MISSING.fullmatch(problem):
        path = _joined(path, missing[1])
        return InvalidRequest(f"`{path}` is missing", param=path)
    if unknown := _UNKNOWN.fullmatch(problem):
        path = _joined(path, unknown[1][:100])
        return InvalidRequest(f"there is no `{path}` here", param=path)
    problem = re.sub(r"\b(?:str|int|float|bool)\b", lambda name: _JSON_NAMES[name[0]], problem)
    problem = problem[:1].lower() + problem[1:]
    return InvalidRequest(f"{path or whole}: {problem}", param=path or None)


def _joined(path: str, field: str) -> str:
    return path + field if field.startswith("[") else f"{path}.{field}".lstrip(".")
