"""A server that speaks OpenAI's chat completions from a script: what the last user message says is what it plays.

`[[recording NAME]]` plays that recording; `[[sim hang]]`, `[[sim stall N]]`, `[[sim slow 1ms]]`, `[[sim repeat N]]` and
`[[sim reset N]]` do what the simulator does under these names; anything else is answered with itself, a word a chunk.
"""

import asyncio
import re
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from tests.recordings.decoding import OpenAIRecording, openai_recordings, qwen_code_recordings
from tests.support.wire_server import Visit, WireServer

RECORDINGS: Final = {recording.name: recording for recording in openai_recordings()}
PORTAL_RECORDINGS: Final = {recording.name: recording for recording in qwen_code_recordings()}
STREAM: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """One frame."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"id": "chatcmpl-1", "choices": [choice], **more}) + b"\n\n"


def answer(status: int, body: bytes, kind: str = "application/json", *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def played(recording: OpenAIRecording) -> bytes:
    facts = recording.facts
    lines = [f"{name}: {value}" for name, value in facts.headers.items() if name != "Content-Type"]
    return answer(facts.status, recording.body, facts.headers["Content-Type"], *lines)


class OpenAIServer:
    """Enter it. `asked`: bodies of completions, decoded; `keys`: the Authorization of each. keys_taken: the only ones,
    where there are some. refusal: by key, what it is answered with instead. models: what is listed.

    The attributes and methods before `__init__` are its protocol: another is a subclass with others.
    """

    asks, lists, root = "POST /v1/chat/completions ", "GET /v1/models ", "/v1"

    def listed(self) -> bytes:
        found = [{"id": id, "object": "model", "max_model_len": 8192} for id in self.models]
        return msgspec.json.encode({"object": "list", "data": found})

    def word(self, said: str) -> bytes:
        return chunk({"content": said})

    def ending(self, words: int) -> list[bytes]:
        usage = {"prompt_tokens": 7, "completion_tokens": words}
        told = msgspec.json.encode({"choices": [], "usage": usage})
        return [chunk({}, "stop"), b"data: " + told + b"\n\ndata: [DONE]\n\n"]

    def recorded(self, name: str) -> bytes:
        """The answer that this recording has."""
        return played(RECORDINGS[name])

    def __init__(self, *keys_taken: str, models: tuple[str, ...] = ("m-1", "m-2")) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.heads: list[str] = []
        self.keys_taken = keys_taken
        self.models = models
        self.refusals: dict[str, Callable[[], bytes]] = {}
        self.open_generations = self.most_at_once = 0
        self._server = WireServer(self._answer)
        self._port = 0

    @property
    def base_url(self) -> str:
        return f"http://localhost:{self._port}{self.root}"

    @property
    def connections(self) -> int:
        return self._server.connections

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self._port = self._server.port
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    async def stop(self) -> None:
        await self._server.__aexit__(None, None, None)

    async def start(self) -> None:
        self._server = WireServer(self._answer)
        await self._server.__aenter__()
        self._port = self._server.port

    async def _answer(self, visit: Visit) -> None:
        self.heads.append(visit.head)
        key = next(
            (line[22:] for line in visit.head.split("\r\n") if line.lower().startswith("authorization: bearer ")), ""
        )
        refusal = self.refusals.get(key)
        if refusal is not None or (self.keys_taken and key not in self.keys_taken):
            if visit.head.startswith("POST"):
                self.keys.append(key)
            await visit.send(refusal() if refusal is not None else answer(401, RECORDINGS["unauthorized"].body))
        elif visit.head.startswith(self.lists):
            await visit.send(answer(200, self.listed()))
        elif visit.head.startswith(self.asks):
            self.keys.append(key)
            self.open_generations += 1
            self.most_at_once = max(self.most_at_once, self.open_generations)
            try:
                await self._play(visit)
            finally:
                self.open_generations -= 1
        else:
            await visit.send(answer(404, b'{"detail":"Not Found"}'))

    async def _play(self, visit: Visit) -> None:
        body = msgspec.json.decode(visit.body, type=dict[str, Any])
        self.asked.append(body)
        text = next(str(each["content"]) for each in reversed(body["messages"]) if each["role"] == "user")
        if (found := re.search(r"\[\[recording (\w+)\]\]", text)) is not None:
            await visit.send(self.recorded(found[1]))
            return
        told = dict(re.findall(r"\[\[sim (\w+) ?(\w*)\]\]", text))
        if "hang" in told:
            await visit.until_left()
            return
        said = re.sub(r"\[\[.*?\]\]", "", text).strip() or "hello"
        words = [f"{said} "] * int(told.get("repeat", "1"))
        await visit.send(STREAM)
        for number, word in enumerate(words):
            if told.get("stall") == str(number):
                await visit.until_left()
                return
            if told.get("reset") == str(number):
                visit.reset()
                return
            await visit.chunk(self.word(word))
            if "slow" in told:
                await asyncio.sleep(0.001)
        for piece in self.ending(len(words)):
            await visit.chunk(piece)
        await visit.chunk(b"")


class PortalServer(OpenAIServer):
    """Qwen Code's service, whose recordings are its own."""

    def recorded(self, name: str) -> bytes:
        return played(PORTAL_RECORDINGS[name])
