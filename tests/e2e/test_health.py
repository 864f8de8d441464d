"""/healthz, /readyz, and the request id that ties an answer to its log lines."""

import asyncio
import io
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession

from qwen_proxy.accounts.model import Feature
from qwen_proxy.ground.redact import redacted
from qwen_proxy.runtime.logs import LogOptions, Logs
from qwen_proxy.simulator import Account, Scenario, challenge, quota
from tests.support.freed import until
from tests.support.replies import PATH
from tests.support.running import Running, ask, running


async def ready(gateway: Running) -> tuple[int, dict[str, str]]:
    async with ClientSession(gateway.url) as stranger, stranger.get("/readyz") as response:
        return response.status, await response.json()


async def test_a_process_that_answers_is_alive_whatever_its_accounts() -> None:
    async with running(accounts=()) as gateway, ClientSession(gateway.url) as stranger:
        async with stranger.get("/healthz") as response:
            assert (response.status, await response.json()) == (200, {"status": "ok"})
            assert response.headers["x-request-id"].startswith("req_")


async def test_ready_is_one_usable_account() -> None:
    async with running() as gateway:
        assert await until(lambda: gateway.pool.usable(Feature.CHAT))  # its first sign-in is on the way
        assert await ready(gateway) == (200, {"status": "ready"})
        assert gateway.simulator.seen("completions") == []


async def test_not_ready_says_why() -> None:
    async with running(accounts=()) as gateway:
        status, body = await ready(gateway)
        assert (status, body["status"]) == (503, "not_ready") and "account" in body["reason"]
    for scenario in (
        Scenario(accounts={"a@example.com": Account("pw-a", "wrong_password")}),
        Scenario(faults=[quota(num=6)]),
        Scenario(faults=[challenge()]),
    ):
        async with running(scenario, CHAT_RETRY_COUNT="0") as gateway:
            async with gateway.client.post(PATH, json=ask()) as response:
                assert response.status >= 400
            status, body = await ready(gateway)
            assert (status, body["status"]) == (503, "not_ready") and body["reason"]
            assert "pw-a" not in body["reason"] and "a@example.com" not in body["reason"]


async def test_one_account_of_two_is_enough() -> None:
    scenario = Scenario(faults=[quota("a@example.com", num=6)])
    async with running(scenario, accounts=("a@example.com:x", "b@example.com:y")) as gateway:
        for _ in range(3):
            async with gateway.client.post(PATH, json=ask()) as response:
                assert response.status == 200
        assert (await ready(gateway))[0] == 200


async def test_a_draining_server_is_not_ready_but_says_so_on_open_connections() -> None:
    async with running() as gateway, ClientSession(gateway.url) as stranger:
        stream = gateway.client.post(PATH, json=ask("[[sim slow 20ms]] [[sim repeat 20]]", stream=True))
        async with stream as response:
            await response.content.readuntil(b"word2")
            draining = asyncio.ensure_future(gateway.server.drain(10))  # noqa: TID251
            await response.read()
            await draining
        try:
            async with stranger.get("/readyz") as late:
                assert late.status == 503
        except OSError:
            pass  # no connection is taken any more: a load balancer sees that as well


async def test_a_connection_taken_before_a_drain_may_send_its_first_request_late() -> None:
    async with running() as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with gateway.client.get("/healthz") as response:  # so the one before is taken too
            assert response.status == 200
        draining = asyncio.ensure_future(gateway.server.drain(10))  # noqa: TID251
        await asyncio.sleep(1.0)  # later than an idle connection is left open
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"200"
        writer.close()
        await writer.wait_closed()
        await draining


@asynccontextmanager
async def logging() -> AsyncGenerator[io.StringIO]:
    stream = io.StringIO()
    with Logs(LogOptions(level="DEBUG", form="json", redact=redacted), stream):
        yield stream


def request_lines(stream: io.StringIO) -> list[dict[str, Any]]:  # JSON enters here
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in lines if line.get("msg") == "request" or line.get("message") == "request"]


async def test_a_request_for_several_choices_has_one_line_with_what_all_of_them_took() -> None:
    async with logging() as stream:
        async with running(CHAT_RETRY_COUNT="1", ACCOUNT_CONCURRENCY="0") as gateway:
            for text, fields in (
                ("hello", {"stream": True, "n": 2}),
                ("hello", {"n": 3}),
                ("[[sim reset 0]]", {"stream": True, "n": 2}),
            ):
                async with gateway.client.post(PATH, json=ask(text, **fields)) as response:
                    await response.read()
        assert await until(lambda: len(request_lines(stream)) == 3)
        streamed, folded, failed = request_lines(stream)
        assert (streamed["tries"], folded["tries"]) == (2, 3)
        assert failed["tries"] >= 2 and failed["failures"] and failed["status"] == 502
        assert all(line["account"] == streamed["account"] != "" for line in (folded, failed))
        assert folded["tokens"] > 0


async def test_every_line_of_a_request_carries_the_id_that_its_answer_names() -> None:
    ids: set[str] = set()
    async with logging() as stream:
        async with running(CHAT_RETRY_COUNT="1") as gateway:
            for text in ("hello", "[[sim once]] [[sim reset 0]] again", "[[sim status 503]]"):
                for streamed in (False, True):
                    async with gateway.client.post(PATH, json=ask(text, stream=streamed)) as response:
                        ids.add(response.headers["x-request-id"])
                        await response.read()
            async with gateway.client.get("/nothing") as response:
                ids.add(response.headers["x-request-id"])

        assert await until(lambda: len(request_lines(stream)) >= 7), stream.getvalue()
        assert len(ids) == 7
        assert {line["request_id"] for line in request_lines(stream)} == ids
