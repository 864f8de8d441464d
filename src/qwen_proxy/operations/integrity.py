"""Whether all that is kept can be read: the file itself, each sealed record, each document."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from qwen_proxy.accounts.book import AccountDocument
from qwen_proxy.accounts.bulk.model import Batch, BatchLine
from qwen_proxy.accounts.grants import Grant, GrantWish
from qwen_proxy.accounts.health import AccountHealth, ExitHealth
from qwen_proxy.accounts.key_health import KeyHealth
from qwen_proxy.api.stored_responses import KeptEvents, KeptResponse, ResponseJob
from qwen_proxy.config.backend_book import KeptBackend
from qwen_proxy.config.keys import KeyRecord
from qwen_proxy.config.runtime import LiveValues
from qwen_proxy.gateway.traces import TraceBatch
from qwen_proxy.ground.errors import Unreadable
from qwen_proxy.operations.offline import Opened
from qwen_proxy.operations.rotation import is_under_way
from qwen_proxy.serving.sessions import SessionDocument
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import (
    ACCOUNT,
    BACKEND,
    BACKEND_KEY,
    BATCH,
    BATCH_LINE,
    EXIT,
    GRANT,
    GRANT_WISH,
    HEALTH,
    KEY,
    KINDS,
    RESPONSE,
    RESPONSE_EVENTS,
    RESPONSE_JOB,
    SESSION,
    SETTINGS,
    TRACE,
    VAULT,
)
from qwen_proxy.state.store import Kind, Record

PAGE: Final = 500
MOST_FAULTS: Final = 20
DOCUMENTS: Final[Mapping[Kind, type[Struct]]] = {
    ACCOUNT: AccountDocument,
    HEALTH: AccountHealth,
    EXIT: ExitHealth,
    KEY: KeyRecord,
    SETTINGS: LiveValues,
    SESSION: SessionDocument,
    BATCH: Batch,
    BATCH_LINE: BatchLine,
    BACKEND: KeptBackend,
    BACKEND_KEY: KeyHealth,
    GRANT: Grant,
    GRANT_WISH: GrantWish,
    TRACE: TraceBatch,
    RESPONSE: KeptResponse,
    RESPONSE_JOB: ResponseJob,
    RESPONSE_EVENTS: KeptEvents,
}


class Integrity(Struct, frozen=True, kw_only=True):
    """faults: whole sentences, none when all is well. records: how many were read, by kind. notes: what is well, and
    worth knowing."""

    faults: Sequence[str]
    records: Mapping[str, int]
    notes: Sequence[str] = ()


async def examine(opened: Opened) -> Integrity:
    """Reads everything. Raises StoreUnavailable."""
    store = opened.store
    faults = [] if (broken := await store.check()) is None else [broken]
    records: dict[str, int] = {}
    unreadable = 0
    for kind in KINDS:
        after = ""
        while kind != VAULT and (page := await store.find(kind, after=after, limit=PAGE)):
            records[kind.name] = records.get(kind.name, 0) + len(page)
            for record in page:
                if (fault := _fault(opened, kind, record)) is not None:
                    unreadable += 1
                    faults += [fault] if unreadable <= MOST_FAULTS else []
            after = page[-1].id
    if unreadable > MOST_FAULTS:
        faults.append(f"{unreadable - MOST_FAULTS} more records can't be read")
    notes: list[str] = []
    if await is_under_way(store):
        notes.append("a change of the secret is under way: finish it with 'qwen-proxy secret rotate'")
    if len(opened.vault.document.keys) > 1:
        notes.append("a change of the data key was interrupted: go on with 'qwen-proxy secret rotate --data-key'")
    return Integrity(faults=faults, records=records, notes=notes)


def _fault(opened: Opened, kind: Kind, record: Record) -> str | None:
    document: type[Any] = DOCUMENTS[kind]
    try:
        Collection(opened.store, kind, document, opened.vault).entry(record)
    except Unreadable as error:
        return str(error)
    return None
