"""An OpenAI-compatible server over the wire: what only the socket shows."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from msgspec import Struct

from qwen_proxy.accounts.model import Credential
from qwen_proxy.chat.events import Batch
from qwen_proxy.chat.models import Model
from qwen_proxy.ground.errors import CredentialRejected, ProxyError, UpstreamProtocolError, UpstreamUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.upstreams.base import ApiOptions
from qwen_proxy.upstreams.openai_compatible import MOST_KEPT, OpenAICompatible
from qwen_proxy.upstreams.transport import Transport
from tests.conformance.upstreams import asked
from tests.support.openai_server import RECORDINGS, OpenAIServer, answer
from tests.support.wire_server import Visit, WireServer

CLOCK = SystemClock()
KEY = Credential(account_id="b:1", token=Secret("sk-1"))
MODEL = Model(id="m-1", display_name="m-1")


class Met(Struct, frozen=True):
    upstream: OpenAICompatible
    transport: Transport

    async def ask(self, text: str, credential: Credential = KEY) -> Batch:
        events: Batch = []
        async with self.upstream.open(asked(text), MODEL, credential, CLOCK.monotonic() + 10) as batches:
            async for batch in batches:
                events += batch
        return events

    async def models(self, credential: Credential | None = KEY) -> list[str]:
        return [model.id for model in await self.upstream.models(credential, CLOCK.monotonic() + 10)]


@asynccontextmanager
async def meeting(options: ApiOptions) -> AsyncGenerator[Met]:
    async with Transport(CLOCK) as transport:
        yield Met(OpenAICompatible(transport, options, clock=CLOCK, ids=SystemIds()), transport)


async def test_a_connection_serves_the_next_request_too() -> None:
    async with OpenAIServer() as server, meeting(ApiOptions(name="b", base_url=server.base_url)) as met:
        for _ in range(3):
            await met.ask("hello")
        await met.ask("[[recording llamacpp_text]]")
        assert len(server.asked) == 4 and server.connections == 1


async def test_the_key_and_the_headers_of_the_operator_are_sent() -> None:
    async with OpenAIServer() as server:
        options = ApiOptions(name="b", base_url=server.base_url + "/", headers=(("X-Title", "mine"), ("Accept", "*/*")))
        async with meeting(options) as met:
            await met.ask("hello")
            await met.ask("hello", Credential(account_id="b", token=Secret("")))
        assert server.keys == ["sk-1", ""]
        first, second = (head.lower() for head in server.heads)
        assert "x-title: mine\r\n" in first and first.count("\r\naccept: ") == 1 and "accept: */*" in first
        assert "authorization" not in second
        assert server.asked[0]["model"] == "m-1"


async def test_what_is_kept_of_a_question_is_that_of_its_own_key() -> None:
    async with OpenAIServer() as server, meeting(ApiOptions(name="b", base_url=server.base_url)) as met:
        another = Credential(account_id="b:1", token=Secret("sk-new"))
        for key in (KEY, another, another, KEY):
            await met.ask("hello", key)
        many = [Credential(account_id=f"b:{n}", token=Secret(f"sk-{n}")) for n in range(MOST_KEPT + 1)]
        for key in (*many, many[0], many[-1]):
            await met.ask("hello", key)
        assert server.keys[:4] == ["sk-1", "sk-new", "sk-new", "sk-1"]
        assert server.keys[4:] == [key.token.reveal() for key in (*many, many[0], many[-1])]


async def test_models_are_those_configured_else_those_listed_else_the_usual_ones() -> None:
    async with OpenAIServer() as server:
        async with meeting(ApiOptions(name="b", base_url=server.base_url, models=("x",))) as met:
            assert await met.models() == ["x"] and not server.heads
        async with meeting(ApiOptions(name="b", base_url=server.base_url, usual_models=("u",))) as met:
            assert await met.models(None) == ["m-1", "m-2"]
        wrong = server.base_url.removesuffix("/v1") + "/v2"
        async with meeting(ApiOptions(name="b", base_url=wrong, usual_models=("u",))) as met:
            assert await met.models() == ["u"]
        async with meeting(ApiOptions(name="b", base_url=wrong)) as met:
            with pytest.raises(UpstreamUnavailable, match="base URL"):
                await met.models()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(200, b"<html>", "text/html"), UpstreamProtocolError),
        (answer(401, RECORDINGS["unauthorized"].body), CredentialRejected),
        (answer(503, b""), UpstreamUnavailable),
    ],
)
async def test_a_list_that_can_not_be_had_says_why(reply: bytes, kind: type[ProxyError]) -> None:
    async def say(visit: Visit) -> None:
        await visit.send(reply)

    async with WireServer(say) as server, meeting(ApiOptions(name="b", base_url=server.url)) as met:
        with pytest.raises(kind):
            await met.models()


async def test_an_end_that_does_not_come_is_not_waited_for() -> None:
    async def say(visit: Visit) -> None:
        body = RECORDINGS["reasoning_content"].body
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body) + 1}\r\n\r\n"
        await visit.send(head.encode() + body)
        await visit.until_left()

    async with WireServer(say) as server:
        async with meeting(ApiOptions(name="b", base_url=server.url, drain_seconds=0.05)) as met:
            assert await met.ask("hello")
            assert met.transport.open_streams == 0


async def test_a_cut_behind_the_finish_reason_costs_nothing() -> None:
    async def say(visit: Visit) -> None:
        body = RECORDINGS["without_done"].body
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n" + body)
        visit.writer.close()

    async with WireServer(say) as server, meeting(ApiOptions(name="b", base_url=server.url)) as met:
        assert await met.ask("hello")
