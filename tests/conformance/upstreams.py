"""The upstreams under test: one line of UPSTREAMS each, a factory over what plays that upstream."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from msgspec import Struct

from qwen_proxy.accounts.model import Credential
from qwen_proxy.chat.events import has_content
from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import ChatRequest, Message, Role, TextPart
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.simulator import Simulator
from qwen_proxy.upstreams.base import ApiOptions, Upstream
from qwen_proxy.upstreams.openai_compatible import OpenAICompatible
from qwen_proxy.upstreams.qwen_code import QwenCode, QwenCodeOptions
from qwen_proxy.upstreams.qwen_web.client import QwenWeb
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.options import QwenWebOptions
from qwen_proxy.upstreams.qwen_web.site import Site
from qwen_proxy.upstreams.transport import Transport
from tests.recordings.decoding import OpenAIRecording, openai_recordings, qwen_code_recordings
from tests.support.openai_server import OpenAIServer, PortalServer

GOOD: Final = [
    "hello",
    "[[sim think]] hello",
    "[[sim think detail]] [[sim search both]] hello",
    "[[sim image]] a cat",
    "[[sim candidates one-first]] hello",
    "[[sim bytes 1]] [[sim quirks]] [[sim crlf]] hello",
    "[[sim gzip]] hello",
    "[[sim zstd]] hello",
    "[[sim drift]] [[sim done]] [[sim no-blank-line]] hello",
    "[[sim keep-alive 3]] hello",
]
BAD: Final = [
    "[[sim error RateLimited num=6]]",
    "[[sim error Unauthorized]]",
    "[[sim error Not_Found status=none top]]",
    "[[sim challenge json]]",
    "[[sim challenge html]]",
    "[[sim status 503]]",
    "[[sim status 404]]",
    "[[sim empty-body]]",
    "[[sim empty]]",
    "[[sim no-text]]",
    "[[sim think-only]]",
    "[[sim drop 0]] hello",
    "[[sim reset 3]] [[sim repeat 20]]",
    "[[sim drop 3]] [[sim gzip]] [[sim repeat 20]]",
    "[[sim stream-error internal_error after=2]] [[sim repeat 20]]",
    "[[sim stream-error internal_error form=string]]",
    "[[sim stream-error RateLimited form=failure num=2]]",
    "[[sim stream-error RateLimited form=bare after=2]] [[sim repeat 20]]",
    "[[sim stream-error x form=captcha after=2]] [[sim repeat 20]]",
    "[[sim stream-error x form=html]] [[sim repeat 20]]",
]


class Player(Protocol):
    """What plays the other end. `open_generations`: replies that it is in the middle of."""

    @property
    def open_generations(self) -> int: ...
    async def stop(self) -> None: ...
    async def start(self) -> None: ...


class Played(Struct, frozen=True):
    """An upstream, what plays its other end, and a credential it takes. `open_now`: connections in use by a reply.

    good, bad: prompts that are answered with whole replies, and with every kind of failure.
    """

    upstream: Upstream
    simulator: Player
    credential: Credential
    open_now: Callable[[], int]
    good: Sequence[str]
    bad: Sequence[str]


@asynccontextmanager
async def qwen_web() -> AsyncGenerator[Played]:
    clock = SystemClock()
    async with Simulator() as simulator, Transport(clock) as transport:
        site = Site(transport, clock, SystemIds(), Drift(clock.now), QwenWebOptions(base_url=simulator.base_url))
        async with QwenWeb(site) as upstream:
            token = Secret(simulator.issue_token("a@example.com"))
            credential = Credential(account_id="a@example.com", token=token)
            yield Played(upstream, simulator, credential, lambda: transport.open_streams, GOOD, BAD)


@asynccontextmanager
async def openai_compatible() -> AsyncGenerator[Played]:
    clock = SystemClock()
    good, bad = sorted_out(openai_recordings())
    async with OpenAIServer("sk-good") as server, Transport(clock) as transport:
        options = ApiOptions(name="somewhere", base_url=server.base_url)
        yield Played(
            OpenAICompatible(transport, options, clock=clock, ids=SystemIds()),
            server,
            Credential(account_id="somewhere:1", token=Secret("sk-good")),
            lambda: transport.open_streams,
            ["hello", *good],
            ["[[sim reset 3]] [[sim repeat 20]]", *bad],
        )


@asynccontextmanager
async def qwen_code() -> AsyncGenerator[Played]:
    clock = SystemClock()
    good, bad = sorted_out(qwen_code_recordings())
    async with PortalServer("at") as server, Transport(clock) as transport:
        options = QwenCodeOptions(chat_base_url="", usual_base=server.base_url, agent="QwenCode/0 (linux; x64)")
        yield Played(
            QwenCode(transport, options, lambda id: "", name="qwen-code", models=(), clock=clock, ids=SystemIds()),
            server,
            Credential(account_id="sign-in", token=Secret("at")),
            lambda: transport.open_streams,
            ["hello", *good],
            ["[[sim reset 3]] [[sim repeat 20]]", *bad],
        )


def sorted_out(recordings: Sequence[OpenAIRecording]) -> tuple[list[str], list[str]]:
    """What asks for each: those that are whole replies, and those that are failures."""
    expected = {recording.name: recording.decode([recording.body]) for recording in recordings}
    good = [f"[[recording {name}]]" for name, each in expected.items() if not each.error and has_content(each.events)]
    return good, [f"[[recording {name}]]" for name, each in expected.items() if each.error]


UPSTREAMS: Final[dict[str, Callable[[], AbstractAsyncContextManager[Played]]]] = {
    "qwen_web": qwen_web,
    "openai_compatible": openai_compatible,
    "qwen_code": qwen_code,
}


def asked(text: str) -> ChatRequest:
    return ChatRequest(model=ModelName("qwen3.7-plus"), messages=(Message(Role.USER, (TextPart(text),)),))
