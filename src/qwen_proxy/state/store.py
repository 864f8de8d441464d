"""The interface that storage/ fills: one file or server that every process of an installation shares.

| part | what it is | how it may be lost |
|---|---|---|
| records | documents by kind and id, each with a version | never, once `write` has returned |
| log | lines by topic, oldest first, such as the audit log | the same |
| usage | counters that are added to, by hour and by day | the last second of a killed process |
| slots | places that a process holds for a while, such as uses of an account | freed when their process is gone |
| allowances | numbers that are spent within a window, such as a key's requests a minute | end with their window |

A *process* is a row with a heartbeat. One whose beats stop for PROCESS_SECONDS is gone: its slots are free again. It
must know that itself, and grant nothing from them any more (`state.membership`).

Every call raises StoreUnavailable when the store can't be reached, and then has changed nothing or, for a connection
lost on the way, possibly everything. So is it with a caller that is cancelled: all or nothing was done. Who needs to
know which (of `take`, `give`, `draw`, `charge`) calls from a task that nobody cancels. Times are Unix seconds of the
store's own clock.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, Self

from msgspec import Struct

PROCESS_SECONDS: Final = 5.0  # without a heartbeat for so long a process counts as gone
TRACE_SECONDS: Final = 3600.0  # that a watched record was deleted is remembered for so long
MOST_ID_CHARS: Final = 512


# --- records -----------------------------------------------------------------------------------------------


class Kind(Struct, frozen=True, kw_only=True):
    """is_watched: each change is told to all processes (`Store.changes`). is_sealed: values are encrypted at rest.

    is_flushed: a write has reached the disk when it returns; else a machine's crash, not a process's, may lose it.
    """

    name: str
    is_watched: bool = False
    is_sealed: bool = False
    is_flushed: bool = True


class Record(Struct, frozen=True, kw_only=True):
    """version counts from 1. expires_at: it is gone then, None for never."""

    kind: str
    id: str
    version: int
    value: bytes
    expires_at: float | None = None


class Put(Struct, frozen=True, kw_only=True):
    """expect: the version that must be there now, 0 for none at all; None takes any. lasts_seconds: None for ever."""

    kind: Kind
    id: str
    value: bytes
    expect: int | None = None
    lasts_seconds: float | None = None


class Delete(Struct, frozen=True, kw_only=True):
    """Of what is not there is no error, unless `expect` says that it must be."""

    kind: Kind
    id: str
    expect: int | None = None


class Append(Struct, frozen=True, kw_only=True):
    """A line of the log, in the same step as the records it tells of. at: None for now; else it is a line that another
    store has had, and when that got it."""

    topic: str
    value: bytes
    at: float | None = None


Change = Put | Delete | Append


class Conflict(Exception):
    """A record was not at the version that was expected; nothing of the write was done."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"{kind} {id} was changed meanwhile")
        self.kind = kind
        self.id = id


class Written(Struct, frozen=True, kw_only=True):
    """generation: see `Store.generation`. versions: of the records put, in order of the changes."""

    generation: int
    versions: tuple[int, ...]


class Gone(Struct, frozen=True, kw_only=True):
    kind: str
    id: str


class Changes(Struct, frozen=True, kw_only=True):
    """What became of watched records behind a generation, the newest state only, in no order.

    The end of a record's time is no change that is told: who keeps a copy looks at `expires_at`.
    is_complete False: it is too long ago to tell what is gone; all watched records have to be read anew.
    """

    generation: int
    records: tuple[Record, ...]
    gone: tuple[Gone, ...]
    is_complete: bool = True


class LogLine(Struct, frozen=True, kw_only=True):
    """number grows with each line of any topic; numbers may be missing."""

    number: int
    at: float
    value: bytes


# --- usage -------------------------------------------------------------------------------------------------

HOUR_SECONDS: Final = 3600
DAY_SECONDS: Final = 86400


class UsageKey(Struct, frozen=True, kw_only=True, order=True):
    """starts_at: Unix seconds, of an hour or of a day (UTC). key, account: ids; empty where there was none."""

    starts_at: int
    key: str
    account: str
    model: str
    feature: str


class UsageCounts(Struct, frozen=True, kw_only=True):
    """`failures` are among `requests`. Tokens are those told to clients, of a reply that broke off an estimate;
    completion tokens include reasoning tokens."""

    requests: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "UsageCounts") -> "UsageCounts":
        return UsageCounts(
            requests=self.requests + other.requests,
            failures=self.failures + other.failures,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )

    def beyond(self, other: "UsageCounts") -> "UsageCounts":
        """What is to be added to the other so that each count is at least as large as this one's."""
        return UsageCounts(
            requests=max(0, self.requests - other.requests),
            failures=max(0, self.failures - other.failures),
            prompt_tokens=max(0, self.prompt_tokens - other.prompt_tokens),
            completion_tokens=max(0, self.completion_tokens - other.completion_tokens),
            reasoning_tokens=max(0, self.reasoning_tokens - other.reasoning_tokens),
        )


# --- processes and blocks ----------------------------------------------------------------------------------


class Hold(Struct, frozen=True):
    """So many slots of this name."""

    name: str
    count: int


class ProcessRow(Struct, frozen=True, kw_only=True):
    """status: what the process tells of itself, a document of `state.membership`."""

    id: str
    host: str
    pid: int
    started_at: float
    beat_at: float
    is_hungry: bool
    status: bytes


class Beat(Struct, frozen=True, kw_only=True):
    """is_known False: this process counted as gone meanwhile; it holds nothing and has to `join` anew.

    processes: how many live now, this one too. others_are_hungry: another wants slots and finds none.
    """

    is_known: bool
    processes: int
    others_are_hungry: bool


class SlotsWanted(Struct, frozen=True, kw_only=True):
    """names: any of these, the preferred first. capacity: of each name, over all processes.

    need: how many are wanted now; extra: how many more would be of use soon, granted only out of plenty: at most a
    (2 x other processes + 1)-th of what is free. is_spread: take from the names with the fewest taken first, by their
    order where equal; else strictly in their order.
    """

    names: tuple[str, ...]
    capacity: int
    need: int
    extra: int = 0
    is_spread: bool = True


class SlotsTaken(Struct, frozen=True, kw_only=True):
    """holds: what was granted, in all at most need + extra. full: names of which none is free now."""

    holds: tuple[Hold, ...]
    full: tuple[str, ...]


class Draw(Struct, frozen=True, kw_only=True):
    """From the allowance `name`, which ends at `ends_at` and may be spent up to `limit` over all processes.

    need: all of it is granted or nothing; extra: as with slots. ends_at: the same for all who draw from it; once it has
    passed nothing is granted. The name may serve again for the next window.
    """

    name: str
    ends_at: float
    limit: int
    need: int
    extra: int = 0


class Drawn(Struct, frozen=True, kw_only=True):
    """granted: 0, or from need to need + extra. used: what all processes have drawn by now, this grant too."""

    granted: int
    used: int


class Charge(Struct, frozen=True, kw_only=True):
    """Spent beyond what was drawn, whatever the limit (amount > 0), or drawn and not spent (amount < 0)."""

    name: str
    ends_at: float
    amount: int


class Store(Protocol):
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exception: object) -> None: ...

    # --- records

    async def get(self, kind: Kind, id: str) -> Record | None: ...

    async def find(self, kind: Kind, *, after: str = "", limit: int = 1000) -> list[Record]:
        """By id (code point order), those behind `after`."""
        ...

    async def write(self, changes: Sequence[Change]) -> Written:
        """All of them or, with Conflict, none. One record at most once in a call."""
        ...

    async def generation(self) -> int:
        """Grows with each write that changes a watched record. A cheap question."""
        ...

    async def changes(self, since: int) -> Changes:
        """Not complete for a generation before what is remembered (TRACE_SECONDS, an `erase`), nor for one that has
        not been: a backup was put back."""
        ...

    async def wait(self, since: int, timeout_seconds: float) -> int:
        """The generation, as soon as it is another than `since`, or after the timeout."""
        ...

    async def sweep(self) -> None:
        """Forget what has expired: records, allowances, traces of deleted records. To be called now and then."""
        ...

    # --- the log

    async def log(self, topic: str, *, before: int | None = None, limit: int = 100) -> list[LogLine]:
        """The newest lines with a lower number than `before`, newest first."""
        ...

    async def prune_log(self, topic: str, before_at: float) -> None: ...

    # --- usage

    async def add_usage(self, counts: Mapping[UsageKey, UsageCounts]) -> None:
        """Add to the hours and to the days they are in; `starts_at` of each key is an hour's."""
        ...

    async def usage(self, since: float, until: float, *, by_day: bool = False) -> dict[UsageKey, UsageCounts]:
        """What began at or behind `since` and before `until`: hours, or days."""
        ...

    async def prune_usage(self, before_at: float, *, by_day: bool = False) -> None:
        """Forget the hours, or the days, that began before."""
        ...

    # --- processes

    async def join(self, row: ProcessRow, holds: Sequence[Hold]) -> None:
        """Become one of the living, or come back with slots that are in use all the same: these are taken even where
        that is more than the capacity."""
        ...

    async def beat(self, process: str, *, is_hungry: bool, status: bytes) -> Beat:
        """Live on for PROCESS_SECONDS. The processes found gone lose their slots."""
        ...

    async def leave(self, process: str) -> None:
        """Its slots are free."""
        ...

    async def processes(self) -> list[ProcessRow]:
        """The living, by id."""
        ...

    # --- blocks

    async def take(self, process: str, wanted: SlotsWanted) -> SlotsTaken:
        """Grants nothing to a process that is gone."""
        ...

    async def give(self, process: str, holds: Sequence[Hold]) -> None:
        """Give back; more than the process holds is no error."""
        ...

    async def taken(self, prefix: str) -> dict[str, int]:
        """How many slots of each name with this prefix are held over all processes; none at all is left out."""
        ...

    async def draw(self, draws: Sequence[Draw]) -> list[Drawn]:
        """One after the other, each for itself."""
        ...

    async def charge(self, charges: Sequence[Charge]) -> None:
        """Of a window that has ended nothing is counted any more."""
        ...

    # --- care

    async def check(self) -> str | None:
        """None when what is kept is whole, else a sentence that says what is broken. May take seconds."""
        ...

    async def erase(self) -> None:
        """Everything; for an import that replaces, and for tests."""
        ...
