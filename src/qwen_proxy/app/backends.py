"""The backends besides chat.qwen.ai, as this process has them: made from the environment and from what is kept."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.key_health import KeyHealth, after_test
from qwen_proxy.accounts.key_pool import Change, KeyPool, KeyReport, Tried
from qwen_proxy.accounts.model import DIRECT, Credential
from qwen_proxy.app.commons import Commons
from qwen_proxy.app.door import transport_options
from qwen_proxy.app.machine import Machine
from qwen_proxy.app.prompted import Prompted, prompted
from qwen_proxy.app.qwen_code import QwenCodeDoor
from qwen_proxy.chat.models import Model
from qwen_proxy.config.backend_book import (
    BackendBook,
    KeptBackend,
    KnownBackend,
    health_id,
    key_id,
    together,
)
from qwen_proxy.config.backend_settings import environment_backends
from qwen_proxy.config.backends import QWEN_CODE, BackendSpec, ServerKind
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import Settings, WrongSetting
from qwen_proxy.gateway.backend import Backend, BackendKind
from qwen_proxy.gateway.catalogue import CatalogueSource
from qwen_proxy.gateway.verdict import outcome_of
from qwen_proxy.ground.errors import AccountError, NoAccountUsable, NotFound, ProxyError, StoreUnavailable
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import BACKEND, BACKEND_KEY
from qwen_proxy.state.store import Beat, Hold, Record
from qwen_proxy.upstreams.base import ApiOptions, ServerUpstream
from qwen_proxy.upstreams.table import UPSTREAMS
from qwen_proxy.upstreams.transport import Transport, TransportOptions

log = logging.getLogger(__name__)

MODELS_SECONDS: Final = 20.0
TRIED_AT_ONCE: Final = 8


class _Running(Struct, frozen=True, eq=False):
    spec: BackendSpec
    pool: KeyPool
    upstream: ServerUpstream
    prompted: Prompted
    backend: Backend


class ApiBackends:
    """Subscribes to the watch when it is made: make it before the watch is loaded. Fits `membership.Holder`."""

    def __init__(
        self,
        live: LiveSettings,
        commons: Commons,
        transport: Transport,
        machine: Machine,
        chat_base_url: str,
        local: Sequence[BackendSpec] = (),
    ) -> None:
        self._live = live
        self._commons = commons
        self._transport = transport
        self._machine = machine
        self._environment = spoken((*local, *environment_backends(live.base)))
        self.book: Final = BackendBook(commons.store, commons.vault, self._environment, protocols=UPSTREAMS)
        self._health: Collection[KeyHealth] = Collection(commons.store, BACKEND_KEY, KeyHealth, commons.vault)
        self._kept: dict[str, KeptBackend] = {}
        self._keys: dict[str, KeyHealth] = {}
        self._known: list[KnownBackend] = []
        self._running: dict[str, _Running] = {}
        self._enabled: tuple[Backend, ...] = ()
        self._tasks = Tasks()
        self.qwen_code: Final = QwenCodeDoor(live, commons, transport, machine, chat_base_url, self._save)
        commons.membership.add(self)
        commons.watch.subscribe(BACKEND, self._take_backends)
        commons.watch.subscribe(BACKEND_KEY, self._take_health)
        live.on_change(self._configure)
        self._rebuild()

    def current(self) -> tuple[Backend, ...]:
        """Those that are switched on. Asked several times a request, so made only when something changes."""
        return self._enabled

    def reports(self, name: str) -> list[KeyReport]:
        running = self._running.get(name)
        return [] if running is None else running.pool.reports()

    async def close(self) -> None:
        await self.qwen_code.close()
        for running in self._running.values():
            await running.pool.close()
        await self._tasks.__aexit__(None, None, None)

    async def test(self, name: str) -> list[Tried]:
        """Ask for the models with every key; one that works is used again, whatever it did before, and what a refusal
        tells of a key is learned.

        Raises NotFound.
        """
        known = await self.book.get(name)
        running = self._running.get(name)
        if running is None or running.spec != known.spec:
            await self._commons.watch.catch_up()
            running = self._running.get(name)
        if running is None:  # somebody else removed it meanwhile
            raise NotFound(f"backend {name!r}")
        credentials, found = running.pool.every_credential(), list[Tried]()
        for at in range(0, len(credentials), TRIED_AT_ONCE):
            some = credentials[at : at + TRIED_AT_ONCE]
            found += await asyncio.gather(*(self._tried(running, credential) for credential in some))
        return found

    async def _tried(self, running: _Running, credential: Credential) -> Tried:
        deadline = self._machine.clock.monotonic() + MODELS_SECONDS
        try:
            models = await running.upstream.listed(credential, deadline)
        except ProxyError as error:
            if isinstance(error, AccountError) and (seat := running.pool.find(credential.account_id)) is not None:
                running.pool.learn(seat, outcome_of(error))
            return Tried(key=credential.account_id, problem=str(error))
        await self._save(running.spec.name, credential.account_id, after_test)
        return Tried(key=credential.account_id, models=tuple(model.id for model in models))

    # --- what is kept

    def _take_backends(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        for id in gone:
            self._kept.pop(id, None)
        for entry in self.book.records.readable(records):
            self._kept[entry.id] = entry.value
        self._rebuild()

    def _take_health(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        for id in gone:
            self._keys.pop(id, None)
            self._tell_health(id, None)
        for entry in self._health.readable(records):
            self._keys[entry.id] = entry.value
            self._tell_health(entry.id, entry.value)

    def _tell_health(self, id: str, health: KeyHealth | None) -> None:
        name, _, key = id.partition("/")
        if name == QWEN_CODE:
            self.qwen_code.pool.learned(key, health)
        elif (running := self._running.get(name)) is not None:
            running.pool.learned(key, health)

    async def _save(self, name: str, key: str, change: Change) -> None:
        sound = KeyHealth()

        def changed(before: KeyHealth | None) -> KeyHealth | None:
            after = change(before or sound)
            return None if after == sound else after

        await self._health.update(health_id(name, key), changed)

    # --- what runs

    def _rebuild(self) -> None:
        self._known = together(self._environment, self._kept)
        before, self._running = self._running, {}
        for known in self._known:
            spec = known.spec
            if spec.protocol not in UPSTREAMS:  # another version may speak it
                log.error("a backend's protocol is unknown", extra={"backend": spec.name, "protocol": spec.protocol})
                continue
            running = before.pop(spec.name, None)
            if running is not None and replace(running.spec, enabled=spec.enabled) == spec:
                running = replace(running, spec=spec)  # with its list of models, so that it serves at once
            else:
                running = self._start(spec, None if running is None else running.pool)
            self._running[spec.name] = running
        enabled = [each.backend for each in self._running.values() if each.spec.enabled]
        self._enabled = (*enabled, *self.qwen_code.backends())
        for gone in before.values():
            self._tasks.spawn(gone.pool.close(), name="close a backend")

    def _start(self, spec: BackendSpec, pool: KeyPool | None) -> _Running:
        clock, settings = self._machine.clock, self._live.current
        exit = exit_of(spec, settings)
        if pool is None:
            pool = self._pool(spec, exit)
        else:
            pool.use(spec, exit)
        make = UPSTREAMS[spec.protocol]
        upstream = make(self._transport, api_options(spec, exit), clock=clock, ids=self._machine.ids)
        prompts = prompted(upstream, self._machine.ids, settings)

        async def fetch() -> Sequence[Model]:
            return await self._models(pool, upstream)

        backend = Backend(
            name=spec.name,
            kind=BackendKind(spec.kind.value),
            upstream=prompts.upstream,
            leasing=pool,
            catalogue=CatalogueSource(fetch, clock=clock, ttl_seconds=settings.models_cache_ttl_seconds),
            prefix=spec.prefix,
            shortage=pool.shortage,
        )
        return _Running(spec, pool, upstream, prompts, backend)

    def _pool(self, spec: BackendSpec, exit: str) -> KeyPool:
        name = spec.name

        async def save(key: str, change: Change) -> None:
            try:
                await self._save(name, key, change)
            except StoreUnavailable as error:  # this process knows it all the same
                log.warning("the health of an API key was not kept", extra={"backend": name, "reason": str(error)})

        pool = KeyPool(
            spec,
            exit,
            digest=lambda key: key_id(self._commons.vault, key),
            save=save,
            trading=self._commons.membership,
            clock=self._machine.clock,
        )
        for id, health in self._keys.items():
            if id.startswith(f"{name}/"):
                pool.learned(id.partition("/")[2], health)
        return pool

    async def _models(self, pool: KeyPool, upstream: ServerUpstream) -> Sequence[Model]:
        """With the first key that is taken; what a refusal tells of a key is learned."""
        deadline = self._machine.clock.monotonic() + MODELS_SECONDS
        if pool.spec.models:
            return await upstream.models(None, deadline)
        failure: ProxyError = pool.shortage() or NoAccountUsable("no API key can be used now")
        for credential in pool.credentials():
            try:
                return await upstream.models(credential, deadline)
            except AccountError as error:
                failure = error
                if (seat := pool.find(credential.account_id)) is not None:
                    pool.learn(seat, outcome_of(error))
        raise failure

    def _configure(self, settings: Settings) -> None:
        for running in self._running.values():
            running.backend.catalogue.configure(ttl_seconds=settings.models_cache_ttl_seconds)
            running.prompted.apply(settings)

    # --- what is held of the limits over all processes

    @property
    def is_hungry(self) -> bool:
        return any(running.pool.is_hungry for running in self._running.values())

    def held(self) -> Iterable[Hold]:
        return [hold for running in self._running.values() for hold in running.pool.held()]

    def forget_idle(self) -> None:
        """Nothing is held idle."""

    async def after_beat(self, beat: Beat) -> None:
        """Nothing is there to be given back."""


@asynccontextmanager
async def open_backends(
    live: LiveSettings,
    commons: Commons,
    machine: Machine,
    *,
    chat_base_url: str,
    local: Sequence[BackendSpec] = (),
) -> AsyncGenerator[ApiBackends]:
    """To be entered before `open_pool`, which loads the watch. chat_base_url: of the site, where Qwen Code signs in.
    local: those that the supervisor itself runs."""
    async with Transport(machine.clock, backend_transport(live.base)) as transport:
        backends = ApiBackends(live, commons, transport, machine, chat_base_url, local)
        try:
            yield backends
        finally:
            await backends.close()


def spoken(specs: tuple[BackendSpec, ...]) -> tuple[BackendSpec, ...]:
    """These, if somebody here speaks to each. Raises WrongSetting."""
    for spec in specs:
        if spec.protocol not in UPSTREAMS:
            raise WrongSetting("BACKENDS", spec.protocol, f"backends whose `protocol` is one of {', '.join(UPSTREAMS)}")
    return specs


def exit_of(spec: BackendSpec, settings: Settings) -> str:
    """A server of one's own is not behind the general proxy."""
    return spec.exit or (settings.proxy_url if spec.kind is ServerKind.API else DIRECT)


def api_options(spec: BackendSpec, exit: str) -> ApiOptions:
    return ApiOptions(
        name=spec.name,
        base_url=spec.base_url,
        models=spec.models,
        usual_models=spec.usual_models,
        headers=tuple((name, value.reveal()) for name, value in spec.headers),
        thinking=spec.thinking,
        exit=exit,
    )


def backend_transport(settings: Settings) -> TransportOptions:
    """A local server may think about a long prompt before it says anything: silence has one limit, whenever it is."""
    options = transport_options(settings)
    return replace(options, headers_seconds=max(options.headers_seconds, options.idle_seconds))
