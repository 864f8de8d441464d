"""Values made to fit what a schema says of them, where only one thing can have been meant. Pure.

| reason     | what was done                                                               |
|------------|-----------------------------------------------------------------------------|
| `key`      | a misspelt key became the one close one that was not given                  |
| `type`     | string to number, boolean, array, object, null, or the other way; one item to an array |
| `enum`     | a value in another case, in quotes, or with other separators                |
| `null`     | an optional member of null, where null is not allowed, was left out         |
"""

import difflib
from typing import Any, Final, cast

from qwen_proxy.toolcalls.repair import repaired
from qwen_proxy.toolcalls.schemas import MAX_REFERENCES, Schema, alternatives, resolved, types_of
from qwen_proxy.toolcalls.toolbox import plain
from qwen_proxy.toolcalls.values import NotJson, encode

KEY: Final = "key"
TYPE: Final = "type"
ENUM: Final = "enum"
NULL: Final = "null"
MAX_GUESSED_KEYS: Final = 32  # of one call: a guess costs as much as a thousand other steps
_MAX_ITEMS: Final = 10_000
_MAX_KEY_CHARACTERS: Final = 64
_MAX_KEYS: Final = 200
_BOOLEANS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def close_key(written: str, offered: list[str]) -> str | None:
    """The one of the offered keys that a misspelt one means."""
    if len(written) > _MAX_KEY_CHARACTERS or len(offered) > _MAX_KEYS:
        return None
    same = [key for key in offered if plain(key) == plain(written)]
    if not same:
        close = difflib.get_close_matches(plain(written), [plain(key) for key in offered], n=2, cutoff=0.75)
        same = [key for key in offered if plain(key) in close]
    return same[0] if len(same) == 1 else None


class Coercion:
    """Makes one value fit. `reasons`: what it took."""

    def __init__(self, root: Schema) -> None:
        self.reasons: list[str] = []
        self._root = root
        self._guesses = 0

    def value(self, value: Any, schema: object, depth: int = 0) -> Any:
        """`value` as the schema has it, or as it is where it is not plain what it should be."""
        node = resolved(schema, self._root)
        types = types_of(node, self._root)
        if not _fits(value, types):
            value = self._retyped(value, node, types)
        if isinstance(value, str) and isinstance(values := node.get("enum"), list):
            value = self._member(value, cast(list[Any], values))
        if depth >= 2 * MAX_REFERENCES:
            return value
        if isinstance(value, dict):
            return self._object(cast(dict[str, Any], value), self._branch(node, "object"), depth)
        if isinstance(value, list):
            return self._array(cast(list[Any], value), self._branch(node, "array").get("items"), depth)
        return value

    def _branch(self, node: Schema, kind: str) -> Schema:
        """Of several schemas, the only one that allows the kind; else the node itself."""
        options = [resolved(option, self._root) for option in alternatives(node)]
        fitting = [option for option in options if kind in types_of(option, self._root)]
        return fitting[0] if len(fitting) == 1 else node

    def _array(self, value: list[Any], items: object, depth: int) -> list[Any]:
        if items is None or len(value) > _MAX_ITEMS:
            return value
        return [self.value(item, items, depth + 1) for item in value]

    def _object(self, value: dict[str, Any], node: Schema, depth: int) -> dict[str, Any]:
        properties: object = node.get("properties")
        if not isinstance(properties, dict):
            return value
        known = cast(Schema, properties)
        needed: object = node.get("required")
        required = cast(list[object], needed) if isinstance(needed, list) else []
        renamed = value if node.get("additionalProperties") else self._renamed(value, list(known))
        fitted: dict[str, Any] = {}
        for key, item in renamed.items():
            is_optional = key in known and key not in required
            if item is None and is_optional and "null" not in types_of(known[key], self._root):
                self.reasons.append(NULL)
                continue
            fitted[key] = self.value(item, known[key], depth + 1) if key in known else item
        return fitted

    def _renamed(self, value: dict[str, Any], known: list[str]) -> dict[str, Any]:
        missing = [key for key in known if key not in value]
        renamed: dict[str, Any] = {}
        for key, item in value.items():
            self._guesses += key not in known
            if key not in known and self._guesses <= MAX_GUESSED_KEYS and (meant := close_key(key, missing)):
                self.reasons.append(KEY)
                missing.remove(meant)
                key = meant
            renamed.setdefault(key, item)
        return renamed

    def _retyped(self, value: Any, node: Schema, types: frozenset[str]) -> Any:
        made = _from_text(value, types) if isinstance(value, str) else _from_other(value, types)
        if made is value and "array" in types and value is not None:
            items = self._branch(node, "array").get("items")
            is_broken = isinstance(value, str) and value.lstrip()[:1] in ("[", "{", '"')
            if not is_broken and _fits(value, types_of(items, self._root)):
                made = [value]
        if made is not value:
            self.reasons.append(TYPE)
        return made

    def _member(self, value: str, allowed: list[Any]) -> Any:
        if value in allowed:
            return value
        same = [item for item in allowed if isinstance(item, str) and plain(item) == plain(value)]
        if len(same) != 1:
            return value
        self.reasons.append(ENUM)
        return same[0]


def _fits(value: Any, types: frozenset[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, int):
        return "integer" in types or "number" in types
    if isinstance(value, float):
        return "number" in types or ("integer" in types and value.is_integer())
    if value is None:
        return "null" in types
    name = "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
    return name in types


def _from_text(value: str, types: frozenset[str]) -> Any:
    word = value.strip().strip("\"'").strip()
    if "null" in types and word.lower() in ("null", "none", ""):
        return None
    if "boolean" in types and word.lower() in _BOOLEANS:
        return _BOOLEANS[word.lower()]
    wanted = [kind for name, kind in (("array", list), ("object", dict), ("number", float)) if name in types]
    if "integer" in types or "number" in types:
        wanted.append(int)
    try:
        read = repaired(word.replace("_", "") if word[:1].isdigit() else word, ended=True).value
    except NotJson:
        return value
    if isinstance(read, float) and read.is_integer() and "number" not in types and "integer" in types:
        return int(read)
    return read if type(read) in wanted else value


def _from_other(value: Any, types: frozenset[str]) -> Any:
    if "boolean" in types and (value == 0 or value == 1):
        return bool(value)
    if "string" in types and value is not None:
        try:
            return encode(value)
        except NotJson:
            return value
    return value
