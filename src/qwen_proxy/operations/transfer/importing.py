"""A bundle into a store.

| way | into | what becomes of what is there |
|---|---|---|
| REPLACE | an empty store, or any when asked for; no process may run on it | gone; all is as it was exported |
| MERGE | any, also under running servers | it stays; what is not there is added; of a day's usage, the larger count |

With MERGE the log is taken over only where there is none, batches are not (they would sign in twice), and client keys
only into a store with the same pepper, such as a copy: their digests mean nothing elsewhere.

A file is read whole and checked before anything is written.
"""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.app.commons import DEMO
from qwen_proxy.config.keys import KeyOrigin, KeyRecord
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.offline import Opened, by_command, require_alone
from qwen_proxy.operations.transfer.bundle import (
    Beginning,
    BundleReader,
    BundleUnreadable,
    Ending,
    Lines,
    Records,
    Usage,
)
from qwen_proxy.operations.transfer.target import Days, KindCount, Target, Way
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import ACCOUNT, KEY, SETTINGS
from qwen_proxy.state.vault import Vault, VaultDocument
from qwen_proxy.storage.opening import save_vault


class NotEmpty(Exception):
    def __init__(self) -> None:
        super().__init__(
            "there is data here already; --replace puts the file's in its place, --merge adds what is not here"
        )


class ImportPlan(Struct, frozen=True, kw_only=True):
    """usage: rows of which something is to be added. lines: of the log. notes: whole sentences."""

    way: Way
    program: str
    made_at: float
    kinds: tuple[KindCount, ...]
    lines: int
    usage: int
    notes: tuple[str, ...]


Tell = Callable[[str, int], None]


class Import:
    """One bundle into one opened store."""

    def __init__(self, opened: Opened, bundle: BundleReader, clock: Clock) -> None:
        self._opened = opened
        self._clock = clock
        self._bundle = bundle

    async def plan(self, way: Way | None) -> ImportPlan:
        """What would be done; way: None for REPLACE into a store that is empty. Reads all of the file.

        Raises BundleUnreadable, NotEmpty, ServersRunning, StoreUnavailable.
        """
        counted = Ending(0, 0, 0)
        beginning: Beginning | None = None
        for frame in self._bundle.frames():  # whole, before anything else is said about it
            if isinstance(frame, Beginning):
                beginning = frame
            elif isinstance(frame, Ending):
                if frame != counted:
                    raise BundleUnreadable("this export does not hold as much as it says")
            else:
                counted = _more(counted, frame)
        assert beginning is not None
        if way is None:
            if not await is_empty(self._opened):
                raise NotEmpty
            way = Way.REPLACE
        if way is Way.REPLACE:
            await require_alone(self._opened.store, "what is kept can't be replaced")
        target = self._target(beginning, way)
        kinds = dict[str, KindCount]()
        notes = dict[str, None]()
        lines = usage = 0
        days = Days()
        for frame in self._bundle.frames():
            match frame:
                case Records():
                    known = kinds.get(frame.kind, KindCount(kind=frame.kind))
                    kinds[frame.kind] = await target.count(frame, known)
                    notes |= dict.fromkeys(target.why_not(frame.kind))
                case Lines():
                    lines += len(frame.lines) if await target.takes_lines(frame.topic) else 0
                case Usage():
                    for rows in days.take(frame.rows):
                        usage += len(await target.lacking(rows))
                case Ending():
                    usage += len(await target.lacking(days.rest()))
                case Beginning():
                    pass
        return ImportPlan(
            way=way,
            program=beginning.program,
            made_at=beginning.made_at,
            kinds=tuple(kinds.values()),
            lines=lines,
            usage=usage,
            notes=tuple(notes),
        )

    async def carry_out(self, way: Way, secret: Secret, tell: Tell = lambda what, count: None) -> None:
        """After `plan`. secret: what the store's data keys are to be wrapped under, with REPLACE.

        Interrupted, it is to be done again: REPLACE begins anew, MERGE goes on.

        Raises what `plan` does.
        """
        target: Target | None = None
        records = lines = usage = 0
        days = Days()
        for frame in self._bundle.frames():
            match frame:
                case Beginning():
                    target = self._target(frame, way)
                    if way is Way.REPLACE:
                        await require_alone(self._opened.store, "what is kept can't be replaced")
                        await self._opened.store.erase()
                        await save_vault(self._opened.store, target.vault.document, secret)
                case Records():
                    assert target is not None
                    await target.put(frame)
                    tell("records", records := records + len(frame.records))
                case Lines():
                    assert target is not None
                    await target.append(frame)
                    tell("log lines", lines := lines + len(frame.lines))
                case Usage():
                    assert target is not None
                    for rows in days.take(frame.rows):
                        await target.add(rows)
                    tell("usage", usage := usage + len(frame.rows))
                case Ending():
                    assert target is not None
                    await target.add(days.rest())
        await self._opened.store.write([by_command("import", {"way": way.value, "records": records})])

    def _target(self, beginning: Beginning, way: Way) -> "Target":
        document = self._opened.vault.document
        is_of_one_pepper = beginning.pepper == document.pepper
        if way is Way.REPLACE:
            document = VaultDocument(keys=document.keys, pepper=beginning.pepper)
        return Target(self._opened.store, Vault(document), self._clock, way, is_of_one_pepper=is_of_one_pepper)


async def is_empty(opened: Opened) -> bool:
    """Whether nothing is kept that anybody would miss: what a server's start makes by itself does not count."""
    store = opened.store
    if any(record.id != DEMO for record in await store.find(ACCOUNT, limit=2)) or await store.find(SETTINGS, limit=1):
        return False
    keys = await Collection(store, KEY, KeyRecord, opened.vault).all()
    return all(key.value.origin is KeyOrigin.ENVIRONMENT for key in keys) and not await store.usage(
        0, 2**40, by_day=True
    )


def _more(counted: Ending, frame: Records | Lines | Usage) -> Ending:
    match frame:
        case Records():
            return replace(counted, records=counted.records + len(frame.records))
        case Lines():
            return replace(counted, lines=counted.lines + len(frame.lines))
        case Usage():
            return replace(counted, usage=counted.usage + len(frame.rows))
