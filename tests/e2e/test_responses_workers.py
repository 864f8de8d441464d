"""Stored responses over several processes, of which one is killed: `qwen-proxy serve` itself."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest

from qwen_proxy.api.stored_responses import ResponseJob
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.state.kinds import RESPONSE_JOB
from qwen_proxy.state.store import Store
from qwen_proxy.storage.sqlite import SqliteStore
from tests.clients.test_openai_sdk import MODEL
from tests.e2e.test_responses import ended
from tests.support.http import USER_KEY
from tests.support.served import Served, served
from tests.support.waiting import until


def sdk(site: Served) -> openai.AsyncOpenAI:
    """Each request is a connection of its own, so any worker may get it."""
    headers = {"Connection": "close"}
    return openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key=USER_KEY, max_retries=2, default_headers=headers)


@asynccontextmanager
async def site(folder: Path) -> AsyncGenerator[tuple[Served, openai.AsyncOpenAI]]:
    async with served(folder, PM2_INSTANCES="3") as site, sdk(site) as client:
        await site.until(lambda body: sum(worker.state == "ready" for worker in body.workers) == 3)
        yield site, client


def completions(site: Served) -> int:
    """How often the site was asked for one."""
    return sum(each.endpoint == "completions" for each in site.simulator.requests)


async def worker_of(folder: Path, id: str) -> int:
    """The process that is at work on it."""
    async with SqliteStore(folder / "qwen-proxy.db", SystemClock()) as store:
        return await pid_of(store, id)


async def pid_of(store: Store, id: str) -> int:
    async with asyncio.timeout(10):
        while (record := await store.get(RESPONSE_JOB, id)) is None:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
    owner = msgspec.msgpack.decode(record.value, type=ResponseJob).owner
    return next(row.pid for row in await store.processes() if row.id == owner)


async def follow(client: openai.AsyncOpenAI, id: str, after: int | None = None) -> list[Any]:
    """All events behind that number; a connection that breaks, as when its worker is killed, is taken up again."""
    seen: list[Any] = []
    async with asyncio.timeout(40):
        while not seen or seen[-1].type not in ("response.completed", "response.failed", "response.incomplete"):
            try:
                if after is None:
                    stream = await client.responses.retrieve(id, stream=True)
                else:
                    stream = await client.responses.retrieve(id, stream=True, starting_after=after)
                async for event in stream:
                    seen.append(event)
                    after = event.sequence_number
            except (openai.APIError, httpx.TransportError):
                await asyncio.sleep(0.1)
    return seen


async def test_a_response_whose_worker_is_killed_in_the_middle_fails_and_its_numbers_go_on(tmp_path: Path) -> None:
    async with site(tmp_path) as (_, client):
        script = "[[sim slow 200ms]] [[sim repeat 100]]"
        made = await client.responses.create(model=MODEL, input=script, background=True)
        seen: list[Any] = []
        async for event in await client.responses.retrieve(made.id, stream=True):
            seen.append(event)
            if event.type == "response.output_text.delta" and len(seen) > 7:
                break
        os.kill(await worker_of(tmp_path, made.id), signal.SIGKILL)
        seen += await follow(client, made.id, seen[-1].sequence_number)
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert [event.type for event in seen[-2:]] == ["error", "response.failed"]
        found = await client.responses.retrieve(made.id)
        assert found.status == "failed" and found.error is not None
        assert "process that was at work" in found.error.message
        assert await follow(client, made.id) == seen


async def test_a_response_whose_worker_is_killed_before_its_first_word_is_asked_again(tmp_path: Path) -> None:
    async with site(tmp_path) as (running, client):
        made = await client.responses.create(
            model=MODEL, input="[[sim delay 3s]] [[sim say Good day]]", background=True
        )
        seen: list[Any] = []
        async for event in await client.responses.retrieve(made.id, stream=True):
            seen.append(event)
            if len(seen) == 3:
                break
        assert [event.type for event in seen] == ["response.created", "response.queued", "response.in_progress"]
        await until(lambda: completions(running) == 1, 20)  # the opening events come before the site is asked
        os.kill(await worker_of(tmp_path, made.id), signal.SIGKILL)
        seen += await follow(client, made.id, 2)
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert seen[-1].type == "response.completed" and seen[-1].response.output_text == "Good day"
        assert completions(running) == 2
        assert (await ended(client, made.id)).created_at == made.created_at


async def test_a_stream_whose_worker_is_killed_is_stored_as_failed(tmp_path: Path) -> None:
    """It is not in the background: the client's connection ends with the worker, and it asks what has become of it."""
    async with site(tmp_path) as (_, client):
        stream = await client.responses.create(model=MODEL, input="[[sim slow 200ms]] [[sim repeat 100]]", stream=True)
        id = ""
        with pytest.raises((openai.APIError, httpx.TransportError)):
            async for event in stream:
                if event.type == "response.created":
                    id = event.response.id
                if event.type == "response.output_text.delta":
                    os.kill(await worker_of(tmp_path, id), signal.SIGKILL)
        found = await ended(client, id)
        assert found.status == "failed" and found.error is not None
        assert "process that was at work" in found.error.message
        again = await client.responses.create(model=MODEL, input="[[sim say Here]]", previous_response_id=id)
        assert again.output_text == "Here"


async def test_workers_that_are_replaced_end_their_responses_first(tmp_path: Path) -> None:
    """Nobody reads them meanwhile: no request keeps the worker."""
    async with site(tmp_path) as (running, client):
        made = await client.responses.create(model=MODEL, input="[[sim slow 100ms]] [[sim repeat 60]]", background=True)
        before = await worker_of(tmp_path, made.id)
        running.process.send_signal(signal.SIGHUP)
        found = await ended(client, made.id)
        assert found.status == "completed" and found.output_text.endswith("word60")
        assert completions(running) == 1
        await running.until(lambda body: before not in {worker.pid for worker in body.workers})


@pytest.mark.parametrize("what", ["cancel", "delete"])
async def test_any_worker_ends_a_response_of_another(tmp_path: Path, what: str) -> None:
    async with site(tmp_path) as (running, client):
        for _ in range(4):
            made = await client.responses.create(
                model=MODEL, input="[[sim slow 200ms]] [[sim repeat 200]]", background=True
            )
            async for event in await client.responses.retrieve(made.id, stream=True):
                if event.type == "response.output_text.delta":
                    break
            if what == "cancel":
                assert (await client.responses.cancel(made.id)).status == "cancelled"
                events = await follow(client, made.id)
                assert [event.sequence_number for event in events] == list(range(len(events)))
            else:
                await client.responses.delete(made.id)
            async with asyncio.timeout(10):
                while running.simulator.open_generations:  # noqa: ASYNC110 - another process ends it
                    await asyncio.sleep(0.05)
