"""What happened to one request, for its log line."""

from collections.abc import Sequence

from msgspec import Struct

from qwen_proxy.chat.events import Usage
from qwen_proxy.chat.result import total_usage


class Trace(Struct):
    """Filled in as the request goes on. `failures` names the error classes of tries that were given up or repeated."""

    request_id: str
    tries: int = 0
    account_id: str = ""
    model: str = ""
    failures: list[str] = []
    usage: Usage | None = None

    def take_up(self, choices: Sequence["Trace"]) -> None:
        """Become the one line of a request for several replies: what each of them took, together."""
        self.tries = sum(choice.tries for choice in choices)
        self.failures = [failure for choice in choices for failure in choice.failures]
        self.account_id = next((choice.account_id for choice in choices if choice.account_id), "")
        usages = [choice.usage for choice in choices if choice.usage is not None]
        self.usage = total_usage(usages) if usages else None
