"""Where requests go: the site, or the built-in simulated upstream where no account is configured."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.model import Account
from qwen_proxy.app import accounts_of
from qwen_proxy.config.settings import Settings
from qwen_proxy.ground.secret import Secret
from qwen_proxy.simulator import Scenario, Simulator

SIMULATED_PAUSE_SECONDS = 0.03  # between two words, so that a person sees a stream stream


class Destination(Struct, frozen=True):
    """`settings` are those that hold for it: the simulator is on loopback, where no proxy is in between."""

    settings: Settings
    base_url: str
    accounts: tuple[Account, ...]


@asynccontextmanager
async def open_destination(settings: Settings) -> AsyncGenerator[Destination]:
    """The simulator, when the settings say so, runs on a free loopback port while the block lasts."""
    if not settings.uses_simulator:
        yield Destination(settings, settings.chat_base_url, tuple(accounts_of(settings)))
        return
    settings = on_loopback(settings)
    demo = Account(id="demo@simulated", email="demo@simulated", password=Secret("simulated"))
    async with Simulator(Scenario(pause_seconds=SIMULATED_PAUSE_SECONDS)) as simulator:
        yield Destination(settings, simulator.base_url, tuple(accounts_of(settings)) or (demo,))


def on_loopback(settings: Settings) -> Settings:
    """The settings for an upstream on this machine: no proxy is between."""
    return replace(settings, proxy_url="", accounts=tuple(replace(line, exit="") for line in settings.accounts))
