"""Who did what, and to what: a line in the same step as the change itself, so that neither is without the other."""

from collections.abc import Mapping
from typing import Final, Self

import msgspec
from msgspec import Struct

from qwen_proxy.ground.redact import redacted
from qwen_proxy.serving.auth import Caller
from qwen_proxy.serving.endpoint import Exchange
from qwen_proxy.state.store import Append, Store

TOPIC: Final = "audit"
DAY_SECONDS: Final = 86400
MOST_DETAIL_CHARS: Final = 500


class Author(Struct, frozen=True, kw_only=True):
    """Who calls, for the audit log. The key's id and name, never the key."""

    key_id: str
    key_name: str
    address: str
    request_id: str

    @classmethod
    def of(cls, exchange: Exchange, caller: Caller | None = None) -> Self:
        """caller: who calls, where the exchange does not know it, as when someone signs in."""
        caller = caller or exchange.caller
        return cls(
            key_id="" if caller is None else caller.id,
            key_name="" if caller is None else caller.name,
            address=exchange.address,
            request_id=exchange.request_id,
        )


class AuditLine(Struct, frozen=True, kw_only=True):
    """action: a word such as `account.delete`. target: what it was done to, by its id. details: nothing secret."""

    by: Author
    action: str
    target: str = ""
    details: dict[str, str] = {}


class AuditEntry(Struct, frozen=True, kw_only=True):
    """number: of the log line. at: Unix seconds."""

    number: int
    at: float
    line: AuditLine


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(AuditLine)


def audit_line(by: Author, action: str, target: str = "", details: Mapping[str, object] | None = None) -> Append:
    """For `Store.write`, beside the change. A detail that is None is left out; what looks like a secret is masked."""
    told = {
        name: redacted(str(value))[:MOST_DETAIL_CHARS] for name, value in (details or {}).items() if value is not None
    }
    return Append(topic=TOPIC, value=_ENCODER.encode(AuditLine(by=by, action=action, target=target, details=told)))


async def audit_log(store: Store, *, before: int | None, limit: int) -> list[AuditEntry]:
    """Newest first. Raises StoreUnavailable."""
    return [
        AuditEntry(number=line.number, at=line.at, line=_DECODER.decode(line.value))
        for line in await store.log(TOPIC, before=before, limit=limit)
    ]
