"""The state of the simulated site: accounts, tokens, chats, what was seen. It knows no socket."""

import time
import uuid
from collections import deque
from dataclasses import dataclass

from qwen_proxy.simulator.identity import Claims, TokenMint
from qwen_proxy.simulator.records import SeenRequest, SimulatedChat
from qwen_proxy.simulator.scenario import Account, Scenario

MAX_REQUESTS = 10_000
MAX_HELD_BYTES = 64 * 1024 * 1024
MAX_CHATS = 20_000
MAX_NOTES = 1_000
LAST_PASSWORD_CHANGE = 1_780_000_000


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whom a valid token names."""

    email: str
    id: str
    token: str


@dataclass(slots=True)
class Device:
    """A sign-in by device flow that was begun (§8.1). approved_by: an e-mail, "" for nobody yet."""

    user_code: str
    challenge: str
    ends_at: float
    approved_by: str = ""
    polls: int = 0


@dataclass(frozen=True, slots=True)
class PortalToken:
    """An access token of Qwen Code. is_first: of its sign-in, not from a refresh."""

    ends_at: float
    is_first: bool


class Site:
    """Everything that outlives one request. All of it is bounded, for the simulator may run for weeks."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.requests: list[SeenRequest] = []
        self.chats: dict[str, SimulatedChat] = {}
        self.warnings: list[str] = []
        self.settings: dict[str, dict[str, object]] = {}
        self.mint = TokenMint()
        self.once_seen: dict[str, None] = {}
        self.devices: dict[str, Device] = {}
        self.portal_tokens: dict[str, PortalToken] = {}
        self.refresh_tokens: dict[str, None] = {}
        self._emails: dict[str, str] = {}
        self._revoked: set[str] = set()
        self._tokens: dict[str, list[str]] = {}
        self._signins: dict[str, deque[float]] = {}
        self._held_bytes = 0

    def now(self) -> float:
        """Unix seconds on the site's own clock (scenario.clock_offset_seconds ahead)."""
        return time.time() + self.scenario.clock_offset_seconds  # noqa: TID251

    def monotonic(self) -> float:
        return time.monotonic()  # noqa: TID251

    def remember(self, seen: SeenRequest) -> None:
        """Keep the newest 10,000 requests, and no more than 64 MiB of their bodies."""
        self.requests.append(seen)
        self._held_bytes += len(seen.body)
        while len(self.requests) > MAX_REQUESTS or (self._held_bytes > MAX_HELD_BYTES and len(self.requests) > 1):
            self._held_bytes -= len(self.requests.pop(0).body)

    def warn(self, note: str) -> None:
        """Note a departure from the ordinary client, once each."""
        if note not in self.warnings and len(self.warnings) < MAX_NOTES:
            self.warnings.append(note)

    # accounts and tokens

    def account(self, email: str) -> Account | None:
        """The account with this e-mail; any e-mail has one if the scenario lists none."""
        if self.scenario.accounts:
            return self.scenario.accounts.get(email)
        return Account("")

    def account_id(self, email: str) -> str:
        """The site's id of an account, the same in every run."""
        account_id = str(uuid.uuid5(uuid.NAMESPACE_DNS, email))
        if len(self._emails) < MAX_CHATS:
            self._emails[account_id] = email
        return account_id

    def issue_token(self, email: str, lifetime_seconds: int) -> str:
        """A token, never one that was revoked."""
        end = int(self.now()) + lifetime_seconds
        account_id = self.account_id(email)
        token = self.mint.issue(Claims(account_id, end, LAST_PASSWORD_CHANGE))
        while token in self._revoked:
            end += 1
            token = self.mint.issue(Claims(account_id, end, LAST_PASSWORD_CHANGE))
        issued = self._tokens.setdefault(email, [])
        issued.append(token)
        del issued[:-MAX_NOTES]
        return token

    def revoke_tokens(self, email: str | None = None) -> None:
        """Refuse every token issued so far, to one account or to all, before its end (§1.4)."""
        for owner in list(self._tokens) if email is None else [email]:
            self._revoked.update(self._tokens.pop(owner, ()))

    def owner(self, token: str | None) -> str | None:
        """The e-mail a token names, even one that has ended."""
        claims = self.mint.read(token) if token else None
        return None if claims is None else self._emails.get(claims.id)

    def visitor(self, token: str | None) -> Visitor | None:
        """Whom a token proves: issued here, not ended, not revoked, of an account that still exists."""
        claims = self.mint.read(token) if token else None
        if token is None or claims is None or claims.exp <= self.now() or token in self._revoked:
            return None
        email = self._emails.get(claims.id)
        if email is None or self.account(email) is None:
            return None
        return Visitor(email, claims.id, token)

    def signs_in_too_fast(self, address: str) -> bool:
        """Count a sign-in of this address; True above scenario.signin_limit (§1.3)."""
        if self.scenario.signin_limit is None:
            return False
        allowed, window_seconds = self.scenario.signin_limit
        times = self._signins.setdefault(address, deque(maxlen=1000))
        now = self.monotonic()
        while times and times[0] <= now - window_seconds:
            times.popleft()
        times.append(now)
        return len(times) > allowed

    # chats

    def add_chat(self, owner: str, title: str, chat_type: str, model: str) -> SimulatedChat:
        """A new chat of this account (§3.1). The oldest is forgotten above 20,000."""
        now = self.now()
        chat = SimulatedChat(str(uuid.uuid4()), owner, title, chat_type, model, now, now)
        self.chats[chat.id] = chat
        if len(self.chats) > MAX_CHATS:
            del self.chats[next(iter(self.chats))]
        return chat

    def chat(self, chat_id: str, email: str) -> SimulatedChat | None:
        """An account's own chat that was not deleted. Ids invented elsewhere are unknown (§3.1)."""
        chat = self.chats.get(chat_id)
        return chat if chat is not None and chat.account == email and not chat.deleted else None

    def is_busy(self, chat: SimulatedChat) -> bool:
        """A generation runs, or its client left a moment ago (§4.9)."""
        return chat.in_progress or self.monotonic() < chat.busy_until

    def first_time(self, text: str) -> bool:
        """Whether `[[sim once]]` sees this text for the first time."""
        first = text not in self.once_seen
        self.once_seen[text] = None
        if len(self.once_seen) > MAX_NOTES:
            del self.once_seen[next(iter(self.once_seen))]
        return first
