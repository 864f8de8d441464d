"""Qwen Code as a backend: its sign-ins, their pool and its service, as this process has them."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

from qwen_proxy.accounts.grants import GrantPool, Grants
from qwen_proxy.accounts.key_health import SOUND
from qwen_proxy.accounts.key_pool import Change
from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.admin.qwen_code_desk import QwenCodeParts
from qwen_proxy.app.commons import Commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.chat.models import Model
from qwen_proxy.config.backends import QWEN_CODE, BackendSpec
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import Settings
from qwen_proxy.gateway.backend import Backend, BackendKind
from qwen_proxy.gateway.catalogue import CatalogueSource
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.environment import platform_names
from qwen_proxy.state.kinds import GRANT
from qwen_proxy.upstreams.openai_api.listing import named
from qwen_proxy.upstreams.qwen_code import DeviceSignIn, QwenCode, QwenCodeOptions
from qwen_proxy.upstreams.qwen_code_wire import ENDED, INSTEAD, agent
from qwen_proxy.upstreams.transport import Transport

log = logging.getLogger(__name__)

USUAL_BASE: Final = "https://portal.qwen.ai"  # the default of QWEN_CLI_PROXY_URL
IF_NONE: Final = (
    f"nobody is signed in at Qwen Code (qwen-proxy qwen-code login), and that may not help: {ENDED}; {INSTEAD}"
)

Save = Callable[[str, str, Change], Coroutine[None, None, None]]


class QwenCodeDoor:
    """save: keeps the health of what a backend leases. It subscribes to the watch, as ApiBackends does."""

    def __init__(
        self,
        live: LiveSettings,
        commons: Commons,
        transport: Transport,
        machine: Machine,
        chat_base_url: str,
        save: Save,
    ) -> None:
        settings, self._save = live.base, save
        self.is_enabled: Final = settings.qwen_code_enabled
        options = qwen_code_options(settings, chat_base_url)
        self.sign_in: Final = DeviceSignIn(transport, options, ids=machine.ids)
        self._exit = options.exit
        self.grants: Final = Grants(
            commons.store,
            commons.vault,
            self.sign_in.refresh,
            self._changed,
            machine.clock,
            renews_early=lambda: self.is_enabled and live.current.auto_refresh,
        )

        async def keep(id: str, change: Change) -> None:
            try:
                await save(QWEN_CODE, id, change)
            except StoreUnavailable as error:  # this process knows it all the same
                log.warning("the health of a sign-in was not kept", extra={"grant": id, "reason": str(error)})

        self.pool: Final = GrantPool(
            BackendSpec(name=QWEN_CODE, base_url=options.usual_base, models=settings.qwen_code_models),
            options.exit,
            self.grants,
            if_none=IF_NONE,
            save=keep,
            trading=commons.membership,
            clock=machine.clock,
        )
        self.upstream: Final = QwenCode(
            transport,
            options,
            self._resource_of,
            name=QWEN_CODE,
            models=settings.qwen_code_models,
            clock=machine.clock,
            ids=machine.ids,
        )
        models = named(settings.qwen_code_models)

        async def fetch() -> Sequence[Model]:
            return models

        self._backend = Backend(
            name=QWEN_CODE,
            kind=BackendKind.API,
            upstream=self.upstream,
            leasing=self.pool,
            catalogue=CatalogueSource(fetch, clock=machine.clock, ttl_seconds=settings.models_cache_ttl_seconds),
            shortage=self.pool.shortage,
        )
        commons.watch.subscribe(GRANT, self.grants.take)

    def backends(self) -> Sequence[Backend]:
        return (self._backend,) if self.is_enabled else ()

    async def close(self) -> None:
        await self.pool.close()
        await self.grants.close()

    def parts(self) -> QwenCodeParts:
        """For the admin API."""
        return QwenCodeParts(
            is_enabled=self.is_enabled,
            models=self.pool.spec.models,
            grants=self.grants,
            pool=self.pool,
            upstream=self.upstream,
            sign_in=self.sign_in,
            service_of=self.upstream.base_of,
            save=self._save_health,
        )

    async def _save_health(self, id: str, change: Change | None) -> None:
        await self._save(QWEN_CODE, id, change or (lambda health: SOUND))

    def _changed(self) -> None:
        self.pool.changed(self._exit)

    def _resource_of(self, id: str) -> str:
        grant = self.grants.known.get(id)
        return "" if grant is None else grant.resource_url


def qwen_code_options(settings: Settings, chat_base_url: str) -> QwenCodeOptions:
    """QWEN_CLI_PROXY_URL, where it is set, holds whatever a sign-in tells: it is a proxy of the operator's own."""
    is_own = settings.cli_base_url != USUAL_BASE
    return QwenCodeOptions(
        chat_base_url=chat_base_url,
        usual_base=settings.cli_base_url,
        fixed_base=settings.cli_base_url if is_own else "",
        agent=agent(settings.qwen_code_version, *platform_names()),
        exit=settings.proxy_url or DIRECT,
    )
