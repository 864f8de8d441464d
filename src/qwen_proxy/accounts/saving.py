"""What the pool learns, written to the store in the background so that other processes know it too.

What is learned holds here at once. To be written, each change is kept as the function it is (health and its exit's
health -> both, after), and applied again to the newest documents when another process was faster. One write at a time
per exit, with all that was learned of its accounts meanwhile.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from qwen_proxy.accounts.book import AccountBook, AccountDocument
from qwen_proxy.accounts.health import HEALTHY, HEALTHY_EXIT, AccountHealth, ExitHealth, essence, with_counts
from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.accounts.seats import Exit, HealthChange, Seat
from qwen_proxy.ground.errors import StoreUnavailable, Unreadable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.collection import Entry
from qwen_proxy.state.store import Change, Conflict, Store

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0

TokenChange = Callable[[Credential | None], Credential | None]


class Saver:
    """`find` gives an account's seat while the pool has it; `kept` is told of a token's document as it was written."""

    def __init__(
        self,
        store: Store,
        book: AccountBook,
        clock: Clock,
        tasks: Tasks,
        find: Callable[[str], Seat | None],
        kept: Callable[[Entry[AccountDocument]], None],
    ) -> None:
        self._store = store
        self._book = book
        self._clock = clock
        self._tasks = tasks
        self._find = find
        self._kept = kept
        self._exits: set[Exit] = set()  # with something unsaved
        self._tokens: dict[str, list[tuple[Account, TokenChange]]] = {}
        self._saving_tokens = False

    # --- health

    def learned(self, seat: Seat, change: HealthChange) -> None:
        """It was applied to the seat; now it is to be known to all."""
        seat.exit.unsaved.append((seat, change))
        self._exits.add(seat.exit)
        if not seat.exit.is_saving:
            seat.exit.is_saving = True
            self._tasks.spawn(self._save_all_of(seat.exit), name="save health")

    def take_health(self, seat: Seat, entry: Entry[AccountHealth]) -> None:
        """Another process has written this."""
        if entry.version > seat.kept_version:
            seat.kept, seat.kept_version = entry.value, entry.version
            self._review(seat.exit, [seat])

    def take_exit(self, exit: Exit, entry: Entry[ExitHealth]) -> None:
        if entry.version > exit.kept_version:
            exit.kept, exit.kept_version = _plain(entry.value), entry.version
            self._review(exit, [])

    async def _save_all_of(self, exit: Exit) -> None:
        try:
            while exit.unsaved:
                try:
                    await self._save(exit)
                except StoreUnavailable:
                    await self._clock.sleep(RETRY_SECONDS)
        finally:
            exit.is_saving = False

    async def _save(self, exit: Exit) -> None:
        """All that is unsaved of an exit, in one write. Raises StoreUnavailable."""
        while exit.unsaved:
            count = len(exit.unsaved)
            seats, health = _folded(exit, exit.unsaved)
            changed = [
                (seat, view)
                for seat, view in seats.items()
                if self._find(seat.account.id) is seat and essence(view) != essence(seat.kept)
            ]
            work: list[Change] = [
                self._book.healths.put(seat.account.id, view, expect=seat.kept_version) for seat, view in changed
            ]
            if health != exit.kept:
                work.append(self._book.exits.put(self._book.exit_id(exit.name), health, expect=exit.kept_version))
            if work:
                try:
                    written = await self._store.write(work)
                except Conflict:
                    await self._reread(exit, seats)
                    continue
                for (seat, view), version in zip(changed, written.versions, strict=False):
                    seat.kept, seat.kept_version = view, version
                if len(work) > len(changed):
                    exit.kept, exit.kept_version = health, written.versions[-1]
            del exit.unsaved[:count]
            self._review(exit, seats)
        self._exits.discard(exit)

    async def _reread(self, exit: Exit, seats: Iterable[Seat]) -> None:
        """Somebody was faster with one of these."""
        for seat in seats:
            entry = await self._book.healths.get_or(seat.account.id, HEALTHY)
            if entry is None:  # removed, and perhaps added anew
                seat.kept, seat.kept_version = HEALTHY, 0
            else:
                seat.kept, seat.kept_version = entry.value, entry.version
        found = await self._book.exits.get_or(self._book.exit_id(exit.name), HEALTHY_EXIT)
        exit.kept, exit.kept_version = (HEALTHY_EXIT, 0) if found is None else (_plain(found.value), found.version)

    def _review(self, exit: Exit, seats: Iterable[Seat]) -> None:
        """What holds here, anew: what is kept, and what is not saved yet on top of it."""
        for seat in seats:
            seat.health = with_counts(seat.kept, seat.health)
        views, health = _folded(exit, exit.unsaved)
        for seat, view in views.items():
            seat.health = with_counts(view, seat.health)
        exit.health = _plain(health)

    # --- tokens

    def token(self, account: Account, change: TokenChange) -> None:
        """A change of the token of this account, as long as it is the account it was."""
        self._tokens.setdefault(account.id, []).append((account, change))
        if not self._saving_tokens:
            self._saving_tokens = True
            self._tasks.spawn(self._save_all_tokens(), name="save tokens")

    async def _save_all_tokens(self) -> None:
        try:
            while self._tokens:
                try:
                    await self._save_tokens()
                except StoreUnavailable:
                    await self._clock.sleep(RETRY_SECONDS)
        finally:
            self._saving_tokens = False

    async def _save_tokens(self) -> None:
        while self._tokens:
            account_id, changes = next(iter(self._tokens.items()))
            count = len(changes)
            for account, change in changes[:count]:
                try:
                    entry = await self._book.keep_credential(account, change)
                except Unreadable as error:  # damaged while we ran: the token serves on here, and is not kept
                    log.error("a token is not saved", extra={"reason": str(error)})
                    continue
                if entry is not None:
                    self._kept(entry)
            del changes[:count]
            if not changes:
                self._tokens.pop(account_id, None)

    async def flush(self) -> None:
        """Write all that is unsaved, as the pool ends; what can't be written is lost, and said so."""
        try:
            for exit in list(self._exits):
                await self._save(exit)
            await self._save_tokens()
        except StoreUnavailable as error:
            log.warning("what was learned last is not saved", extra={"reason": str(error)})


def _folded(exit: Exit, changes: Sequence[tuple[Seat, HealthChange]]) -> tuple[dict[Seat, AccountHealth], ExitHealth]:
    """The health of each account concerned and of the exit, after these changes of what is kept."""
    views: dict[Seat, AccountHealth] = {}
    health = exit.kept
    for seat, change in changes:
        views[seat], health = change(views.get(seat, seat.kept), health)
    return views, health


def _plain(health: ExitHealth) -> ExitHealth:
    """The one object that is recognised at a glance where nothing is the matter."""
    return HEALTHY_EXIT if health == HEALTHY_EXIT else health
