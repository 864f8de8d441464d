"""Batches and their lines in the store, for any process.

The lines of a new batch are written first and the batch last, so that it is there whole or not at all; a line and what
it changes of its batch are one step. Ids: `batch_<ms>_<8 hex digits>`, which is the original's form, and
`<batch id>:<number, 8 digits>`; both sort by age.
"""

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Final

from qwen_proxy.accounts.bulk import model
from qwen_proxy.accounts.bulk.model import Batch, BatchLine, LineChange, LineStatus
from qwen_proxy.accounts.lines import PastedLines
from qwen_proxy.ground.errors import Unreadable
from qwen_proxy.state.collection import Collection, Entry
from qwen_proxy.state.kinds import BATCH, BATCH_LINE
from qwen_proxy.state.store import Append, Change, Conflict, Delete, Store
from qwen_proxy.state.vault import Vault

LINES_A_WRITE: Final = 250
HALF_WRITTEN_SECONDS: Final = 3600.0  # no process takes so long to write a batch
PASSWORD_SECONDS: Final = 24 * 3600.0  # after the end of a batch, its failed lines may be tried again for so long
KEPT_SECONDS: Final = 30 * 24 * 3600.0
_ID: Final = re.compile(r"batch_([0-9]{13})_[0-9a-f]{8}")


class BatchBook:
    """Methods raise StoreUnavailable, and Unreadable where a document can't be read."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self.batches = Collection(store, BATCH, Batch, vault)
        self.lines = Collection(store, BATCH_LINE, BatchLine, vault)

    # --- making and reading

    async def create(self, id: str, batch: Batch, pasted: PastedLines, *also: Append) -> Entry[Batch]:
        """`also` is written in the step that makes the batch visible."""
        lines = [(number, line) for number, line in _documents(pasted, batch.created_at)]
        for start in range(0, len(lines), LINES_A_WRITE):
            page = lines[start : start + LINES_A_WRITE]
            await self._store.write([self.lines.put(line_id(id, number), line) for number, line in page])
        changes: list[Change] = [self.batches.put(id, batch, expect=0), *also]
        written = await self._store.write(changes)
        return Entry(id, written.versions[0], batch)

    async def get(self, id: str) -> Entry[Batch] | None:
        """None for an id of any other form too."""
        return await self.batches.get(id) if _ID.fullmatch(id) else None

    async def all(self) -> list[Entry[Batch]]:
        """By age, without those that can't be read."""
        return await self.batches.all_readable()

    async def each_line(
        self, id: str, after: int = 0, *, skips_unreadable: bool = False
    ) -> AsyncGenerator[tuple[int, Entry[BatchLine]]]:
        """By number, those behind `after`. To be read within `aclosing`."""
        position = line_id(id, after)
        while page := await self._store.find(BATCH_LINE, after=position, limit=LINES_A_WRITE):
            position = page[-1].id
            for record in page:
                if not record.id.startswith(f"{id}:"):
                    return
                try:
                    entry = self.lines.entry(record)
                except Unreadable:
                    if skips_unreadable:
                        continue
                    raise
                yield number_of(record.id), entry

    async def some_lines(self, id: str, numbers: Iterable[int]) -> dict[int, BatchLine]:
        found = {number: await self.lines.get(line_id(id, number)) for number in dict.fromkeys(numbers)}
        return {number: entry.value for number, entry in found.items() if entry is not None}

    # --- changing

    async def change_batch(
        self, id: str, change: Callable[[Batch], Batch | None], *also: Append
    ) -> tuple[Batch, bool] | None:
        """What the batch is now and whether `change`, which may be called several times, allowed it; None when there
        is no such batch."""
        while True:
            entry = await self.get(id)
            if entry is None:
                return None
            changed = change(entry.value)
            if changed is None:
                return entry.value, False
            changes: list[Change] = [self.batches.put(id, changed, expect=entry.version), *also]
            try:
                await self._store.write(changes)
            except Conflict:
                continue
            return changed, True

    async def change_line(self, id: str, number: int, change: LineChange) -> tuple[Batch, BatchLine] | None:
        """The line and its batch in one step. None when one of them is gone, or `change` finds that it may not be."""
        changed = await self.change_lines(id, [number], change)
        return None if changed is None or not changed[1] else (changed[0], changed[1][number])

    async def change_lines(
        self, id: str, numbers: Sequence[int], change: LineChange
    ) -> tuple[Batch, dict[int, BatchLine]] | None:
        """At most LINES_A_WRITE of them in one step: the batch as it is then, and the lines that have changed."""
        while True:
            entry = await self.get(id)
            if entry is None:
                return None
            batch, changes = entry.value, list[Change]()
            lines: dict[int, BatchLine] = {}
            for number in numbers:
                line = await self.lines.get(line_id(id, number))
                if line is not None and (changed := change(batch, number, line.value)) is not None:
                    batch, lines[number] = changed
                    changes.append(self.lines.put(line.id, lines[number], expect=line.version))
            if not changes:
                return batch, lines
            try:
                await self._store.write([*changes, self.batches.put(id, batch, expect=entry.version)])
            except Conflict:
                continue
            return batch, lines

    async def change_each_line(
        self, id: str, wanted: Callable[[BatchLine], bool], change: LineChange, *, skips_unreadable: bool = False
    ) -> None:
        """All lines that are `wanted`, some at a time."""
        async with aclosing(self.each_line(id, skips_unreadable=skips_unreadable)) as lines:
            numbers = [number async for number, entry in lines if wanted(entry.value)]
        for start in range(0, len(numbers), LINES_A_WRITE):
            await self.change_lines(id, numbers[start : start + LINES_A_WRITE], change)

    # --- care

    async def forget_passwords(self, id: str) -> None:
        """Of a batch that is over."""
        await self.change_each_line(
            id, lambda line: line.password is not None, model.forget_password, skips_unreadable=True
        )
        await self.change_batch(id, model.forgotten)

    async def remove(self, id: str, *also: Append) -> bool:
        """The batch first: lines without one are as good as gone. False when there is none."""
        if await self.get(id) is None:
            return False
        changes: list[Change] = [self.batches.delete(id), *also]
        await self._store.write(changes)
        await self._remove_lines(id)
        return True

    async def remove_orphans(self, now: float) -> None:
        """Lines whose batch was never finished writing, or was removed."""
        position = ""
        while page := await self._store.find(BATCH_LINE, after=position, limit=1):
            id = page[0].id.rpartition(":")[0]
            made = _ID.fullmatch(id)
            is_young = made is not None and now - int(made[1]) / 1000 < HALF_WRITTEN_SECONDS
            if not is_young and (made is None or await self._store.get(BATCH, id) is None):
                await self._remove_lines(id)
            position = max(f"{id};", page[0].id)  # behind all of its lines: `;` follows `:`

    async def _remove_lines(self, id: str) -> None:
        while page := await self._store.find(BATCH_LINE, after=f"{id}:", limit=LINES_A_WRITE):
            ours = [record.id for record in page if record.id.startswith(f"{id}:")]
            if not ours:
                return
            await self._store.write([Delete(kind=BATCH_LINE, id=each) for each in ours])


def batch_id(now: float, token: str) -> str:
    return f"batch_{int(now * 1000):013}_{token}"


def line_id(id: str, number: int) -> str:
    return f"{id}:{number:08}"


def number_of(line_id: str) -> int:
    return int(line_id.rpartition(":")[2])


def _documents(pasted: PastedLines, now: float) -> list[tuple[int, BatchLine]]:
    """All lines, also those with which nothing is to be done: an operator sees what became of each."""
    found = [
        (line.number, BatchLine(email=line.login.email, password=line.login.password, exit=line.login.exit))
        for line in pasted.good
    ]
    found += [
        (line.number, BatchLine(email=line.email, status=LineStatus.INVALID, message=line.problem, finished_at=now))
        for line in pasted.bad
    ]
    found += [
        (line.number, BatchLine(email=line.email, status=LineStatus.SKIPPED, message=line.problem, finished_at=now))
        for line in pasted.repeated
    ]
    return sorted(found, key=lambda each: each[0])
