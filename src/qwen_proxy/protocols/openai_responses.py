"""OpenAI's responses: `/v1/responses`. Pure.

Shapes: OpenAI's API reference, as typed in the openai SDK 3.54. What is kept of earlier responses comes in from
outside (`Context`); here a body that needs it is refused.
"""

from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct, structs

from qwen_proxy.chat.events import Usage
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import ChatResult
from qwen_proxy.ground.errors import ProxyError, UnsupportedParameter
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols.base import ErrorReply, Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.limit_headers import openai_headers
from qwen_proxy.protocols.openai_errors import error_reply
from qwen_proxy.protocols.openai_responses_body import Asked, asked
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder, replayed
from qwen_proxy.protocols.openai_responses_output import Wishes, wishes
from qwen_proxy.protocols.openai_responses_request import Context, understood
from qwen_proxy.protocols.openai_responses_tools import Toolbox


class ResponsesCall(Struct, frozen=True, kw_only=True):
    """A parsed request; fits `protocols.base.Call`."""

    request: ChatRequest
    stream: bool
    ignored_fields: tuple[str, ...]
    session: str
    wishes: Wishes
    toolbox: Toolbox
    choices: int = 1
    further: tuple[ChatRequest, ...] = ()
    needs_prompt_tokens: bool = False

    def encoder(self, facts: ReplyFacts, index: int) -> ResponseEncoder:
        return ResponseEncoder(facts, self.wishes, self.toolbox)

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        """The response's own last event has told the usage."""
        return b""

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        encoder = self.encoder(facts, 0)
        encoder.encode(replayed(results[0]))
        return encoder.last


class OpenAIResponses:
    """Fits `protocols.base.ClientProtocol`."""

    request_id_header: ClassVar[str] = "x-request-id"
    stream_content_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    heartbeat: ClassVar[bytes] = b": keep-alive\n\n"

    def parse(self, incoming: Incoming, options: ParseOptions) -> ResponsesCall:
        """Raises UnsupportedParameter for what only a server that keeps responses can answer."""
        wanted = self.read(incoming, options)
        for param in ("background", "previous_response_id"):
            if getattr(wanted.body, param):
                raise UnsupportedParameter(f"{param}: this server keeps no responses; leave it out", param=param)
        return call(wanted, Context())

    def read(self, incoming: Incoming, options: ParseOptions) -> Asked:
        """Raises InvalidRequest."""
        return asked(incoming)

    def error(self, error: ProxyError, request_id: str) -> ErrorReply:
        return error_reply(error, request_id)

    def limit_headers(self, facts: LimitFacts) -> tuple[tuple[str, str], ...]:
        return openai_headers(facts)


def call(wanted: Asked, context: Context) -> ResponsesCall:
    """Raises InvalidRequest."""
    meant = understood(wanted.body, context)
    return ResponsesCall(
        request=structs.replace(meant.request, extra=wanted.extra),
        stream=wanted.body.stream is True,
        ignored_fields=(*wanted.ignored, *meant.ignored),
        session=wanted.body.session,
        wishes=wishes(wanted),
        toolbox=meant.toolbox,
    )
