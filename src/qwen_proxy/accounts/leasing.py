"""What the gateway needs of the account pool, wherever the pool lives (here, or in another process)."""

from collections.abc import Set
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from qwen_proxy.accounts.model import Credential, Feature, Outcome
from qwen_proxy.accounts.report import AccountReport, ExitReport


class Lease(Protocol):
    """The use of one account for one try. `report` once; a lease that ends without counts as CANCELLED."""

    @property
    def credential(self) -> Credential: ...

    def report(self, outcome: Outcome) -> None: ...


class Leasing(Protocol):
    @property
    def follows_sessions(self) -> bool:
        """Whether a conversation keeps to one account."""
        ...

    def lease(
        self,
        feature: Feature,
        *,
        deadline: float,
        avoid_accounts: Set[str] = frozenset(),
        avoid_exits: Set[str] = frozenset(),
        only_account: str | None = None,
        session: str = "",
    ) -> AbstractAsyncContextManager[Lease]:
        """Choose the best account, sign it in if it has no token, and hold it until the block ends.

        Waits, first come first served, while every usable account is busy. What is to be avoided is taken all the
        same when nothing else is usable. `session` names the conversation (`gateway.sessions`), empty where it is not
        known; it matters while `follows_sessions`. `deadline` is monotonic seconds. Raises NoAccountUsable or one of
        its kinds.
        """
        ...

    async def renew(self, stale: Credential, *, deadline: float) -> None:
        """The upstream rejects this token: sign the account in again, once however many ask. Raises ProxyError."""
        ...


class PoolStatus(Struct, frozen=True, kw_only=True):
    """What the pool knows now. `why_not_ready` is None when some account could serve a chat request, else a clause."""

    accounts: tuple[AccountReport, ...]
    exits: tuple[ExitReport, ...]
    why_not_ready: str | None


class Overview(Protocol):
    """For `/readyz` and diagnostics."""

    def why_not_ready(self) -> str | None: ...

    async def status(self) -> PoolStatus: ...
