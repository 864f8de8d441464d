"""What happened to one request, for its log line."""

from msgspec import Struct

from qwen_proxy.chat.events import Usage


class Trace(Struct):
    """Filled in as the request goes on. `failures` names the error classes of tries that were given up or repeated."""

    request_id: str
    tries: int = 0
    account_id: str = ""
    model: str = ""
    failures: list[str] = []
    usage: Usage | None = None
