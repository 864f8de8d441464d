"""A backend's model list: fetched, and kept for its lifetime."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from qwen_proxy.chat.models import Model
from qwen_proxy.gateway.model_list import Catalogue
from qwen_proxy.ground.errors import ProxyError, UpstreamUnavailable
from qwen_proxy.runtime.clock import Clock

log = logging.getLogger(__name__)

RETRY_AFTER_FAILURE_SECONDS = 15.0  # how soon a failed fetch is tried again while a stale list serves
RETRY_FIRST_SECONDS = 2.0  # ... while there is none: GET /models is open to all, and must not hammer the upstream


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
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._current: Catalogue | None = None
        self._stale_at = 0.0
        self._failure: ProxyError = UpstreamUnavailable("no model list was fetched yet")  # of the last failed fetch
        self._again_at = 0.0  # not before, while there is no list
        self._fetches = 0
        self._lock = asyncio.Lock()

    def configure(self, *, ttl_seconds: float) -> None:
        """From now on; the list itself stays until its time is over, the old lifetime or the new, whichever is less."""
        self._ttl_seconds = ttl_seconds
        self._stale_at = min(self._stale_at, self._clock.monotonic() + ttl_seconds)

    @property
    def current(self) -> Catalogue | None:
        """The last list that was fetched, whatever its age."""
        return self._current

    @property
    def is_due(self) -> bool:
        """Whether a fetch would do good: there is no list or an old one, and none has just failed."""
        now = self._clock.monotonic()
        if self._current is None:
            return now >= self._again_at
        return self._ttl_seconds != 0 and now >= self._stale_at

    @property
    def was_tried(self) -> bool:
        """Whether a fetch has ended, well or not."""
        return self._fetches > 0

    async def get(self) -> Catalogue:
        """The list, at most its lifetime old while fetching works. Raises ProxyError when there never was one."""
        current = self._current
        if current is not None and not self.is_due:
            return current
        if current is not None and self._lock.locked():
            return current  # someone is fetching; what is stale serves until then
        if current is None and not self.is_due:
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
        self._current = Catalogue(models)
        self._stale_at = self._clock.monotonic() + self._ttl_seconds
        return self._current
