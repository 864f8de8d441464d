"""Every client protocol we serve: the routes, the errors and the conformance tests follow from these lines."""

from typing import Final

from msgspec import Struct

from qwen_proxy.protocols.base import ClientProtocol
from qwen_proxy.protocols.openai_chat import OpenAIChat


class ProtocolRoute(Struct, frozen=True):
    """`name` is for logs and tests; the protocol is served at POST `path`. word: as keys are limited to it."""

    name: str
    path: str
    word: str
    protocol: ClientProtocol


PROTOCOLS: Final = (ProtocolRoute("openai_chat", "/v1/chat/completions", "chat", OpenAIChat()),)
