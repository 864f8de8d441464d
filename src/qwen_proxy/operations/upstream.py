"""Where requests go: the site, or the built-in simulated upstream where no account is known."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.model import Account
from qwen_proxy.app.commons import DEMO, Commons, accounts_of, adopt_accounts
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.backend_book import BackendBook
from qwen_proxy.config.backend_settings import environment_backends
from qwen_proxy.config.choices import SimulatorUse
from qwen_proxy.config.settings import Settings
from qwen_proxy.ground.secret import Secret
from qwen_proxy.simulator import Scenario, Simulator

SIMULATED_PAUSE_SECONDS = 0.03  # between two words, so that a person sees a stream stream


class Destination(Struct, frozen=True):
    """`settings` are those that hold for it: the simulator is on loopback, where no proxy is in between."""

    settings: Settings
    base_url: str
    is_simulated: bool


@asynccontextmanager
async def open_destination(settings: Settings, commons: Commons, machine: Machine) -> AsyncGenerator[Destination]:
    """Take ACCOUNTS in, and find out where requests go. The simulator, when it stands in, runs while the block lasts.

    Raises StoreUnavailable.
    """
    await adopt_accounts(commons, accounts_of(settings), machine)
    kept = await commons.book.ids()  # also damaged ones: they are no reason to answer from the simulator
    is_simulated = settings.uses_simulator
    if is_simulated and settings.simulator is SimulatorUse.AUTO:
        is_simulated = all(account_id == DEMO for account_id in kept) and not await _has_backends(settings, commons)
    await commons.book.remove(DEMO)  # its token is of a simulated upstream that is gone
    if not is_simulated:
        yield Destination(settings, settings.chat_base_url, False)
        return
    if all(account_id == DEMO for account_id in kept):
        demo = Account(id=DEMO, email=DEMO, password=Secret("simulated"))
        await adopt_accounts(commons, [demo], machine)
    async with Simulator(Scenario(pause_seconds=SIMULATED_PAUSE_SECONDS)) as simulator:
        yield Destination(on_loopback(settings), simulator.base_url, True)


async def _has_backends(settings: Settings, commons: Commons) -> bool:
    """Whether requests can go elsewhere. One that is switched off counts too: an operator who stops a backend wants no
    answers made up in its place."""
    return settings.local_model is not None or bool(
        await BackendBook(commons.store, commons.vault, environment_backends(settings)).all()
    )


def on_loopback(settings: Settings) -> Settings:
    """The settings for an upstream on this machine: no proxy is between."""
    return replace(settings, proxy_url="", accounts=tuple(replace(line, exit="") for line in settings.accounts))
