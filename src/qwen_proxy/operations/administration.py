"""What commands ask of the admin API."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlencode

from qwen_proxy.accounts.bulk.report import BatchProgress
from qwen_proxy.admin.account_bodies import (
    AccountBody,
    AccountDeletedBody,
    AccountPatchBody,
    AccountsBody,
    AccountTestBody,
    NewAccountBody,
)
from qwen_proxy.admin.backends import BackendTestBody, KnownBackendBody, KnownBackendsBody, MoreKeysBody
from qwen_proxy.admin.batches import BatchesBody, CreatedBody, NewBatchBody
from qwen_proxy.admin.keys import KeyBody, KeysBody, MadeKeyBody, NewKeyBody
from qwen_proxy.admin.qwen_code import BeginBody, BegunBody, ProgressBody, QwenCodeBody, TriedBody
from qwen_proxy.admin.qwen_code_desk import Progress
from qwen_proxy.admin.records import AuditBody, AuditEntryBody
from qwen_proxy.admin.routes import ExplainedBody, RouteBody, RoutePutBody, RoutesBody
from qwen_proxy.admin.settings import (
    SettingsBody,
    SettingsChangedBody,
    SettingsEntryBody,
    SettingsHistoryBody,
    SettingsPatchBody,
    UndoBody,
)
from qwen_proxy.admin.usage import UsageBody
from qwen_proxy.config.backends import BackendForm
from qwen_proxy.operations.backends import keys_called
from qwen_proxy.operations.client import ServerClient
from qwen_proxy.runtime.clock import Clock

ACCOUNTS: Final = "/api/admin/accounts"
BACKENDS: Final = "/api/admin/backends"
BATCHES: Final = f"{ACCOUNTS}/batches"
KEYS: Final = "/api/admin/keys"
QWEN_CODE: Final = "/api/admin/qwen-code"
ROUTES: Final = "/api/admin/routes"
SETTINGS: Final = "/api/admin/settings"
PAGE: Final = 500
SIGN_IN_SECONDS: Final = 120.0  # the server itself waits for 90
TEST_SECONDS: Final = 120.0  # the server waits 20 for a few keys at a time
LOOK_SECONDS: Final = 60.0  # for what the server has to gather
FOLLOW_SECONDS: Final = 0.5
ASK_SECONDS: Final = 0.5
MOST_SHOWN: Final = 12  # characters of what a key was called

Query = Mapping[str, str | int | float | None]


class UnknownKey(Exception):
    """There is no such key, or several. Of a client, or of a backend."""


class Administration:
    """Every method raises ServerRefused (with the server's own sentence) and ServerSilent.

    is_running: whether the server was there before us; else it ends with the command.
    """

    def __init__(self, server: ServerClient, clock: Clock, *, is_running: bool) -> None:
        self.is_running = is_running
        self._server = server
        self._clock = clock

    # --- accounts

    async def accounts(self, *, label: str | None, state: str | None, text: str | None) -> AccountsBody:
        """All that fit, however many."""
        found: list[AccountBody] = []
        after: str | None = ""
        while True:
            query: Query = {"after": after or None, "limit": PAGE, "label": label, "state": state, "text": text}
            page = await self._server.call("GET", _with(ACCOUNTS, query), AccountsBody, seconds=LOOK_SECONDS)
            found += page.accounts
            after = page.next_after
            if after is None:
                return AccountsBody(accounts=tuple(found), total=page.total, states=page.states, next_after=None)

    async def add_account(self, body: NewAccountBody) -> AccountBody:
        return await self._server.call("POST", ACCOUNTS, AccountBody, body)

    async def change_account(self, id: str, body: AccountPatchBody) -> AccountBody:
        return await self._server.call("PATCH", _one(ACCOUNTS, id), AccountBody, body)

    async def remove_account(self, id: str) -> AccountDeletedBody:
        return await self._server.call("DELETE", _one(ACCOUNTS, id), AccountDeletedBody)

    async def test_account(self, id: str) -> AccountTestBody:
        """Signs it in now; may take long, since sign-ins through one exit keep their distance."""
        path = f"{_one(ACCOUNTS, id)}/test"
        return await self._server.call("POST", path, AccountTestBody, seconds=SIGN_IN_SECONDS)

    # --- batches

    async def create_batch(self, body: NewBatchBody) -> CreatedBody:
        return await self._server.call("POST", BATCHES, CreatedBody, body, seconds=LOOK_SECONDS)

    async def batches(self) -> Sequence[BatchProgress]:
        return (await self._server.call("GET", BATCHES, BatchesBody)).batches

    async def batch(self, id: str) -> BatchProgress:
        return await self._server.call("GET", _one(BATCHES, id), BatchProgress)

    async def steer_batch(self, id: str, action: str) -> BatchProgress:
        """action: "pause", "resume", "cancel" or "retry"."""
        return await self._server.call("POST", f"{_one(BATCHES, id)}/{action}", BatchProgress)

    async def follow_batch(self, id: str) -> AsyncGenerator[BatchProgress]:
        """How far it is, again and again, until it is over or paused. Asked for, not streamed: a worker that is
        replaced meanwhile does not break it off."""
        while True:
            progress = await self.batch(id)
            yield progress
            if progress.is_over or progress.paused_by is not None:
                return
            await self._clock.sleep(FOLLOW_SECONDS)

    # --- keys

    async def keys(self) -> Sequence[KeyBody]:
        return (await self._server.call("GET", KEYS, KeysBody)).keys

    async def create_key(self, body: NewKeyBody) -> MadeKeyBody:
        return await self._server.call("POST", KEYS, MadeKeyBody, body)

    async def revoke_key(self, name: str) -> KeyBody:
        """name: its id or, where only one key has it, its name or hint. Raises UnknownKey."""
        return await self._server.call("POST", f"{_one(KEYS, await self._key_id(name))}/revoke", KeyBody)

    async def restore_key(self, name: str) -> KeyBody:
        """As `revoke_key`."""
        return await self._server.call("POST", f"{_one(KEYS, await self._key_id(name))}/restore", KeyBody)

    async def delete_key(self, name: str) -> str:
        """As `revoke_key`; the id of the key that was forgotten or, where API_KEY lists it, revoked."""
        id = await self._key_id(name)
        await self._server.do("DELETE", _one(KEYS, id))
        return id

    async def _key_id(self, name: str) -> str:
        found = [key for key in await self.keys() if name in (key.id, key.name, key.hint)]
        exact = [key for key in found if key.id == name]
        if len(exact or found) == 1:
            return (exact or found)[0].id
        many = "several keys go" if found else "no key goes"
        raise UnknownKey(f"{many} by {name!r}; 'qwen-proxy keys list' shows their ids")

    # --- routes

    async def routes(self) -> RoutesBody:
        return await self._server.call("GET", ROUTES, RoutesBody, seconds=LOOK_SECONDS)

    async def set_route(self, name: str, targets: Sequence[str]) -> RouteBody:
        body = RoutePutBody(targets=tuple(targets))
        return await self._server.call("PUT", _one(ROUTES, name), RouteBody, body, seconds=LOOK_SECONDS)

    async def remove_route(self, name: str) -> None:
        await self._server.do("DELETE", _one(ROUTES, name))

    async def explain_route(self, model: str, key: str) -> ExplainedBody:
        """key: see `revoke_key`; empty for none. Raises UnknownKey."""
        query: Query = {"model": model, "key": await self._key_id(key) if key else None}
        return await self._server.call("GET", _with(f"{ROUTES}/explain", query), ExplainedBody, seconds=LOOK_SECONDS)

    # --- backends

    async def backends(self) -> Sequence[KnownBackendBody]:
        return (await self._server.call("GET", BACKENDS, KnownBackendsBody)).backends

    async def backend(self, name: str) -> KnownBackendBody:
        return await self._server.call("GET", _one(BACKENDS, name), KnownBackendBody)

    async def add_backend(self, form: BackendForm) -> KnownBackendBody:
        return await self._server.call("POST", BACKENDS, KnownBackendBody, form)

    async def edit_backend(self, name: str, form: BackendForm) -> KnownBackendBody:
        return await self._server.call("PATCH", _one(BACKENDS, name), KnownBackendBody, form)

    async def add_backend_keys(self, name: str, keys: Sequence[str]) -> KnownBackendBody:
        body = MoreKeysBody(keys=tuple(keys))
        return await self._server.call("POST", f"{_one(BACKENDS, name)}/keys", KnownBackendBody, body)

    async def remove_backend_keys(self, name: str, keys: Sequence[str]) -> tuple[list[str], KnownBackendBody]:
        """keys: ids or, where only one key has it, ends. The ids, and what is left. Raises UnknownKey before anything
        is removed."""
        left = await self.backend(name)
        ids = list(dict.fromkeys(_backend_key_id(left, key) for key in keys))
        for id in ids:
            left = await self._server.call("DELETE", _one(f"{_one(BACKENDS, name)}/keys", id), KnownBackendBody)
        return ids, left

    async def remove_backend(self, name: str) -> None:
        await self._server.do("DELETE", _one(BACKENDS, name))

    async def test_backend(self, name: str) -> BackendTestBody:
        """May take long where its server is silent."""
        path = f"{_one(BACKENDS, name)}/test"
        return await self._server.call("POST", path, BackendTestBody, seconds=TEST_SECONDS)

    # --- Qwen Code

    async def qwen_code(self) -> QwenCodeBody:
        return await self._server.call("GET", QWEN_CODE, QwenCodeBody)

    async def begin_qwen_code(self, body: BeginBody) -> BegunBody:
        return await self._server.call("POST", f"{QWEN_CODE}/logins", BegunBody, body, seconds=SIGN_IN_SECONDS)

    async def follow_qwen_code(self, begun: BegunBody, tell: Callable[[ProgressBody], object]) -> ProgressBody:
        """Until it was approved or has failed; told of each look."""
        wait = begun.wait_seconds
        while True:
            await self._clock.sleep(wait)
            progress = await self._server.call(
                "POST", f"{_one(f'{QWEN_CODE}/logins', begun.id)}/poll", ProgressBody, seconds=LOOK_SECONDS
            )
            tell(progress)
            if progress.state is not Progress.WAITING:
                return progress
            wait = max(ASK_SECONDS, progress.wait_seconds)

    async def test_qwen_code(self, id: str) -> TriedBody:
        return await self._server.call("POST", f"{_one(QWEN_CODE, id)}/test", TriedBody, seconds=SIGN_IN_SECONDS)

    async def remove_qwen_code(self, id: str) -> None:
        await self._server.do("DELETE", _one(QWEN_CODE, id))

    # --- usage

    async def usage(self, query: Query) -> UsageBody:
        return await self._server.call("GET", _with("/api/admin/usage", query), UsageBody, seconds=LOOK_SECONDS)

    async def copy_usage(self, query: Query, write: Callable[[bytes], object]) -> None:
        await self._server.copy(_with("/api/admin/usage.csv", query), write, seconds=LOOK_SECONDS)

    # --- settings and audit

    async def settings(self) -> SettingsBody:
        return await self._server.call("GET", SETTINGS, SettingsBody)

    async def change_settings(self, values: Mapping[str, str | None]) -> SettingsChangedBody:
        return await self._server.call("PATCH", SETTINGS, SettingsChangedBody, SettingsPatchBody({**values}))

    async def undo_settings(self, number: int | None) -> SettingsChangedBody:
        return await self._server.call("POST", f"{SETTINGS}/undo", SettingsChangedBody, UndoBody(number))

    async def settings_history(self, most: int) -> list[SettingsEntryBody]:
        """Newest first."""
        entries: list[SettingsEntryBody] = []
        before: int | None = None
        while len(entries) < most:
            query: Query = {"before": before, "limit": min(PAGE, most - len(entries))}
            page = await self._server.call("GET", _with(f"{SETTINGS}/history", query), SettingsHistoryBody)
            entries += page.entries
            if (before := page.next_before) is None:
                break
        return entries

    async def audit(self, most: int, before: int | None = None) -> list[AuditEntryBody]:
        """Newest first."""
        entries: list[AuditEntryBody] = []
        while len(entries) < most:
            query: Query = {"before": before, "limit": min(PAGE, most - len(entries))}
            page = await self._server.call("GET", _with("/api/admin/audit", query), AuditBody)
            entries += page.entries
            if (before := page.next_before) is None:
                break
        return entries


def _backend_key_id(backend: KnownBackendBody, asked: str) -> str:
    found = keys_called(backend, asked)
    if len(found) == 1:
        return found[0]
    many = "several keys go" if found else "no key goes"
    called = asked if len(asked) <= MOST_SHOWN else f"…{asked[-4:]}"  # it may be the key itself
    raise UnknownKey(f"{many} by {called!r}; 'qwen-proxy backends keys list {backend.name}' shows their ids")


def _one(path: str, id: str) -> str:
    return f"{path}/{quote(id, safe='')}"


def _with(path: str, query: Query) -> str:
    told = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(told)}" if told else path
