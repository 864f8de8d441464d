"""The accounts as they are kept: one document for the account and its token, one for its health, one for each exit's.

Any process may write here; each process's pool hears of it through `state.watching.Watch`.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.health import HEALTHY, AccountHealth, ExitHealth, after_change
from qwen_proxy.accounts.model import Account, Credential, Origin
from qwen_proxy.state.collection import Collection, Entry
from qwen_proxy.state.kinds import ACCOUNT, EXIT, HEALTH
from qwen_proxy.state.store import Append, Change, Conflict, Store
from qwen_proxy.state.vault import Vault

EXIT_ID_CHARS: Final = 32

D = TypeVar("D", bound="AccountDocument | None")


class AccountDocument(Struct, frozen=True, kw_only=True):
    """The token, and the account it belongs to. `account.exit` is its own proxy; DIRECT: it has none of its own."""

    account: Account
    credential: Credential | None = None


class StoredAccount(Struct, frozen=True, kw_only=True):
    """All that is kept of one account."""

    account: Account
    credential: Credential | None
    health: AccountHealth


def merged(stored: AccountDocument | None, account: Account) -> AccountDocument:
    """What an account becomes when it is given again, as ACCOUNTS gives it at every start.

    A stored token wins while the password is the same; another password drops it. What ACCOUNTS can't say (cookies,
    labels and the like, and a proxy where its line has none) stays as an operator has set it.
    """
    if stored is None:
        return AccountDocument(account=account)
    known = stored.account
    if account.origin is Origin.ENVIRONMENT:
        account = replace(
            known,
            email=account.email,
            password=account.password,
            exit=account.exit or known.exit,
            origin=account.origin,
        )
    account = replace(
        account,
        cookies=account.cookies or known.cookies,
        cookies_at=account.cookies_at or known.cookies_at,
        added_at=known.added_at or account.added_at,
    )
    credential = stored.credential if account.password == known.password else None
    return AccountDocument(account=account, credential=_fitting(credential, account))


def _fitting(credential: Credential | None, account: Account) -> Credential | None:
    if credential is None:
        return None
    return replace(credential, exit=account.exit, cookies=account.cookies or credential.cookies)


class AccountBook:
    """Every method raises StoreUnavailable, and those that read or change one account Unreadable. `also` is written in
    the same step: the audit log's line."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self.accounts = Collection(store, ACCOUNT, AccountDocument, vault)
        self.healths = Collection(store, HEALTH, AccountHealth, vault)
        self.exits = Collection(store, EXIT, ExitHealth, vault)

    def exit_id(self, exit: str) -> str:
        """The id of an exit's document: a proxy's URL may hold a password, so it is no id."""
        return self._vault.digest(exit, "exit")[:EXIT_ID_CHARS]

    async def get(self, account_id: str) -> StoredAccount | None:
        entry = await self.accounts.get(account_id)
        if entry is None:
            return None
        health = await self.healths.get(account_id)
        return _stored(entry.value, None if health is None else health.value)

    async def all(self) -> list[StoredAccount]:
        """By id, without those that can't be read."""
        healths = {entry.id: entry.value for entry in await self.healths.all_readable()}
        return [_stored(entry.value, healths.get(entry.id)) for entry in await self.accounts.all_readable()]

    async def ids(self) -> list[str]:
        """Of all, also of those that can't be read."""
        return list(await self.accounts.versions())

    async def put(self, account: Account, *also: Append, credential: Credential | None = None) -> AccountDocument:
        """Add the account, or change it as `merged` says; with a token where one is known already."""

        def give(stored: AccountDocument | None) -> AccountDocument:
            document = merged(stored, account)
            if credential is not None:
                document = replace(document, credential=_fitting(credential, document.account))
            return document

        return await self._write(account.id, give, also)

    async def change(self, account_id: str, change: Callable[[Account], Account], *also: Append) -> Account | None:
        """The account as it is then; None when there is none. `change` may be called several times."""

        def give(stored: AccountDocument | None) -> AccountDocument | None:
            if stored is None:
                return None
            account = change(stored.account)
            credential = stored.credential if account.password == stored.account.password else None
            if credential is not None:
                credential = replace(credential, exit=account.exit, cookies=account.cookies)
            return AccountDocument(account=account, credential=credential)

        document = await self._write(account_id, give, also)
        return None if document is None else document.account

    async def remove(self, account_id: str, *also: Append) -> bool:
        """Forget it, its token and its health, whether they can be read or not. False when it is not there."""
        if await self._store.get(ACCOUNT, account_id) is None:
            return False
        await self._store.write([self.accounts.delete(account_id), self.healths.delete(account_id), *also])
        return True

    async def keep_credential(
        self, account: Account, change: Callable[[Credential | None], Credential | None]
    ) -> Entry[AccountDocument] | None:
        """Change the token of an account, unless the account itself has become another since `account` was read."""

        def give(stored: AccountDocument | None) -> AccountDocument | None:
            if stored is None or stored.account.password != account.password:
                return stored
            return replace(stored, credential=_fitting(change(stored.credential), stored.account))

        return await self.accounts.update(account.id, give)

    async def _write(
        self,
        account_id: str,
        give: Callable[[AccountDocument | None], D],
        also: tuple[Append, ...],
    ) -> D:
        """Write what `give` makes of the document; another password clears what is known of sign-ins."""
        while True:
            entry = await self.accounts.get(account_id)
            before = None if entry is None else entry.value
            document = give(before)
            if document is None or (document == before and not also):
                return document
            changes: list[Change] = [
                self.accounts.put(account_id, document, expect=0 if entry is None else entry.version),
                *also,
            ]
            if before is not None and before.account.password != document.account.password:
                health = await self.healths.get(account_id)
                if health is not None:
                    changes.append(self.healths.put(account_id, after_change(health.value), expect=health.version))
            try:
                await self._store.write(changes)
            except Conflict:
                continue
            return document


def _stored(document: AccountDocument, health: AccountHealth | None) -> StoredAccount:
    return StoredAccount(account=document.account, credential=document.credential, health=health or HEALTHY)
