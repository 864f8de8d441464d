"""The upstreams under test: one line of UPSTREAMS each, a factory over what plays that upstream."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from msgspec import Struct

from qwen_proxy.accounts.model import Credential
from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import ChatRequest, Message, Role, TextPart
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.simulator import Simulator
from qwen_proxy.upstreams.base import Upstream
from qwen_proxy.upstreams.qwen_web.client import QwenWeb
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.options import QwenWebOptions
from qwen_proxy.upstreams.qwen_web.site import Site
from qwen_proxy.upstreams.transport import Transport


class Played(Struct, frozen=True):
    """An upstream, what plays its other end, and a credential it takes. `open_now`: connections in use by a reply."""

    upstream: Upstream
    simulator: Simulator
    credential: Credential
    open_now: Callable[[], int]


@asynccontextmanager
async def qwen_web() -> AsyncGenerator[Played]:
    clock = SystemClock()
    async with Simulator() as simulator, Transport(clock) as transport:
        site = Site(transport, clock, SystemIds(), Drift(clock.now), QwenWebOptions(base_url=simulator.base_url))
        async with QwenWeb(site) as upstream:
            token = Secret(simulator.issue_token("a@example.com"))
            credential = Credential(account_id="a@example.com", token=token)
            yield Played(upstream, simulator, credential, lambda: transport.open_streams)


UPSTREAMS: Final[dict[str, Callable[[], AbstractAsyncContextManager[Played]]]] = {"qwen_web": qwen_web}


def asked(text: str) -> ChatRequest:
    return ChatRequest(model=ModelName("qwen3.7-plus"), messages=(Message(Role.USER, (TextPart(text),)),))
