"""`qwen-proxy serve` with two workers over the simulator: the real command."""

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct

from qwen_proxy.admin.diagnostics import DiagnosticsBody
from qwen_proxy.runtime.environment import environment
from qwen_proxy.simulator import Scenario, Simulator
from tests.support.http import ADMIN_KEY, USER_KEY


class Delta(Struct):
    content: str = ""


class Choice(Struct):
    delta: Delta
    finish_reason: str | None = None


class Chunk(Struct):
    choices: list[Choice]


class Served:
    def __init__(self, process: asyncio.subprocess.Process, url: str, simulator: Simulator) -> None:
        self.process = process
        self.url = url
        self.simulator = simulator

    def client(self, key: str = USER_KEY) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.url, headers={"Authorization": f"Bearer {key}", "Connection": "close"})

    async def diagnostics(self) -> DiagnosticsBody:
        async with self.client(ADMIN_KEY) as client, client.get("/api/admin/diagnostics") as answer:
            return msgspec.json.decode(await answer.read(), type=DiagnosticsBody)

    async def chat(self, text: str) -> tuple[str, str | None]:
        """A streamed chat: its whole text, and how it ended."""
        body = {"model": "qwen3.7-plus", "stream": True, "messages": [{"role": "user", "content": text}]}
        said, ended = "", None
        async with self.client() as client, client.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    for choice in msgspec.json.decode(line[6:], type=Chunk).choices:
                        said += choice.delta.content
                        ended = choice.finish_reason or ended
        return said, ended

    async def ask(self, text: str) -> int:
        """The status of a chat that is not streamed."""
        body = {"model": "qwen3.7-plus", "messages": [{"role": "user", "content": text}]}
        async with self.client() as client, client.post("/v1/chat/completions", json=body) as answer:
            return answer.status

    async def until(self, met: Callable[[DiagnosticsBody], bool]) -> DiagnosticsBody:
        async with asyncio.timeout(30):
            while not met(body := await self.diagnostics()):  # noqa: ASYNC110 - they are other processes
                await asyncio.sleep(0.1)
        return body


@asynccontextmanager
async def served(folder: Path, **settings: str) -> AsyncGenerator[Served]:
    ours = {
        "SERVICE_PORT": "0",
        "PM2_INSTANCES": "2",
        "ACCOUNTS": "a@example.com:pw",
        "ACCOUNT_CONCURRENCY": "0",
        "SIGNIN_SPACING_SECONDS": "0",
        "API_KEY": f"{ADMIN_KEY},{USER_KEY}",
        "DATA_DIR": str(folder),
        "LOG_LEVEL": "WARN",
        "KEY_RPM": "0",
        "KEY_CONCURRENCY": "0",
    }
    async with Simulator(Scenario()) as simulator:
        environ = environment() | ours | {"QWEN_CHAT_PROXY_URL": simulator.base_url} | settings
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "qwen_proxy", "serve"), env=environ, cwd=folder, stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(40):
                while (found := re.search(rb"(http://[\d.:]+)/v1", await process.stderr.readline())) is None:
                    assert not process.stderr.at_eof()
            yield Served(process, found[1].decode(), simulator)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.stderr.read()
            await process.wait()
