"""The model catalogue: fetched, kept for its lifetime, and asked for what a client's spelling means."""

import asyncio
import difflib
import fnmatch
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from qwen_proxy.chat.models import PLAIN, Model, ModelName, split_suffix
from qwen_proxy.ground.errors import ModelNotFound, ProxyError, UpstreamUnavailable
from qwen_proxy.runtime.clock import Clock

log = logging.getLogger(__name__)

RETRY_AFTER_FAILURE_SECONDS = 15.0  # how soon a failed fetch is tried again while a stale list serves
RETRY_FIRST_SECONDS = 2.0  # ... while there is none: GET /models is open to all, and must not hammer the upstream


class Resolved(Struct, frozen=True):
    """`name.base` is the upstream's id; `model` its entry in the list."""

    name: ModelName
    model: Model


class Catalogue:
    """One list of models, with every spelling a client may use. Immutable.

    aliases: (pattern, target) in order; `*` and `?` are wildcards, case does not count. Real names win over aliases.
    """

    def __init__(self, models: Sequence[Model], aliases: Sequence[tuple[str, str]] = ()) -> None:
        self.models = tuple(models)
        self._aliases = [(pattern.casefold(), target) for pattern, target in aliases]
        self._by_spelling: dict[str, Model] = {}
        for model in models:
            self._by_spelling.setdefault(model.id.casefold(), model)
        for model in models:
            self._by_spelling.setdefault(model.display_name.casefold(), model)
        self._resolved: dict[str, Resolved] = {}

    def resolve(self, asked: str) -> Resolved:
        """An id or display name, in any case, with or without a suffix; else an alias; empty: the first model.

        Whole names are tried before suffixes are taken off, since an id may end like one. Raises ModelNotFound.
        """
        known = self._resolved.get(asked)
        if known is None:
            known = self._find(asked) or self._through_alias(asked)
            if known is None:
                raise ModelNotFound(asked[:200], self._near(asked))
            if len(self._resolved) < 4096:  # spellings come from clients: bounded
                self._resolved[asked] = known
        return known

    def _find(self, asked: str) -> Resolved | None:
        if not asked.strip() and self.models:
            return Resolved(ModelName(self.models[0].id), self.models[0])
        folded = asked.strip().casefold()
        if (model := self._by_spelling.get(folded)) is not None:
            return Resolved(ModelName(model.id, PLAIN), model)
        base, variant = split_suffix(folded)
        if variant is not PLAIN and (model := self._by_spelling.get(base)) is not None:
            return Resolved(ModelName(model.id, variant), model)
        return None

    def _through_alias(self, asked: str) -> Resolved | None:
        folded = asked.casefold()
        for pattern, target in self._aliases:
            if fnmatch.fnmatchcase(folded, pattern):
                return self._find(target)
        return None

    def _near(self, asked: str) -> list[str]:
        names = {name.casefold(): name for model in self.models for name in (model.id, model.display_name)}
        base, _ = split_suffix(asked[:200].casefold())
        return [names[near] for near in difflib.get_close_matches(base, names, n=3, cutoff=0.6)]


class CatalogueSource:
    """Keeps the current Catalogue. One fetch for all who wait, good or bad; a failed one leaves the old list in place.

    ttl_seconds 0 keeps the first list for ever, as the original's MODELS_CACHE_TTL does.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Sequence[Model]]],
        *,
        clock: Clock,
        ttl_seconds: float,
        aliases: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._aliases = tuple(aliases)
        self._current: Catalogue | None = None
        self._stale_at = 0.0
        self._failure: ProxyError = UpstreamUnavailable("no model list was fetched yet")  # of the last failed fetch
        self._again_at = 0.0  # not before, while there is no list
        self._fetches = 0
        self._lock = asyncio.Lock()

    def configure(self, *, ttl_seconds: float, aliases: Sequence[tuple[str, str]]) -> None:
        """From now on; the list itself stays until its time is over, the old lifetime or the new, whichever is less."""
        self._ttl_seconds = ttl_seconds
        self._stale_at = min(self._stale_at, self._clock.monotonic() + ttl_seconds)
        if self._aliases != tuple(aliases):
            self._aliases = tuple(aliases)
            if self._current is not None:
                self._current = Catalogue(self._current.models, self._aliases)

    async def get(self) -> Catalogue:
        """The list, at most its lifetime old while fetching works. Raises ProxyError when there never was one."""
        current = self._current
        if current is not None and (self._ttl_seconds == 0 or self._clock.monotonic() < self._stale_at):
            return current
        if current is not None and self._lock.locked():
            return current  # someone is fetching; what is stale serves until then
        if current is None and self._clock.monotonic() < self._again_at:
            raise self._failure.with_traceback(None)
        fetches = self._fetches
        async with self._lock:
            if self._fetches == fetches:
                return await self._refreshed()
            if self._current is None:  # what the others waited for failed: not again for each of them
                raise self._failure.with_traceback(None)
            return self._current

    async def refresh(self) -> Catalogue:
        """Fetch now, whatever the age."""
        async with self._lock:
            return await self._refreshed()

    async def _refreshed(self) -> Catalogue:
        try:
            models = await self._fetch()
            if not models:
                raise UpstreamUnavailable("its model list is empty")
        except ProxyError as error:
            self._fetches += 1
            self._failure = error
            if self._current is None:
                self._again_at = self._clock.monotonic() + RETRY_FIRST_SECONDS
                raise
            log.warning("model list not refreshed", extra={"reason": str(error)})
            self._stale_at = self._clock.monotonic() + RETRY_AFTER_FAILURE_SECONDS
            return self._current
        self._fetches += 1
        self._current = Catalogue(models, self._aliases)
        self._stale_at = self._clock.monotonic() + self._ttl_seconds
        return self._current
