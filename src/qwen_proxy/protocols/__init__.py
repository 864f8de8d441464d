"""What clients speak. Each file translates one protocol to and from `chat/`, and knows no other.

PROTOCOLS is the table: the routes, the errors and the conformance tests follow from its lines.
"""

from typing import Final

from msgspec import Struct

from qwen_proxy.protocols.base import ClientProtocol
from qwen_proxy.protocols.openai_chat import OpenAIChat


class ProtocolRoute(Struct, frozen=True):
    """`name` is for logs and tests; the protocol is served at POST `path`."""

    name: str
    path: str
    protocol: ClientProtocol


PROTOCOLS: Final = (ProtocolRoute("openai_chat", "/v1/chat/completions", OpenAIChat()),)
