"""What all processes of an installation share, as one process has it."""

import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.bulk.book import BatchBook
from qwen_proxy.accounts.bulk.runner import BatchRunner
from qwen_proxy.accounts.bulk.work import Enrolment
from qwen_proxy.accounts.model import DIRECT, Account, Credential
from qwen_proxy.accounts.pool import AccountPool, PoolOptions
from qwen_proxy.app.door import Door, general_exits
from qwen_proxy.app.machine import Machine
from qwen_proxy.app.upkeep import keep_up
from qwen_proxy.config.choices import SimulatorUse
from qwen_proxy.config.keybook import KeyBook
from qwen_proxy.config.keys import Keys
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import Settings
from qwen_proxy.gateway.traces import TraceBook
from qwen_proxy.gateway.usage import UsageRecorder
from qwen_proxy.ground.errors import Unreadable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.environment import process_place
from qwen_proxy.runtime.ids import system_random
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.serving.keyring import LiveKeys
from qwen_proxy.state.allowances import Allowances
from qwen_proxy.state.freshness import Freshness
from qwen_proxy.state.membership import Membership
from qwen_proxy.state.purse import Purse
from qwen_proxy.state.store import Store
from qwen_proxy.state.vault import Vault
from qwen_proxy.state.watching import Watch
from qwen_proxy.storage.opening import Place, load_vault, open_store

log = logging.getLogger(__name__)

DEMO: Final = "demo@simulated"


class Kept(Struct, frozen=True):
    """Where data is, and the secret that it is sealed under."""

    place: Place
    secret: Secret


class Commons(Struct, frozen=True):
    """Subscribe to the watch before `open_pool` begins."""

    store: Store
    vault: Vault
    watch: Watch
    membership: Membership
    book: AccountBook
    keys: LiveKeys
    key_book: KeyBook
    allowances: Allowances
    purse: Purse
    usage: UsageRecorder
    traces: TraceBook


@asynccontextmanager
async def open_commons(kept: Kept, machine: Machine, *, takes_roles: bool = True) -> AsyncGenerator[Commons]:
    """takes_roles: see `Membership`. Raises StoreUnavailable, and WrongSetting when the secret is not the one that the
    data was written with."""
    async with open_store(kept.place, machine.clock) as store:
        vault = await load_vault(store, kept.secret)
        host, pid = process_place()
        id = machine.ids.token(16)
        membership = Membership(store, machine.clock, id=id, host=host, pid=pid, takes_roles=takes_roles)
        allowances = Allowances(store, membership, machine.clock)
        purse = Purse(membership, machine.clock)
        membership.add(allowances)
        membership.add(purse)
        watch = Watch(store, machine.clock)
        keys = Keys(store, vault)
        keys.subscribe(watch)
        yield Commons(
            store=store,
            vault=vault,
            watch=watch,
            membership=membership,
            book=AccountBook(store, vault),
            keys=LiveKeys(keys, Freshness(watch.catch_up, machine.clock), machine.clock),
            key_book=KeyBook(store, vault, machine.clock, machine.ids),
            allowances=allowances,
            purse=purse,
            usage=UsageRecorder(store, machine.clock),
            traces=TraceBook(store, vault, machine.clock, machine.ids),
        )


def live_settings(base: Settings, commons: Commons) -> LiveSettings:
    """To be made before `open_pool` begins."""
    return LiveSettings(base, commons.store, commons.vault, commons.watch)


def accounts_of(settings: Settings) -> list[Account]:
    """ACCOUNTS as accounts. `exit` is the line's own proxy."""
    return [
        Account(id=line.email.lower(), email=line.email, password=line.password, exit=line.exit)
        for line in settings.accounts
    ]


async def adopt_accounts(commons: Commons, accounts: Iterable[Account], machine: Machine) -> None:
    """Keep these besides those that are kept already; what is known of them stays, also where it can't be read: another
    version may read it. Raises StoreUnavailable."""
    for account in accounts:
        try:
            await commons.book.put(replace(account, added_at=machine.clock.now()))
        except Unreadable as error:
            log.error("an account that is given can't be used", extra={"reason": str(error)})


@asynccontextmanager
async def open_pool(live: LiveSettings, door: Door, machine: Machine, commons: Commons) -> AsyncGenerator[AccountPool]:
    """This process's pool, and its life among the others, while open. The watch is loaded here: what subscribes to it
    has to be there before. Raises StoreUnavailable."""
    pool = AccountPool(
        commons.store,
        commons.vault,
        commons.watch,
        commons.membership,
        door.sign_in,
        machine.clock,
        system_random(),
        pool_options(live.base, is_simulated=door.is_simulated),
    )
    live.on_change(lambda settings: pool.use(pool_options(settings, is_simulated=door.is_simulated)))
    runner = BatchRunner(
        BatchBook(commons.store, commons.vault),
        _enrolment(pool),
        commons.watch,
        machine.clock,
        system_random(),
        lambda: live.current.batch_login_concurrency,
    )
    if not pool.options.only_account:  # else they would be signed in at the simulated upstream
        pool.while_keeper(runner.start, runner.stop)
    commons.membership.describe(pool.describe)
    door.site.general_exits = lambda: general_exits(live.base, pool.own_exits())
    await commons.watch.load()
    async with runner, commons.membership, commons.allowances, commons.purse, Tasks() as tasks, pool:
        tasks.spawn(commons.watch.run(), name="watch")
        upkeep = keep_up(commons.store, lambda: pool.is_keeper, lambda: live.current, machine.clock)
        tasks.spawn(upkeep, name="upkeep")
        yield pool


def _enrolment(pool: AccountPool) -> Enrolment:
    """How the lines of a batch become accounts."""

    async def add(account: Account, credential: Credential) -> None:
        await pool.book.put(account, credential=credential)

    async def find(account_id: str) -> Account | None:
        stored = await pool.book.get(account_id)
        return None if stored is None else stored.account

    return Enrolment(pool.try_account, add, find)


def pool_options(settings: Settings, *, is_simulated: bool = False) -> PoolOptions:
    """While the simulated upstream stands in for want of an account, one that is added is none of its business."""
    stands_in = is_simulated and settings.simulator is SimulatorUse.AUTO and not settings.accounts
    return PoolOptions(
        only_account=DEMO if stands_in else "",
        account_concurrency=settings.account_concurrency,
        strategy=settings.account_strategy,
        signin_spacing_seconds=settings.signin_spacing_seconds,
        refresh_before_seconds=settings.refresh_before_hours * 3600,
        renews_early=settings.auto_refresh,
        challenge_rest_seconds=settings.challenge_rest_seconds,
        general_exit=settings.proxy_url or DIRECT,
    )


async def bury(commons: Commons, pid: int) -> None:
    """A process of this machine has ended, killed perhaps: what it held is free at once. Raises StoreUnavailable."""
    host, _ = process_place()
    for row in await commons.store.processes():
        if (row.host, row.pid) == (host, pid):
            await commons.store.leave(row.id)
