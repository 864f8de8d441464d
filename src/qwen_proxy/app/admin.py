"""The admin API, put together."""

from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from qwen_proxy.accounts.bulk.batches import Batches
from qwen_proxy.accounts.bulk.book import BatchBook
from qwen_proxy.accounts.pool import AccountPool
from qwen_proxy.admin.account_desk import AccountDesk
from qwen_proxy.admin.accounts import AccountRoutes
from qwen_proxy.admin.backends import BackendRoutes, Desk
from qwen_proxy.admin.batches import BatchRoutes
from qwen_proxy.admin.diagnostics import DiagnosticsRoutes
from qwen_proxy.admin.keys import KeyRoutes
from qwen_proxy.admin.original import OriginalAccounts
from qwen_proxy.admin.original_settings import OriginalSettings
from qwen_proxy.admin.qwen_code import QwenCodeRoutes
from qwen_proxy.admin.qwen_code_desk import QwenCodeDesk, QwenCodeParts
from qwen_proxy.admin.records import RecordRoutes
from qwen_proxy.admin.routes import RouteRoutes
from qwen_proxy.admin.routing import AdminRoute
from qwen_proxy.admin.sessions import SessionRoutes
from qwen_proxy.admin.settings import SettingsRoutes
from qwen_proxy.admin.usage import UsageRoutes
from qwen_proxy.app.commons import Commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import Settings
from qwen_proxy.gateway.admission import Admission as Limits
from qwen_proxy.gateway.router import Router
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.serving.auth import Authenticator, Doors
from qwen_proxy.serving.sessions import Sessions
from qwen_proxy.serving.streaming import Heartbeats
from qwen_proxy.serving.throttle import Throttle


class Admission(Struct, frozen=True):
    """Who is let in, and the sessions of those who have signed in."""

    authenticator: Authenticator
    sessions: Sessions


def admission(settings: Settings, commons: Commons, machine: Machine) -> Admission:
    sessions = Sessions(commons.store, commons.vault, machine.clock, machine.ids)
    wrong_keys = settings.wrong_keys_per_address
    throttle = Throttle(commons.store, commons.vault, machine.clock, per_address=wrong_keys) if wrong_keys else None
    doors = Doors(
        sessions=sessions,
        throttle=throttle,
        hosts=frozenset((*settings.admin_hosts, settings.host.casefold())),
        trusted_proxies=settings.trusted_proxies,
    )
    return Admission(Authenticator(commons.keys, doors), sessions)


def batches(live: LiveSettings, commons: Commons, machine: Machine) -> Batches:
    book = BatchBook(commons.store, commons.vault)
    return Batches(book, commons.watch, machine.clock, machine.ids, lambda: live.current.batch_login_concurrency)


def admin_routes(
    live: LiveSettings,
    commons: Commons,
    pool: AccountPool,
    admitted: Admission,
    diagnostics: DiagnosticsRoutes,
    machine: Machine,
    heartbeats: Heartbeats,
    router: Router,
    limits: Limits,
    qwen_code: QwenCodeParts,
    others: Desk,
) -> Sequence[AdminRoute]:
    """In the order in which the document has them."""

    async def catch_up() -> None:
        with suppress(StoreUnavailable):  # what was written is written; the watch will learn of it
            await commons.watch.catch_up()

    clock, book = machine.clock, commons.key_book
    desk = AccountDesk(commons.store, commons.book, pool, catch_up, clock)
    bulk = batches(live, commons, machine)
    qwen_desk = QwenCodeDesk(qwen_code, commons.store, commons.vault, commons.book, pool, catch_up, clock, machine.ids)
    return (
        *SessionRoutes(admitted.authenticator, admitted.sessions).table(),
        *SettingsRoutes(live).table(),
        *RouteRoutes(live, router, limits, book, clock).table(),
        *BackendRoutes(others, commons.store, catch_up, clock).table(),
        *QwenCodeRoutes(qwen_desk).table(),
        *KeyRoutes(book, catch_up, clock).table(),
        *AccountRoutes(desk, clock).table(),
        *RecordRoutes(commons.store).table(),
        *UsageRoutes(commons.store, book, clock).table(),
        *BatchRoutes(bulk, commons.book, heartbeats, clock).table(),
        *diagnostics.table(),
        *OriginalSettings(live, book, admitted.authenticator, catch_up, clock).table(),
        *OriginalAccounts(desk, bulk, commons.store, clock).table(),
    )
