"""One call to the site: ordinary headers, our transport, the effective status."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from email.utils import parsedate_to_datetime
from typing import Final

from qwen_proxy.accounts.model import Credential
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.errors import effective_status
from qwen_proxy.upstreams.qwen_web.headers import WebHeaders
from qwen_proxy.upstreams.qwen_web.options import QwenWebOptions
from qwen_proxy.upstreams.transport import Headers, Response, Stream, Transport

ACTUAL_STATUS: Final = "x-actual-status-code"
ORDINARY_HEADERS: Final = frozenset(
    (
        ACTUAL_STATUS,
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "server",
        "set-cookie",
        "strict-transport-security",
        "transfer-encoding",
        "vary",
        "x-accel-buffering",
        "x-request-id",
    )
)


class Site:
    """Where chat.qwen.ai is, and how this program presents itself there. Keeps the site's clock in view."""

    def __init__(self, transport: Transport, clock: Clock, ids: Ids, drift: Drift, options: QwenWebOptions) -> None:
        self.options = options
        self.drift = drift
        self.clock = clock
        self.ids = ids
        self.clock_offset_seconds: float | None = None
        self.general_exits: Callable[[], Sequence[str]] = lambda: (options.exit, *options.other_exits)
        self._transport = transport
        self._headers = WebHeaders(options.base_url.rstrip("/"), options.headers)

    async def call(
        self,
        method: str,
        path: str,
        *,
        page: str,
        credential: Credential | None,
        timeout_seconds: float,
        body: bytes | None = None,
        exit: str | None = None,
    ) -> Response:
        """A whole exchange through the credential's exit, else `exit`, else the general one. Raises ProxyError."""
        if exit is None:
            exit = self.general_exits()[0] if credential is None else credential.exit
        headers = self._headers.of_call(credential, page=page, now=self.clock.now(), request_id=self.ids.uuid())
        response = await self._transport.request(
            exit, method, self.options.url(path), headers=headers, body=body, timeout_seconds=timeout_seconds
        )
        self.look_at(response.headers, "headers of a call")
        return response

    def complete(
        self, credential: Credential, chat_id: str, body: bytes, deadline: float
    ) -> AbstractAsyncContextManager[Stream]:
        headers = self._headers.of_completion(
            credential, chat_id=chat_id, now=self.clock.now(), request_id=self.ids.uuid()
        )
        url = self.options.url(f"/api/v2/chat/completions?chat_id={chat_id}")
        return self._transport.stream(credential.exit, "POST", url, headers=headers, body=body, deadline=deadline)

    def status(self, answer: Response | Stream) -> int:
        """The effective one (§0.4)."""
        return effective_status(answer.status, answer.headers.get(ACTUAL_STATUS))

    def look_at(self, headers: Headers, kind: str) -> None:
        """Notice unknown headers and the site's clock, now and then."""
        if not self.drift.is_worth_a_look(kind):
            return
        for name in {name.lower() for name in headers} - ORDINARY_HEADERS:
            self.drift.seen("header", name)
        try:
            there = parsedate_to_datetime(headers.get("Date", "")).timestamp()
        except ValueError:
            return
        self.clock_offset_seconds = there - self.clock.now()
