"""Where a request may go: the lists of all backends as they are now, and the names that clients use.

A list that is old, or that could not be had, is fetched in the background as soon as another backend has one: a
backend that is down costs those that are up nothing. A name that nobody knows waits for lists that were never tried.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import is_
from types import TracebackType
from typing import Final, Self

from msgspec import Struct, structs

from qwen_proxy.gateway.backend import Backend, BackendKind, Backends
from qwen_proxy.gateway.model_list import Catalogue
from qwen_proxy.gateway.routing import Directory, Listed, Naming, Route
from qwen_proxy.ground.errors import ModelNotFound, ProxyError
from qwen_proxy.runtime.tasks import Tasks

log = logging.getLogger(__name__)

MOST_DIRECTORIES: Final = 64  # of different choices of backends, as keys' policies make them
MOST_UNMAPPED: Final = 200  # names that are counted; they come from clients
MOST_NAME_CHARS: Final = 100


class Router:
    """Fetches in the background until it is left. `naming` may be replaced at any time."""

    def __init__(self, backends: Backends, naming: Naming) -> None:
        self._backends = backends
        self.naming = naming
        self._unmapped: Counter[str] = Counter()
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._made: dict[tuple[str, ...], _Made] = {}
        self._made_last: _Made | None = None
        self._present: _Present | None = None
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def unmapped(self) -> Mapping[str, int]:
        """Names asked for that nobody here gave a meaning, and how often, by this process."""
        return self._unmapped

    def backends(self) -> Sequence[Backend]:
        """Those that are there now, in the order in which they are tried."""
        return self._now().backends

    def find(self, name: str) -> Backend | None:
        """None: it was taken away meanwhile."""
        return self._now().by_name.get(name)

    @property
    def follows_sessions(self) -> bool:
        """Whether some backend keeps a conversation to one account."""
        return any(backend.leasing.follows_sessions for backend in self._now().backends)

    def settled(self, asked: str, backends: Sequence[Backend]) -> Route | None:
        """What `route` would give, where that is known of an earlier request and no list is due; else None."""
        made = self._made_last
        if made is None or made.backends is not backends or made.naming is not self.naming:
            return None
        for backend, listed in zip(backends, made.lists, strict=True):
            source = backend.catalogue
            if source.current is not listed or source.is_due:
                return None
        return made.directory.settled(asked)

    async def route(self, asked: str, backends: Sequence[Backend]) -> Route:
        """Over these backends, of those that are there. Raises ModelNotFound, or why there is no list at all."""
        directory = await self.directory(backends, asked)
        try:
            route = directory.find(asked)
        except ModelNotFound:
            self._note(asked)
            raise
        if not route.is_known:
            self._note(asked)
        return route

    async def directory(self, backends: Sequence[Backend], asked: str | None = None) -> Directory:
        """asked: the name that is to be found; without it lists that were never tried are waited for.

        Raises ProxyError when no backend has a list.
        """
        if len(backends) == 1:
            if backends[0].catalogue.is_due or backends[0].catalogue.current is None:
                await backends[0].catalogue.get()
            return self.known(backends)
        first = {backend.name for backend in backends if not backend.catalogue.was_tried}
        tasks = [(backend.name, self._fetch(backend)) for backend in backends if backend.catalogue.is_due]
        if first and (asked is None or not self._is_clear(backends, asked)):
            await _all([task for name, task in tasks if name in first])
        if not _has_any(backends):
            await _all([task for _, task in tasks])
        if not _has_any(backends):
            await backends[0].catalogue.get()  # raises what its fetch failed with
        return self.known(backends)

    def known(self, backends: Sequence[Backend]) -> Directory:
        """Of what was fetched, without asking anybody."""
        made = self._made_last
        if made is None or made.backends is not backends or not made.holds(backends, self.naming):
            made = self._made_last = self._made_of(backends)
        return made.directory

    def _made_of(self, backends: Sequence[Backend]) -> "_Made":
        key = tuple(backend.name for backend in backends)
        made = self._made.get(key)
        if made is not None and made.holds(backends, self.naming):
            return made
        if made is None and len(self._made) >= MOST_DIRECTORIES:
            self._made.clear()
        lists = [backend.catalogue.current for backend in backends]
        directory = Directory([_listed(backend) for backend in backends], self.naming)
        made = self._made[key] = _Made(self.naming, backends, lists, directory)
        return made

    def _now(self) -> "_Present":
        there, order, present = self._backends(), self.naming.order, self._present
        if present is not None and present.order is order:
            if present.there is there:
                return present
            if _same(present.there, there):
                present = self._present = structs.replace(present, there=there)
                return present
        present = self._present = _Present(
            order,
            there,
            sorted(there, key=lambda each: _rank(each, order)),
            {each.name: each for each in reversed(there)},
        )
        return present

    def _is_clear(self, backends: Sequence[Backend], asked: str) -> bool:
        """Whether the lists that are there tell all that there is to know of a name."""
        directory = self.known(backends)
        if not directory.has(asked):
            return False
        route = directory.find(asked)
        return route.is_known and not route.missing

    def _fetch(self, backend: Backend) -> "asyncio.Task[None]":
        task = self._fetching.get(backend.name)
        if task is None or task.done():
            task = self._tasks.spawn(_fetched(backend), name=f"model list of {backend.name}")
            self._fetching[backend.name] = task
        return task

    def _note(self, asked: str) -> None:
        name = asked[:MOST_NAME_CHARS]
        if name in self._unmapped or len(self._unmapped) < MOST_UNMAPPED:
            self._unmapped[name] += 1


def _rank(backend: Backend, order: Sequence[str]) -> int:
    words = (backend.name, backend.kind.value)
    return min((place for place, word in enumerate(order) if word in words), default=len(order))


class _Present(Struct, frozen=True, eq=False):
    """What is there. backends: by this order."""

    order: Sequence[str]
    there: tuple[Backend, ...]
    backends: Sequence[Backend]
    by_name: Mapping[str, Backend]


class _Made(Struct, frozen=True, eq=False):
    """lists: of the backends, of which it was made."""

    naming: Naming
    backends: Sequence[Backend]
    lists: Sequence[Catalogue | None]
    directory: Directory

    def holds(self, backends: Sequence[Backend], naming: Naming) -> bool:
        """Whether it would be made the same now."""
        if self.naming is not naming or not _same(self.backends, backends):
            return False
        return all(map(is_, self.lists, [backend.catalogue.current for backend in backends]))


def _listed(backend: Backend) -> Listed:
    return Listed(
        backend=backend.name,
        catalogue=backend.catalogue.current,
        prefix=backend.prefix,
        has_variants=backend.kind is BackendKind.WEB,
    )


def _same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(map(is_, some, others))


async def _fetched(backend: Backend) -> None:
    try:
        await backend.catalogue.get()
    except ProxyError as error:
        log.warning("model list not fetched", extra={"backend": backend.name, "reason": str(error)})


async def _all(tasks: Sequence["asyncio.Task[None]"]) -> None:
    if tasks:
        await asyncio.wait(tasks)


def _has_any(backends: Sequence[Backend]) -> bool:
    return any(backend.catalogue.current is not None for backend in backends)
