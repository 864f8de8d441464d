"""The whole program in one process, on loopback, over the simulator: real sockets on both sides."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from qwen_proxy.accounts.pool import AccountPool
from qwen_proxy.app.backends import ApiBackends, open_backends
from qwen_proxy.app.commons import Commons, Kept, accounts_of, adopt_accounts, live_settings, open_commons, open_pool
from qwen_proxy.app.door import open_door
from qwen_proxy.app.machine import Machine
from qwen_proxy.app.service import open_service
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import Settings, load
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.places import memory_place
from qwen_proxy.serving.server import HttpServer
from qwen_proxy.simulator import Scenario, Simulator
from qwen_proxy.upstreams.qwen_web.client import QwenWeb
from qwen_proxy.upstreams.qwen_web.drift import Drift
from tests.support.http import ADMIN_KEY, USER_KEY, listener

# What makes a test wait for nothing but what it asks for; a test overrides what it is about.
QUICK = {
    "SIGNIN_SPACING_SECONDS": "0",
    "CHAT_RETRY_BACKOFF_MS": "1",
    "OUTPUT_THINK": "true",
    "SEARCH_INFO_MODE": "none",
    "KEY_RPM": "0",
    "KEY_CONCURRENCY": "0",
}


class Running:
    """`url` is the server's; `client` carries the user's key."""

    def __init__(
        self,
        settings: Settings,
        simulator: Simulator,
        url: str,
        client: aiohttp.ClientSession,
        pool: AccountPool,
        server: HttpServer,
        upstream: QwenWeb,
        drift: Drift,
        live: LiveSettings,
        commons: Commons,
        others: ApiBackends,
    ) -> None:
        self.settings = settings
        self.simulator = simulator
        self.url = url
        self.client = client
        self.pool = pool
        self.server = server
        self.upstream = upstream
        self.drift = drift
        self.live = live
        self.commons = commons
        self.others = others

    @property
    def scenario(self) -> Scenario:
        return self.simulator.scenario

    def leases(self) -> int:
        """How many leases are out, over all accounts."""
        return sum(report.in_use for report in self.pool.snapshot())


@asynccontextmanager
async def adopted(commons: Commons, settings: Settings, machine: Machine) -> AsyncGenerator[LiveSettings]:
    """As the supervisor does before any worker begins."""
    await adopt_accounts(commons, accounts_of(settings), machine)
    await commons.key_book.adopt([Secret(ADMIN_KEY), Secret(USER_KEY)])
    yield live_settings(settings, commons)


@asynccontextmanager
async def running(
    scenario: Scenario | None = None,
    kept: Kept | None = None,
    machine: Machine | None = None,
    /,
    *,
    accounts: Sequence[str] = ("a@example.com:pw-a",),
    **settings: str,
) -> AsyncGenerator[Running]:
    """Start the simulator, then everything of ours over it. Keyword arguments are variables: CHAT_RETRY_COUNT="0"."""
    async with Simulator(scenario) as simulator:
        environ = QUICK | {"QWEN_CHAT_PROXY_URL": simulator.base_url, "ACCOUNTS": ",".join(accounts)} | settings
        loaded = load(environ, None)
        machine = machine or Machine()
        sock = listener()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        async with (
            open_door(loaded, loaded.chat_base_url, machine) as door,
            open_commons(kept or memory_place(machine.ids), machine) as commons,
            adopted(commons, loaded, machine) as live,
            open_backends(live, commons, machine, chat_base_url=door.base_url) as others,
            open_pool(live, door, machine, commons) as pool,
            open_service(live, commons, door, pool, others, sock, machine) as server,
            aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {USER_KEY}"}) as client,
        ):
            yield Running(
                loaded, simulator, url, client, pool, server, door.upstream, door.drift, live, commons, others
            )


def ask(text: str = "hello", **fields: object) -> dict[str, object]:
    """A chat completions body with one user message."""
    return {"model": "qwen3.7-plus", "messages": [{"role": "user", "content": text}], **fields}
