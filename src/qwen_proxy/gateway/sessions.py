"""Which conversation a request belongs to, as a name for `accounts.affinity`. Pure.

| what is asked, in this order | who sends it |
|---|---|
| a header of HEADERS | coding agents: a name for each conversation |
| the body's own word (`protocols.base.Call.session`) | `metadata`: Claude Code, Qwen Code; `prompt_cache_key`: Codex |
| the system text and the whole first user message | everybody: they stay the same as a conversation grows |

The whole message, since agents begin the first message of every conversation with the same pages. A request in which
nobody said anything has no session: it must not share one with all others like it. The caller's key and, without a
name, the model are a part of every name, so that two callers never share an account because they said the same.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Final

from qwen_proxy.chat.request import ChatRequest, FilePart, ImagePart, Message, Role, TextPart

HEADERS: Final = (
    "x-qwen-proxy-session",
    "x-claude-code-session-id",
    "session-id",  # Codex
    "session_id",  # Codex, older
    "x-opencode-session",
    "x-session-affinity",
    "x-session-id",
    "x-conversation-id",
    "conversation_id",
)
NO_NAMES: Final = frozenset({"", "null", "undefined", "none"})  # what a program writes that has none


def session_name(key_id: str, headers: Mapping[str, str], said: str, request: ChatRequest) -> str:
    """32 hex digits, or nothing where there is no session. `headers` have lower-case names.

    The name tells nothing of what was said, so it may be logged.
    """
    for word in (*(headers.get(name, "") for name in HEADERS), said):
        if (name := word.strip()).casefold() not in NO_NAMES:
            return _digest("named", key_id, name)
    first = next((message for message in request.messages if message.role is Role.USER), None)
    opening = [] if first is None else list(_words(first))
    if not any(word.strip() for word in opening):
        return ""
    system = (word for message in request.messages if message.role is Role.SYSTEM for word in _words(message))
    return _digest("said", key_id, request.model.base, *system, "", *opening)


def _words(message: Message) -> Iterator[str]:
    for part in message.parts:
        match part:
            case TextPart():
                yield part.text
            case ImagePart() | FilePart():
                yield part.url
            case _:
                pass


def _digest(*words: str) -> str:
    digest = blake2b(digest_size=16)
    for word in words:
        encoded = word.encode(errors="surrogatepass")
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()
