"""Another secret, or other data keys, for what is kept.

The secret wraps the vault document, which holds the data keys that seal everything else. To change it, the document is
wrapped anew; running servers have it in memory and do not notice.

| step | `keys` is wrapped under | `keys.next` | whoever starts now may have |
|---|---|---|---|
| – | old | – | old |
| begin | old | new | old or new |
| the secret is put in its place: the file, or by hand the variable everywhere | old | new | old or new |
| finish | new | – | new |

After a crash at any step either secret that is in place opens the data, and the change is begun again or finished.

Other data keys mean that every sealed record is sealed anew. No process may run meanwhile: those that do know the old
keys only. The new key is kept beside the old ones first, and these go once nothing is sealed with them; so it may be
interrupted anywhere, and doing it again goes on.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from qwen_proxy.config import keyfile
from qwen_proxy.config.secret_key import GENERATED_DIGITS
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.offline import by_command, require_alone
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.state.kinds import KINDS, VAULT
from qwen_proxy.state.store import Change, Conflict, Delete, Kind, Put, Record, Store
from qwen_proxy.state.vault import Vault, VaultDocument, WrongSecret, rotated, unwrap
from qwen_proxy.storage.opening import NEXT_VAULT_ID, VAULT_ID, wrapped_vault

AT_ONCE: Final = 200


class RotationRefused(Exception):
    """It can't be done as things stand; a sentence that says what to do."""


def new_secret(ids: Ids) -> Secret:
    return Secret(ids.token(GENERATED_DIGITS))


async def begin(store: Store, secret: Secret, new: Secret) -> None:
    """From now on the data opens with `new` too. secret: the one in force. One that was begun before and whose secret
    was not put in its place is given up; one whose was is finished first.

    Raises RotationRefused, StoreUnavailable.
    """
    try:
        document, keys = await _keys(store, VAULT_ID, secret)
    except WrongSecret:
        await finish(store, secret)
        document, keys = await _keys(store, VAULT_ID, secret)
    # The keys are put again as they are, so that nobody else changes them unnoticed: their version is everybody's lock.
    same = Put(kind=VAULT, id=VAULT_ID, value=keys.value, expect=keys.version)
    await _write(store, [same, wrapped_vault(document, new, id=NEXT_VAULT_ID)])


async def finish(store: Store, secret: Secret) -> None:
    """From now on the data opens with `secret` only, the one in force, which was begun with.

    Raises RotationRefused, StoreUnavailable.
    """
    keys = await store.get(VAULT, VAULT_ID)
    if keys is None or not await is_under_way(store):
        raise RotationRefused("no change of the secret is under way")
    try:
        document, coming = await _keys(store, NEXT_VAULT_ID, secret)
    except WrongSecret as error:
        raise RotationRefused(
            "the secret in force is still the old one: put the new one into SECRET_KEY (or DATA_DIR/secret.key) first,"
            " on every machine that shares the data"
        ) from error
    gone = Delete(kind=VAULT, id=NEXT_VAULT_ID, expect=coming.version)
    kept = wrapped_vault(document, secret, expect=keys.version)
    await _write(store, [kept, gone, by_command("secret.rotate")])


async def rotate_file(store: Store, path: Path, secret: Secret, ids: Ids) -> None:
    """All steps at once, where the secret is in a file that only this machine reads.

    Raises RotationRefused, OSError, StoreUnavailable.
    """
    new = new_secret(ids)
    await begin(store, secret, new)
    keyfile.replace(path, new)
    await finish(store, new)


async def is_under_way(store: Store) -> bool:
    return await store.get(VAULT, NEXT_VAULT_ID) is not None


async def renew_data_key(
    store: Store, secret: Secret, clock: Clock, tell: Callable[[int], None] = lambda count: None
) -> int:
    """Seal everything with a new data key and forget the old ones; how many records that were.

    Raises RotationRefused, ServersRunning, StoreUnavailable, and WrongSecret for a record that does not open.
    """
    await require_alone(store, "data keys can't be changed")
    document, keys = await _keys(store, VAULT_ID, secret)
    if await is_under_way(store):
        raise RotationRefused("a change of the secret is under way: finish it first, with 'qwen-proxy secret rotate'")
    if len(document.keys) == 1:  # else one that was interrupted goes on
        document = rotated(document)
        await _write(store, [wrapped_vault(document, secret, expect=keys.version)])
        document, keys = await _keys(store, VAULT_ID, secret)
    vault = Vault(document)
    count = 0
    async with aclosing(_sealed(store)) as pages:
        async for kind, page in pages:
            count += await _reseal(store, vault, kind, page, clock)
            tell(count)
    await require_alone(store, "the old data keys can't be given up")
    async with aclosing(_sealed(store)) as pages:
        async for _, page in pages:  # a process that came meanwhile may have sealed with what it knew
            if not all(vault.is_current(record.value) for record in page):
                raise _disturbed()
    document = replace(document, keys=document.keys[:1])
    kept = wrapped_vault(document, secret, expect=keys.version)
    await _write(store, [kept, by_command("secret.rotate-data-key", {"records": count})])
    return count


async def _keys(store: Store, id: str, secret: Secret) -> tuple[VaultDocument, Record]:
    """The data keys as that record has them. Raises WrongSecret, also when it is not there."""
    record = await store.get(VAULT, id)
    if record is None:
        raise WrongSecret("there are no data keys")
    return msgspec.msgpack.decode(unwrap(record.value, secret), type=VaultDocument), record


async def _write(store: Store, changes: Sequence[Change]) -> None:
    try:
        await store.write(changes)
    except Conflict as error:
        raise _disturbed() from error


async def _sealed(store: Store) -> AsyncGenerator[tuple[Kind, list[Record]]]:
    """All sealed records, some at a time."""
    for kind in KINDS:
        after = ""
        while kind.is_sealed and (page := await store.find(kind, after=after, limit=AT_ONCE)):
            yield kind, page
            after = page[-1].id


async def _reseal(store: Store, vault: Vault, kind: Kind, page: Sequence[Record], clock: Clock) -> int:
    """How many of these had an old key."""
    changes: list[Change] = []
    for record in page:
        if not vault.is_current(record.value):
            value = vault.seal(vault.open(record.value, kind.name, record.id), kind.name, record.id)
            lasts = None if record.expires_at is None else record.expires_at - clock.now()
            changes.append(Put(kind=kind, id=record.id, value=value, expect=record.version, lasts_seconds=lasts))
    if changes:
        await _write(store, changes)
    return len(changes)


def _disturbed() -> RotationRefused:
    return RotationRefused("something else wrote here at the same moment: do it again")
