"""Where a model name leads, over the lists of all backends. Pure.

| asked for | leads to |
|---|---|
| nothing | the first model of the first backend, as if it had been named |
| the name of a route | the route's targets |
| `backend/model` | that backend's model, and no other's |
| a model's id or readable name (behind the backend's prefix, where it has one) | every backend that has it, in order |
| what a route's pattern fits, then what MODEL_MAP fits | the route's targets; the name that MODEL_MAP gives |
| a name of other vendors' (`claude-…`, `gpt-…`, …), unless that is switched off | the default or a fast model |

The first line that fits counts. In each, a whole name is tried before a suffix (`-thinking`) is taken off it, since an
id may end like one.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Final

from msgspec import Struct, structs

from qwen_proxy.chat.models import PLAIN, Model, ModelName, Variant, split_suffix, suffix_of
from qwen_proxy.config.routes import Destination, Rule
from qwen_proxy.gateway.model_list import Catalogue
from qwen_proxy.ground.errors import ModelNotFound

MOST_SPELLINGS: Final = 4096  # whose route is kept: they come from clients
MOST_TOLD_CHARS: Final = 200

OTHERS: Final = ("claude-*", "gpt-*", "chatgpt-*", "o1*", "o3*", "o4*", "gemini-*", "codex-*")
SMALL: Final = frozenset(("haiku", "mini", "nano", "flash", "lite"))  # of other vendors' names: a fast model is wanted
FAST: Final = frozenset(("flash", "turbo", "lite", "mini"))  # of ours: a fast model


class Found(StrEnum):
    """By which line of the table above."""

    DEFAULT = "default"
    ROUTE = "route"
    QUALIFIED = "qualified"
    MODEL = "model"
    PATTERN = "pattern"
    ALIAS = "alias"
    OTHER = "other"


class Listed(Struct, frozen=True, kw_only=True):
    """A backend's list. catalogue: None while it could not be fetched. prefix: stands before its models' public ids.

    has_variants: whether its models are listed with suffixes too.
    """

    backend: str
    catalogue: Catalogue | None
    prefix: str = ""
    has_variants: bool = False


class Target(Struct, frozen=True, kw_only=True):
    """A model of a backend. name: what to ask for there. public: its id in the public list, without a suffix.

    weight: None where targets are tried in order.
    """

    backend: str
    name: ModelName
    model: Model
    public: str
    weight: int | None = None

    def names(self) -> tuple[str, ...]:
        """All that a key's patterns may know it by, the one to tell first."""
        own = self.model.names(self.name.variant)
        qualified = [f"{self.backend}/{name}" for name in own]
        return tuple(dict.fromkeys((self.public + suffix_of(self.name.variant), *own, self.public, *qualified)))


class Missing(Struct, frozen=True):
    """A target of a route that is not there. why: a clause."""

    backend: str
    model: str
    why: str


class Route(Struct, frozen=True, kw_only=True):
    """name: as replies call the model. via: the name that stands for the one asked, empty where it stands for itself.

    targets: in the order of the configuration; see `ordered`.
    """

    name: str
    found: Found
    targets: tuple[Target, ...]
    via: str = ""
    missing: tuple[Missing, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether somebody here gave the name a meaning: the operator or a list."""
        return self.found is not Found.OTHER

    def entry(self) -> "Entry":
        """As the public list has it, or would."""
        target = self.targets[0]
        model = target.model
        if self.found in (Found.ROUTE, Found.PATTERN):
            return Entry(id=self.name, display_name=self.name, backend="", model=model)
        before = target.public.removesuffix(model.id)
        return Entry(id=target.public, display_name=before + model.display_name, backend=target.backend, model=model)


class Entry(Struct, frozen=True, kw_only=True):
    """A line of the public list. id, display_name: the two spellings, without suffixes. backend: empty for a route."""

    id: str
    display_name: str
    backend: str
    model: Model
    has_variants: bool = False

    def names(self, variant: Variant) -> tuple[str, ...]:
        """All that a key's patterns may know it by."""
        suffix = suffix_of(variant)
        own = self.model.names(variant)
        qualified = [f"{self.backend}/{name}" for name in own] if self.backend else []
        return tuple(dict.fromkeys((self.id + suffix, self.display_name + suffix, *own, *qualified)))


class Naming(Struct, frozen=True, kw_only=True):
    """What the operator decided about names. aliases: MODEL_MAP, in order. others: the target of other vendors' names,
    None to leave them unknown, empty to choose one. order: backends or kinds that come first."""

    rules: tuple[Rule, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    others: str | None = ""
    order: tuple[str, ...] = ("web",)


class Directory:
    """All lists together. Immutable."""

    def __init__(self, lists: Sequence[Listed], naming: Naming) -> None:
        self.lists = tuple(lists)
        self._by_backend = {each.backend.casefold(): each for each in lists}
        self._rules = {rule.name.casefold(): rule for rule in naming.rules if not rule.is_pattern}
        self._patterns = [(rule.name.casefold(), rule) for rule in naming.rules if rule.is_pattern]
        self._aliases = [(pattern.casefold(), target) for pattern, target in naming.aliases]
        self._others = naming.others
        self._publics = {(entry.backend, entry.model.id): entry.id for entry in self._model_entries()}
        self._found: dict[str, Route] = {}

    def find(self, asked: str) -> Route:
        """A route may be without targets, where all that it names is missing. Raises ModelNotFound."""
        known = self._found.get(asked)
        if known is None:
            known = self._find(asked)
            if known is None:
                raise ModelNotFound(asked[:MOST_TOLD_CHARS], self._near(asked))
            if len(self._found) < MOST_SPELLINGS:
                self._found[asked] = known
        return known

    def settled(self, asked: str) -> Route | None:
        """A route that was found before, to somewhere, by a name that has a meaning here."""
        known = self._found.get(asked)
        return known if known is not None and known.targets and known.is_known else None

    def has(self, asked: str) -> bool:
        return asked in self._found or self._find(asked) is not None

    def why_missing(self, destination: Destination) -> str:
        """A clause; empty where it is there."""
        target = self._destined(destination, PLAIN)
        return target if isinstance(target, str) else ""

    def entries(self) -> list[Entry]:
        """The public list: backend by backend, then the routes that have a name of their own."""
        entries = list(self._model_entries())
        taken = {entry.id.casefold() for entry in entries}
        for folded, rule in self._rules.items():
            route = self._through(rule, PLAIN, Found.ROUTE)
            if folded not in taken and route.targets:
                model = route.targets[0].model
                entries.append(Entry(id=rule.name, display_name=rule.name, backend="", model=model))
        return entries

    # --- finding

    def _find(self, asked: str) -> Route | None:
        folded = asked.strip().casefold()
        if not folded:
            return self._default()
        found = self._named(asked) or self._fitting(folded)
        if found is not None:
            return found
        alias = next((target for pattern, target in self._aliases if fnmatchcase(folded, pattern)), None)
        if alias is not None:
            return _by_way_of(alias, self._named(alias), Found.ALIAS)
        return self._other(folded)

    def _named(self, asked: str) -> Route | None:
        folded = asked.strip().casefold()
        found = self._whole(folded, PLAIN)
        if found is None:
            base, variant = split_suffix(folded)
            if variant is not PLAIN:
                found = self._whole(base, variant)
        return found

    def _whole(self, folded: str, variant: Variant) -> Route | None:
        if (rule := self._rules.get(folded)) is not None:
            return self._through(rule, variant, Found.ROUTE)
        backend, slash, rest = folded.partition("/")
        if slash and (listed := self._by_backend.get(backend)) is not None:
            target = self._target(listed, rest, variant)
            if target is not None:
                name = f"{listed.backend}/{target.model.id}"
                return Route(name=name, found=Found.QUALIFIED, targets=(target,))
        targets = [
            target
            for listed in self.lists
            if folded.startswith(listed.prefix.casefold())
            and (target := self._target(listed, folded[len(listed.prefix) :], variant)) is not None
        ]
        if not targets:
            return None
        first = targets[0]
        prefix = self._by_backend[first.backend.casefold()].prefix
        return Route(name=prefix + first.model.id, found=Found.MODEL, targets=tuple(targets))

    def _fitting(self, folded: str) -> Route | None:
        for pattern, rule in self._patterns:
            if fnmatchcase(folded, pattern):
                return self._through(rule, PLAIN, Found.PATTERN)
        return None

    def _other(self, folded: str) -> Route | None:
        if self._others is None or not any(fnmatchcase(folded, pattern) for pattern in OTHERS):
            return None
        if self._others:
            return _by_way_of(self._others, self._named(self._others), Found.OTHER)
        model = (self._fast() if SMALL & _words(folded) else None) or self._first()
        return None if model is None else _by_way_of(model, self._named(model), Found.OTHER)

    def _default(self) -> Route | None:
        first = self._first()
        found = None if first is None else self._named(first)
        return None if found is None else structs.replace(found, found=Found.DEFAULT)

    def _models(self) -> Iterator[tuple[Listed, Model]]:
        for listed in self.lists:
            if listed.catalogue is not None:
                for model in listed.catalogue.models:
                    yield listed, model

    def _first(self) -> str | None:
        """The public id of the model that is taken where none is named."""
        return next((listed.prefix + model.id for listed, model in self._models()), None)

    def _fast(self) -> str | None:
        return next((listed.prefix + model.id for listed, model in self._models() if FAST & _words(model.id)), None)

    # --- targets

    def _target(self, listed: Listed, folded: str, variant: Variant, weight: int | None = None) -> Target | None:
        model = None if listed.catalogue is None else listed.catalogue.named(folded)
        if model is None:
            return None
        public = self._publics.get((listed.backend, model.id), listed.prefix + model.id)
        return Target(
            backend=listed.backend, name=ModelName(model.id, variant), model=model, public=public, weight=weight
        )

    def _through(self, rule: Rule, variant: Variant, found: Found) -> Route:
        targets: list[Target] = []
        missing: list[Missing] = []
        for destination in rule.destinations:
            target = self._destined(destination, variant)
            if isinstance(target, Target):
                targets.append(target)
            else:
                missing.append(Missing(destination.backend, destination.model, target))
        name = rule.name if found is Found.ROUTE else (targets[0].public if targets else rule.name)
        return Route(
            name=name,
            found=found,
            targets=tuple(targets),
            via="" if found is Found.ROUTE else rule.name,
            missing=tuple(missing),
        )

    def _destined(self, destination: Destination, variant: Variant) -> Target | str:
        """A target, or why there is none."""
        listed = self._by_backend.get(destination.backend.casefold())
        if listed is None:
            return "there is no such backend"
        if listed.catalogue is None:
            return "its model list could not be fetched"
        folded = destination.model.casefold()
        target = self._target(listed, folded, variant, destination.weight)
        if target is None:
            base, own = split_suffix(folded)
            target = self._target(listed, base, own if variant is PLAIN else variant, destination.weight)
        return target or "it has no such model"

    # --- the public list

    def _model_entries(self) -> Iterator[Entry]:
        """An id that an earlier backend has is told with this backend's name before it."""
        taken: set[str] = set()
        for listed, model in self._models():
            id, display_name = listed.prefix + model.id, listed.prefix + model.display_name
            if id.casefold() in taken:
                id, display_name = f"{listed.backend}/{model.id}", f"{listed.backend}/{model.display_name}"
            taken.add(id.casefold())
            yield Entry(
                id=id,
                display_name=display_name,
                backend=listed.backend,
                model=model,
                has_variants=listed.has_variants,
            )

    def _near(self, asked: str) -> list[str]:
        names = {name.casefold(): name for entry in self.entries() for name in (entry.id, entry.display_name)}
        base, _ = split_suffix(asked[:MOST_TOLD_CHARS].casefold())
        return [names[near] for near in difflib.get_close_matches(base, names, n=3, cutoff=0.6)]


def ordered(targets: Sequence[Target], draw: Callable[[str], float]) -> tuple[Target, ...]:
    """In the order in which they are to be tried. draw: a number from above 0 to 1 for a text, the same for one
    conversation: so it keeps to its target while that can be had, and another target more or less moves few.

    Each is first as often as its weight says (weighted rendezvous hashing).
    """
    if len(targets) < 2 or targets[0].weight is None:
        return tuple(targets)

    def score(target: Target) -> float:
        return -math.log(draw(f"{target.backend}:{target.name.base}")) / (target.weight or 1)

    return tuple(sorted(targets, key=score))


def searching(route: Route) -> Route:
    """The same, with a search by every target whose model can search."""
    targets = [
        structs.replace(target, name=structs.replace(name, variant=structs.replace(name.variant, search=True)))
        if target.model.searches
        else target
        for target in route.targets
        for name in (target.name,)
    ]
    return structs.replace(route, targets=tuple(targets))


def share_of(seed: str, place: str) -> float:
    """Evenly spread over what is above 0 up to 1, always the same for the same two words."""
    digest = blake2b(f"{seed}\n{place}".encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) + 1) / 2**64


def _by_way_of(via: str, route: Route | None, found: Found) -> Route | None:
    return None if route is None else structs.replace(route, found=found, via=via)


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[-_.:/ ]", name.casefold()))
