"""Does what a plan says. Interrupted, it is done again from the start: what is there already is left alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.book import AccountBook, AccountDocument
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.keybook import KeyBook, NewKey
from qwen_proxy.config.keys import KeyRecord, KeyStatus
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import Settings
from qwen_proxy.ground.errors import AlreadyExists
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.account_plan import Kept, PlannedAccount
from qwen_proxy.operations.migration.found import Found
from qwen_proxy.operations.migration.planning import Plan, Present
from qwen_proxy.operations.offline import Opened, by_command
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import KEY
from qwen_proxy.state.store import DAY_SECONDS, Change, Conflict, UsageCounts, UsageKey
from qwen_proxy.state.watching import Watch

T = TypeVar("T")

AT_ONCE: Final = 200  # accounts in one write
USAGE_AT_ONCE: Final = 5000
BY: Final = "command line"
NOTE: Final = "migrated from the original"
PRESENT: Final = "is here already"
STANDING: Final[Mapping[KeyStatus, str]] = {
    KeyStatus.ACTIVE: PRESENT,
    KeyStatus.REVOKED: "is here, and was revoked",
    KeyStatus.EXPIRED: "is here, and has expired",
    KeyStatus.UNLISTED: "was in API_KEY and was taken out",
}


class Done(Struct, frozen=True):
    done: int
    total: int


class Migration:
    """Reads what is kept for a plan, and carries the plan out.

    Each method raises StoreUnavailable, and Unreadable rather than take what it can't read for what is not there.
    """

    def __init__(self, opened: Opened, settings: Settings, machine: Machine) -> None:
        self._settings = settings
        self._machine = machine
        self._store = opened.store
        self._vault = opened.vault
        self._book = AccountBook(opened.store, opened.vault)
        self._keys = KeyBook(opened.store, opened.vault, machine.clock, machine.ids)
        self._watch = Watch(opened.store, machine.clock)
        self._live = LiveSettings(settings, opened.store, opened.vault, self._watch)

    async def present(self, found: Found) -> Present:
        await self._watch.load()
        stored = await self._book.accounts.all()
        return Present(
            now=self._machine.clock.now(),
            accounts={each.id: Kept(each.value.account, each.value.credential) for each in stored},
            keys=await self._known_keys(found.keys),
            settings=self._live.current.texts,
            usage=await self._usage(found),
        )

    async def _known_keys(self, keys: Sequence[Secret]) -> dict[Secret, str]:
        now = self._machine.clock.now()
        kept = await Collection(self._store, KEY, KeyRecord, self._vault).all()
        known = {key.id: STANDING[key.value.status(now)] for key in kept}
        standing = {key: known.get(self._keys.id_of(key.reveal())) for key in keys}
        listed = dict.fromkeys(self._settings.api_keys, "is in API_KEY")
        return listed | {key: says for key, says in standing.items() if says is not None}

    async def _usage(self, found: Found) -> dict[UsageKey, UsageCounts]:
        """Of the days found, a day at a time: what an earlier migration brought, without the rest of it."""
        days = sorted({row.starts_at for account in found.accounts for row in account.usage})
        usage: dict[UsageKey, UsageCounts] = {}
        for day in days:
            kept = await self._store.usage(day, day + DAY_SECONDS, by_day=True)
            usage |= {key: counts for key, counts in kept.items() if not key.key and not key.model}
        return usage

    async def apply(self, plan: Plan, tell: Callable[[Done], None] = lambda _: None) -> None:
        total, done = len(plan.accounts), 0
        new = [each for each in plan.accounts if each.is_new]
        for some in _slices(new, AT_ONCE):
            await self._add(some)
            tell(Done(done := done + len(some), total))
        for planned in plan.accounts:
            if not planned.is_new:
                await self._book.put(planned.account, credential=planned.credential)
                tell(Done(done := done + 1, total))
        for key in plan.keys:
            try:
                await self._keys.create(NewKey(note=NOTE), given=key)
            except AlreadyExists:  # somebody was faster, and it works
                continue
        if plan.settings:
            await self._live.change(plan.settings, by=BY)
        for some in _slices(list(plan.usage.items()), USAGE_AT_ONCE):
            await self._store.add_usage(dict(some))
        if not plan.is_empty:
            counts = {"accounts": total, "keys": len(plan.keys), "settings": len(plan.settings)}
            await self._store.write([by_command("migrate", counts)])

    async def _add(self, planned: Sequence[PlannedAccount]) -> None:
        """Many in one write; one by one where another process came first with any of them."""
        changes: list[Change] = [
            self._book.accounts.put(each.account.id, _document(each), expect=0) for each in planned
        ]
        try:
            await self._store.write(changes)
        except Conflict:
            for each in planned:
                await self._book.put(each.account, credential=each.credential)


def _document(planned: PlannedAccount) -> AccountDocument:
    credential = planned.credential
    if credential is not None:
        credential = replace(credential, exit=planned.account.exit)
    return AccountDocument(account=planned.account, credential=credential)


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
