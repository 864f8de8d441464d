"""The chat.qwen.ai upstream, put together over a simulator, for tests."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from msgspec import structs

from qwen_proxy.accounts.model import DIRECT, Account, Credential
from qwen_proxy.chat.events import Batch, merged
from qwen_proxy.chat.models import PLAIN, Model, ModelName, Variant
from qwen_proxy.chat.request import ChatRequest, Message, Role, TextPart
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.simulator import Simulator
from qwen_proxy.upstreams.qwen_web.client import QwenWeb
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.login import SignIn
from qwen_proxy.upstreams.qwen_web.options import CleanupOptions, QwenWebOptions
from qwen_proxy.upstreams.qwen_web.site import Site
from qwen_proxy.upstreams.transport import Transport, TransportOptions

CLOCK: Final = SystemClock()
MODEL: Final = Model(id="qwen3.7-plus", display_name="Qwen3.7-Plus", thinks=True)
PASSWORD: Final = "correct horse"


class Web:
    """One upstream and what it stands on."""

    def __init__(self, simulator: Simulator, transport: Transport, options: QwenWebOptions) -> None:
        self.simulator = simulator
        self.transport = transport
        self.drift = Drift(CLOCK.now)
        self.site = Site(transport, CLOCK, SystemIds(), self.drift, options)
        self.sign_in = SignIn(self.site)
        self.upstream = QwenWeb(self.site)

    def credential(self, email: str = "alice@example.com", exit: str = DIRECT) -> Credential:
        return Credential(account_id=email, token=Secret(self.simulator.issue_token(email)), exit=exit)

    async def ask(self, text: str = "Hi", variant: Variant = PLAIN, credential: Credential | None = None) -> Batch:
        """Every event of one reply, neighbours joined."""
        found: Batch = []
        who = credential or self.credential()
        async with self.upstream.open(asking(text, variant), MODEL, who, in_seconds(10)) as batches:
            async for batch in batches:
                found += batch
        return merged(found)


def asking(text: str = "Hi", variant: Variant = PLAIN, model: str = MODEL.id) -> ChatRequest:
    return ChatRequest(model=ModelName(model, variant), messages=(Message(Role.USER, (TextPart(text),)),))


def account(email: str = "alice@example.com", password: str | None = PASSWORD, **more: str) -> Account:
    made = Account(id=email, email=email, password=None if password is None else Secret(password))
    cookies = more.get("cookies")
    return structs.replace(made, exit=more.get("exit", DIRECT), cookies=None if cookies is None else Secret(cookies))


def in_seconds(seconds: float) -> float:
    return CLOCK.monotonic() + seconds


@asynccontextmanager
async def web(
    simulator: Simulator, options: QwenWebOptions | None = None, times: TransportOptions | None = None
) -> AsyncGenerator[Web]:
    """Cleaning up at once, unless `options` say otherwise."""
    options = options or QwenWebOptions(cleanup=CleanupOptions())
    async with Transport(CLOCK, times) as transport:
        made = Web(simulator, transport, structs.replace(options, base_url=simulator.base_url))
        async with made.upstream:
            yield made
