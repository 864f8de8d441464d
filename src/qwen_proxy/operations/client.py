"""Our own server, seen from outside: what the commands ask of it, over HTTP like any other client."""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.ground.secret import Secret
from qwen_proxy.ground.sse import SseDecoder
from qwen_proxy.operations.advice import AccountFacts, DriftFacts, ExitFacts, UpstreamFacts
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.upstreams.transport import Stream, Transport, read_all

T = TypeVar("T")

ANSWER_SECONDS: Final = 10.0
MODELS_SECONDS: Final = 90.0  # the server may have to sign in first


class ServerRefused(Exception):
    """The server answered with an error: its own sentence. `code` is empty when it gave none."""

    def __init__(self, status: int, message: str, code: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id


class ServerSilent(Exception):
    """Nothing answers there, or not in words we know."""


class Diagnostics(Struct, frozen=True, kw_only=True):
    """GET /api/admin/diagnostics, as far as it is read here. A server of another version may leave things out."""

    version: str = ""
    uptime_seconds: float = 0.0
    accounts: tuple[AccountFacts, ...] = ()
    exits: tuple[ExitFacts, ...] = ()
    drift: tuple[DriftFacts, ...] = ()
    upstream: UpstreamFacts = UpstreamFacts()


class Capabilities(Struct, frozen=True, kw_only=True):
    thinking: bool = False
    thinking_optional: bool = True
    search: bool = False
    vision: bool = False


class ListedModel(Struct, frozen=True, kw_only=True):
    """One entry of GET /v1/models."""

    id: str
    name: str = ""
    upstream_id: str = ""
    display_name: str = ""
    context_length: int | None = None
    max_output_tokens: int | None = None
    capabilities: Capabilities = Capabilities()


class Question(Struct, frozen=True, kw_only=True):
    """model: empty takes the server's first. thinking: None leaves it to the model name."""

    text: str
    model: str = ""
    thinking: bool | None = None
    stream: bool = True
    deadline_seconds: float = 1800.0


class Citation(Struct, frozen=True):
    url: str = ""
    title: str = ""


class Counts(Struct, frozen=True, kw_only=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    origin: str = ""


class Answered(Struct, frozen=True, kw_only=True):
    """A whole reply. first_seconds: until the first reasoning or text, None when the reply was not streamed."""

    model: str
    text: str
    reasoning: str
    sources: tuple[Citation, ...]
    usage: Counts | None
    finish_reason: str
    request_id: str
    first_seconds: float | None
    seconds: float


class _Annotation(Struct):
    url_citation: Citation = Citation()


class _Words(Struct):
    """A message, or a delta of one."""

    content: str | None = None
    reasoning_content: str | None = None
    annotations: list[_Annotation] = []


class _Choice(Struct):
    delta: _Words | None = None
    message: _Words | None = None
    finish_reason: str | None = None


class _Problem(Struct):
    message: str = "no reason was given"
    code: str | None = None


class _Body(Struct):
    """A completion, a chunk of one, or an error."""

    model: str = ""
    choices: list[_Choice] = []
    usage: Counts | None = None
    error: _Problem | None = None


class _Models(Struct):
    data: list[ListedModel]


class _Health(Struct):
    status: str


class ServerClient:
    """`base_url` without a trailing slash; `key` the admin key for `diagnostics`, any key for the rest."""

    def __init__(self, transport: Transport, base_url: str, key: Secret, clock: Clock) -> None:
        self.base_url = base_url
        self._transport = transport
        self._headers = {"Authorization": f"Bearer {key.reveal()}", "Accept": "application/json"}
        self._clock = clock

    async def is_up(self) -> bool:
        """Whether a server of ours answers there."""
        try:
            msgspec.json.decode(await self._get("/healthz"), type=_Health)
        except (ServerRefused, ServerSilent, msgspec.DecodeError):
            return False
        return True

    async def diagnostics(self) -> Diagnostics:
        """Raises ServerRefused (401, 403: another key), ServerSilent."""
        return self._read(await self._get("/api/admin/diagnostics"), Diagnostics)

    async def models(self) -> list[ListedModel]:
        """Raises ServerRefused, ServerSilent."""
        return self._read(await self._get("/v1/models", MODELS_SECONDS), _Models).data

    async def call(
        self, method: str, path: str, kind: type[T], body: Struct | None = None, *, seconds: float = ANSWER_SECONDS
    ) -> T:
        """A call of the admin API. kind: of what is answered. Raises ServerRefused, ServerSilent."""
        return self._read(await self.do(method, path, body, seconds=seconds), kind)

    async def do(self, method: str, path: str, body: Struct | None = None, *, seconds: float = ANSWER_SECONDS) -> bytes:
        """The same for what is answered in another form, or not at all."""
        pieces: list[bytes] = []
        await self._send(method, path, body, seconds, pieces.append)
        return b"".join(pieces)

    async def ask(
        self,
        question: Question,
        on_reasoning: Callable[[str], None] = lambda _: None,
        on_text: Callable[[str], None] = lambda _: None,
    ) -> Answered:
        """Ask, and hand on the pieces as they come. Raises ServerRefused, ServerSilent."""
        body: dict[str, object] = {
            "messages": [{"role": "user", "content": question.text}],
            "stream": question.stream,
        }
        if question.model:
            body["model"] = question.model
        if question.thinking is not None:
            body["enable_thinking"] = question.thinking
        if question.stream:
            body["stream_options"] = {"include_usage": True}
        reply = _Reply(self._clock, on_reasoning, on_text)
        try:
            async with self._transport.stream(
                DIRECT,
                "POST",
                f"{self.base_url}/v1/chat/completions",
                headers={**self._headers, "Content-Type": "application/json"},
                body=msgspec.json.encode(body),
                deadline=self._clock.monotonic() + question.deadline_seconds,
            ) as stream:
                reply.request_id = stream.headers.get("x-request-id", "")
                await _hear(stream, reply, question.stream)
        except ProxyError as error:
            raise ServerSilent(_ours(error)) from error
        return reply.answered()

    async def copy(self, path: str, write: Callable[[bytes], object], *, seconds: float = ANSWER_SECONDS) -> None:
        """GET what may be large, and hand it on piece by piece. Raises ServerRefused, ServerSilent."""
        await self._send("GET", path, None, seconds, write)

    async def _get(self, path: str, timeout_seconds: float = ANSWER_SECONDS) -> bytes:
        return await self.do("GET", path, seconds=timeout_seconds)

    async def _send(
        self, method: str, path: str, body: Struct | None, timeout_seconds: float, write: Callable[[bytes], object]
    ) -> None:
        """The answer goes to `write`: what an installation has of its own may be larger than what a site sends."""
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        try:
            async with self._transport.stream(
                DIRECT,
                method,
                self.base_url + path,
                headers=headers,
                body=None if body is None else msgspec.json.encode(body),
                deadline=self._clock.monotonic() + timeout_seconds,
            ) as stream:
                if not 200 <= stream.status < 300:
                    raise _refusal(stream.status, await read_all(stream), stream.headers.get("x-request-id", ""))
                while chunk := await stream.read():
                    write(chunk)
        except ProxyError as error:
            raise ServerSilent(_ours(error)) from error

    def _read(self, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise ServerSilent(f"{self.base_url} answers in a form unknown to this version ({error})") from error


async def _hear(stream: Stream, reply: "_Reply", streamed: bool) -> None:
    if stream.status == 200 and streamed:
        decoder = SseDecoder()
        while chunk := await stream.read():
            for payload in decoder.feed(chunk):
                reply.take(payload)
        return
    whole = bytearray()
    while chunk := await stream.read():
        whole += chunk
    if stream.status != 200:
        raise _refusal(stream.status, bytes(whole), reply.request_id)
    reply.take(bytes(whole))


class _Reply:
    """A reply while it comes."""

    def __init__(self, clock: Clock, on_reasoning: Callable[[str], None], on_text: Callable[[str], None]) -> None:
        self.request_id = ""
        self._clock = clock
        self._on_reasoning = on_reasoning
        self._on_text = on_text
        self._asked_at = clock.monotonic()
        self._first_seconds: float | None = None
        self._model = ""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._sources: list[Citation] = []
        self._usage: Counts | None = None
        self._finish_reason = ""

    def take(self, payload: bytes) -> None:
        """A chunk, or a whole completion. Raises ServerRefused for an error, ServerSilent for what is neither."""
        if payload == b"[DONE]":
            return
        try:
            body = msgspec.json.decode(payload, type=_Body)
        except msgspec.DecodeError as error:
            raise ServerSilent(f"the reply can't be read ({error})") from error
        if body.error is not None:
            raise ServerRefused(200, body.error.message, body.error.code or "", self.request_id)
        self._model = body.model or self._model
        self._usage = body.usage or self._usage
        for choice in body.choices:
            self._finish_reason = choice.finish_reason or self._finish_reason
            if (words := choice.delta or choice.message) is not None:
                self._hear(words, streamed=choice.delta is not None)

    def _hear(self, words: _Words, *, streamed: bool) -> None:
        self._sources += [annotation.url_citation for annotation in words.annotations]
        if streamed and self._first_seconds is None and (words.content or words.reasoning_content):
            self._first_seconds = self._clock.monotonic() - self._asked_at
        if words.reasoning_content:
            self._reasoning.append(words.reasoning_content)
            self._on_reasoning(words.reasoning_content)
        if words.content:
            self._text.append(words.content)
            self._on_text(words.content)

    def answered(self) -> Answered:
        return Answered(
            model=self._model,
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            sources=tuple(self._sources),
            usage=self._usage,
            finish_reason=self._finish_reason,
            request_id=self.request_id,
            first_seconds=self._first_seconds,
            seconds=self._clock.monotonic() - self._asked_at,
        )


def _refusal(status: int, body: bytes, request_id: str) -> ServerRefused:
    try:
        problem = msgspec.json.decode(body, type=_Body).error or _Problem()
    except msgspec.DecodeError:
        problem = _Problem(f"HTTP {status}")
    return ServerRefused(status, problem.message, problem.code or "", request_id)


def _ours(error: ProxyError) -> str:
    """The transport speaks of an upstream; here that is our own server."""
    return f"the server does not answer ({getattr(error, 'problem', None) or error})"
