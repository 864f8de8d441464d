"""An ordinary client of the simulated site, for its tests: complete headers, complete bodies, and nothing clever."""

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from qwen_proxy.simulator import Simulator

Fields = dict[str, Any]


def hashed(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


async def until(true: Callable[[], bool]) -> None:
    """Wait for a second at most."""
    async with asyncio.timeout(1.0):
        while not true():  # noqa: ASYNC110 (what it waits for is a plain number of the server)
            await asyncio.sleep(0.005)


@dataclass
class Answer:
    """A response read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def actual_status(self) -> int:
        return int(self.headers.get("x-actual-status-code", self.status))

    @property
    def frames(self) -> list[Any]:
        """The JSON of each `data:` line."""
        lines = self.body.decode().splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    @property
    def deltas(self) -> list[Any]:
        return [frame["choices"][0]["delta"] for frame in self.frames if frame.get("choices")]

    def text(self, phase: str | None = "answer") -> str:
        return "".join(delta["content"] or "" for delta in self.deltas if delta.get("phase") == phase)


@dataclass
class Visitor:
    """A session with the simulated site."""

    simulator: Simulator
    http: aiohttp.ClientSession
    token: str = ""

    async def call(self, method: str, path: str, body: object = None, *, drop: str = "", **headers: str) -> Answer:
        """One request with ordinary headers, without the header named `drop`, changed by `headers` (_ for -)."""
        sent = self.headers() | {name.replace("_", "-"): value for name, value in headers.items()}
        sent.pop(drop, None)
        data = None if body is None else json.dumps(body)
        skipped = ["User-Agent"] if "user-agent" not in sent else []
        async with self.http.request(
            method, self.simulator.base_url + path, data=data, headers=sent, skip_auto_headers=skipped
        ) as response:
            found = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, found, await response.read())

    def headers(self) -> dict[str, str]:
        base = self.simulator.base_url
        return {
            "user-agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/149.0.0.0",
            "accept": "application/json",
            "accept-language": "en-US,en;q=0.9",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "cookie": f"token={self.token}; cna=abc",
            "source": "web",
            "version": "0.2.83",
            "timezone": "Tue Sep 22 2026 04:13:35 GMT+0800",
            "x-request-id": str(uuid.uuid4()),
            "x-accel-buffering": "no",
            "origin": base,
            "referer": base + "/",
            "sec-fetch-dest": "empty",
            "sec-fetch-mode": "cors",
            "sec-fetch-site": "same-origin",
        }

    async def sign_in(self, email: str = "demo@simulated", password: str = "secret") -> Answer:
        answer = await self.call("POST", "/api/v1/auths/signin", {"email": email, "password": hashed(password)})
        self.token = answer.json.get("token", "")
        return answer

    async def new_chat(self, model: str = "qwen3.7-plus") -> str:
        body = {"chatId": "", "models": [model], "project_id": "", "timestamp": int(time.time() * 1000)}  # noqa: TID251
        answer = await self.call("POST", "/api/v2/chats/new", body | {"chat_type": "t2t", "chat_mode": "normal"})
        return str(answer.json["data"]["id"])

    async def ask(self, text: str, **changes: Any) -> Answer:
        """A completion in a new chat; `changes` go to `completion`, `accept_encoding` to the header."""
        headers = {"accept_encoding": changes.pop("accept_encoding", "identity")}
        chat_id = await self.new_chat()
        return await self.complete(chat_id, completion(chat_id, text, **changes), **headers)

    async def complete(self, chat_id: str, body: object, *, drop: str = "", **headers: str) -> Answer:
        path = f"/api/v2/chat/completions?chat_id={chat_id}"
        return await self.call("POST", path, body, drop=drop, **headers)

    @asynccontextmanager
    async def open(self, text: str) -> AsyncGenerator[aiohttp.ClientResponse]:
        """A completion that is being answered; leaving early closes the connection."""
        chat_id = await self.new_chat()
        url = f"{self.simulator.base_url}/api/v2/chat/completions?chat_id={chat_id}"
        response = await self.http.post(url, json=completion(chat_id, text), headers=self.headers())
        try:
            yield response
        finally:
            response.close()


def completion(
    chat_id: str,
    text: str,
    *,
    model: str = "qwen3.7-plus",
    chat_type: str = "t2t",
    thinking: bool = False,
    parent_id: str | None = None,
    **config: object,
) -> Fields:
    """A complete body, as upstream protocol §4.1 prints it."""
    now = int(time.time())  # noqa: TID251
    feature: Fields = {"thinking_enabled": thinking, "output_schema": "phase", "auto_search": False, **config}
    message: Fields = {
        "id": None,
        "fid": str(uuid.uuid4()),
        "parentId": parent_id,
        "parent_id": parent_id,
        "childrenIds": [],
        "role": "user",
        "content": text,
        "user_action": "chat",
        "files": [],
        "timestamp": now,
        "models": [model],
        "chat_type": chat_type,
        "sub_chat_type": chat_type,
        "feature_config": feature,
        "extra": {"meta": {"subChatType": chat_type}},
    }
    return {
        "stream": True,
        "version": "2.1",
        "incremental_output": True,
        "chatId": chat_id,
        "chat_id": chat_id,
        "parentId": parent_id or "",
        "parent_id": parent_id,
        "chat_mode": "normal",
        "model": model,
        "messages": [message],
        "timestamp": now,
    }
