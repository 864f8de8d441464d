"""What a public model name leads to: MODEL_ROUTES as text and as values. Pure.

    fast=web:qwen3.6-flash,studio:qwen-flash; best=web:qwen3.8-max*3,studio:qwen3-max*1

A route is a name, `=`, and its targets with commas between; routes have semicolons between. A target is
`backend:model`, and may end with `*weight`: then the first target is drawn by weight for each conversation, and the
rest follow. Without weights the targets are tried in order. The name may hold `*` and `?`. The same as JSON, where
names may hold any character: {"fast": ["web:qwen3.6-flash", "studio:qwen-flash"]}.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

MOST_ROUTES: Final = 500
MOST_TARGETS: Final = 50
MOST_NAME_CHARS: Final = 200
MOST_WEIGHT: Final = 1_000_000

_TARGET: Final = re.compile(r"([A-Za-z0-9_.-]{1,64}):(.+?)(?:\*([0-9]{1,7}))?", re.DOTALL)


class WrongRoute(ValueError):
    """Its message is a clause that names the route and what is wrong with it."""


class Destination(Struct, frozen=True):
    """model: of the backend's own list, by any spelling. weight: None where the targets are tried in order."""

    backend: str
    model: str
    weight: int | None = None

    def __str__(self) -> str:
        return f"{self.backend}:{self.model}" + ("" if self.weight is None else f"*{self.weight}")


class Rule(Struct, frozen=True):
    """One route: name is a public model name, or a pattern of such."""

    name: str
    destinations: tuple[Destination, ...]

    @property
    def is_pattern(self) -> bool:
        return "*" in self.name or "?" in self.name

    @property
    def is_weighted(self) -> bool:
        return self.destinations[0].weight is not None


def read_rules(text: str) -> tuple[Rule, ...]:
    """Either form. Raises WrongRoute."""
    named = _json(text) if text.lstrip().startswith("{") else _compact(text)
    rules: dict[str, Rule] = {}
    for name, targets in named:
        rule = make_rule(name, targets)
        if rules.setdefault(rule.name.casefold(), rule) is not rule:
            raise WrongRoute(f"there are two routes {rule.name!r}")
    if len(rules) > MOST_ROUTES:
        raise WrongRoute(f"there are more than {MOST_ROUTES} routes")
    return tuple(rules.values())


def make_rule(name: str, targets: Sequence[str]) -> Rule:
    """Raises WrongRoute."""
    name = name.strip()
    if not name or len(name) > MOST_NAME_CHARS or not name.isprintable():
        raise WrongRoute(f"a route has a name of 1 to {MOST_NAME_CHARS} printable characters, not {name[:50]!r}")
    if not targets or len(targets) > MOST_TARGETS:
        raise WrongRoute(f"route {name!r} has {len(targets)} targets; it takes 1 to {MOST_TARGETS}")
    rule = Rule(name, tuple(_destination(name, target.strip()) for target in targets))
    weighted = sum(each.weight is not None for each in rule.destinations)
    if weighted not in (0, len(targets)):
        raise WrongRoute(f"route {name!r} has a weight for {weighted} of its {len(targets)} targets; give all or none")
    return rule


def rules_text(rules: Iterable[Rule]) -> str:
    """As `read_rules` takes it: JSON, since a name may hold any character. Empty for none."""
    named = {rule.name: [str(each) for each in rule.destinations] for rule in rules}
    return msgspec.json.encode(named).decode() if named else ""


def _destination(name: str, text: str) -> Destination:
    match = _TARGET.fullmatch(text)
    if match is None or not match[2].strip():
        raise WrongRoute(
            f"route {name!r}: the target {text[:100]!r} is not of the form backend:model, as web:qwen3.7-plus"
        )
    weight = None if match[3] is None else int(match[3])
    if weight is not None and not 1 <= weight <= MOST_WEIGHT:
        raise WrongRoute(f"route {name!r}: the weight of {text[:100]!r} is not from 1 to {MOST_WEIGHT}")
    return Destination(match[1], match[2].strip(), weight)


def _compact(text: str) -> list[tuple[str, list[str]]]:
    named: list[tuple[str, list[str]]] = []
    for part in re.split(r"[;\n]", text):
        if part.strip():
            name, sign, targets = part.partition("=")
            if not sign:
                raise WrongRoute(f"the route {part.strip()[:100]!r} has no '='; it reads name=backend:model")
            named.append((name, targets.split(",")))
    return named


def _json(text: str) -> list[tuple[str, list[str]]]:
    try:
        return list(msgspec.json.decode(text, type=dict[str, list[str]]).items())
    except msgspec.DecodeError as error:
        raise WrongRoute(f"this is no JSON object of lists of texts ({error})") from error
