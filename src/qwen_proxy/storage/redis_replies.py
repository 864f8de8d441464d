"""What the scripts of redis_scripts/ are given and give: flat arguments in, MessagePack out. Pure.

Lua does not tell text from bytes, and its packer writes both as text; so what may be any bytes is taken raw. Times are
whole microseconds there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct
from msgspec.msgpack import Decoder

from qwen_proxy.state.store import (
    DAY_SECONDS,
    Append,
    Change,
    Gone,
    Hold,
    LogLine,
    ProcessRow,
    Put,
    Record,
    UsageCounts,
    UsageKey,
)

Part = str | bytes | int  # of a command

LONG_HEADERS: Final = {0xD9: 2, 0xDA: 3, 0xDB: 5}  # bytes before a MessagePack string's own; else 1


def micros(seconds: float) -> int:
    return round(seconds * 1_000_000)


def seconds(micros: int) -> float:
    return micros / 1_000_000


def content(text: Raw) -> bytes:
    """The bytes of a packed string."""
    packed = bytes(text)
    return packed[LONG_HEADERS.get(packed[0], 1) :]


class FoundReply(Struct, frozen=True, array_like=True):
    """version 0: there is none. ends_at: 0 for never."""

    version: int
    value: Raw
    ends_at: int
    id: str
    kind: str

    def record(self) -> Record | None:
        if self.version == 0:
            return None
        return Record(
            kind=self.kind,
            id=self.id,
            version=self.version,
            value=content(self.value),
            expires_at=seconds(self.ends_at) if self.ends_at else None,
        )


class WriteReply(Struct, frozen=True, array_like=True):
    """conflict: the place of the change that conflicts, from 1, or 0."""

    conflict: int
    generation: int
    versions: tuple[int, ...]


class ChangesReply(Struct, frozen=True, array_like=True):
    generation: int
    is_complete: bool
    found: list[FoundReply]


class LineReply(Struct, frozen=True, array_like=True):
    number: int
    at: int
    value: Raw

    def line(self) -> LogLine:
        return LogLine(number=self.number, at=seconds(self.at), value=content(self.value))


class UsageReply(Struct, frozen=True, array_like=True):
    """names: JSON. counts: five numbers with a space between."""

    starts_at: int
    names: str
    counts: str

    def row(self) -> tuple[UsageKey, UsageCounts]:
        key, account, model, feature = NAMES.decode(self.names)
        requests, failures, prompt, completion, reasoning = map(int, self.counts.split())
        return (
            UsageKey(starts_at=self.starts_at, key=key, account=account, model=model, feature=feature),
            UsageCounts(
                requests=requests,
                failures=failures,
                prompt_tokens=prompt,
                completion_tokens=completion,
                reasoning_tokens=reasoning,
            ),
        )


class BeatReply(Struct, frozen=True, array_like=True):
    is_known: bool
    processes: int
    others_are_hungry: bool


class Identity(Struct, frozen=True, array_like=True):
    """What a process is, as it packs it itself."""

    host: str
    pid: int
    started_at: float


class ProcessReply(Struct, frozen=True, array_like=True):
    id: str
    beat_at: int
    is_hungry: bool
    identity: Raw
    status: Raw

    def row(self) -> ProcessRow:
        identity = IDENTITY.decode(content(self.identity))
        return ProcessRow(
            id=self.id,
            host=identity.host,
            pid=identity.pid,
            started_at=identity.started_at,
            beat_at=seconds(self.beat_at),
            is_hungry=self.is_hungry,
            status=content(self.status),
        )


class TakeReply(Struct, frozen=True, array_like=True):
    """By places of names: those granted, with how many, and those that are full."""

    holds: list[tuple[int, int]]
    full: list[int]


class CheckReply(Struct, frozen=True, array_like=True):
    """last: the id that the next page begins behind; empty where there is none."""

    missing: int
    last: str


NAMES: Final = msgspec.json.Decoder(tuple[str, str, str, str])
IDENTITY: Final = Decoder(Identity)
FOUND: Final = Decoder(FoundReply)
FOUND_LIST: Final = Decoder(list[FoundReply])
WRITE: Final = Decoder(WriteReply)
CHANGES: Final = Decoder(ChangesReply)
LINES: Final = Decoder(list[LineReply])
USAGE: Final = Decoder(list[UsageReply])
BEAT: Final = Decoder(BeatReply)
PROCESSES: Final = Decoder(list[ProcessReply])
TAKE: Final = Decoder(TakeReply)
PAIRS: Final = Decoder(list[tuple[int, int]])
COUNTS: Final = Decoder(list[tuple[str, int]])
STARTS: Final = Decoder(list[int])
CHECK: Final = Decoder(CheckReply)
NUMBER: Final = Decoder(int)
YES_OR_NO: Final = Decoder(bool)
TEXT: Final = Decoder(str)


def change_parts(change: Change) -> tuple[Part, ...]:
    """Seven: what, kind or topic, id, whether it is watched, the version expected, how long it lasts or when it was
    (a line), value."""
    if isinstance(change, Append):
        return ("append", change.topic, "", "", "", "" if change.at is None else micros(change.at), change.value)
    watched = "1" if change.kind.is_watched else ""
    expect = "" if change.expect is None else change.expect
    if isinstance(change, Put):
        lasts = "" if change.lasts_seconds is None else max(0, micros(change.lasts_seconds))
        return ("put", change.kind.name, change.id, watched, expect, lasts, change.value)
    return ("delete", change.kind.name, change.id, watched, expect, "", "")


def usage_parts(counts: Mapping[UsageKey, UsageCounts]) -> list[Part]:
    """Eight a row: start of the hour and of the day, names, five counts."""
    parts: list[Part] = []
    for key, more in counts.items():
        parts += (key.starts_at, key.starts_at - key.starts_at % DAY_SECONDS)
        parts.append(msgspec.json.encode((key.key, key.account, key.model, key.feature)))
        parts += (more.requests, more.failures)
        parts += (more.prompt_tokens, more.completion_tokens, more.reasoning_tokens)
    return parts


def hold_parts(holds: Iterable[Hold]) -> list[Part]:
    return [part for hold in holds for part in (hold.name, hold.count)]


def records(found: Sequence[FoundReply]) -> tuple[Record, ...]:
    return tuple(record for each in found if (record := each.record()) is not None)


def gone(found: Sequence[FoundReply]) -> tuple[Gone, ...]:
    return tuple(Gone(kind=each.kind, id=each.id) for each in found if each.version == 0)
