"""Where accounts are kept: the interface that storage/ fills, and the one rule all of them share."""

from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.health import HEALTHY, AccountHealth
from qwen_proxy.accounts.model import Account, Credential


class StoredAccount(Struct, frozen=True, kw_only=True):
    account: Account
    credential: Credential | None = None
    health: AccountHealth = HEALTHY


def merged(stored: StoredAccount | None, account: Account) -> StoredAccount:
    """What an account becomes when it is given again, as ACCOUNTS gives it at every start.

    A stored token wins while the password is the same; another password drops it, and what is known of sign-in.
    Cookies, which ACCOUNTS can't carry, stay unless others are given. The new exit holds from the next request on.
    """
    if stored is None:
        return StoredAccount(account=account)
    account = replace(account, cookies=account.cookies or stored.account.cookies)
    if account.password != stored.account.password:
        return StoredAccount(account=account, health=replace(stored.health, sign_in=HEALTHY.sign_in))
    credential = stored.credential
    if credential is not None:
        credential = replace(credential, exit=account.exit, cookies=account.cookies or credential.cookies)
    return replace(stored, account=account, credential=credential)


class AccountStore(Protocol):
    """Keeps accounts over restarts as far as the mode can. Each call is atomic; a failure raises OSError or its own."""

    async def load(self) -> list[StoredAccount]:
        """All of them, by id."""
        ...

    async def upsert(self, account: Account) -> StoredAccount:
        """Add the account, or change it as `merged` says."""
        ...

    async def delete(self, account_id: str) -> None:
        """Forget it and its token. Nothing happens when it is not there."""
        ...

    async def save_credential(self, account_id: str, credential: Credential | None) -> None:
        """Nothing happens when the account is not there any more; the same for health."""
        ...

    async def save_health(self, account_id: str, health: AccountHealth) -> None: ...
