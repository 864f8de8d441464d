"""What the simulator remembers of its visitors: requests, and chats with their messages."""

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

Endpoint = Literal[
    "any", "signin_v1", "signin_v2", "session", "user_info", "models", "models_v2", "chats_new", "chats_list",
    "chat_detail", "chat_delete", "completions", "stop", "settings", "settings_update", "oauth_device",
    "oauth_token", "oauth_authorize", "portal_models", "portal_chat", "unknown",
]  # fmt: skip
"""Rows of the endpoint index (§0.5)."""


def _no_json() -> list[object]:
    return []


@dataclass(slots=True)
class SeenRequest:
    """One request, as it came in.

    headers: names in lower case, a repeated header's values joined with ", ". at: Unix seconds of the site's clock.
    peer: host and port of the connection. account: the e-mail its token or sign-in names, else None.
    closed_early: the client left before the answer was complete.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    at: float
    peer: tuple[str, int]
    endpoint: Endpoint = "unknown"
    account: str | None = None
    feature: str | None = None
    closed_early: bool = False

    @property
    def json(self) -> Any:
        """The body as JSON, parsed anew; None if it is not JSON. (Any: this is the line where JSON enters.)"""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None

    @property
    def cookies(self) -> dict[str, str]:
        """The Cookie header, taken apart at `;` and the first `=`."""
        pairs = (part.strip().partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name: value for name, _, value in pairs if name}

    @property
    def bearer(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None


@dataclass(slots=True)
class StoredMessage:
    """A message of a chat (§3.4). parent_id None: the first of its chat."""

    id: str
    role: str
    content: str
    parent_id: str | None
    content_list: list[object] = field(default_factory=_no_json)


def _no_messages() -> list[StoredMessage]:
    return []


@dataclass(slots=True)
class SimulatedChat:
    """A chat of the simulated site (§3). It belongs to the account that made it.

    in_progress: a generation is being sent now. busy_until: monotonic seconds until which a generation whose client
    left still blocks the chat (§4.9). stop_asked: the stop endpoint was called for the generation running now.
    """

    id: str
    account: str
    title: str
    chat_type: str
    model: str
    created: float
    updated: float
    deleted: bool = False
    messages: list[StoredMessage] = field(default_factory=_no_messages)
    in_progress: bool = False
    busy_until: float = 0.0
    stop_asked: bool = False
