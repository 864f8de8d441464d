"""Accounts in memory: gone when the process ends, as with DATA_SAVE_MODE=none."""

from msgspec.structs import replace

from qwen_proxy.accounts.health import AccountHealth
from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.accounts.store import StoredAccount, merged


class MemoryAccountStore:
    """Fits `accounts.store.AccountStore`."""

    def __init__(self) -> None:
        self._accounts: dict[str, StoredAccount] = {}

    async def load(self) -> list[StoredAccount]:
        return [stored for _, stored in sorted(self._accounts.items())]

    async def upsert(self, account: Account) -> StoredAccount:
        stored = merged(self._accounts.get(account.id), account)
        self._accounts[account.id] = stored
        return stored

    async def delete(self, account_id: str) -> None:
        self._accounts.pop(account_id, None)

    async def save_credential(self, account_id: str, credential: Credential | None) -> None:
        if (stored := self._accounts.get(account_id)) is not None:
            self._accounts[account_id] = replace(stored, credential=credential)

    async def save_health(self, account_id: str, health: AccountHealth) -> None:
        if (stored := self._accounts.get(account_id)) is not None:
            self._accounts[account_id] = replace(stored, health=health)
