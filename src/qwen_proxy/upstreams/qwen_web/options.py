"""What an operator may decide about chat.qwen.ai."""

from typing import Final

from msgspec import Struct

from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.upstreams.qwen_web.headers import HeaderOptions

BASE_URL: Final = "https://chat.qwen.ai"


class CleanupOptions(Struct, frozen=True, kw_only=True):
    """`delete_after_seconds`: None keeps chats, 0 deletes them at once after use.

    At most `max_waiting` chats wait and `max_at_once` deletions run; after a challenge they rest for `rest_seconds`.
    """

    delete_after_seconds: float | None = 0
    max_waiting: int = 5000
    max_at_once: int = 8
    rest_seconds: float = 120
    shutdown_seconds: float = 5
    timeout_seconds: float = 15


class QwenWebOptions(Struct, frozen=True, kw_only=True):
    """`base_url` may carry a path prefix (§0.3). `exit` is for calls that no account makes; `other_exits`
    stand in for it, in this order, where it does not let them through."""

    base_url: str = BASE_URL
    exit: str = DIRECT
    other_exits: tuple[str, ...] = ()
    headers: HeaderOptions = HeaderOptions()
    cleanup: CleanupOptions = CleanupOptions()
    max_prompt_bytes: int = 120 * 1024
    new_chat_seconds: float = 30
    models_seconds: float = 20
    sign_in_seconds: float = 20
    session_check_seconds: float = 15
    drain_seconds: float = 1

    def url(self, path: str) -> str:
        """`path` at the base, by concatenation: a prefix path stays (§0.3)."""
        return self.base_url.rstrip("/") + path
